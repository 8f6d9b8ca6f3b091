"""Whether the list of doubtful regions leads to the errors, and what refining at strokes gains.

    python Testing/Benchmarks/review.py regions                     # the hippocampus-mr validation cases
    python Testing/Benchmarks/review.py refine
    python Testing/Benchmarks/review.py regions --model FOLDER --dataset Dataset051_SarcomaMR

Regions: the share of the true error volume, voxels with a wrong label farther than 1 mm from the reference's surface,
that lies in the first 1, 3, 5 and 10 regions; against as many boxes of the same sizes at random places of the predicted
surface, and against the best boxes of that size that there are.

Refine: a simulated user draws five voxels at the middle of the largest error that is left, again and again; the Dice
after 1, 2, 3 and 5 strokes with the model's margins, against strokes that only change what they cover, and against
strokes that spread by distance and edges alone. Voxels that change farther than 10 mm from every stroke are counted.

The results go to results/review_*.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

from usema.inference.predictor import Predictor  # noqa: E402
from usema.models.bundle import read_bundle  # noqa: E402
from usema.quality.review_regions import Region, find, surface_of  # noqa: E402
from usema.resources import bundled_models  # noqa: E402
from usema.volumes.margins import Margins, PlacedMargins  # noqa: E402
from usema.volumes.masks import NOTHING, PlacedMask  # noqa: E402
from usema.volumes.volume import read_volume  # noqa: E402
from USEMASegmentationLib.Review.Refine import REACH_MM, refine  # noqa: E402

RESULTS = Path(__file__).with_name("results")
FIRST = (1, 3, 5, 10)
FAR_MM = 1.0
DRAWS = 20


def true_errors(labels: np.ndarray, reference: np.ndarray, spacing) -> np.ndarray:
    """Wrong voxels that lie farther than FAR_MM from the surfaces of the reference."""
    shell = surface_of(reference)
    if not shell.any():
        return labels != reference
    # a surface lies between two voxels: half a voxel from the middles of both
    return (labels != reference) & (ndimage.distance_transform_edt(~shell, spacing) + min(spacing) / 2 > FAR_MM)


def covered(boxes, errors: np.ndarray) -> np.ndarray:
    """The share of the errors in the first 1, 2, ... boxes."""
    seen, shares = np.zeros(errors.shape, bool), []
    for box in boxes:
        seen[box] = True
        shares.append((errors & seen).sum() / errors.sum())
    return np.array(shares)


def first(shares: np.ndarray) -> list[float]:
    """Of a list that may be shorter, what its first few reach."""
    return [float(shares[min(count, len(shares)) - 1]) if len(shares) else 0.0 for count in FIRST]


def random_boxes(regions: list[Region], labels: np.ndarray, rng) -> list:
    """Boxes of the regions' sizes around random voxels of the predicted surface."""
    places = np.argwhere(surface_of(labels))
    return [boxed(places[rng.integers(len(places))], region, labels.shape) for region in regions]


