"""The whole journey from volume to labels, with a small untrained network on real volumes."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import SimpleITK as sitk
from bundles import TINY, plan, write_tiny_bundle
from usema.errors import BundleError, Cancelled, DeviceError, InputError
from usema.inference.predictor import Predictor
from usema.models.bundle import METADATA_FILE, read_bundle
from usema.models.bundle_writing import change_metadata
from usema.volumes.geometry import Geometry
from usema.volumes.volume import Volume, read_volume, reorient


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    return Predictor(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), "cpu")


@pytest.fixture(scope="module")
def hippocampus(eight_tiles) -> Volume:
    return eight_tiles


@pytest.fixture(scope="module")
def result(predictor, hippocampus):
    return predictor.segment(hippocampus, probabilities=True)


def test_labels_and_probabilities_lie_on_the_input_grid(result, hippocampus):
    assert result.geometry == hippocampus.geometry
    assert result.labels.shape == hippocampus.array.shape
    assert result.labels.dtype == np.uint8
    assert result.probabilities.shape == (3, *hippocampus.array.shape)
    np.testing.assert_allclose(result.probabilities.sum(0, dtype=np.float32), 1, atol=2e-3)
    assert (result.probabilities.argmax(0) == result.labels).mean() > 0.999  # float16 may make two classes equal
    assert result.max_foreground_probability == pytest.approx(result.probabilities[1:].max(), abs=1e-3)


@pytest.mark.parametrize(
    "path",
    ["body_ct/example_ct_sm.nii.gz", "spine_mr/t2.nii.gz", "chest_ct/CTChest4.nrrd", "sarcoma_ct_dicom/MR_T1/image"],
)
def test_real_volumes_come_out_on_their_own_grid(tmp_path, data, path):
    coarse = {**plan(), "spacing": [6.0, 6.0, 6.0]}  # so that a whole chest is a few tiles
    predictor = Predictor(write_tiny_bundle(tmp_path / "coarse", preprocessing=coarse), "cpu")
    volume = read_volume(data / "volumes" / path)
    result = predictor.segment(volume, overlap=0)
    assert result.geometry == volume.geometry
    assert result.labels.shape == volume.array.shape


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL", "AIL"])
def test_how_the_axes_are_stored_does_not_matter(predictor, hippocampus, result, orientation):
    stored = reorient(hippocampus, orientation)
    turned = predictor.segment(stored)
    back = reorient(Volume(turned.labels, turned.geometry), hippocampus.geometry.orientation)
    assert turned.geometry.orientation == orientation
    np.testing.assert_array_equal(back.array, result.labels)


def test_an_oblique_left_handed_anisotropic_volume_comes_back_on_its_grid(predictor, hippocampus):
    rotation = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.25).GetMatrix()
    direction = np.array(rotation).reshape(3, 3) @ np.diag([1, -1, 1])
    size = hippocampus.geometry.size
    geometry = Geometry(size, (0.9, 1.1, 1.3), (12.5, -40.25, 7.0), tuple(direction.ravel()))
    result = predictor.segment(Volume(hippocampus.array, geometry))
    assert result.geometry == geometry
    assert result.labels.shape == hippocampus.array.shape


def test_progress_is_true_and_reaches_the_total(predictor, hippocampus):
    seen = []
    predictor.segment(hippocampus, progress=lambda *values: seen.append(values))
    done, totals, _ = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert done[0] == 0
    assert done[-1] == totals[0] > 1
    assert len(set(totals)) == 1
    assert seen[0][2] is None
    assert seen[-1][2] == pytest.approx(0)


def test_stopping_between_tiles_raises_cancelled(predictor, hippocampus):
    done = []
    with pytest.raises(Cancelled):
        predictor.segment(
            hippocampus, progress=lambda *values: done.append(values[0]), should_stop=lambda: len(done) > 1
        )
    assert max(done) < 8


def test_a_second_channel_is_resampled_in_physical_space(tmp_path, hippocampus):
    bundle = write_tiny_bundle(
        tmp_path / "two",
        channels=[{"name": "T1"}, {"name": "T2"}],
        architecture={"name": "USEMA", "config": {**TINY, "in_channels": 2}},
        preprocessing=plan(channels=2),
    )
    predictor = Predictor(bundle, "cpu")
    same = predictor.segment([hippocampus, hippocampus]).labels
    other_axes = predictor.segment([hippocampus, reorient(hippocampus, "PIR")]).labels
    np.testing.assert_array_equal(same, other_axes)
    with pytest.raises(InputError, match=r"takes 2 volume\(s\) \(T1, T2\), not 1"):
        predictor.segment(hippocampus)


def test_a_2d_model_segments_slice_by_slice(tmp_path, hippocampus):
    flat = {**plan(), "spacing": [1.0, 1.0], "patch_size": [32, 24]}
    config = {**TINY, "kernels": [[3, 3], [3, 3]], "strides": [[1, 1], [2, 2]]}
    bundle = write_tiny_bundle(tmp_path / "flat", architecture={"name": "USEMA", "config": config}, preprocessing=flat)
    predictor = Predictor(bundle, "cpu")
    whole = predictor.segment(hippocampus)
    assert whole.labels.shape == hippocampus.array.shape
    # Slices do not see each other: away from the changed slice (normalisation apart) the labels stay.
    changed = hippocampus.array.copy()
    changed[10] = changed[10, ::-1]
    other = predictor.segment(Volume(changed, hippocampus.geometry))
    np.testing.assert_array_equal(np.delete(whole.labels, 10, 0), np.delete(other.labels, 10, 0))
    assert (whole.labels[10] != other.labels[10]).any()


def test_a_spacing_far_from_training_is_a_warning(predictor, hippocampus):
    array = np.ascontiguousarray(hippocampus.array[:, :, 12:22])  # as wide as before, once its voxels are 1 mm
    coarse = Geometry(array.shape[::-1], (4.0, 1.0, 1.0), (0.0,) * 3, hippocampus.geometry.direction)
    warnings = predictor.segment(Volume(array, coarse)).warnings
    assert any("spacing along x is 4 mm" in warning for warning in warnings)


def test_nan_outside_the_field_of_view_is_background_and_said(predictor, hippocampus):
    array = hippocampus.array.astype(np.float32)
    array[:4] = 0
    background = predictor.segment(Volume(array.copy(), hippocampus.geometry))
    array[:4] = np.nan
    outside = predictor.segment(Volume(array, hippocampus.geometry))
    assert np.array_equal(outside.labels, background.labels)
    assert f"The volume has {array[:4].size} NaN voxels" in outside.warnings[0]
    array[10, 20, 10] = np.nan
    with pytest.raises(InputError, match="x 10, y 20, z 10"):
        predictor.segment(Volume(array, hippocampus.geometry))


def test_a_volume_thinner_than_one_window_is_refused_by_its_extent(predictor, hippocampus):
    thin = Volume(
        hippocampus.array[:3],
        hippocampus.geometry.__class__(
            (*hippocampus.geometry.size[:2], 3), (1.0, 1.0, 0.5), (0.0,) * 3, hippocampus.geometry.direction
        ),
    )
    with pytest.raises(InputError, match=r"too thin along z: 3 voxels of 0.5 mm"):
        predictor.segment(thin)


def test_an_empty_result_says_why(tmp_path, hippocampus):
    from usema.models.bundle_writing import write_bundle

    bundle = write_tiny_bundle(tmp_path / "tiny")
    weights = bundle.load_weights()
    weights["heads.0.bias"][0] += 50  # background everywhere
    metadata = {
        key: value for key, value in bundle.metadata.to_dict().items() if key not in ("schema_version", "weights")
    }
    empty = Predictor(write_bundle(tmp_path / "empty", metadata, weights), "cpu").segment(hippocampus)
    assert not empty.labels.any()
    assert any("Nothing was found" in warning and "Hippocampus" in warning for warning in empty.warnings)


def test_probabilities_that_do_not_fit_are_refused_before_the_work(predictor, monkeypatch):
    # A view that takes no memory itself. Each of its voxels is looked at.
    huge = np.broadcast_to(np.arange(2000, dtype=np.float32), (700, 700, 2000))
    volume = Volume(huge, Geometry((2000, 700, 700), (1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel())))
    monkeypatch.setattr("usema.inference.checks.free_memory", lambda *_: 2 * 2**30)
    with pytest.raises(InputError, match=r"at least \d+\.\d GiB are needed.*Without keeping the probabilities"):
        predictor.segment(volume, probabilities=True)


def test_provenance_tells_a_model_json_from_another_with_the_same_weights(hippocampus, tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    changed = change_metadata(bundle, inference={"mirror_axes": [], "temperature": 2.0})
    assert changed.metadata.weights == bundle.metadata.weights
    provenance = Predictor(changed, "cpu").segment(hippocampus, overlap=0).provenance
    assert provenance["metadataSha256"] == sha256((changed.path / METADATA_FILE).read_bytes()).hexdigest()
    assert provenance["metadataSha256"] != bundle.metadata_sha256


def test_provenance_names_model_weights_device_and_backend(result, predictor):
    provenance = result.provenance
    assert provenance["model"] == "hippocampus-mr"
    assert provenance["weightsSha256"] == predictor.metadata.weights["sha256"]
    assert provenance["device"].startswith("cpu")
    assert provenance["attention"].startswith("PyTorch")
    assert all(isinstance(value, str) for value in provenance.values())


def test_a_device_that_is_not_there_is_named(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with pytest.raises(DeviceError, match="'gpu' is not a device"):
        Predictor(bundle, "gpu")
    with pytest.raises(DeviceError, match="'cuda:7'"):
        Predictor(bundle, "cuda:7")


def test_weights_of_another_architecture_are_refused(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny")
    other = write_tiny_bundle(
        tmp_path / "other", architecture={"name": "USEMA", "config": {**TINY, "features": [8, 24]}}
    )
    (other.path / "weights.safetensors").write_bytes((bundle.path / "weights.safetensors").read_bytes())
    text = (other.path / "model.json").read_text()
    for key in ("sha256", "bytes"):
        text = text.replace(str(other.metadata.weights[key]), str(bundle.metadata.weights[key]))
    (other.path / "model.json").write_text(text)
    with pytest.raises(BundleError, match="do not fit the architecture"):
        Predictor(read_bundle(other.path), "cpu")


def test_a_short_run_loads_neither_pytorchs_compiler_nor_openvino(tmp_path):
    """Each takes longer to load than a tile to compute."""
    write_tiny_bundle(tmp_path / "tiny")
    code = (
        "import sys, numpy as np\n"
        "from usema.inference.predictor import Predictor\n"
        "from usema.models.bundle import read_bundle\n"
        "from usema.volumes.volume import Geometry, Volume\n"
        "grid = Geometry((24, 32, 24), (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))\n"
        "array = np.random.default_rng(0).standard_normal((24, 32, 24), np.float32)\n"
        "Predictor(read_bundle(sys.argv[1]), 'cpu').segment(Volume(array, grid))\n"
        "print(*{'torch._dynamo', 'sympy', 'triton', 'openvino'} & sys.modules.keys())\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "tiny"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


def test_the_fewer_logits_are_held_the_same_is_found(predictor, hippocampus, monkeypatch):
    """A volume that is longest along its second axis: rows of tiles run across it."""
    from usema.inference import loading

    array = np.concatenate([hippocampus.array[:26], hippocampus.array[:26, ::-1]], axis=1)
    volume = Volume(array, Geometry(array.shape[::-1], (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)))
    along, predict = [], loading.predict_logits

    def watched(*arguments, **options):
        along.append(options["along"])
        return predict(*arguments, **options)

    monkeypatch.setattr(loading, "predict_logits", watched)
    turned = predictor.segment(volume, probabilities=True)
    monkeypatch.setattr(loading, "TURNING_PAYS", 0.0)
    plain = predictor.segment(volume, probabilities=True)
    assert along == [1, 0]
    assert (turned.labels == plain.labels).mean() > 0.9999
    np.testing.assert_allclose(turned.probabilities, plain.probabilities, atol=1e-3)
