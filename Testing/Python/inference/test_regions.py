"""A model of crops on a whole head: where the regions lie, which side they are, and what is not believed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import SimpleITK as sitk
from robustness_cases import dice
from usema.errors import InputError
from usema.inference.checks import meant
from usema.inference.conform import Conformed, averaged
from usema.inference.predictor import Predictor
from usema.inference.region_search import find_regions
from usema.inference.regions import check_lie, only_one, segment_regions
from usema.inference.running import Found, Wishes
from usema.models.bundle import read_bundle
from usema.resources import bundled_models, sample_volume
from usema.volumes.geometry import Geometry
from usema.volumes.volume import Volume, load_volume, read_volume, reorient

EYE = (1, 0, 0, 0, 1, 0, 0, 0, 1)
HIPPOCAMPUS, CORTEX, THALAMUS = 14, 2, 7  # of the finder's labels
LEFT, RIGHT = (3, 4), (5, 6)
NAMES = ("Left anterior", "Left posterior", "Right anterior", "Right posterior")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(read_bundle(bundled_models()["hippocampus-mr"]), "cpu")


@dataclass(frozen=True, eq=False)
class Head:
    """A volume, what the finder would make of it, and the labels that the network should give, those of both sides."""

    volume: Volume
    rough: np.ndarray
    reference: np.ndarray

    def turned(self, axes: str) -> Head:
        geometry = self.volume.geometry
        arrays = [reorient(Volume(array, geometry), axes) for array in (self.rough, self.reference)]
        return Head(reorient(self.volume, axes), *(one.array for one in arrays))


@pytest.fixture(scope="module")
def head() -> Head:
    """The sample's hippocampus and its mirror image, 50 mm apart in a field of view of 160 mm; axes LPS."""
    path = sample_volume()
    crop = reorient(read_volume(path), "LPS").array
    drawn = reorient(load_volume(path.parent / "reference" / path.name), "LPS").array
    array = np.zeros((120, 150, 160), np.float32)
    rough, reference = (np.zeros(array.shape, np.uint8) for _ in range(2))
    rough[30:90, 20:130, 20:140] = CORTEX
    for x, flip, side in ((86, 1, LEFT), (36, -1, RIGHT)):
        z, y = 45, 50
        place = tuple(slice(s, s + n) for s, n in zip((z, y, x), crop.shape, strict=True))
        array[place] = crop[:, :, ::flip]
        labels = drawn[:, :, ::flip]
        rough[place][labels > 0] = HIPPOCAMPUS
        reference[place] = np.array([0, *side], np.uint8)[labels]
    return Head(Volume(array, Geometry(array.shape[::-1], (1, 1, 1), (-80, -75, -60), EYE)), rough, reference)


def segmented(predictor: Predictor, head: Head, wanted=(), rough=None, **wishes):
    metadata = predictor.metadata
    labels = [label for label in metadata.labels if not wanted or label.value in wanted]
    asked = Wishes(**wishes)
    found = segment_regions(
        metadata,
        [head.volume],
        meant(metadata, labels, head.volume.geometry),
        lambda geometry: head.rough if rough is None else rough,
        lambda crops, wishes: predictor._run(crops, predictor.parts, wishes),
        asked,
    )
    return found, asked.warnings


def test_each_side_gets_its_own_labels_and_nothing_lies_elsewhere(predictor, head):
    found, warnings = segmented(predictor, head)
    assert dice(found.labels, head.reference, (3, 4, 5, 6)).min() > 0.85
    far = sitk.GetArrayFromImage(
        sitk.BinaryDilate(sitk.GetImageFromArray((head.reference > 0).astype(np.uint8)), [4] * 3)
    )
    assert not found.labels[far == 0].any()
    assert warnings == []
    assert found.said["fieldOfView"] == "whole head"
    assert found.said["asymmetry"].startswith("hippocampus: left 3.")


