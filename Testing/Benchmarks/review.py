"""Whether the list of doubtful regions leads to the errors, and what refining at strokes gains.

    python Testing/Benchmarks/review.py regions                     # the hippocampus-mr validation cases
    python Testing/Benchmarks/review.py refine
    python Testing/Benchmarks/review.py regions --model FOLDER --dataset Dataset051_SarcomaMR

Regions: the share of the true error volume, voxels with a wrong label farther than 1 mm from the reference's surface,
that lies in the first 1, 3, 5 and 10 regions; against as many boxes of the same sizes at random places of the predicted
surface, and against the best boxes of that size that there are. The result goes to results/review_*.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

from usema.inference.predictor import Predictor  # noqa: E402
from usema.models.bundle import read_bundle  # noqa: E402
from usema.quality.review_regions import Region, find  # noqa: E402
from usema.resources import bundled_models  # noqa: E402
from usema.volumes.volume import read_volume  # noqa: E402

RESULTS = Path(__file__).with_name("results")
FIRST = (1, 3, 5, 10)
FAR_MM = 1.0
DRAWS = 20


def surface_of(labels: np.ndarray) -> np.ndarray:
    """Voxels of a label that touch another one."""
    shell = np.zeros(labels.shape, bool)
    for axis in range(3):
        one, other = [slice(None)] * 3, [slice(None)] * 3
        one[axis], other[axis] = slice(None, -1), slice(1, None)
        different = labels[tuple(one)] != labels[tuple(other)]
        shell[tuple(one)] |= different
        shell[tuple(other)] |= different
    return shell


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["regions"])
    parser.add_argument("--model", type=Path, default=bundled_models()["hippocampus-mr"])
    parser.add_argument("--dataset", default="Dataset004_Hippocampus")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    os.nice(10)
    bundle = read_bundle(options.model)
    dataset = options.data / "nnUNet_raw" / options.dataset
    cases = sorted(case["case"] for case in json.loads((bundle.path / "card" / "cases.json").read_text())["cases"])
    predictor = Predictor(bundle, "cpu")
    rows, clean = regions_of(predictor, dataset, cases)
    text = report_regions(bundle.metadata.name, len(cases), rows, clean)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"review_regions_{bundle.metadata.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
