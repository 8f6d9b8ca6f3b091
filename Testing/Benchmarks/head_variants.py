"""The bundled hippocampus model on whole heads, as other scanners and tools hand them over.

    python Testing/Benchmarks/head_variants.py [--model PATH] [--heads whole_head ...] [--variants "as it is" ...]
        [--machine WORDS] [--write]

Heads: the whole head of ../shared/data, and the MNI152 template that the package nilearn ships, if it is installed.
Reference of the first: the hippocampus of brainchop's subcortical network as its publisher computed it, which is
independent of the result but for the finder, a smaller network of the same publisher; of the template: what the model
finds in it as it is. Both follow each change. "Elsewhere" is the volume farther than 10 mm from the reference. Dice is
of all of a hippocampus. Processor seconds are of the whole segmentation on one thread. --write makes
results/head_variants.md.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))
DATA = ROOT.parent / "shared" / "data"
PUBLISHED = DATA / "public_models" / "brainchop" / "reference" / "whole_head"
RESULTS = Path(__file__).with_name("results") / "head_variants.md"
HIPPOCAMPUS = 14  # in the labels of brainchop's subcortical network
LEFT, RIGHT = 1, 2


@dataclass(frozen=True, eq=False)
class Head:
    """Images on one grid: the head, its brain mask, and LEFT and RIGHT hippocampus, or None."""

    image: sitk.Image
    brain: sitk.Image
    reference: sitk.Image | None


def _like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def places(image: sitk.Image) -> np.ndarray:
    """LPS millimetres (3, z, y, x) of the voxels' centres."""
    axes = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    indices = np.indices(image.GetSize()[::-1])[::-1].reshape(3, -1)
    return (axes @ indices).reshape(3, *image.GetSize()[::-1]) + np.array(image.GetOrigin())[:, None, None, None]


def whole_head() -> Head:
    image = sitk.ReadImage(str(DATA / "volumes/whole_head/t1_whole_head.nii.gz"))
    mask, labels = (
        _array(sitk.ReadImage(str(PUBLISHED / f"{name}_conformed.nii.gz"))) for name in ("mindgrab", "subcortical")
    )
    left = places(image)[0] > places(image)[0][mask > 0].mean()
    sides = np.where(labels == HIPPOCAMPUS, np.where(left, LEFT, RIGHT), 0).astype(np.uint8)
    return Head(image, _like((mask > 0).astype(np.uint8), image), _like(sides, image))


def template() -> Head:
    """Raises ImportError where nilearn is not installed."""
    import nilearn
    from scipy import ndimage

    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    image, *tissues = (
        sitk.ReadImage(str(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"))
        for kind in ("t1", "gm", "wm")
    )
    brain = sum(_array(tissue).astype(float) / _array(tissue).max() for tissue in tissues) > 0.2
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(brain, iterations=4))
    return Head(image, _like(brain.astype(np.uint8), image), None)


def resampled(head: Head, spacing=None, rotation=(0, 0, 0), axes=None, scale: float = 1.0) -> Head:
    """On another grid; the patient rotated (degrees about x, y, z) or scaled about the middle of the volume."""
    image = head.image
    middle = image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])
    transform = sitk.CompositeTransform(3)
    transform.AddTransform(sitk.Euler3DTransform(middle, *(math.radians(angle) for angle in rotation)))
    shrink = sitk.ScaleTransform(3, [1 / scale] * 3)
    shrink.SetCenter(middle)
    transform.AddTransform(shrink)
    spacing = spacing or image.GetSpacing()
    direction = np.array(image.GetDirection() if axes is None else axes).reshape(3, 3)
    lengths = np.array(image.GetSize()) * image.GetSpacing()
    lengths = lengths if axes is None else np.full(3, lengths.max())
    size = [round(length / step) for length, step in zip(lengths, spacing, strict=True)]
    origin = np.array(middle) - direction @ ((np.array(size) - 1) / 2 * spacing)
    grid = (size, transform, origin.tolist(), list(spacing), direction.ravel().tolist(), 0.0)

    def moved(one: sitk.Image | None, how: int) -> sitk.Image | None:
        if one is None:
            return None
        size, transform, origin, spacing, direction, fill = grid
        return sitk.Resample(one, size, transform, how, origin, spacing, direction, fill, one.GetPixelID())

    return Head(
        moved(image, sitk.sitkLinear),
        moved(head.brain, sitk.sitkNearestNeighbor),
        moved(head.reference, sitk.sitkNearestNeighbor),
    )


