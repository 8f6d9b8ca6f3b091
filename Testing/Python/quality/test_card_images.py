"""Cards and calibration of models for images: cases in PNG, in pixels, with one picture a case."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from image_models import blobs, write_image_bundle
from matplotlib.image import imread
from PIL import Image
from scipy import ndimage
from usema.cli import main
from usema.models.bundle import read_bundle
from usema.models.bundle_writing import change_metadata
from usema.models.card_files import CARD_FILE, CASES_FILE, PICTURES

INSTANCES = {"label": "Disc", "boundary": "Rim", "method": "watershed"}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Images of discs and their labels, one of them in the colours of a palette."""
    folder = tmp_path_factory.mktemp("cases")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for seed in range(4):
        image, mask = blobs(seed)
        labels = np.where(ndimage.binary_erosion(mask, iterations=2), 1, np.where(mask, 2, 0)).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{seed}_0000.png")
        drawn = Image.fromarray(labels)
        if seed == 0:
            drawn = Image.fromarray(labels, "P")
            drawn.putpalette([0, 0, 0, 200, 40, 40, 40, 200, 40])
        drawn.save(folder / "labels" / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def carded(cases, tmp_path_factory):
    bundle = write_image_bundle(tmp_path_factory.mktemp("model") / "discs", names=("Disc", "Rim"), instances=INSTANCES)
    change_metadata(
        bundle, metrics={"measurements": {"F1 of objects": {"cases": 4, "mean": 0.9, "low": 0.8, "high": 1}}}
    )
    for command in (
        ("card", bundle.path, "--images", cases / "images", "--labels", cases / "labels", "--device", "cpu"),
        ("calibrate", bundle.path, cases / "images", cases / "labels", "--device", "cpu"),
    ):
        run = CliRunner().invoke(main, [str(word) for word in command])
        assert run.exit_code == 0, run.output
    return bundle.path


def test_a_card_of_images_counts_pixels(carded):
    card = (carded / CARD_FILE).read_text(encoding="utf-8")
    assert "HD95 / pixels" in card
    assert "## Areas" in card
    assert "within 2 pixels of the other" in card
    assert "pixels within 5 pixels of the reference" in card
    assert "| F1 of objects | 4 | 0.9 (0.8 to 1) |" in card
    assert not any(word in card for word in (" ml", " mm", "both volumes", "from volume"))


def test_rims_count_as_their_objects(carded, cases):
    document = json.loads((carded / CASES_FILE).read_text(encoding="utf-8"))
    assert [label["label"] for label in document["cases"][0]["labels"]] == ["Disc"]
    masks = [np.asarray(Image.open(cases / "labels" / f"{case['case']}.png")) > 0 for case in document["cases"]]
    assert [case["labels"][0]["reference_ml"] for case in document["cases"]] == [mask.sum() for mask in masks]
    assert min(case["labels"][0]["dice"] for case in document["cases"]) > 0.95
    measured = read_bundle(carded).metadata.metrics["validation"]
    assert measured["dice"]["Disc"] > 0.95
    assert "hausdorff95_pixels" in measured
    assert "hausdorff95_mm" not in measured


def test_a_case_is_shown_whole_in_one_picture(carded):
    height, width = imread(carded / PICTURES[0]).shape[:2]
    assert 0.8 < height / width < 1.2  # 96 x 128 and a legend; three planes are wider
