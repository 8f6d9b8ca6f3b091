"""The picture of the models for images in README.md, and one of each for the index, from validation images.

    python Testing/Benchmarks/images2d_picture.py BUNDLES [-o Resources/Screenshots]

BUNDLES holds the three bundles, as images2d.py leaves them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

from images2d import segmented  # noqa: E402
from images2d_data import DATA_SETS  # noqa: E402
from images2d_measure import Case, cases  # noqa: E402

SHOWN = {"fetal-head-us": "217_HC", "lungs-cxr": "CHNCXR_0002_0", "nuclei-fluo": "04acab7636c4cf61"}


def caption(name: str, case: Case, result) -> str:
    measured = {one.name: one for one in result.image.measurements[0]}
    if name == "fetal-head-us":
        return f"Head circumference {measured['Head circumference'].amount}; published {case.published_mm:.1f} mm"
    if name == "lungs-cxr":
        return f"Lung area {measured['Lung area'].amount}"
    return f"{measured['Objects'].amount} nuclei, median area {measured['Median area'].amount}"


def draw(axes, name: str, case: Case, result) -> None:
    """The image with what was found: contours, objects in colours of their own."""
    from matplotlib import colormaps

    low, high = np.percentile(case.image, (0.5, 99.8))
    grey = np.clip((case.image - low) / max(high - low, 1), 0, 1)
    shown = np.repeat(grey[..., None], 3, axis=2)
    objects = result.image.objects
    if objects is not None:
        colours = colormaps["hsv"](np.random.default_rng(1).permutation(int(objects.max()) + 1) / (objects.max() + 1))
        found = objects[0] > 0
        shown[found] = 0.35 * shown[found] + 0.65 * colours[objects[0][found]][:, :3]
    axes.imshow(shown, interpolation="bilinear")
    if objects is None:
        for label in result.model_labels:
            colour = [part / 255 for part in label.color]
            mask = np.pad(result.labels[0] == label.value, 1)
            rows, columns = (np.arange(-1, side + 1) for side in case.image.shape)
            axes.contour(columns, rows, mask, levels=[0.5], colors=[colour], linewidths=2)
    axes.set_title(caption(name, case, result), color="white", fontsize=10)
    axes.set_axis_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "Resources/Screenshots")
    options = parser.parse_args()
    from matplotlib.figure import Figure
    from usema.inference.predictor import Predictor
    from usema.models.bundle import read_bundle
    from usema.quality.pictures import write_png

    results = []
    for name, shown in SHOWN.items():
        case = next(case for case in cases(DATA_SETS[name]) if case.name == shown)
        results.append((name, case, segmented(Predictor(read_bundle(options.bundles / name), "cpu"), case)))
    widths = [case.image.shape[1] / case.image.shape[0] for _, case, _ in results]
    together = Figure(figsize=(4 * sum(widths), 4.4), facecolor="black")
    grid = together.subplots(1, len(results), width_ratios=widths)
    for axes, result in zip(grid, results, strict=True):
        draw(axes, *result)
    together.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.02, wspace=0.03)
    write_png(options.output / "images-2d.png", together, dpi=90, pil_kwargs={"optimize": True})
    for (name, case, result), width in zip(results, widths, strict=True):
        alone = Figure(figsize=(4 * width, 4.4), facecolor="black")
        draw(alone.subplots(), name, case, result)
        alone.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.02)
        write_png(options.output / f"{name}.png", alone, dpi=90, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