def boxed(place, region: Region, shape) -> tuple:
    sizes = [part.stop - part.start for part in region.box]
    starts = [
        int(np.clip(one - size // 2, 0, max(0, length - size)))
        for one, size, length in zip(place, sizes, shape, strict=True)
    ]
    return tuple(slice(one, one + size) for one, size in zip(starts, sizes, strict=True))


def best_boxes(regions: list[Region], errors: np.ndarray) -> list:
    """Boxes of the regions' sizes, each where the most errors are left: no list can do much better."""
    left, boxes = errors.astype(np.float32), []
    for region in regions:
        sizes = [part.stop - part.start for part in region.box]
        sums = left
        for axis, size in enumerate(sizes):
            sums = ndimage.uniform_filter1d(sums, size, axis=axis, mode="constant") * size
        boxes.append(boxed(np.unravel_index(int(sums.argmax()), sums.shape), region, errors.shape))
        left[boxes[-1]] = 0
    return boxes


def cases_of(dataset: Path, cases: list[str]):
    for name in cases:
        volume = read_volume(dataset / "imagesTr" / f"{name}_0000.nii.gz")
        reference = read_volume(dataset / "labelsTr" / f"{name}.nii.gz").array.astype(np.int32)
        yield name, volume, reference


def regions_of(predictor: Predictor, dataset: Path, cases: list[str]) -> tuple[list[dict], list[str]]:
    """A row for each case that has errors, and the names of those that have none."""
    rows, clean = [], []
    rng = np.random.default_rng(0)
    for name, volume, reference in cases_of(dataset, cases):
        result = predictor.segment(volume, margins=True)
        spacing = volume.geometry.spacing_zyx
        started = time.process_time()
        regions = find(result.margins, spacing)
        seconds = time.process_time() - started
        errors = true_errors(result.labels, reference, spacing)
        voxel = float(np.prod(spacing)) / 1000
        row = {"case": name, "regions": len(regions), "seconds": seconds, "error_ml": errors.sum() * voxel}
        row |= {"expected_ml": sum(one.ml for one in regions)}
        print(f"{name}: {len(regions)} regions, {row['error_ml']:.3f} ml of errors", flush=True)
        if not errors.any():
            clean.append(f"{name} ({len(regions)} regions)")
            continue
        row["found"] = first(covered([one.box for one in regions], errors))
        draws = [first(covered(random_boxes(regions, result.labels, rng), errors)) for _ in range(DRAWS)]
        row["random"] = list(np.mean(draws, axis=0)) if regions else [0.0] * len(FIRST)
        row["best"] = first(covered(best_boxes(regions, errors), errors))
        rows.append(row)
    return rows, clean


def pooled(rows: list[dict], kind: str) -> list[float]:
    """Over all cases, each error of the same weight."""
    weights = [row["error_ml"] for row in rows]
    return list(np.average([row[kind] for row in rows], axis=0, weights=weights))


def report_regions(model: str, cases: int, rows: list[dict], clean: list[str]) -> str:
    lines = [
        f"# Do the doubtful regions hold the errors? {model}",
        "",
        f"Made by `Testing/Benchmarks/review.py regions` on {datetime.date.today()}. {cases} cases that the model was "
        f"not trained on, of which {len(rows)} have errors: {sum(row['error_ml'] for row in rows):.2f} ml of voxels "
        f"with a wrong label farther than {FAR_MM:g} mm from the reference's surface. The rows below say which share "
        "of that volume lies in the first regions; random: as many boxes of the same sizes around random voxels of the "
        f"predicted surface, mean of {DRAWS} draws; best: such boxes where the most errors are.",
        "",
        "| boxes | " + " | ".join(f"first {count}" for count in FIRST) + " |",
        "|---|" + "---|" * len(FIRST),
    ]
    names = {"found": "the list's regions", "random": "random boxes", "best": "best boxes"}
    for kind, name in names.items():
        lines.append(f"| {name} | " + " | ".join(f"{share:.0%}" for share in pooled(rows, kind)) + " |")
    better = sum(row["found"][1] > row["random"][1] for row in rows)
    lines += [
        "",
        f"The first three regions hold more than three random boxes in {better} of {len(rows)} cases. Finding them "
        f"took {max(row['seconds'] for row in rows):.2f} s of processor time at most. Cases without such errors: "
        f"{', '.join(clean) or 'none'}.",
        "",
        "| case | regions | expected ml | true error ml | first 3 | random 3 | best 3 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = " | ".join(f"{row[kind][1]:.0%}" for kind in names)
        lines.append(
            f"| {row['case']} | {row['regions']} | {row['expected_ml']:.2f} | {row['error_ml']:.3f} | {shares} |"
        )
    return "\n".join(lines) + "\n"


# Refining


class Drawn:
    """What the user changed in a segment: what is now, and what was before."""

    def __init__(self, now: np.ndarray, written: np.ndarray):
        self.now, self.written = (PlacedMask(one, (0, 0, 0)) for one in (now, written))
        self.added, self.removed = PlacedMask(now & ~written, (0, 0, 0)), PlacedMask(written & ~now, (0, 0, 0))
        self.changed = PlacedMask(now != written, (0, 0, 0))


class ArrayPort:
    """A result without a scene: a port, see ``USEMASegmentationLib.Review.Port``."""

    def __init__(self, image: np.ndarray, spacing, labels: np.ndarray, margins: Margins):
        self.spacing, self.margins, self._image = spacing, margins, image
        self.labels, self._written, self._refined = labels.copy(), labels.copy(), {}
        self.names = {value: str(value) for value in margins.of if value}
        self.thresholds, self.overlaps = {}, True

    def image(self, box):
        return self._image[box]

    def edits(self):
        return {value: Drawn(self.labels == value, self._written == value) for value in self.names}

    def refined(self):
        return self._refined

    def others(self, box):
        raise NotImplementedError

    def editable(self, value, box):
        return None

    def yields(self, value):
        return True

    def write(self, changes, notes):
        for value, change in changes.items():
            for mask, new in ((change.removed, 0), (change.added, value)):
                if mask is not NOTHING and mask.array.size:
                    for array in (self.labels, self._written):
                        where = mask.array & (array[mask.box] == value) if new == 0 else mask.array
                        array[mask.box][where] = new
        self._refined = notes.refined
        if notes.margins is not None:
            self.margins = self.margins.under(notes.margins, notes.box)


def hard(labels: np.ndarray, values) -> Margins:
    """Margins that say no more than the labels do: each label three logits ahead."""
    parts = {v: PlacedMargins(np.where(labels == v, 48, -48).astype(np.int8), (0, 0, 0)) for v in values}
    return Margins(labels.shape, parts)


def draw(labels: np.ndarray, reference: np.ndarray, rng) -> tuple:
    """Where the simulated user draws: voxels of the same wrong kind, in a row at the middle of the largest error."""
    best, size = None, 0
    for value in np.unique(reference):
        components, _ = ndimage.label((labels != reference) & (reference == value))
        sizes = np.bincount(components.ravel())[1:]
        if len(sizes) and sizes.max() > size:
            best, size = components == sizes.argmax() + 1, int(sizes.max())
    if best is None:
        return ()
    middle = np.array(np.unravel_index(int(ndimage.distance_transform_edt(best).argmax()), best.shape))
    axis = int(rng.integers(3))
    row = np.repeat(middle[None], 5, axis=0)
    row[:, axis] += np.arange(-2, 3)
    row = row[((row >= 0) & (row < best.shape)).all(axis=1)]
    return tuple(row[best[tuple(row.T)]].T)


def dice(labels: np.ndarray, reference: np.ndarray, values) -> float:
    pairs = [(labels == value, reference == value) for value in values]
    return float(np.mean([2 * (one & other).sum() / max(1, one.sum() + other.sum()) for one, other in pairs]))


STROKES = (1, 2, 3, 5)
WAYS = ("refine", "strokes alone", "distance and edges alone")


def refined_by_strokes(predictor: Predictor, dataset: Path, cases: list[str]) -> tuple[dict, int, float]:
    """Dice of each case by way, after 0 and each number of strokes; voxels changed too far away; seconds at most."""
    found, far, slowest = {way: [] for way in WAYS}, 0, 0.0
    for name, volume, reference in cases_of(dataset, cases):
        result = predictor.segment(volume, margins=True)
        spacing, values = volume.geometry.spacing_zyx, [label.value for label in result.model_labels]
        for way in WAYS:
            rng = np.random.default_rng(0)
            margins = result.margins if way == "refine" else hard(result.labels, [0, *values])
            port = ArrayPort(volume.array, spacing, result.labels.astype(np.int32), margins)
            row, drawn = [dice(port.labels, reference, values)], np.zeros(reference.shape, bool)
            for _ in range(max(STROKES)):
                place = draw(port.labels, reference, rng)
                if place:
                    port.labels[place] = reference[place]
                    drawn[place] = True
                    before = port.labels.copy()
                    if way != "strokes alone":
                        started = time.process_time()
                        refine(port)
                        slowest = max(slowest, time.process_time() - started)
                    away = ndimage.distance_transform_edt(~drawn, spacing)
                    far += int(((port.labels != before) & (away > REACH_MM)).sum())
                row.append(dice(port.labels, reference, values))
            found[way].append([row[0], *(row[count] for count in STROKES)])
        print(name, {way: [round(one, 3) for one in found[way][-1]] for way in WAYS}, flush=True)
    return found, far, slowest


def report_refine(model: str, cases: int, found: dict, far: int, slowest: float) -> str:
    lines = [
        f"# What refining at strokes gains: {model}",
        "",
        f"Made by `Testing/Benchmarks/review.py refine` on {datetime.date.today()}: mean Dice over the labels of "
        f"{cases} cases that the model was not trained on. A simulated user draws five voxels at the middle of the "
        "largest error that is left. No real user has drawn these strokes.",
        "",
        "| after strokes | 0 | " + " | ".join(map(str, STROKES)) + " | cases worse after 5 |",
        "|---|---|" + "---|" * len(STROKES) + "---|",
    ]
    for way in WAYS:
        rows = np.array(found[way])
        worse = int((rows[:, -1] < rows[:, 0] - 0.005).sum())
        lines.append(f"| {way} | " + " | ".join(f"{one:.4f}" for one in rows.mean(axis=0)) + f" | {worse} |")
    lines += [
        "",
        f"Voxels that changed farther than {REACH_MM:g} mm from every stroke: {far}. The slowest refinement took "
        f"{slowest:.2f} s of processor time.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["regions", "refine"])
    parser.add_argument("--model", type=Path, default=bundled_models()["hippocampus-mr"])
    parser.add_argument("--dataset", default="Dataset004_Hippocampus")
    parser.add_argument("--cases", type=int, help="only so many of them")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    bundle = read_bundle(options.model)
    dataset = options.data / "nnUNet_raw" / options.dataset
    cases = sorted(case["case"] for case in json.loads((bundle.path / "card" / "cases.json").read_text())["cases"])
    cases = cases[: options.cases]
    predictor = Predictor(bundle, "cpu")
    name = bundle.metadata.name
    if options.what == "regions":
        text = report_regions(name, len(cases), *regions_of(predictor, dataset, cases))
    else:
        text = report_refine(name, len(cases), *refined_by_strokes(predictor, dataset, cases))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"review_{options.what}_{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
