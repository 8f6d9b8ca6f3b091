"""Two-dimensional images through the engine: size, colours, frames, objects, and what is refused."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_models import blobs, image_plan, write_image_bundle
from PIL import Image
from scipy import ndimage
from usema.errors import Cancelled, InputError
from usema.inference.image_recipe import ImageRecipe, fit_image, fitted_shape
from usema.inference.outputs import Outputs
from usema.inference.predictor import Predictor
from usema.resources import bundled_models
from usema.volumes.geometry import Geometry
from usema.volumes.pictures import Picture
from usema.volumes.volume import Volume


def picture(array, spacing=1.0, known=False) -> Picture:
    array = array if array.ndim > 2 else array[None]
    size = (array.shape[2], array.shape[1], array.shape[0])
    return Picture(array, Geometry(size, (spacing, spacing, 1), (0, 0, 0), np.eye(3).ravel()), pixel_size_known=known)


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.fixture(scope="module")
def predictor_of(tmp_path_factory):
    made = {}

    def make(name, **options):
        if name not in made:
            made[name] = Predictor(write_image_bundle(tmp_path_factory.mktemp("models") / name, **options), "cpu")
        return made[name]

    return make


@pytest.fixture(scope="module")
def native(predictor_of):
    instances = {"label": "Disc", "boundary": "Rim", "method": "watershed", "minimum_pixels": 20}
    return predictor_of("native", names=("Disc", "Rim"), instances=instances, measurements=["objects"])


IMAGE, MASK = blobs(100)


def test_an_image_is_segmented_on_its_own_grid(native):
    result = native.segment(picture(IMAGE))
    assert result.labels.shape == (1, *IMAGE.shape)
    assert dice(result.labels[0] == 1, MASK) > 0.98
    assert result.provenance["pixelSize"] == "not known"
    assert native.segment(picture(IMAGE, 0.2, True)).provenance["pixelSize"] == "0.2 x 0.2 mm"


def test_the_size_of_a_pixel_does_not_matter_at_native_pixels(native):
    results = [native.segment(picture(IMAGE, spacing, True)).labels for spacing in (0.01, 1.0, 7.0)]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_rims_belong_to_their_objects_and_are_no_segment(native):
    result = native.segment(picture(IMAGE))
    _, count = ndimage.label(MASK, np.ones((3, 3)))
    assert [label.name for label in result.model_labels] == ["Disc"]
    assert set(np.unique(result.labels)) == {0, 1}
    assert np.array_equal(result.image.objects != 0, result.labels == 1)
    assert len(np.unique(result.image.objects)) - 1 >= count
    assert {label.name for label in native.metadata.labels} == {"Disc", "Rim"}
    assert "Objects" in result.provenance["measurements"]
    assert "mm" not in result.provenance["measurements"]
    with pytest.raises(InputError, match="Rim"):
        native.segment(picture(IMAGE), labels=["Rim"])


def test_an_image_is_fitted_as_pillow_reduces_it():
    for shape, longest in (((96, 128), 64), ((97, 55), 41), ((40, 30), 96)):
        image = np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)
        fitted = fit_image(image[None, None], longest)
        assert max(fitted.shape) == longest
        size = fitted.shape[:1:-1]
        reduced = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        assert np.abs(fitted[0, 0] - reduced).max() < 0.01


@pytest.mark.parametrize(("shape", "longest"), [((97, 55), 41), ((40, 64), 100), ((50, 50), 50)])
def test_logits_come_back_linearly_and_nothing_is_found_beyond_what_is_black(shape, longest):
    """Against SciPy, which is asked for the logits at the centre of each pixel of the image."""
    image = np.random.default_rng(0).integers(1, 200, shape)
    image[:9], image[:, -6:] = 0, 0
    geometry = Geometry((*shape[::-1], 1), (1, 1, 1), (0, 0, 0), np.eye(3).ravel())
    values = {key: value for key, value in image_plan(fit={"longest_side": longest}).items() if key != "kind"}
    recipe = ImageRecipe(values)
    prepared = recipe.prepare(image[None, None], geometry)
    assert recipe.shape(image[None, None], geometry) == pytest.approx(prepared.data.shape[1:], abs=1)
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(3, *prepared.data.shape[1:])).astype(np.float32))
    collector = prepared.collector(Outputs.classes(3), True)
    collector.add(0, logits)
    labels, probabilities = collector.finish()

    fitted = fitted_shape(shape, longest)
    crop = prepared.fitted.crop[1:]
    place = [
        (np.arange(new) + 0.5) * old / new - 0.5 - part.start
        for old, new, part in zip(fitted, shape, crop, strict=True)
    ]
    inside = np.ix_(
        *((at >= -0.5) & (at <= length - 0.5) for at, length in zip(place, prepared.data.shape[2:], strict=True))
    )
    grid = np.meshgrid(*place, indexing="ij")
    expected = np.stack([ndimage.map_coordinates(one[0].numpy(), grid, order=1, mode="nearest") for one in logits])
    wanted = np.zeros(shape, int)
    wanted[inside] = expected.argmax(axis=0)[inside]
    assert (labels[0] != wanted).mean() < 0.001
    assert not labels[0, :6].any()
    assert not labels[0, :, -3:].any()
    softmax = np.exp(expected) / np.exp(expected).sum(axis=0)
    found = probabilities[:, 0].astype(float)
    assert np.abs(found - softmax)[(slice(None), *inside)].max() < 2e-3
    assert np.allclose(found.sum(axis=0), 1, atol=2e-3)


def test_a_fitted_model_finds_the_same_at_twice_the_size(predictor_of):
    fitted = predictor_of("fitted", preprocessing=image_plan(fit={"longest_side": 128}))
    once, twice = (fitted.segment(picture(np.kron(IMAGE, np.ones((n, n), np.uint8)))).labels[0] == 1 for n in (1, 2))
    assert twice.shape == (192, 256)
    assert dice(twice, np.kron(once, np.ones((2, 2), bool))) > 0.97


def test_a_model_in_millimetres_resamples_what_has_a_size_and_says_where_none_is_known(predictor_of):
    model = predictor_of("spacing", preprocessing=image_plan(fit={"to_spacing": True}))
    fine = np.kron(IMAGE, np.ones((2, 2), np.uint8))
    known, unknown = model.segment(picture(fine, 0.5, True)), model.segment(picture(IMAGE, 0.37, False))
    assert dice(known.labels[0] == 1, np.kron(MASK, np.ones((2, 2), bool))) > 0.9
    assert any("not known: it was taken to be the model's, 1 x 1 mm" in said for said in unknown.warnings)
    assert np.array_equal(unknown.labels, model.segment(picture(IMAGE, 1.0, True)).labels)
    assert unknown.geometry.spacing == (0.37, 0.37, 1)


def test_frames_are_independent_of_each_other(native):
    other = (blobs(101)[0] * 0.3).astype(np.uint8)
    stack = native.segment(picture(np.stack([IMAGE, np.full_like(IMAGE, 7), other])))
    assert np.array_equal(stack.labels[0], native.segment(picture(IMAGE)).labels[0])
    assert np.array_equal(stack.labels[2], native.segment(picture(other)).labels[0])
    assert not stack.labels[1].any()
    assert any("1 of 3 frames have the same value everywhere" in said for said in stack.warnings)
    assert [len(frame) > 1 for frame in stack.image.measurements] == [True, False, True]


def test_frames_tell_progress_and_can_be_stopped_between(native):
    seen, stop = [], threading.Event()

    def progress(done, total, left):
        seen.append((done, total))
        stop.set()

    with pytest.raises(Cancelled):
        native.segment(picture(np.stack([IMAGE] * 3)), progress=progress, should_stop=stop.is_set)
    assert seen == [(1, 3)]


def test_colours_become_what_the_model_takes_and_it_is_said(native, predictor_of):
    colour = np.stack([IMAGE] * 3, axis=-1)[None]
    grey = native.segment(picture(IMAGE))
    as_grey = native.segment(picture(colour))
    assert np.array_equal(as_grey.labels, grey.labels)
    assert as_grey.warnings == ["The image is in colour: the model sees its luminance."]
    rgb = predictor_of("rgb", channels=3, input_colours="rgb")
    from_colour, from_grey = rgb.segment(picture(colour)), rgb.segment(picture(IMAGE))
    assert np.array_equal(from_colour.labels, from_grey.labels)
    assert dice(from_grey.labels[0] == 1, MASK) > 0.8
    assert from_colour.warnings == []
    assert from_grey.warnings == ["The image is grey: the model sees it as red, green and blue alike."]
    deep = rgb.segment(picture(colour.astype(np.uint16) * 257))
    assert any("scaled to 0 to 255" in said for said in deep.warnings)
    assert np.array_equal(deep.labels, from_colour.labels)


def test_a_volume_is_refused_by_a_model_for_images_and_an_image_by_one_for_volumes(native):
    volume = Volume(np.stack([IMAGE] * 5), Geometry((128, 96, 5), (1, 1, 1), (0, 0, 0), np.eye(3).ravel()))
    with pytest.raises(InputError, match="volume of 128 x 96 x 5 voxels, and the model 'discs' is for two-dimensional"):
        native.segment(volume)
    one_slice = Volume(IMAGE[None], picture(IMAGE).geometry)
    assert native.segment(one_slice).labels.any()
    from usema.inference.checks import check_case
    from usema.models.bundle import read_bundle

    metadata = read_bundle(bundled_models()["hippocampus-mr"]).metadata
    for given in (one_slice, picture(IMAGE)):
        with pytest.raises(InputError, match="image of 128 x 96 pixels, and the model 'hippocampus-mr' is for volumes"):
            check_case(metadata, [given])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(300, dtype=np.uint8)[None, :, None] * np.ones(1, np.uint8), "strip of 1 x 300 pixels"),
        (np.full((64, 64), 3.0), "the value 3.0 in every"),
        (np.where(MASK, np.nan, 1.0), "NaN"),
        (np.zeros((1, 64, 64, 2)), "has shape"),
    ],
)
def test_what_shows_nothing_is_refused(native, array, message):
    with pytest.raises(InputError, match=message):
        native.segment(picture(array))


@pytest.mark.parametrize("shape", [(64, 64), (61, 97), (8, 200)])
def test_odd_and_small_sizes_are_segmented(native, shape):
    image = blobs(5, shape, 1, (2, 3))[0]
    assert native.segment(picture(image)).labels.shape == (1, *shape)


def test_channels_of_different_size_are_refused(tmp_path):
    model = write_image_bundle(tmp_path / "m", channels=3)
    predictor = Predictor(model, "cpu")
    one = picture(IMAGE)
    with pytest.raises(InputError, match="takes 3 image"):
        predictor.segment(one)
    with pytest.raises(InputError, match="different sizes"):
        predictor.segment([one, one, replace(picture(IMAGE[:, :-2]))])
