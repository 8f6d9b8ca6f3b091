"""How far one gets without looking at the image: the Dice of an atlas, beside which a model's Dice is to be read.

    python Testing/Benchmarks/atlas.py [--dataset NAME] [--split splits_final.json] [--write]

The reference labels of the training cases of fold 0 are stretched to one box and averaged; for each validation case
the average is stretched to its image's box, and the most frequent class of each voxel wins. Where volumes are cropped
around a structure, this alone finds much of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]
DATA = ROOT.parent / "shared/data/nnUNet_raw"
RESULTS = Path(__file__).parent / "results"
BOX = (48, 48, 48)


def stretched(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return zoom(array, [new / old for new, old in zip(shape, array.shape, strict=True)], order=1)


def atlas_dice(dataset: Path, fold: dict[str, list[str]]) -> dict[str, list[float]]:
    """Validation case -> Dice of each class but background, in the order of their values."""
    from robustness_cases import dice
    from usema.volumes.volume import load_volume

    classes = sorted(labels_of(dataset).values())

    def labels(case: str) -> np.ndarray:
        return load_volume(dataset / "labelsTr" / f"{case}.nii.gz").array

    atlas = np.zeros((len(classes), *BOX), np.float32)
    for case in fold["train"]:
        reference = labels(case)
        for share, value in zip(atlas, classes, strict=True):
            share += stretched((reference == value).astype(np.float32), BOX)
    scores = {}
    for case in fold["val"]:
        reference = labels(case)
        result = np.argmax([stretched(share, reference.shape) for share in atlas], axis=0)
        scores[case] = list(dice(np.array(classes)[result], reference, tuple(value for value in classes if value)))
    return scores


def labels_of(dataset: Path) -> dict[str, int]:
    return json.loads((dataset / "dataset.json").read_text())["labels"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", type=DATA.joinpath, default="Dataset004_Hippocampus", help=f"path, or name in {DATA}"
    )
    parser.add_argument("--split", type=Path, help="nnU-Net's splits_final.json; default: the data set's own")
    parser.add_argument("--write", action="store_true", help="append to results/atlas.md")
    options = parser.parse_args()
    fold = json.loads((options.split or options.dataset / "splits_final.json").read_text())[0]
    scores = list(atlas_dice(options.dataset, fold).values())
    names = labels_of(options.dataset)
    found = [name for name in sorted(names, key=names.get) if names[name]]
    means = ", ".join(f"{name} {score:.3f}" for name, score in zip(found, np.mean(scores, axis=0), strict=True))
    line = f"* {options.dataset.name}: {len(fold['train'])} cases averaged, mean Dice on {len(scores)} others: {means}"
    print(line)
    if options.write:
        split = f" --split {options.split.name}" if options.split else ""
        command = f"python Testing/Benchmarks/atlas.py --dataset {options.dataset.name}{split}"
        with (RESULTS / "atlas.md").open("a", encoding="utf-8") as file:
            file.write(f"{line} (`{command}`)\n")


if __name__ == "__main__":
    main()
