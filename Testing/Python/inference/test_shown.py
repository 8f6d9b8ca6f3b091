"""A wrong anatomy or modality brings a word before the run, and a right one none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from bundles import METADATA, plan
from dicom_files import write_series
from image_files import dicom_image, save_dicom
from usema.inference import checks
from usema.models.bundle import read_bundle
from usema.models.metadata import ModelMetadata
from usema.resources import resources_folder
from usema.volumes.picture_files import read_picture
from usema.volumes.told import Told
from usema.volumes.volume import read_volume

WEIGHTS = {"file": "weights.safetensors", "sha256": "0" * 64, "bytes": 1000, "dtype": "float16"}
MESHNET = {"in_channels": 1, "num_classes": 3, "channels": 5, "dilations": [1, 2], "activation": "elu"}


def model(anatomy="Head", modality="MR", **changes) -> ModelMetadata:
    document = {
        **METADATA, "preprocessing": plan(), "schema_version": 3, "weights": WEIGHTS, "anatomy": anatomy,
        "modality": modality, "orientation": None,
        "expected_spacing_mm": {"min": [0.1] * 3, "max": [20] * 3}, **changes,
    }  # fmt: skip
    return ModelMetadata.from_dict(document)


def head_model() -> ModelMetadata:
    architecture = {"name": "MeshNet", "config": MESHNET}
    return model("Whole head", architecture=architecture, preprocessing={"kind": "conform"})


def kinds(described, volume, told=None) -> set[str]:
    intensities = float(volume.array.min()), float(volume.array.max())
    return {one.kind for one in checks.findings(described, volume.geometry, intensities, told or volume.told)}


@pytest.mark.parametrize(
    ("anatomy", "texts", "doubted"),
    [
        ("Whole head", ("LSPINE", "t2_tse_sag"), True),
        ("Whole head", ("t2_tse_sag_LWS",), True),
        ("Whole head", ("3: T1 C-Spine",), True),
        (
            "Whole head",
            ("HEAD", "C-SPINE"),
            False,
        ),  # the body part is often what was set last, but one that fits is enough
        ("Whole head", ("t1_mprage_sag", "Neurocranium"), False),
        ("Whole head", ("Schädel nativ",), False),
        ("Whole head", ("KNEE",), True),
        ("Abdomen", ("CHEST", "Thorax KM"), False),  # it shows the liver
        ("Abdomen", ("Kopf",), True),
        ("Abdomen", ("WHOLEBODY",), False),
        ("Whole body", ("KNEE",), False),
        ("Head and neck", ("Hals KM",), False),
        ("Dataset123_Liver", ("Cor pelvis", "pre"), False),
        ("Dataset123_Liver", ("brain",), True),
        ("something", ("brain",), False),
        ("Head", (), False),
        ("Head", ("ax 3mm", "series"), False),
    ],
)
def test_what_is_said_of_a_volume_is_compared_with_what_the_model_is_for(anatomy, texts, doubted, data):
    volume = read_volume(data / "volumes/spine_mr/t2.nii.gz")
    assert (checks.REGION in kinds(model(anatomy), volume, Told("MR", texts))) is doubted


def test_the_word_names_what_is_said_and_what_the_model_is_for(data):
    volume = read_volume(data / "volumes/spine_mr/t2.nii.gz")
    (found,) = checks.findings(model("Head"), volume.geometry, (0, 100), Told("CT", ("x", "KNEE left")))[1:]
    assert found.message == "The volume is called 'KNEE left'; the model is for: Head. Is it the right one?"


def test_a_spine_in_a_model_of_heads_is_doubted_by_its_size_alone(data):
    volume = read_volume(data / "volumes/spine_mr/t2.nii.gz")
    (found,) = checks.findings(head_model(), volume.geometry, (0, 100))
    assert found.kind == checks.EXTENT
    assert "The volume shows 60 x 55 x 52 mm, far less than the model is for: Whole head" in found.message


def test_real_volumes_bring_no_word_in_models_that_fit_and_one_in_others(data):
    volumes = data / "volumes"
    ct, mr = (
        read_volume(volumes / "body_ct/example_ct_sm.nii.gz"),
        read_volume(volumes / "body_ct/example_mr_sm.nii.gz"),
    )
    leg = read_volume(volumes / "sarcoma_ct_dicom/MR_T1/image")
    chest = read_volume(volumes / "chest_ct/CTChest4.nrrd")
    leg_ct = read_volume(volumes / "sarcoma_ct_dicom/CT/image")
    oblique = read_volume(data / "public_models/brainchop/reference/whole_head_oblique/t1_whole_head_oblique.nii.gz")
    body_ct, body_mr = model("Whole body", "CT"), model("Whole body")
    for volume in (ct, chest, leg_ct):
        assert kinds(body_ct, volume) == set()
        assert kinds(body_mr, volume) & {checks.MODALITY, checks.INTENSITY}
        assert kinds(head_model(), volume)
    for volume in (mr, leg, oblique):
        assert kinds(body_mr, volume) == set()
    assert kinds(head_model(), oblique) == set()
    assert kinds(body_ct, leg) == {checks.MODALITY}
    assert kinds(body_ct, oblique) == {checks.INTENSITY}
    assert kinds(model("Head"), leg) == {checks.REGION}
    assert kinds(head_model(), mr) == {checks.EXTENT}


def test_few_slices_are_told_where_the_model_says_no_size(data):
    volume = read_volume(data / "volumes/spine_mr/t2.nii.gz")
    few = replace(volume.geometry, size=(*volume.geometry.size[:2], 5))
    assert "5 slices" in checks.findings(model("Spine"), few, (0, 100))[0].message


def test_a_series_says_its_body_part_and_a_file_what_lies_beside_it(data, tmp_path):
    source = data / "volumes/spine_mr/t2.nii.gz"
    write_series(tmp_path / "dicom", (read_volume(source).array[:4] + 1).astype("uint16"), BodyPartExamined="KNEE")
    told = read_volume(tmp_path / "dicom").told
    assert (told.modality, told.texts) == ("CT", ("KNEE", "series"))
    copy = tmp_path / "a.b.nii.gz"
    shutil.copy(source, copy)
    assert read_volume(copy).told == Told("", ("a.b",))
    (tmp_path / "a.b.json").write_text(json.dumps({"Modality": "MR", "SeriesDescription": "LWS sag", "EchoTime": 1}))
    assert read_volume(copy).told == Told("MR", ("LWS sag", "a.b"))
    for other in ("[1, 2]", "{", '{"Modality": 3}'):
        (tmp_path / "a.b.json").write_text(other)
        assert read_volume(copy).told == Told("", ("a.b",))


def image_model(name: str) -> ModelMetadata:
    """One of those that the repository offers."""
    (path,) = (resources_folder() / "Releases").glob(f"{name}-*.usema")
    return read_bundle(path).metadata


def words(described: ModelMetadata, *pictures) -> list[str]:
    return [one.message for one in checks.check_case(described, pictures)]


def test_an_image_of_another_modality_or_body_part_brings_a_word(data, tmp_path):
    fetal, lungs = image_model("fetal-head-us"), image_model("lungs-cxr")
    pixels = read_picture(data / "images2d/cxr_lungs/images/CHNCXR_0001_0.png").array[0]
    fields = {"Modality": "DX", "BodyPartExamined": "CHEST"}
    chest = read_picture(save_dicom(tmp_path / "chest.dcm", dicom_image(pixels, **fields)))
    assert words(lungs, chest) == []
    modality, region = words(fetal, chest)
    assert modality == "The image is DX; the model was made for US."
    assert region.startswith("The image is called 'CHEST'; the model is for: one fetal head")
    leg = read_picture(sorted((data / "volumes/sarcoma_ct_dicom/MR_T1/image").iterdir())[9])
    assert words(lungs, leg) == ["The image is MR; the model was made for DX."]


def test_a_slice_that_is_no_picture_yet_keeps_what_is_said_of_it(data):
    volume = read_volume(data / "volumes/sarcoma_ct_dicom/MR_T1/image")
    one = replace(
        volume, array=volume.array[9:10], geometry=replace(volume.geometry, size=(*volume.geometry.size[:2], 1))
    )
    assert words(image_model("lungs-cxr"), one) == ["The image is MR; the model was made for DX."]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("lungs-cxr", {"Modality": "CR", "SeriesDescription": "Thorax p.a."}),
        ("lungs-cxr", {"Modality": "OT"}),  # a picture that was made DICOM
        ("fetal-head-us", {"Modality": "US", "BodyPartExamined": "ABDOMEN"}),  # the mother's
        ("fetal-head-us", {"Modality": "US", "BodyPartExamined": "PELVIS", "StudyDescription": "Obstetric"}),
        ("fetal-head-us", {"Modality": "US", "BodyPartExamined": "FETUS"}),
        ("nuclei-fluo", {"Modality": "SM"}),
    ],
)
def test_an_image_that_fits_brings_none_whatever_its_scanner_calls_it(name, fields, data, tmp_path):
    pixels = read_picture(data / "images2d/cxr_lungs/images/CHNCXR_0001_0.png").array[0]
    assert words(image_model(name), read_picture(save_dicom(tmp_path / "a.dcm", dicom_image(pixels, **fields)))) == []


@pytest.mark.parametrize(
    ("name", "folder"), [("lungs-cxr", "cxr_lungs"), ("fetal-head-us", "hc18"), ("nuclei-fluo", "dsb2018_nuclei")]
)
def test_pictures_like_those_of_the_training_bring_none(name, folder, data):
    described = image_model(name)
    for path in sorted((data / "images2d" / folder / "images").iterdir())[::40]:
        assert words(described, read_picture(path)) == [], path
