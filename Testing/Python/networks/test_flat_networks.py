"""The architectures beside USEMA, all 2D, on their way through the engine."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from bundles import FLAT_BACKENDS, FLAT_NETWORKS, FLAT_PLAN, write_tiny_bundle
from click.testing import CliRunner
from usema.cli import main
from usema.errors import BundleError
from usema.inference.predictor import Predictor
from usema.volumes.volume import load_volume, read_volume


@pytest.fixture(scope="module", params=sorted(FLAT_NETWORKS))
def architecture(request):
    return {"name": request.param, "config": FLAT_NETWORKS[request.param]}


@pytest.fixture(scope="module")
def bundle(architecture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "flat"
    return write_tiny_bundle(folder, architecture=architecture, preprocessing=FLAT_PLAN)


@pytest.fixture(scope="module")
def volume(data):
    return data / "nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_003_0000.nii.gz"


def test_a_bundle_segments_a_volume_and_claims_no_sema_kernel(architecture, bundle, volume):
    result = Predictor(bundle, "cpu").segment(read_volume(volume))
    assert result.geometry == read_volume(volume).geometry
    assert np.unique(result.labels).size > 1
    assert result.provenance["architecture"] == architecture["name"]
    assert result.provenance["attention"] == FLAT_BACKENDS[architecture["name"]]


def test_the_command_line_segments_with_it(architecture, bundle, volume, tmp_path):
    arguments = ["segment", volume, "-o", tmp_path / "labels.nii.gz", "--model", bundle.path, "--device", "cpu"]
    run = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    assert FLAT_BACKENDS[architecture["name"]] in " ".join(run.output.split())
    labels = load_volume(tmp_path / "labels.nii.gz")
    assert labels.geometry.same_grid(read_volume(volume).geometry)
    assert sitk.ReadImage(str(tmp_path / "labels.nii.gz")).GetSize() == read_volume(volume).geometry.size


def test_a_3d_plan_does_not_fit_a_2d_network(architecture, tmp_path):
    solid = write_tiny_bundle(tmp_path / "solid", architecture=architecture)
    with pytest.raises(BundleError, match="the network is 2D, its preprocessing plan 3D"):
        Predictor(solid, "cpu")
