"""What images2d.py measures of a model for images: on the validation images as they were given, and changed."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from images2d_data import SHARED, DataSet
from PIL import Image
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

CUT = 0.05  # of each side, at both ends


@dataclass(frozen=True, eq=False)
class Case:
    """An image (y, x) uint8, what was drawn on it (y, x), mm per pixel or None, and the published measure or None.

    What was drawn is a mask, or numbered objects.
    """

    name: str
    image: np.ndarray
    drawn: np.ndarray
    pixel_mm: float | None = None
    published_mm: float | None = None


def cases(data: DataSet, part: str = "val") -> Iterator[Case]:
    """The images of one part of the split, as they were given."""
    source = SHARED / data.folder
    published = {}
    if (source / "cases.tsv").is_file():
        with (source / "cases.tsv").open(encoding="utf-8") as file:
            published = {row["image"]: row for row in csv.DictReader(file, delimiter="\t")}
    for name in data.split()[part]:
        image = np.asarray(Image.open(source / "images" / f"{name}.png").convert("L"))
        if "boundary" in data.labels:
            drawn = np.asarray(Image.open(source / "instances" / f"{name}.png")).astype(np.int32)
        else:
            drawn = (np.asarray(Image.open(source / "masks" / f"{name}.png")) > 0).astype(np.int32)
        row = published.get(name)
        yield (
            Case(name, image, drawn, *(float(row[key]) for key in ("pixel_mm_of_these_files", "HC_mm")))
            if (row)
            else Case(name, image, drawn)
        )


def dice(found: np.ndarray, drawn: np.ndarray) -> float:
    """Of two masks."""
    both = np.count_nonzero(found) + np.count_nonzero(drawn)
    return 2 * np.count_nonzero(found & drawn) / both if both else 1.0


def matched_objects(found: np.ndarray, drawn: np.ndarray, least: float = 0.5) -> tuple[int, int, int]:
    """Objects found that are drawn ones (intersection over union above ``least``), found wrongly, and missed."""
    shared = np.zeros((int(drawn.max()) + 1, int(found.max()) + 1), np.int64)
    np.add.at(shared, (drawn.ravel(), found.ravel()), 1)
    drawn_sizes, found_sizes = shared.sum(axis=1)[1:], shared.sum(axis=0)[1:]
    overlap = shared[1:, 1:]
    union = drawn_sizes[:, None] + found_sizes[None] - overlap
    enough = overlap / np.maximum(union, 1) > least
    rows, columns = linear_sum_assignment(enough, maximize=True)
    hits = int(enough[rows, columns].sum())
    return hits, int((found_sizes > 0).sum()) - hits, int((drawn_sizes > 0).sum()) - hits


def f1(hits: int, wrong: int, missed: int) -> float:
    return 2 * hits / (2 * hits + wrong + missed) if hits + wrong + missed else 1.0


# Changes: each takes a case and a generator, and gives the case as another device or person would have sent it.


def _toned(tone: Callable[[np.ndarray], np.ndarray]) -> Callable:
    def change(case: Case, rng: np.random.Generator) -> Case:
        return _with(case, _grey(tone(case.image.astype(float))), case.drawn)

    return change


def _scaled(factor: float, width: float = 1.0) -> Callable:
    def change(case: Case, rng: np.random.Generator) -> Case:
        rows, columns = case.image.shape
        size = [max(8, round(side * factor)) for side in (columns * width, rows)]
        image = Image.fromarray(case.image).resize(size, Image.Resampling.BILINEAR)
        drawn = Image.fromarray(case.drawn).resize(size, Image.Resampling.NEAREST)
        return _with(case, np.asarray(image), np.asarray(drawn))

    return change


def _other_device(case: Case, rng: np.random.Generator) -> Case:
    """Sharpened, toned by an S-shaped curve, in a dark frame of 8 % with bright letters."""
    image = case.image.astype(float)
    image += 0.8 * (image - ndimage.gaussian_filter(image, 0.02 * max(image.shape)))
    low, high = np.percentile(image, (0.5, 99.5))
    share = np.clip((image - low) / max(high - low, 1), 0, 1)
    image = 255 * share**1.5 / (share**1.5 + (1 - share) ** 1.5)
    wide = round(0.08 * max(image.shape))
    framed, drawn = np.pad(image, wide), np.pad(case.drawn, wide)
    rows, columns = max(4, wide // 3), max(8, wide)
    framed[rows : 2 * rows, columns : 2 * columns] = 235 * (rng.random((rows, columns)) < 0.5)
    return _with(case, _grey(framed), drawn)


def _turned(degrees: float) -> Callable:
    def change(case: Case, rng: np.random.Generator) -> Case:
        image = ndimage.rotate(case.image, degrees, order=1)
        return _with(case, image, ndimage.rotate(case.drawn, degrees, order=0))

    return change


def _cut(case: Case, rng: np.random.Generator) -> Case:
    rows, columns = (slice(round(CUT * side), side - round(CUT * side)) for side in case.image.shape)
    return _with(case, case.image[rows, columns], case.drawn[rows, columns])


def _noisy(case: Case, rng: np.random.Generator) -> Case:
    spread = 0.05 * (float(case.image.max()) - float(case.image.min()))
    return _with(case, _grey(case.image + rng.normal(0, spread, case.image.shape)), case.drawn)


def _with(case: Case, image: np.ndarray, drawn: np.ndarray) -> Case:
    return Case(case.name, np.ascontiguousarray(image), np.ascontiguousarray(drawn))


def _grey(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Case, np.random.Generator], Case]] = {
    "inverted": _toned(lambda image: 255 - image),
    "gamma 0.6": _toned(lambda image: 255 * (image / 255) ** 0.6),
    "gamma 1.6": _toned(lambda image: 255 * (image / 255) ** 1.6),
    "contrast x 0.6": _toned(lambda image: image.mean() + 0.6 * (image - image.mean())),
    "contrast x 1.5": _toned(lambda image: image.mean() + 1.5 * (image - image.mean())),
    "gain x 1.6, clipped": _toned(lambda image: 1.6 * image),
    "another device": _other_device,
    "squeezed by a fifth": _scaled(1, 0.8),
    "rotated 15 degrees": _turned(15),
    "half the size": _scaled(0.5),
    "0.7 times the size": _scaled(0.7),
    "1.5 times the size": _scaled(1.5),
    "twice the size": _scaled(2),
    "10 % cut off": _cut,
    "blurred, sigma 1.5 pixels": _toned(lambda image: ndimage.gaussian_filter(image, 1.5)),
    "noise, 5 % of the range": _noisy,
}
