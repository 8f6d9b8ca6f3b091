"""A data set of pictures in colour, as nnU-Net's NaturalImage2DIO reads them: train, export, segment."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from image_models import blobs
from PIL import Image
from trainings import in_this_process, plan_only
from usema.cli import main
from usema.models.bundle import read_bundle
from usema.training import run as training
from usema.training.export import export_bundle
from usema.training.run import train_dataset

pytestmark = pytest.mark.slow(7)  # a real training


def in_colour(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Discs that are told from the ground by their colour alone, (y, x, 3), and their mask."""
    grey, mask = blobs(seed, (80, 112))
    red = np.where(mask, 190, 60) + np.random.default_rng(seed).normal(0, 5, mask.shape)
    image = np.stack([red, grey, 250 - red], axis=-1).clip(0, 255).astype(np.uint8)
    return image, mask


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    dataset = folder / "raw/Dataset017_Discs"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part).mkdir(parents=True)
    names = [f"discs_{number}" for number in range(6)]
    for number, name in enumerate(names):
        image, mask = in_colour(number)
        Image.fromarray(image).save(dataset / "imagesTr" / f"{name}_0000.png")
        Image.fromarray(mask.astype(np.uint8)).save(dataset / "labelsTr" / f"{name}.png")
    described = {
        "channel_names": {"0": "red", "1": "green", "2": "blue"},
        "labels": {"background": 0, "disc": 1},
        "numTraining": len(names),
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (dataset / "dataset.json").write_text(json.dumps(described))
    (dataset / "splits_final.json").write_text(json.dumps([{"train": names[:4], "val": names[4:]}]))
    options = {"configuration": "2d", "trainer": "nnUNetTrainerUSEMASmall", "device": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_run", plan_only)
        results = train_dataset(dataset, folder / "runs", **options)
        path = folder / "runs/preprocessed" / dataset.name / "nnUNetPlans.json"
        plans = json.loads(path.read_text())
        chosen = plans["configurations"]["2d"]  # a network that is small enough for seconds
        chosen["batch_size"] = 2
        shape = chosen["architecture"]["arch_kwargs"]
        shape["features_per_stage"] = [min(16 * 2**stage, 32) for stage in range(shape["n_stages"])]
        path.write_text(json.dumps(plans))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("nnUNet_n_proc_DA", "0"), ("USEMA_THREADS", "1"), ("nnUNet_def_n_proc", "1")):
            patch.setenv(name, value)
        patch.setattr(training, "_run", in_this_process)
        train_dataset(dataset, folder / "runs", iterations=25, **options)
    return export_bundle(results, folder / "bundle").path


def test_pictures_in_colour_are_trained_exported_and_segmented(trained, tmp_path):
    metadata = read_bundle(trained).metadata
    assert metadata.takes_images
    assert metadata.input_colours == "rgb"
    image, mask = in_colour(100)
    Image.fromarray(image).save(tmp_path / "new.png")
    command = ["segment", str(tmp_path / "new.png"), "-o", str(tmp_path / "labels.png"), "--model", str(trained)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = np.asarray(Image.open(tmp_path / "labels.png")) == 1
    assert found.shape == mask.shape
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.5  # all foreground has 0.3