@pytest.mark.parametrize("axes", ["RAS", "PIR", "IAL"])
def test_left_is_the_patients_left_however_the_file_stores_it(predictor, head, axes):
    turned = head.turned(axes)
    found, _ = segmented(predictor, turned)
    assert dice(found.labels, turned.reference, (3, 4, 5, 6)).min() > 0.85


def test_a_side_that_is_asked_for_alone_is_segmented_alone(predictor, head):
    found, warnings = segmented(predictor, head, wanted=RIGHT)
    assert set(np.unique(found.labels)) == {0, *RIGHT}
    assert list(found.said) == ["fieldOfView", "regions"]
    assert warnings == []


def test_probabilities_of_both_sides_are_those_of_their_labels(predictor, head):
    found, _ = segmented(predictor, head, probabilities=True)
    assert found.probabilities.shape == (7, *head.volume.array.shape)
    assert not found.probabilities[1:3].any()
    assert (found.probabilities[0][head.rough == 0] == 1).all()
    inside = found.labels > 0
    assert (found.probabilities.argmax(axis=0)[inside] == found.labels[inside]).mean() > 0.99


def alone(head: Head, side, thalamus=()) -> np.ndarray:
    """The finder's labels with one hippocampus, and a thalamus at these positions from right to left."""
    rough = head.rough.copy()
    rough[(head.rough == HIPPOCAMPUS) & ~np.isin(head.reference, side)] = CORTEX
    for x in thalamus:
        rough[84:90, 60:80, x : x + 10] = THALAMUS
    return rough


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("side", "near", "away"), [(LEFT, 84, np.s_[:80]), (RIGHT, 66, np.s_[80:])])
def test_a_side_alone_is_named_by_what_lies_in_the_middle_of_the_patient(predictor, head, side, near, away, half):
    """Also where the volume ends in the middle, so that most of what it shows lies on the outer side."""
    rough = alone(head, side, [near] if half else [66, 84])
    if half:
        rough[:, :, away] = 0
    found, warnings = segmented(predictor, head, rough=rough)
    assert set(np.unique(found.labels)) == {0, *side}
    assert warnings == [f"The {'right' if side == LEFT else 'left'} hippocampus was not found."]
    assert "asymmetry" not in found.said


@pytest.mark.parametrize("thalamus", [(), (98,)])
def test_a_side_alone_that_nothing_tells_is_left_out_rather_than_named(predictor, head, thalamus):
    with pytest.raises(InputError, match="what else the volume shows does not tell which one it is"):
        segmented(predictor, head, rough=alone(head, LEFT, thalamus))


def test_what_a_finder_saw_but_a_part_of_is_found_whole(predictor, head):
    """As of a head that is turned far: the box then has the size of the largest crop."""
    rough = head.rough.copy()
    rough[:, 72:][np.isin(head.reference[:, 72:], LEFT)] = CORTEX
    found, _ = segmented(predictor, head, rough=rough)
    assert dice(found.labels, head.reference, LEFT).min() > 0.8


def test_what_the_volume_cuts_off_and_sides_that_differ_much_are_told(predictor, head):
    place = np.argwhere(np.isin(head.reference, LEFT))
    last = int(place[:, 2].mean())
    cut = np.s_[:, :, : last + 1]
    geometry = replace(head.volume.geometry, size=head.volume.array[cut].shape[::-1])
    part = Head(Volume(np.ascontiguousarray(head.volume.array[cut]), geometry), head.rough[cut], head.reference[cut])
    found, warnings = segmented(predictor, part)
    assert set(np.unique(found.labels)) >= {0, *RIGHT}
    told = " ".join(warnings)
    assert "The left hippocampus reaches the border of what was segmented: a part of it may be cut off." in told
    assert "The two sides differ by more than 25% of their mean. Check both." in told


