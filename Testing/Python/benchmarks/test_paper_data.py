"""The recipes for the paper's data, on stand-ins of the downloads; plans and data sets are judged by nnU-Net itself."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import numpy as np
import pytest
from paper import RECIPES, find_recipe
from paper.amos_mr import AMOS_ORGANS
from paper.endovis17 import TYPES
from paper.neurips_cells import three_classes, to_rgb
from paper.recipe import METHODS
from paper_commands import paper, refused
from recipe_downloads import FRAME, some_cells, write_volume
from skimage import io
from usema.errors import InputError
from usema.volumes.volume import load_volume

NAMES = tuple(RECIPES)


@pytest.fixture(scope="module")
def spec(root) -> str:
    path = root.parent / "shared/spec/networks.md"
    if not path.is_file():
        pytest.skip("the notes on the literature do not lie beside the repository")
    return path.read_text(encoding="utf-8")


# -- conversion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_nnunet_finds_no_fault_with_a_prepared_data_set(name, raw, monkeypatch):
    from nnunetv2.experiment_planning import verify_dataset_integrity as verify

    # Threads instead of processes, which would each load nnU-Net.
    monkeypatch.setattr(verify.multiprocessing, "get_context", lambda method: SimpleNamespace(Pool=ThreadPool))
    verify.verify_dataset_integrity(str(raw / RECIPES[name].dataset), 1)


def test_flare22_is_copied_and_its_tuning_set_becomes_the_test_set(raw):
    dataset = raw / "Dataset701_AbdomenCT"
    assert sorted(path.name for path in dataset.rglob("*.nii.gz")) == [
        "FLARE22_Tr_0001.nii.gz",
        "FLARE22_Tr_0001_0000.nii.gz",
        "FLARE22_Tr_0002.nii.gz",
        "FLARE22_Tr_0002_0000.nii.gz",
        "FLARETs_0001.nii.gz",
        "FLARETs_0001_0000.nii.gz",
    ]
    assert (dataset / "labelsTs/FLARETs_0001.nii.gz").is_file()
    description = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    assert description["channel_names"] == {"0": "CT"}
    assert description["labels"]["left kidney"] == 13


def test_of_amos22_only_mr_is_taken_and_its_labels_get_flare22s_numbers(raw, downloads):
    dataset = raw / "Dataset702_AbdomenMR"
    names = ["amos_0507.nii.gz", "amos_0541.nii.gz"]  # one of its training, one of its validation part
    assert sorted(path.name for path in (dataset / "labelsTr").iterdir()) == names
    before = load_volume(downloads["abdomen-mr"] / "amos22/labelsTr/amos_0507.nii.gz")
    after = load_volume(dataset / "labelsTr/amos_0507.nii.gz")
    assert after.geometry.same_grid(before.geometry)
    labels = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))["labels"]
    for value, organ in enumerate(AMOS_ORGANS):
        assert set(after.array[before.array == value]) == {labels.get(organ, 0)}, organ
    assert set(AMOS_ORGANS) - set(labels) == {"bladder", "prostate/uterus"}


def test_masks_of_a_frame_become_one_map_of_types(raw, downloads):
    dataset = raw / "Dataset704_Endovis17"
    labels = io.imread(dataset / "labelsTr/seq1_frame001.png")
    bipolar, prograsp, sealer = (TYPES.index(f"{kind}") + 1 for kind in TYPES[:2] + TYPES[3:4])
    assert labels.shape == FRAME
    assert list(labels[:, 0]) == [prograsp] * 6 + [bipolar] * 10 + [0] * 8  # the later folder wins where they overlap
    assert list(io.imread(dataset / "labelsTr/seq7_frame000.png")[:, 5]) == [bipolar] * 6 + [sealer] * 10 + [0] * 8
    frame = downloads["endoscopy"] / "instrument_1_4_training/instrument_dataset_1/left_frames/frame001.png"
    assert (dataset / "imagesTr/seq1_frame001_0000.png").read_bytes() == frame.read_bytes()
    assert set(np.unique(io.imread(dataset / "labelsTs/seq1_frame225.png"))) == {0, 6}
    assert (dataset / "imagesTs/seq1_frame225_0000.png").is_file()


def test_folds_of_endoscopy_keep_the_frames_of_a_video_together(raw):
    splits = json.loads((raw / "Dataset704_Endovis17/splits_final.json").read_text(encoding="utf-8"))
    videos = [{part: {case.split("_")[0] for case in split[part]} for part in split} for split in splits]
    assert videos == [{"train": {"seq7"}, "val": {"seq1"}}, {"train": {"seq1"}, "val": {"seq7"}}]


def test_cells_become_interior_and_boundary():
    classes = three_classes(some_cells())
    assert classes[10, 8] == 1
    assert classes[30, 35] == 1
    assert classes[0, 0] == 0
    # The outermost pixels of a cell, one more inside, one more outside; and between two cells that touch.
    assert list(classes[10, 3:9]) == [0, 2, 2, 2, 1, 1]
    assert list(classes[10, 12:18]) == [1, 2, 2, 2, 2, 1]
    speck = np.zeros((20, 20), int)
    speck[5:12, 5:12] = 7
    assert set(np.unique(three_classes(speck))) == {0, 2}  # its interior of 3x3 pixels is too small


def test_pictures_become_8_bit_rgb(raw):
    image = np.zeros((20, 50), np.uint16)
    image[:, 25:] = np.arange(500).reshape(20, 25) * 100 + 1
    rgb = to_rgb(image)
    assert rgb.shape == (20, 50, 3)
    assert rgb.dtype == np.uint8
    assert (rgb[..., 0] == rgb[..., 2]).all()
    low, high = np.percentile(image[:, 25:], (1, 99))
    assert (rgb[image <= low] == 0).all()
    assert (rgb[image >= high] == 255).all()
    assert rgb[10, 25, 0] == int((image[10, 25] - low) / (high - low) * 255)
    for name in ("cell_00001", "cell_00002", "cell_00003"):  # a BMP, a PNG with four channels, a grey TIFF of 16 bits
        stored = io.imread(raw / f"Dataset703_NeurIPSCell/imagesTr/{name}_0000.png")
        assert (stored.shape, stored.dtype) == ((40, 48, 3), np.uint8)
    assert (io.imread(raw / "Dataset703_NeurIPSCell/labelsTs/cell_00001_label.tiff") == some_cells()).all()


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("abdomen-ct", "no folder with images and labels (FLARE22Train or"),
        ("abdomen-mr", "no folder with imagesTr and labelsTr and imagesVa and labelsVa"),
        ("endoscopy", "no folder instrument_dataset_N/ground_truth"),
        ("microscopy", "no folder with images and labels (Training-labeled or"),
    ],
)
def test_a_folder_that_is_not_the_download_is_refused_with_what_is_missing(name, missing, tmp_path):
    (tmp_path / "download").mkdir()
    output = refused("prepare", name, "--download", tmp_path / "download", "--output", tmp_path / "raw")
    assert f"{tmp_path / 'download'} does not look like the download of" in output
    assert missing in output
    assert RECIPES[name].pages[0] in output
    assert not list(tmp_path.glob("raw/**/*"))


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("abdomen-ct", "FLARE22Train/labels/FLARE22_Tr_0002.nii.gz", "1 label files are missing"),
        ("abdomen-mr", "amos22/labelsVa/amos_0541.nii.gz", "1 label files are missing"),
        (
            "endoscopy",
            "instrument_5_8_training/instrument_dataset_7/ground_truth/Right_Vessel_Sealer/frame001.png",
            "1 masks are missing",
        ),
        ("endoscopy", "instrument_1_4_testing/instrument_dataset_1/left_frames/frame225.png", "1 test frames are"),
        ("microscopy", "Training-labeled/labels/cell_00002_label.tiff", "1 label files are missing"),
    ],
)
def test_an_incomplete_download_is_refused_by_the_file(name, file, message, downloads, tmp_path):
    shutil.copytree(downloads[name], tmp_path / "download")
    (tmp_path / "download" / file).unlink()
    output = refused("prepare", name, "--download", tmp_path / "download", "--output", tmp_path)
    assert message in output
    assert str(tmp_path / "download" / file) in output
    assert [path.name for path in tmp_path.iterdir()] == ["download"]


def test_labels_that_no_one_knows_are_refused(downloads, tmp_path):
    shutil.copytree(downloads["endoscopy"], tmp_path / "endoscopy")
    video = tmp_path / "endoscopy/instrument_5_8_training/instrument_dataset_7/ground_truth"
    (video / "Left_Bipolar_Forceps").rename(video / "Left_Hook")
    with pytest.raises(InputError, match="Left_Hook names no known instrument"):
        find_recipe("endoscopy").convert(tmp_path / "endoscopy", tmp_path / "a")
    shutil.copytree(downloads["abdomen-mr"], tmp_path / "mr")
    write_volume(tmp_path / "mr/amos22/labelsTr/amos_0507.nii.gz", np.full((4, 8, 8), 16, np.uint8))
    with pytest.raises(InputError, match=r"amos_0507.nii.gz holds the value 16"):
        find_recipe("abdomen-mr").convert(tmp_path / "mr", tmp_path / "b")


def test_what_was_prepared_is_not_overwritten(downloads, raw):
    output = refused("prepare", "endoscopy", "--download", downloads["endoscopy"], "--output", raw)
    assert "Dataset704_Endovis17 exists already" in output


def test_an_unknown_recipe_is_refused_with_those_there_are():
    assert "abdomen-ct, abdomen-mr, endoscopy, microscopy" in refused("show", "brain")


# -- plans and published numbers ------------------------------------------------------------------------------------

# recipe or None, median image, cases, plan: patch, batch, stages
PLANS = {
    **{
        name: (name, recipe.plan.median_shape, (recipe.plan.patch_size, recipe.plan.batch_size, recipe.plan.stages))
        for name, recipe in RECIPES.items()
    },
    "endoscopy, cropped": ("endoscopy", (1024, 1280), ((1024, 1280), 2, 9)),
    "microscopy, large": ("microscopy", (1024, 1024), ((1024, 1024), 3, 9)),
    "abdomen-mr, oblong": ("abdomen-mr", (320, 260), ((320, 320), 30, 7)),
}


@pytest.mark.parametrize("case", PLANS)
def test_nnunets_default_planner_makes_the_plan_of_the_recipe(case, raw, tmp_path, monkeypatch):
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner as planning

    name, median_shape, expected = PLANS[case]
    dataset = RECIPES[name].dataset
    # The whole data set as its fingerprint would be; of volumes 50 slices each, because only 2D plans are wanted.
    images = RECIPES[name].cases * (50 if dataset.endswith(("CT", "MR")) else 1)
    shutil.copytree(raw / dataset, tmp_path / "raw" / dataset)
    description = json.loads((raw / dataset / "dataset.json").read_text(encoding="utf-8"))
    (tmp_path / "raw" / dataset / "dataset.json").write_text(json.dumps(description | {"numTraining": images}))
    fingerprint = {
        "spacings": [[999, 1, 1]],
        "shapes_after_crop": [[1, *median_shape]],
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},
    }
    (tmp_path / "preprocessed" / dataset).mkdir(parents=True)
    (tmp_path / "preprocessed" / dataset / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    monkeypatch.setattr(planning, "nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setattr(planning, "nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    planning.ExperimentPlanner(dataset).plan_experiment()
    plans = json.loads((tmp_path / "preprocessed" / dataset / "nnUNetPlans.json").read_text())
    plan = plans["configurations"]["2d"]
    stages = plan["architecture"]["arch_kwargs"]["n_stages"]
    assert (tuple(plan["patch_size"]), plan["batch_size"], stages) == expected
    assert plans["image_reader_writer"] == ("SimpleITKIO" if "Abdomen" in dataset else "NaturalImage2DIO")


def test_the_published_numbers_are_those_of_the_literature(spec):
    """Table 7.4 of the notes: | method | MR | endoscopy | microscopy |, each with parameters / MACs / scores."""
    rows = {
        "nnU-Net": "nnU-Net",
        "SwinUNETR": "SwinUNETR",
        "U-Mamba_Bot": "U-Mamba_Bot",
        "U-Mamba_Enc": "U-Mamba_Enc",
        "Swin-UMamba": "Swin-UMamba (ImageNet)",
        "Swin-UMamba†": "Swin-UMamba-dagger (ImageNet)",
    }
    assert tuple(rows) == METHODS
    for index, method in enumerate(METHODS):
        line = next(line for line in spec.splitlines() if line.startswith(f"| {rows[method]} |"))
        cells = [cell.replace("*", "") for cell in line.split("|")[2:5]]
        for name, cell in zip(("abdomen-mr", "endoscopy", "microscopy"), cells, strict=True):
            expected = [float(number) for number in re.findall(r"\d*\.?\d+", cell)]
            published = [float(values[index]) for values in RECIPES[name].results[0].rows.values()]
            assert published == expected, (name, method)


def test_the_published_3d_numbers_are_those_of_the_literature(spec):
    for name, start in (("abdomen-ct", "3-D CT DSC:"), ("abdomen-mr", "3-D MR:")):
        text = spec[spec.index(start) :].split("2-D MR")[0].split("3-D MR" if name == "abdomen-ct" else "\n")[0]
        found = {method: number for method, number in re.findall(r"(Bot|Enc|nnU-Net) (\.\d+)", text)}
        dsc = dict(zip(METHODS, RECIPES[name].results[1].rows["DSC"], strict=True))
        expected = {"nnU-Net": dsc["nnU-Net"], "Bot": dsc["U-Mamba_Bot"], "Enc": dsc["U-Mamba_Enc"]}
        assert {method: float(number) for method, number in found.items()} == {m: float(v) for m, v in expected.items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_a_value_or_a_gap_per_method_and_an_empty_column_for_usema(name):
    shown = paper("show", name)
    for results in RECIPES[name].results:
        for metric, values in results.rows.items():
            assert len(values) == len(METHODS)
            row = re.compile(rf"^ *{re.escape(metric)} +" + " +".join(value for value in values if value) + " *$", re.M)
            assert row.search(shown), metric
    assert re.search(r"UNETR +Bot +Enc +UMamba +UMamba† +USEMA *$", shown, re.M)
    assert f"-tr nnUNetTrainerUSEMA -f all --disable_tta -i RAW/{RECIPES[name].dataset}/imagesTs" in shown


def test_the_commands_that_score_name_every_organs_tolerance():
    """FLARE22's own evaluation: 5 mm for the liver, 7 for the duodenum, 2 for vessels and adrenal glands."""
    shown = paper("show", "abdomen-mr")
    words = shlex.split(next(line for line in shown.splitlines() if "usema evaluate" in line).partition(": ")[2])
    tolerances = dict(words[at + 1].split("=") for at, word in enumerate(words) if word == "--tolerance")
    labels = RECIPES["abdomen-mr"].labels
    assert {labels[int(value)]: mm for value, mm in tolerances.items()} == {
        "liver": "5", "right kidney": "3", "spleen": "3", "pancreas": "5", "aorta": "2", "inferior vena cava": "2",
        "right adrenal gland": "2", "left adrenal gland": "2", "gallbladder": "2", "esophagus": "3", "stomach": "5",
        "duodenum": "7", "left kidney": "3",
    }  # fmt: skip


def test_the_list_names_every_recipe():
    listed = paper("list")
    assert all(name in listed for name in NAMES)
