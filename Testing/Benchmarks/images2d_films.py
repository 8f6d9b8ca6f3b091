"""Lungs on films as another hospital may send them: sides, bars, exposure, turned, and several of these together.

    python Testing/Benchmarks/images2d_films.py [--films N]

lungs-cxr was trained on films of one hospital, squeezed to squares. Here its validation films are changed, and the
engine's results compared with what was drawn, changed likewise. It is no measurement on another hospital's films. The
result is written to results/images2d/lungs-cxr/films.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from datetime import date
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

from images2d import interval, segmented  # noqa: E402
from images2d_data import DATA_SETS  # noqa: E402
from images2d_measure import CHANGES, Case, cases, dice  # noqa: E402
from usema.inference.predictor import Predictor  # noqa: E402
from usema.models.bundle import read_bundle  # noqa: E402

NAME = "lungs-cxr"
RESULTS = Path(__file__).with_name("results") / f"images2d/{NAME}/films.md"


def sides(case: Case, columns: int, rows: int) -> Case:
    """The film with other sides: squeezed, as it was before it became a square."""
    image = Image.fromarray(case.image).resize((columns, rows), Image.Resampling.BILINEAR)
    drawn = Image.fromarray(case.drawn).resize((columns, rows), Image.Resampling.NEAREST)
    return Case(case.name, np.asarray(image), np.asarray(drawn))


def bars(case: Case, across: tuple[float, float], along: tuple[float, float] = (0, 0)) -> Case:
    """With black bars, as shares of the film: left and right, above and below."""
    height, width = case.image.shape
    wide = [tuple(round(share * height) for share in along), tuple(round(share * width) for share in across)]
    return Case(case.name, np.pad(case.image, wide), np.pad(case.drawn, wide))


def exposed(case: Case, gamma: float, low: float = 0, high: float = 1) -> Case:
    """With other tones; what lies outside the two shares of the range is clipped."""
    share = np.clip((case.image / 255 - low) / (high - low), 0, 1) ** gamma
    return Case(case.name, np.rint(255 * share).astype(np.uint8), case.drawn)


def turned(case: Case, degrees: float) -> Case:
    from scipy import ndimage

    image, drawn = (ndimage.rotate(array, degrees, order=order) for array, order in ((case.image, 1), (case.drawn, 0)))
    return Case(case.name, image, drawn)


FILMS = {
    "as given": lambda case: case,
    "1.22 times as wide": lambda case: sides(case, 624, 512),
    "1.22 times as high": lambda case: sides(case, 512, 624),
    "bars of 8 % at both sides": lambda case: bars(case, (0.08, 0.08)),
    "bar of 15 % at one side": lambda case: bars(case, (0.15, 0)),
    "frame of 6 %": lambda case: bars(case, (0.06, 0.06), (0.06, 0.06)),
    "darker, gamma 2": lambda case: exposed(case, 2),
    "lighter, gamma 0.5": lambda case: exposed(case, 0.5),
    "harder, clipped at 10 and 80 %": lambda case: exposed(case, 1, 0.1, 0.8),
    "turned by 5 degrees": lambda case: turned(case, 5),
    "wide, bars, gamma 1.5, turned by 3": lambda case: sides(
        bars(exposed(turned(case, 3), 1.5), (0.06, 0.06)), 624, 512
    ),
    "high, frame, gamma 0.7": lambda case: sides(bars(exposed(case, 0.7), (0.05, 0.05), (0.05, 0.05)), 512, 624),
    "another device": lambda case: CHANGES["another device"](case, np.random.default_rng(0)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (archive,) = (ROOT / "Resources/Releases").glob(f"{NAME}-*.usema")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as bundle:
            bundle.extractall(folder)
        predictor = Predictor(read_bundle(folder), "cpu")
    films = list(islice(cases(DATA_SETS[NAME]), options.films))
    lines = [
        f"# {archive.stem} on changed films\n",
        f"Made by `python Testing/Benchmarks/images2d_films.py --films {len(films)}`; {date.today()}. The first",
        f"{len(films)} validation films, changed; in brackets: 95 % interval by bootstrap over them.\n",
        "| film | Dice | least |\n|---|---|---|",
    ]
    for name, change in FILMS.items():
        found = []
        for case in map(change, films):
            found.append(dice(segmented(predictor, case).labels[0] == 1, case.drawn == 1))
        lines.append(f"| {name} | {interval(np.array(found), 4)} | {min(found):.3f} |")
        print(lines[-1], flush=True)
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
