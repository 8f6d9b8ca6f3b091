"""Models that MONAI trained, in Auto3DSeg's format, give MONAI's own labels when they are converted and run here."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from usema import converters
from usema.converters import Options, Work
from usema.errors import BundleError, InputError
from usema.inference.predictor import Predictor
from usema.volumes.volume import Geometry, Volume, read_volume, resample_onto

pytest.importorskip("monai")
import auto3dseg_models as published

ANISOTROPIC = {"resolution": [0.976562, 0.976562, 3.26995], "blocks_down": [1, 1, 1, 1]}
BRATS = {
    "network": {"in_channels": 4},
    "outputs": 3,
    "sigmoid": True,
    "orientation_ras": True,
    "normalize_mode": "meanstd",
}
TWO = {"network": {"in_channels": 2}, "extra_modalities": {"adc": "meanstdtanh"}, "normalize_mode": "meanstd"}

# Files, and what the configuration says of them.
CASES = {
    "a CT": (["ct"], {"resample_resolution": [4.5, 4.5, 4.5], "roi_size": [24, 24, 16]}),
    "a CT at twice its spacing, where half of all voxels are ties": (["ct"], {"resample_resolution": [6.0] * 3}),
    "a CT at a finer spacing": (["middle of the ct"], {"resample_resolution": [2.0, 2.0, 3.0]}),
    "an MR turned to RAS": (["mr"], {"normalize_mode": "meanstd", "orientation_ras": True}),
    "an MR as it is stored": (["spine"], {"normalize_mode": "mri", "resample_resolution": [1.4, 0.7, 1.1]}),
    "bounded z-scores": (["mr"], {"normalize_mode": "meanstdtanh", "resample_resolution": [2.4] * 3}),
    "as PET": (["mr"], {"normalize_mode": "pet", "resample_resolution": None}),
    "anisotropic": (
        ["sarcoma"],
        {
            "normalize_mode": "meanstd",
            "network": ANISOTROPIC,
            "resample_resolution": ANISOTROPIC["resolution"],
            "roi_size": [32, 32, 16],
        },
    ),
    "thick slices to thin ones": (
        ["middle of the sarcoma"], {"normalize_mode": "mri", "resample_resolution": [1.0] * 3},
    ),
    "smaller than a tile": (["mr"], {"normalize_mode": "meanstd", "roi_size": [56, 32, 24]}),
    "RAS and a crop, off the middle of an LPS volume": (
        ["corner"], {"normalize_mode": "meanstd", "orientation_ras": True, "resample_resolution": [4.0, 4.0, 3.0]},
    ),
    "without a crop": (["corner"], {"normalize_mode": "meanstd", "crop_foreground": False}),
    "two inputs": (["mr", "dark"], {**TWO, "orientation_ras": True, "resample_resolution": [4.0, 4.0, 3.0]}),
    "four of BraTS": (["mr", "dark", "root", "flat"], {**BRATS, "resample_resolution": [4.0, 4.0, 3.0]}),
    "batch norm, and relu by its name": (["ct"], {"network": {"norm": "batch", "act": "relu"}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(data, tmp_path_factory):
    """Real volumes by name; made from the MR: others of its contrast, and one that lies in a corner of a larger one."""
    volumes, folder, found = data / "volumes", tmp_path_factory.mktemp("volumes"), {}

    def add(name: str, image: sitk.Image) -> None:
        found[name] = folder / f"{name}.nii.gz"
        sitk.WriteImage(image, str(found[name]))

    def like_mr(values: np.ndarray) -> sitk.Image:
        made = sitk.GetImageFromArray(values.astype(np.float32))
        made.SetSpacing(mr.GetSpacing())
        made.SetOrigin(mr.GetOrigin())
        made.SetDirection(mr.GetDirection())
        return made

    # Parts of them, which keep their place in the room.
    add("ct", sitk.ReadImage(str(volumes / "body_ct/example_ct_sm.nii.gz"))[30:84, 25:73, :])
    add("middle of the ct", sitk.ReadImage(str(found["ct"]))[9:45, 7:41, 5:25])
    mr = sitk.ReadImage(str(volumes / "body_ct/example_mr_sm.nii.gz"), sitk.sitkFloat32)[25:77, 20:66, :]
    add("mr", mr)
    add("spine", sitk.ReadImage(str(volumes / "spine_mr/t2.nii.gz"))[10:50, 10:45, 10:42])
    sarcoma = sitk.ReadImage(str(data / "nnUNet_raw/Dataset051_SarcomaMR/imagesTr/STS_024_0000.nii.gz"))
    add("sarcoma", sarcoma[15:63, 20:68, 5:25])
    add("middle of the sarcoma", sarcoma[21:57, 26:62, 9:21])
    array = sitk.GetArrayFromImage(mr)
    add("dark", like_mr(np.where(array > 0, array.max() - array, 0)))
    add("root", like_mr(np.sqrt(np.abs(array))))
    add("flat", like_mr(np.where(array > 0, np.log1p(np.abs(array)), 0)))
    add("corner", like_mr(np.pad(array[:, 10:40, 10:40], [(0, 2), (35, 2), (2, 40)])))
    return found


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """(case) -> its folder, its files, whether it is one of BraTS; trained when it is first asked for."""
    made = {}

    def case(name: str) -> tuple[Path, list[Path], bool]:
        names, changes = CASES[name]
        inputs, brats = [files[one] for one in names], len(names) == 4
        if name not in made:
            settings = published.config(**{**changes, "network": dict(changes.get("network", {}))})
            network = published.train(settings, inputs, brats)
            folder = tmp_path_factory.mktemp("published") / ("brats-gli-v1.0.0" if brats else "mine")
            made[name] = published.save(folder, settings, network)
        return made[name], inputs, brats

    return case


def segmented(bundle, inputs) -> np.ndarray:
    return Predictor(bundle, "cpu").segment([read_volume(file) for file in inputs]).labels


@pytest.mark.parametrize("name", CASES)
def test_the_labels_are_monais(name, trained, tmp_path):
    folder, inputs, brats = trained(name)
    bundle = converters.convert(folder, tmp_path / "model")
    ours, theirs = segmented(bundle, inputs), published.labels_by_monai(folder, inputs, brats)
    assert ours.shape == theirs.shape
    assert len(np.unique(theirs)) == len(bundle.metadata.labels) + 1, "a model that finds nothing proves nothing"
    assert np.bincount(theirs.ravel()).min() > 100
    assert (ours == theirs).mean() > 0.999


def test_what_lies_off_the_middle_is_not_cut_off(trained, tmp_path):
    """The peer looks for the box before it turns the axes, and applies it after."""
    folder, (file,), _ = trained("RAS and a crop, off the middle of an LPS volume")
    volume = read_volume(file)
    case = Predictor(converters.convert(folder, tmp_path / "model"), "cpu")
    labels = case.segment(volume).labels
    body = volume.array > np.quantile(volume.array[volume.array > 0], 0.9)
    assert (labels[body] > 0).mean() > 0.9


def test_a_second_input_on_another_grid_is_put_onto_the_firsts_by_its_place(trained, files, tmp_path):
    folder, inputs, _ = trained("two inputs")
    predictor = Predictor(converters.convert(folder, tmp_path / "model"), "cpu")
    first, second = (read_volume(file) for file in inputs)
    image = second.to_image()[3:, 5:, :]
    moved = Volume(sitk.GetArrayFromImage(image), Geometry.of_image(image))
    expected = resample_onto(moved, first.geometry, float(moved.array.min()))
    labels = predictor.segment([first, moved]).labels
    assert (labels == predictor.segment([first, expected]).labels).all()
    assert (labels == predictor.segment([first, second]).labels).mean() > 0.9


def test_probabilities_agree_with_the_labels(trained, tmp_path):
    folder, inputs, _ = trained("a CT")
    predictor = Predictor(converters.convert(folder, tmp_path / "model"), "cpu")
    found = predictor.segment(read_volume(inputs[0]), probabilities=True, overlap=0.25)
    assert found.probabilities.sum(axis=0) == pytest.approx(1, abs=0.01)
    sure = np.sort(found.probabilities, axis=0)[-2:]
    sure = sure[1] - sure[0] > 0.01
    assert (found.probabilities.argmax(axis=0) == found.labels)[sure].all()


def test_of_whole_heads_two_components_of_each_label_stay(trained, tmp_path):
    folder, inputs, _ = trained("a CT")
    zipped = published.zipped(folder, tmp_path / "whole-head-1mm-v1.0.1.zip", "whole-head/")
    bundle = converters.convert(zipped, tmp_path / "model")
    theirs = published.labels_by_monai(folder, inputs, components=2)
    assert (theirs != published.labels_by_monai(folder, inputs)).any()
    assert (segmented(bundle, inputs) == theirs).mean() > 0.999
    assert bundle.metadata.name == "auto3dseg-whole-head-1mm"
    assert bundle.metadata.licence["open"] == "not stated"


# What the bundle says


def test_names_codes_and_colours_come_from_the_table(trained, tmp_path):
    bundle = converters.convert(trained("a CT")[0], tmp_path / "model")
    liver, *others = bundle.metadata.labels
    assert liver.name == "Liver"
    assert liver.terminology["type"] == {"scheme": "SCT", "value": "10200004", "meaning": "Liver"}
    assert [label.name for label in others] == ["Structure 2", "Structure 3"]
    assert len({tuple(label.color) for label in bundle.metadata.labels}) == 3


@pytest.mark.parametrize("inside", ["", "abdominal-organs-3mm-v2.0.0/", "some/where/deep/"])
def test_a_zip_is_known_by_its_name_whatever_folders_are_in_it(trained, tmp_path, inside):
    zipped = published.zipped(trained("a CT")[0], tmp_path / "abdominal-organs-3mm-v2.0.0 (1).zip", inside)
    said = []
    bundle = converters.convert(zipped, tmp_path / "model", work=Work(said.append))
    assert "makes 3 segments, and Abdominal organs TS2, 3 mm has 23" in " ".join(said)
    metadata = bundle.metadata
    assert (metadata.name, metadata.title) == ("auto3dseg-abdominal-organs-3mm", "Abdominal organs TS2, 3 mm")
    assert metadata.licence["name"] == "CC BY 4.0"
    assert "SlicerMONAIAuto3DSeg" in metadata.citation
    assert metadata.source["url"].endswith("abdominal-organs-3mm-v2.0.0.zip")
    assert metadata.inference["overlap"] == 0.625
    assert str(tmp_path) not in str(metadata.to_dict()), "no path of this computer in a model"


def test_a_model_that_nobody_knows_says_that_its_licence_is_not_stated(trained, tmp_path):
    said = []
    bundle = converters.convert(trained("a CT")[0] / "model.pt", tmp_path / "model", work=Work(said.append))
    assert bundle.metadata.name == "mine"
    assert bundle.metadata.modality == "CT"
    assert bundle.metadata.licence["open"] == "not stated"
    assert bundle.metadata.orientation is None
    assert "left and right may be mistaken" in " ".join(said)


def test_who_knows_how_training_images_lay_may_say_so(trained, tmp_path):
    bundle = converters.convert(
        trained("a CT")[0], tmp_path / "model", options=Options(name="other", orientation="LPS")
    )
    assert (bundle.metadata.name, bundle.metadata.orientation) == ("other", "LPS")


def test_only_the_head_that_inference_uses_is_kept(trained, tmp_path):
    bundle = converters.convert(trained("a CT")[0], tmp_path / "model")
    heads = {name for name in bundle.load_weights() if ".head." in name}
    assert heads == {"up_layers.1.head.weight", "up_layers.1.head.bias"}


def test_of_two_models_one_is_chosen(trained, tmp_path):
    for name in ("first", "second"):
        published.save(tmp_path / "both" / name, published.config(), published.network_of(published.config()))
    assert [model.short for model in converters.look(tmp_path / "both")] == ["first", "second"]
    with pytest.raises(InputError, match="holds 2 models"):
        converters.convert(tmp_path / "both", tmp_path / "model")
    assert converters.convert(tmp_path / "both", tmp_path / "model", ["second"]).metadata.name == "second"


def test_a_tile_that_the_network_cannot_halve_grows(trained, tmp_path):
    settings = published.config(roi_size=[30, 33, 16])
    said = []
    folder = published.save(tmp_path / "odd", settings, published.network_of(settings))
    bundle = converters.convert(folder, tmp_path / "model", work=Work(said.append))
    assert bundle.metadata.preprocessing["roi_size"] == [32, 36, 16]
    assert "[32, 36, 16] is taken" in " ".join(said)


# What cannot be used


class Evil:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def saved(change):
    """A spoiler of what ``torch.save`` was given."""

    def spoil(folder: Path) -> None:
        content = torch.load(folder / "model.pt", weights_only=False)
        change(content)
        torch.save(content, folder / "model.pt")

    return spoil


def configured(**changes):
    return saved(lambda content: content["config"].update(changes))


def network(**changes):
    return saved(lambda content: content["config"]["network"].update(changes))


def half(folder: Path) -> None:
    whole = (folder / "model.pt").read_bytes()
    (folder / "model.pt").write_bytes(whole[: len(whole) // 2])


HEAD = "up_layers.1.head.weight"
SPOILT = {
    "half a checkpoint": (half, "is truncated"),
    "a web page": (lambda folder: (folder / "model.pt").write_text("<!DOCTYPE html>"), "no checkpoint of PyTorch's"),
    "nothing": (lambda folder: (folder / "model.pt").write_bytes(b""), "no checkpoint of PyTorch's"),
    "code": (saved(lambda content: content.update(epoch=Evil(Path("ran")))), "names (posix|nt).system"),
    "another network": (network(_target_="monai.networks.nets.SwinUNETR"), "is a 'monai.networks.nets.SwinUNETR'"),
    "code as network": (network(_target_="$__import__('os').system('touch ran')"), "its network is a .\\$__import"),
    "code before the name": (network(_target_="$print(7).SegResNetDS"), "is a .\\$print"),
    "no name of a network": (network(_target_=7), "is a 7"),
    "a number by code": (network(init_filters="$2 + 2"), "init_filters '\\$2 \\+ 2'"),
    "preprocessing of its own": (network(preprocess="$lambda x: x"), "preprocess"),
    "transforms of its own": (configured(custom_data_transforms=[{"key": "x"}]), "custom_data_transforms"),
    "an unknown setting": (network(dropout=0.5), "'dropout'"),
    "another norm": (network(norm="layer"), "norm 'layer'"),
    "a norm without scale": (network(norm=["instance", {"affine": False}]), "norm"),
    "another activation": (network(act="gelu"), "act 'gelu'"),
    "another upsampling": (network(upsample_mode="nontrainable"), "upsample_mode 'nontrainable'"),
    "two dimensions": (network(spatial_dims=2), "spatial_dims 2"),
    "one level": (network(blocks_down=[1]), "2 to 8 levels"),
    "absurdly many filters": (network(init_filters=10**9), "1000000000"),
    "no config": (saved(lambda content: content.pop("config")), "it has no config"),
    "no weights": (saved(lambda content: content.pop("state_dict")), "it has no state_dict"),
    "a config of text": (saved(lambda content: content.update(config="$x")), "no table of settings"),
    "no network": (saved(lambda content: content["config"].pop("network")), "has no 'network'"),
    "no tile": (saved(lambda content: content["config"].pop("roi_size")), "has no 'roi_size'"),
    "a tile of text": (configured(roi_size="$@roi"), "roi_size '\\$@roi'"),
    "a tile of two": (configured(roi_size=[32, 32]), "roi_size \\[32, 32\\]"),
    "a tile beyond memory": (configured(roi_size=[4096, 4096, 4096]), "fit into memory"),
    "an unknown normalisation": (configured(normalize_mode="histogram"), "histogram"),
    "bounds the wrong way round": (configured(intensity_bounds=[250, -250]), "two growing numbers"),
    "a spacing of zero": (configured(resample_resolution=[1, 0, 1]), "numbers above zero"),
    "a spacing by code": (configured(resample_resolution=["$1", 1, 1]), "resample_resolution"),
    "inputs that are not told": (configured(extra_modalities={"t2": "mri"}), "takes 1 inputs, .* normalises 2"),
    "weights of another config": (network(init_filters=8), "does not fit its own config"),
    "a tensor that is missing": (saved(lambda content: content["state_dict"].pop(HEAD)), f"it has no {HEAD}"),
    "a tensor too many": (
        saved(lambda content: content["state_dict"].update(more=torch.ones(1))), "its more belongs to no layer",
    ),
    "weights that are none": (saved(lambda content: content.update(state_dict=[1])), "no table of tensors"),
    "numbers that are none": (saved(lambda content: content["state_dict"][HEAD].fill_(float("nan"))), "not finite"),
    "no labels": (lambda folder: (folder / "labels.csv").unlink(), "has no labels.csv beside it"),
    "labels too few": (lambda folder: published.write_labels(folder, ["liver"]), "names 1 labels, 1; .* has 3"),
    "labels too many": (lambda folder: published.write_labels(folder, list("abcd")), "names 4 labels"),
    "a web page of labels": (lambda folder: (folder / "labels.csv").write_text("<html>"), "no column LabelValue"),
    "labels that are no text": (lambda folder: (folder / "labels.csv").write_bytes(b"\xff"), "no table of labels"),
    "a label twice": (
        lambda folder: (folder / "labels.csv").write_text("LabelValue,Name\n1,a\n1,b\n2,c\n"), "line 3: the label 1",
    ),
    "a label without a number": (
        lambda folder: (folder / "labels.csv").write_text("LabelValue,Name\none,a\n"), "line 2.*'one'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_what_cannot_be_used_is_refused_in_a_sentence(what, tmp_path, monkeypatch):
    spoil, words = SPOILT[what]
    settings = published.config()
    monkeypatch.chdir(tmp_path)
    folder = published.save(tmp_path / "published", settings, published.network_of(settings))
    spoil(folder)
    zipped = published.zipped(folder, tmp_path / "published.zip")
    (tmp_path / "out").mkdir()
    for source in (folder, zipped):
        with pytest.raises(BundleError, match=words) as caught:
            converters.convert(source, tmp_path / "out" / "model")
        assert caught.value.hint or "not finite" in words
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "it is a web page"),
        (b"", "it is an empty file"),
        (None, "without its end"),
    ],
)
def test_a_zip_that_is_none_is_refused(content, words, tmp_path):
    settings = published.config()
    folder = published.save(tmp_path / "published", settings, published.network_of(settings))
    zipped = published.zipped(folder, tmp_path / "body-v2.0.0.zip")
    whole = zipped.read_bytes()
    zipped.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(BundleError, match=f"a zip that cannot be read: .*{words}"):
        converters.convert(zipped, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_file_that_is_another_model_than_its_name_says_is_refused(tmp_path):
    settings = published.config()
    folder = published.save(tmp_path / "prostate-v1.0.1", settings, published.network_of(settings))
    with pytest.raises(BundleError, match="takes 1 volumes, and Prostate - Multisequence 2"):
        converters.convert(folder, tmp_path / "model")