def _each(head: Head, change) -> Head:
    return Head(*(None if one is None else change(one) for one in (head.image, head.brain, head.reference)))


def stripped(head: Head) -> Head:
    array = _array(head.image)
    return Head(_like(array * _array(head.brain).astype(array.dtype), head.image), head.brain, head.reference)


def cut_to_brain(head: Head) -> Head:
    inside = np.argwhere(_array(head.brain))
    first, last = inside.min(axis=0)[::-1], inside.max(axis=0)[::-1] + 1
    box = tuple(slice(int(low), int(high)) for low, high in zip(first, last, strict=True))
    return _each(head, lambda one: one[box])


def defaced(head: Head) -> Head:
    """Without all in front of and below the brain."""
    brain, where = _array(head.brain) > 0, places(head.image)
    front = where[1] - where[1][brain].min()
    height = where[2] - np.percentile(where[2][brain], 15)
    array = _array(head.image)
    array[(0.6 * front + 0.8 * height < 0) & ~brain] = 0
    return Head(_like(array, head.image), head.brain, head.reference)


def uneven(head: Head) -> Head:
    """A bias field of 60 % along two axes, and noise of 6 % of the brightest."""
    array = _array(head.image).astype(np.float32)
    first, second = (np.linspace(0.7, 1.3, array.shape[axis]) for axis in (0, 1))
    array *= (first[:, None, None] * second[None, :, None]).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.06 * np.percentile(array, 99), array.shape)
    return Head(_like(np.abs(array + noise).astype(np.float32), head.image), head.brain, head.reference)


def mirrored(head: Head) -> Head:
    """The patient's mirror image: what was left is now right."""
    axis = 2 - int(np.abs(np.array(head.image.GetDirection()).reshape(3, 3)[0]).argmax())

    def flipped(one: sitk.Image) -> sitk.Image:
        return _like(np.ascontiguousarray(np.flip(_array(one), axis)), one)

    result = _each(head, flipped)
    if head.reference is None:
        return result
    sides = np.array([0, RIGHT, LEFT], np.uint8)[_array(result.reference)]
    return Head(result.image, result.brain, _like(sides, result.image))


def file_axes_mirrored(head: Head) -> Head:
    """The same patient, stored from the other side."""
    return _each(head, lambda one: sitk.Flip(one, [True, False, False]))


def oriented(axes: str):
    return lambda head: _each(head, lambda one: sitk.DICOMOrient(one, axes))


def slab(head: Head) -> Head:
    """70 mm from bottom to top, as a scan of the temporal lobes."""
    turned = oriented("LPS")(head)
    middle = places(head.image)[:, _array(head.brain) > 0].mean(axis=1)
    row = turned.image.TransformPhysicalPointToIndex(middle.tolist())[2]
    return _each(turned, lambda one: one[:, :, max(0, row - 50) : row + 20])


def left_two_thirds(head: Head) -> Head:
    turned = oriented("LPS")(head)
    middle = places(head.image)[:, _array(head.brain) > 0].mean(axis=1)
    column = turned.image.TransformPhysicalPointToIndex(middle.tolist())[0]
    return _each(turned, lambda one: one[max(0, column - 2) :, :, :])


