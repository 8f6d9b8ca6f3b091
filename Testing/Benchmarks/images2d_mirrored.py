"""Whether averaging over mirrored copies (`usema segment --mirror`) pays for the models of images.

    python Testing/Benchmarks/images2d_mirrored.py [--models nuclei-fluo ...] [--images N]

The validation images by the engine, as they are and mirrored. The result goes to results/images2d/NAME/mirrored.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zipfile
from datetime import date
from itertools import islice
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

from images2d import MEASURES, RESULTS, interval, means, product_score  # noqa: E402
from images2d_data import DATA_SETS  # noqa: E402
from images2d_measure import cases  # noqa: E402
from usema.inference.predictor import Predictor  # noqa: E402
from usema.models.bundle import read_bundle  # noqa: E402


class Mirrored:
    """A predictor that mirrors."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor

    def segment(self, picture):
        return self._predictor.segment(picture, mirror=True)


def measured(name: str, count: int | None) -> str:
    data = DATA_SETS[name]
    (archive,) = (ROOT / "Resources/Releases").glob(f"{name}-*.usema")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as bundle:
            bundle.extractall(folder)
        predictor = Predictor(read_bundle(folder), "cpu")
    every, rows, scores = list(islice(cases(data), count)), [], {}
    for label, one in (("as it is", predictor), ("mirrored", Mirrored(predictor))):
        started = time.process_time()
        scores[label] = [product_score(data, one, case) for case in every]
        seconds = (time.process_time() - started) / len(every)
        rows.append(f"| {label} | {seconds:.2f} | {' | '.join(means(scores[label]).values())} |")
        print(rows[-1], flush=True)
    measures = [key for key in MEASURES if key in scores["as it is"][0]]
    heads = ["copies", "processor s an image", *(MEASURES[key] for key in measures)]
    gains = [
        interval(
            np.abs([score[key] for score in scores["mirrored"]]) - np.abs([score[key] for score in scores["as it is"]]),
            4,
        )
        for key in measures
    ]
    return (
        f"# {archive.stem}, mirrored\n\nMade by `python Testing/Benchmarks/images2d_mirrored.py --models {name}`; "
        f"{date.today()}.\n{len(every)} validation images; in brackets: 95 % interval by bootstrap over them.\n\n"
        f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n" + "\n".join(rows) + "\n"
        f"| mirrored less as it is | | {' | '.join(gains)} |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--images", type=int, help="the first of them; default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models:
        (RESULTS / name / "mirrored.md").write_text(measured(name, options.images))


if __name__ == "__main__":
    main()
