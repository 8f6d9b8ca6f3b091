"""A head that a wrong header shows too small, too large or on its side is told as that, and other heads are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from usema import converters
from usema.errors import InputError
from usema.inference.head_doubts import head_doubts
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.resources import bundled_models
from usema.volumes.volume import Volume, read_volume, reorient

UPRIGHT = np.eye(3)
ABOUT_Y = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
ABOUT_Z = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])


@pytest.fixture(scope="module")
def head(data) -> Volume:
    """Every second voxel."""
    volume = read_volume(data / "volumes/whole_head/t1_whole_head.nii.gz")
    geometry = replace(volume.geometry, size=(128, 128, 128), spacing=(2, 2, 2))
    return Volume(volume.array[::2, ::2, ::2].copy(), geometry)


def under(head: Volume, turn=UPRIGHT, scale: float = 1.0) -> Volume:
    """The same voxels under another header."""
    geometry = head.geometry
    return replace(
        head,
        geometry=replace(
            geometry,
            spacing=tuple(scale * step for step in geometry.spacing),
            direction=tuple((turn @ geometry.axes).ravel().tolist()),
        ),
    )


@pytest.mark.parametrize(
    ("turn", "scale", "words"),
    [
        (
            UPRIGHT,
            0.5,
            ["too small: what the volume shows measures ", "The file's spacing, 1 x 1 x 1 mm, may be wrong"],
        ),
        (UPRIGHT, 0.1, ["too small", "The file's spacing, 0.2 x 0.2 x 0.2 mm, may be wrong"]),
        (UPRIGHT, 2, ["too large", "The file's spacing, 4 x 4 x 4 mm, may be wrong"]),
        (ABOUT_Y, 1, ["turned by 90 degrees", "from top to bottom, not from left to right", "orientation, IRA,"]),
        (ABOUT_Z, 1, ["turned by 90 degrees", "from front to back, not from left to right", "orientation, PIL,"]),
    ],
)
def test_what_a_wrong_header_does_to_a_head_is_told_by_what_is_wrong_in_it(head, turn, scale, words):
    (doubt,) = head_doubts(under(head, turn, scale)).values()
    assert all(each in doubt for each in words)


@pytest.mark.parametrize("change", ["as it is", "other axes", "a slab", "half of it", "a little smaller", "nothing"])
def test_other_heads_bring_no_doubt(head, change):
    lying = reorient(head, "LPS")
    z, _, x = lying.array.shape
    volume = {
        "as it is": lambda: head,
        "other axes": lambda: reorient(head, "AIR"),
        "a slab": lambda: replace(lying, array=np.where(abs(np.indices((z, 1, 1))[0] - z // 2) < 18, lying.array, 0)),
        "half of it": lambda: replace(lying, array=np.where(np.indices((1, 1, x))[2] < x // 2, lying.array, 0)),
        "a little smaller": lambda: under(head, scale=0.8),
        "nothing": lambda: replace(lying, array=np.zeros_like(lying.array)),
    }[change]()
    assert head_doubts(volume) == {}


@pytest.mark.parametrize(("turn", "scale", "words"), [(ABOUT_Z, 1, "turned by 90"), (UPRIGHT, 2, "too large")])
def test_no_hippocampus_is_looked_for_in_a_head_on_its_side_or_of_double_size(head, turn, scale, words):
    predictor = Predictor(read_bundle(bundled_models()["hippocampus-mr"]), "cpu")
    with pytest.raises(InputError, match=f"^As a head it would be {words}") as error:
        predictor.segment(under(head, turn, scale))
    assert "Else correct the file, or cut it to the structure first" in error.value.hint


def test_a_model_for_heads_tells_the_doubt_before_it_runs(head, data, tmp_path):
    bundle = converters.convert(data / "public_models/brainchop/weights/model18cls", tmp_path / "model")
    predictor = Predictor(bundle, "cpu")
    assert "As a head it would be too small" in " ".join(predictor.check([under(head, scale=0.1)]))
    assert "As a head" not in " ".join(predictor.check([head]))


def test_who_looks_for_regions_of_a_head_tells_its_doubts_once(head):
    """And not again where the finder runs."""
    predictor, small = Predictor(read_bundle(bundled_models()["hippocampus-mr"]), "cpu"), under(head, scale=0.5)
    with pytest.raises(InputError) as error:
        predictor.segment(small)
    assert error.value.message.count("As a head it would be too small:") == 1
