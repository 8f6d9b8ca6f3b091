"""What speaks against the volumes that were chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from usema.errors import InputError
from usema.resources import sample_volume
from usema.volumes.doubts import doubts
from usema.volumes.geometry import Geometry
from usema.volumes.label_map import label_values
from usema.volumes.volume import Volume, load_volume, read_volume


@pytest.fixture(scope="module")
def sample():
    return read_volume(sample_volume())


def moved(volume: Volume, by) -> Volume:
    """The same field of view elsewhere, with other voxels."""
    origin = tuple(np.array(volume.geometry.origin) + by)
    return Volume(volume.array[::-1].copy(), replace(volume.geometry, origin=origin))


def test_label_maps_of_any_number_type_are_told_from_images(data):
    labels = [
        *(data / "nnUNet_raw/Dataset004_Hippocampus/labelsTr").glob("*1.nii.gz"),
        data / "volumes/spine_mr/t2_seg-manual.nii.gz",
        data / "volumes/chest_ct/Segmentation.seg.nrrd",
    ]
    images = [
        *(data / "nnUNet_raw/Dataset004_Hippocampus/imagesTr").glob("*1_0000.nii.gz"),
        data / "volumes/spine_mr/t2.nii.gz",
        data / "volumes/chest_ct/CTChest4.nrrd",
    ]
    for path in labels:
        array = load_volume(path).array
        for kind in (array.dtype, np.int32, np.float64):
            assert label_values(array.astype(kind)) == len(np.unique(array))
    for path in images:
        array = load_volume(path).array
        assert label_values(array) is None
        brain_only = np.where(
            array > np.median(array), array, 0
        )  # most of it one value, as where a skull was taken off
        assert label_values(brain_only) is None
        eight_bits = np.clip((array - array.min()) * (255 / np.ptp(array)), 0, 255).astype(np.uint8)
        assert label_values(eight_bits) is None


def test_a_label_map_as_the_image_is_doubted_with_the_number_of_its_values(sample):
    path = sample_volume().parent / "reference" / sample_volume().name
    assert doubts([read_volume(path)], ["MR"]) == [
        "The volume looks like a label map, not an image: it has 3 values in flat areas."
    ]
    assert doubts([sample], ["MR"]) == []


def test_the_same_volume_twice_is_doubted_and_two_of_one_grid_are_not(sample):
    assert doubts([sample, moved(sample, (0, 0, 0))], ["T2", "ADC"]) == []
    again = Volume(sample.array.copy(), sample.geometry)
    assert doubts([sample, again], ["T2", "ADC"]) == [
        "The ADC volume is the same as the T2 volume: the model expects different ones."
    ]


def test_the_share_that_a_channel_covers_is_said_and_too_little_is_refused(sample):
    x, y, z = sample.geometry.size
    half = doubts([sample, moved(sample, (0, 0, z / 2))], ["T2", "ADC"])
    assert half == [
        "The ADC volume covers 50% of the T2 volume; outside it was filled with its least value, and the result there "
        "is unsure."
    ]
    for by, share in (((0, 0, z - 4), "12%"), ((x - 3, y - 3, z - 3), "0.1%"), ((999, 0, 0), "none")):
        by = np.array(by) * np.sign(sample.geometry.axes.sum(axis=0))
        with pytest.raises(InputError, match=f"covers {share}.* of the T2 volume; at least 25%"):
            doubts([sample, moved(sample, by)], ["T2", "ADC"])


def test_the_covered_share_is_that_of_voxels_for_any_two_grids():
    axes, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    one = Geometry((40, 150, 30), (1, 0.7, 2), (0, 0, 0), np.eye(3).ravel())
    other = Geometry((33, 44, 55), (1.5, 1, 0.9), (10, 60, 20), axes.ravel())
    indices = np.stack(np.meshgrid(*map(np.arange, one.size), indexing="ij"), -1).reshape(-1, 3)
    found = np.linalg.solve(other.affine, np.c_[indices * one.spacing, np.ones(len(indices))].T)[:3].T
    exact = ((found > -0.5) & (found < np.array(other.size) - 0.5)).all(axis=1).mean()
    assert 0.01 < exact < 0.9
    assert one.share_inside(other) == pytest.approx(exact, abs=0.01)
    assert one.share_inside(one) == 1
