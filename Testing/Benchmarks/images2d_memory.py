"""Memory and time of images of all sizes, with each model for images, on a CPU.

    python Testing/Benchmarks/images2d_memory.py [--models nuclei-fluo ...] [--sides 64 513 4000] [--kinds grey rgb]

`usema segment` runs in a process of its own on one thread, exactly (no speed chosen), and writes the label picture and
the table. The images are the first validation image of each model's data, enlarged (of nuclei: laid side by side), so
that there is as much to find as in a real one. The result goes as rows to results/images2d/memory.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from own_process import found_by, peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

RESULTS = Path(__file__).with_name("results") / "images2d/memory.md"
HEADER = """# Memory and time of images

Made by `Testing/Benchmarks/images2d_memory.py`. "Peak" is the largest resident memory of the process of
`usema segment`, from its start to its end, libraries included; "processor" the seconds of its one thread. The goal is
2000 MB for 4000 x 4000 pixels.

| date | model | image | pixels | peak MB | processor s | pixels found |
|---|---|---|---|---|---|---|
"""
MODELS = ("fetal-head-us", "lungs-cxr", "nuclei-fluo")


def picture(model: str, side: int, kind: str, path: Path) -> None:
    """A square image of a model's kind."""
    from images2d_data import DATA_SETS
    from images2d_measure import cases
    from PIL import Image

    grey = next(cases(DATA_SETS[model])).image
    if model == "nuclei-fluo":
        repeats = [-(-side // length) for length in grey.shape]
        grey = np.tile(grey, repeats)[:side, :side]
    else:
        grey = np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BILINEAR))
    if kind == "rgb":
        grey = np.stack([grey] * 3, axis=-1)
    elif kind == "grey16":
        grey = grey.astype(np.uint16) * 257
    Image.fromarray(grey).save(path)


def segment(bundle: Path, image: Path) -> dict:
    """One run, in this process."""
    from PIL import Image
    from usema.cli import main as usema

    found = image.with_name("found.png")
    arguments = ["segment", str(image), "-o", str(found), "--model", str(bundle), "--device", "cpu", "--overwrite"]
    usema([*arguments, "--table", str(image.with_name("table.csv"))], standalone_mode=False)
    seconds, peak = time.process_time(), peak_bytes()
    return {"peak": peak, "seconds": seconds, "found": int(np.count_nonzero(np.asarray(Image.open(found))))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sides", nargs="+", type=int, default=[4000])
    parser.add_argument("--kinds", nargs="+", choices=["grey", "grey16", "rgb"], default=["rgb"])
    parser.add_argument("--one", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(segment(*options.one)))
        return
    if not RESULTS.exists():
        RESULTS.write_text(HEADER)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in options.models:
            (archive,) = (ROOT / "Resources/Releases").glob(f"{model}-*.usema")
            with zipfile.ZipFile(archive) as bundle:
                bundle.extractall(folder / model)
            for side in options.sides:
                for kind in options.kinds:
                    path = folder / f"{kind}.png"
                    picture(model, side, kind, path)
                    one = found_by(__file__, "--one", folder / model, path, PYTHONPATH=str(ROOT / "USEMASegmentation"))
                    row = (
                        f"| {datetime.date.today()} | {archive.stem} | {kind} | {side} x {side} | "
                        f"{one['peak'] / 1e6:.0f} | {one['seconds']:.0f} | {one['found']} |"
                    )
                    print(row, flush=True)
                    with RESULTS.open("a") as file:
                        file.write(row + "\n")


if __name__ == "__main__":
    main()
