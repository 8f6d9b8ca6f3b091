"""Measures of segments are those of ITK and of NumPy, on real labels."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from usema.volumes.geometry import Geometry
from usema.volumes.measures import longest_diameter, measure
from usema.volumes.volume import Volume, load_volume


def feret(mask: np.ndarray, geometry: Geometry) -> float:
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputeFeretDiameterOn()
    shapes.Execute(Volume(mask.astype(np.uint8), geometry).to_image())
    return shapes.GetFeretDiameter(1)


@pytest.fixture(scope="module")
def case(data):
    folder = data / "nnUNet_raw" / "Dataset051_SarcomaMR"
    label = sorted((folder / "labelsTr").glob("*.nii.gz"))[0]
    image = folder / "imagesTr" / label.name.replace(".nii.gz", "_0000.nii.gz")
    return load_volume(image), load_volume(label)


def test_a_tumour_measures_what_itk_and_numpy_say(case):
    volume, label = case
    found = measure(label.array.astype(np.uint8), volume.array, label.geometry, [1, 2])
    inside = volume.array[label.array == 1].astype(float)
    assert found[1].voxels == len(inside) > 0
    assert found[1].volume_ml == pytest.approx(len(inside) * np.prod(label.geometry.spacing) / 1000)
    assert (found[1].mean, found[1].median) == pytest.approx((inside.mean(), np.median(inside)))
    assert found[1].sd == pytest.approx(np.std(inside, ddof=1))
    statistics = sitk.LabelStatisticsImageFilter()
    statistics.Execute(
        Volume(volume.array.astype(np.float32), label.geometry).to_image(),
        Volume(label.array.astype(np.uint8), label.geometry).to_image(),
    )
    assert found[1].sd == pytest.approx(statistics.GetSigma(1), rel=1e-5)
    assert (found[2].voxels, found[2].volume_ml, found[2].mean, found[2].longest_diameter_mm) == (0, 0.0, None, None)
    # a piece, because ITK compares all with all
    piece = label.array[..., :60] == 1
    size = (60, *label.geometry.size[1:])
    geometry = Geometry(size, label.geometry.spacing, label.geometry.origin, label.geometry.direction)
    assert longest_diameter(piece, geometry.spacing) == pytest.approx(feret(piece, geometry))


NAMES = ("one", "pair", "line", "diagonal", "plane", "slanted", "two")


def test_flat_thin_and_single_segments_have_their_diameter_too():
    spacing = (0.7, 1.3, 3.0)
    geometry = Geometry((12, 10, 9), spacing, (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    shapes = {
        name: np.zeros(geometry.shape, bool) for name in ("one", "pair", "line", "diagonal", "plane", "slanted", "two")
    }
    shapes["one"][4, 4, 4] = True
    shapes["pair"][4, 4, 4] = shapes["pair"][4, 5, 5] = True
    shapes["line"][2, 3, 1:11] = True
    for i in range(9):
        shapes["diagonal"][i, i, i] = True
        shapes["slanted"][i, :, i] = True
    shapes["plane"][3, 2:8, 1:10] = True
    shapes["two"][0, 0, 0] = shapes["two"][8, 9, 11] = shapes["two"][1, 0, 0] = shapes["two"][0, 3, 2] = True
    for name, mask in shapes.items():
        assert longest_diameter(mask, spacing) == pytest.approx(feret(mask, geometry)), name


@pytest.mark.parametrize("seed", range(4))
def test_scattered_voxels_have_the_diameter_of_their_farthest_pair(seed):
    mask = np.random.default_rng(seed).random((7, 8, 9)) > 0.9
    geometry = Geometry((9, 8, 7), (1.0, 0.5, 2.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert longest_diameter(mask, geometry.spacing) == pytest.approx(feret(mask, geometry))