_OBLIQUE = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.25).GetMatrix()
VARIANTS = {
    "as it is": lambda head: head,
    "without skull": stripped,
    "without skull, cut to the brain": lambda head: cut_to_brain(stripped(head)),
    "without skull, 0.9 x 0.9 x 1.5 mm": lambda head: resampled(stripped(head), spacing=(0.86, 0.86, 1.5)),
    "without face": defaced,
    "pitch 15 degrees": lambda head: resampled(head, rotation=(15, 0, 0)),
    "roll -15 degrees": lambda head: resampled(head, rotation=(0, -15, 0)),
    "yaw 15 degrees": lambda head: resampled(head, rotation=(0, 0, 15)),
    "axes LAS": oriented("LAS"),
    "axes PIR": oriented("PIR"),
    "oblique axes": lambda head: resampled(head, axes=_OBLIQUE),
    "file axes mirrored": file_axes_mirrored,
    "patient mirrored": mirrored,
    "0.8 mm": lambda head: resampled(head, spacing=(0.8,) * 3),
    "1.5 mm": lambda head: resampled(head, spacing=(1.5,) * 3),
    "1 x 1 x 3 mm": lambda head: resampled(head, spacing=(1, 1, 3)),
    "bias field and noise": uneven,
    "15 % smaller": lambda head: resampled(head, scale=0.85),
    "slab of 70 mm": slab,
    "left half alone": left_two_thirds,
}
HEADS = {"whole_head": whole_head, "template": template}


def measure(predictor, head: Head) -> tuple[dict, np.ndarray]:
    """Figures of one head, and the result as LEFT and RIGHT."""
    from scipy import ndimage
    from usema.errors import InputError
    from usema.volumes.geometry import Geometry
    from usema.volumes.volume import Volume

    volume = Volume(_array(head.image), Geometry.of_image(head.image))
    started, warnings = time.process_time(), []
    try:
        result = predictor.segment(volume)
        labels, names, warnings = result.labels, {one.value: one.name for one in result.model_labels}, result.warnings
    except InputError as error:
        labels, names, warnings = np.zeros(volume.array.shape, np.uint8), {}, [error.message]
    seconds = time.process_time() - started
    sides = np.zeros(labels.shape, np.uint8)
    for value, name in names.items():
        sides[labels == value] = LEFT if name.startswith("Left") else RIGHT
    voxel = math.prod(head.image.GetSpacing()) / 1000
    figures = {"left": (sides == LEFT).sum() * voxel, "right": (sides == RIGHT).sum() * voxel, "seconds": seconds}
    figures["said"] = " ".join(warnings)
    if head.reference is not None:
        truth = _array(head.reference)
        for name, side in (("Dice left", LEFT), ("Dice right", RIGHT)):
            both = (sides == side).sum() + (truth == side).sum()
            figures[name] = 2 * ((sides == side) & (truth == side)).sum() / both if both else math.nan
        far = ndimage.distance_transform_edt(truth == 0, head.image.GetSpacing()[::-1]) > 10
        figures["elsewhere"] = (sides[far] > 0).sum() * voxel
    return figures, sides


def rows(model: str, heads: list[str], variants: list[str]) -> Iterator[str]:
    from usema.inference.predictor import Predictor
    from usema.models.bundle import read_bundle
    from usema.store.library import find_model

    predictor = Predictor(read_bundle(find_model(model)), "cpu")
    for name in heads:
        head = HEADS[name]()
        if head.reference is None:
            _, sides = measure(predictor, head)
            head = Head(head.image, head.brain, _like(sides, head.image))
        for variant in variants:
            figures, _ = measure(predictor, VARIANTS[variant](head))
            columns = [f"{figures[key]:.2f}" for key in ("left", "right", "Dice left", "Dice right", "elsewhere")]
            yield f"| {name} | {variant} | {' | '.join(columns)} | {figures['seconds']:.0f} | {figures['said']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hippocampus-mr")
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--machine", default=f"{os.cpu_count()} processors")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    lines = []
    for line in rows(arguments.model, arguments.heads, arguments.variants):
        print(line, flush=True)
        lines.append(line)
    if arguments.write:
        from usema.models.bundle import read_bundle
        from usema.store.library import find_model

        metadata = read_bundle(find_model(arguments.model)).metadata
        head = f"""# The bundled model on whole heads

{datetime.date.today().isoformat()}, {arguments.machine}; {metadata.name} {metadata.version}. Made by
`python Testing/Benchmarks/head_variants.py --heads {" ".join(arguments.heads)} --write`, which says what is counted.

| head | change | left / ml | right / ml | Dice left | Dice right | elsewhere / ml | processor s | said |
|---|---|---|---|---|---|---|---|---|
"""
        RESULTS.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