def test_crumbs_in_a_crop_are_told_by_their_volume(predictor):
    labels = np.zeros((40, 50, 40), np.uint8)
    labels[10, 10, 10] = labels[20, 20, 20:22] = 1
    wishes = Wishes()
    only_one(Found(labels, None, 1.0), predictor.metadata, Geometry((40, 50, 40), (1, 1, 1), (0, 0, 0), EYE), wishes)
    assert wishes.warnings == [
        "What was found has 0.00 ml; usual are 1.5 to 6 ml. Does the volume show the whole head, or one hippocampus "
        "cropped with a margin of about 1 cm?"
    ]


def test_a_crop_that_shows_a_part_of_it_or_none_is_told(predictor):
    volume = read_volume(sample_volume())
    half = volume.array.shape[1] // 2
    size = (volume.geometry.size[0], half, volume.geometry.size[2])
    part = Volume(np.ascontiguousarray(volume.array[:, :half]), replace(volume.geometry, size=size))
    told = " ".join(predictor.segment(part).warnings)
    assert "What was found reaches the border of what was segmented: a part of it may be cut off." in told
    assert predictor.segment(volume).warnings == []


@pytest.mark.parametrize(("side", "pieces"), [(3, 1), (12, 2)])
def test_islands_in_a_crop_are_left_out_and_a_second_structure_is_told(predictor, side, pieces):
    labels = np.zeros((40, 50, 40), np.uint8)
    labels[10:20, 10:30, 10:20] = 1
    labels[25 : 25 + side, 35 : 35 + side, 25 : 25 + side] = 2
    geometry, wishes = Geometry((40, 50, 40), (1, 1, 1), (0, 0, 0), EYE), Wishes()
    found = only_one(Found(labels, None, 1.0), predictor.metadata, geometry, wishes)
    assert (found.labels == 1).all(where=labels == 1)
    assert (found.labels == 2).any() == (pieces == 2)
    assert wishes.warnings == (
        []
        if pieces == 1
        else [
            "What was found is in 2 pieces of 2.00 and 1.73 ml, and a crop should show one structure. Cut the volume "
            "closer to it, or give a whole head."
        ]
    )


@pytest.mark.parametrize("voxels", [0, 100])
def test_a_volume_that_shows_nothing_like_it_is_refused_with_what_to_do(predictor, head, voxels):
    rough = np.where(head.rough == HIPPOCAMPUS, CORTEX, head.rough)
    rough.reshape(-1)[np.flatnonzero(head.reference)[:voxels]] = HIPPOCAMPUS
    with pytest.raises(InputError, match="a whole head is expected, and nothing like the left hippocampus or") as error:
        segmented(predictor, head, rough=rough)
    assert (
        "Is it MR of a whole head, and do spacing (1 x 1 x 1 mm) and orientation (LPS) of the file" in error.value.hint
    )


def test_what_makes_a_head_unlike_one_is_said_where_nothing_was_found_in_it(predictor, head):
    geometry = replace(head.volume.geometry, spacing=(0.5, 0.5, 0.5))
    small = replace(head, volume=replace(head.volume, geometry=geometry), rough=np.zeros_like(head.rough))
    wishes = Wishes()
    check_lie(predictor.metadata, small.volume, wishes)
    with pytest.raises(InputError, match=r"nothing like .* was found\. See: As a head it would be too small") as error:
        segmented(predictor, small, warnings=wishes.warnings)
    assert "The file's spacing, 0.5 x 0.5 x 0.5 mm, may be wrong." in error.value.message


def test_what_is_far_too_small_for_it_is_left_out_and_told(predictor, head):
    array = head.volume.array.copy()
    array[:, :, :80] = 0.9 * array.max()  # nothing to be recognised
    array[0, 0, 0] = 0
    odd = replace(head, volume=Volume(array, head.volume.geometry))
    found, warnings = segmented(predictor, odd)
    assert set(np.unique(found.labels)) == {0, *LEFT}
    assert "The right hippocampus was not found." in warnings


def test_boxes_have_the_size_of_the_trainings_crops(predictor, head):
    """Also around what is only half of it, and where voxels are not 1 mm."""
    metadata = predictor.metadata
    low, high = (np.array(metadata.expected_extent_mm[end][::-1]) for end in ("min", "max"))
    rough = head.rough.copy()
    rough[:, :75][rough[:, :75] == HIPPOCAMPUS] = CORTEX
    thin = Geometry(head.volume.geometry.size, (1, 1, 0.8), head.volume.geometry.origin, EYE)
    for geometry in (head.volume.geometry, thin):
        for region in find_regions(rough, metadata, geometry):
            lengths = [part.stop - part.start for part in region.box] * np.array(geometry.spacing_zyx)
            assert (lengths >= low - 1).all()
            assert (lengths <= high + 1).all()


def test_the_sample_is_a_crop_and_keeps_the_labels_that_it_had(predictor):
    result = predictor.segment(read_volume(sample_volume()))
    assert [label.name for label in result.model_labels] == ["Anterior hippocampus", "Posterior hippocampus"]
    assert set(np.unique(result.labels)) == {0, 1, 2}
    assert result.provenance["fieldOfView"] == "crop"


@pytest.mark.parametrize(
    ("side_mm", "asked", "there"),
    [
        (40, ["Anterior hippocampus"], [1]),
        (40, ["Left anterior hippocampus"], [1]),
        (40, ["Right posterior hippocampus", "Anterior hippocampus"], [1, 2]),
        (180, ["Anterior hippocampus"], [3, 5]),
        (180, ["Left anterior hippocampus"], [3]),
        (180, ["Right anterior hippocampus", "Left posterior hippocampus"], [4, 5]),
    ],
)
def test_a_name_means_the_same_structure_in_a_crop_and_in_a_head(predictor, side_mm, asked, there):
    metadata = predictor.metadata
    wanted = [label for label in metadata.labels if label.name in asked]
    geometry = Geometry((side_mm,) * 3, (1, 1, 1), (0, 0, 0), EYE)
    assert [label.value for label in meant(metadata, wanted, geometry)] == there


def test_labels_of_a_coarser_grid_come_back_to_where_they_lie():
    image = np.zeros((8, 8, 8), np.uint8)
    image[2:6, 4:8, 0:4] = 8
    fine = Conformed(image, np.eye(4), (8, 8, 8), 0, side=8)
    coarse = fine.coarser(2)
    small = averaged(image, 2)
    assert small.shape == (4, 4, 4)
    np.testing.assert_array_equal(coarse.labels_on_input(small.astype(np.uint8)), image.transpose(2, 1, 0))
    np.testing.assert_array_equal(coarse.labels_from_input(image.transpose(2, 1, 0)), small)


@pytest.mark.slow
def test_both_hippocampi_of_a_whole_head_are_found_and_nothing_else(predictor, data):
    """Against brainchop's larger network, as its publisher computed it."""
    from scipy import ndimage

    result = predictor.segment(read_volume(data / "volumes/whole_head/t1_whole_head.nii.gz"))
    published = data / "public_models/brainchop/reference/whole_head/subcortical_conformed.nii.gz"
    reference = load_volume(published).array == HIPPOCAMPUS
    assert [label.name for label in result.model_labels] == [f"{name} hippocampus" for name in NAMES]
    assert dice(result.labels > 0, reference, (True,))[0] > 0.78
    assert not result.labels[ndimage.distance_transform_edt(~reference) > 8].any()
    middle = {side: np.argwhere(np.isin(result.labels, side)).mean(axis=0)[::-1] for side in (LEFT, RIGHT)}
    places = {side: (result.geometry.affine[:3, :3] @ at)[0] for side, at in middle.items()}
    assert 35 < places[LEFT] - places[RIGHT] < 70
    again = predictor.segment(
        read_volume(data / "volumes/whole_head/t1_whole_head.nii.gz"), labels=["Left anterior hippocampus"]
    )
    assert float(again.provenance["seconds"]) < float(result.provenance["seconds"])  # the rough result is kept
    np.testing.assert_array_equal(again.labels == 3, result.labels == 3)
