"""The shelf: what it offers and how it is searched; a publisher's files come down, are verified, and become a model."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace

import pytest
from small_disk import mounted
from usema.converters import public
from usema.converters.public import PublicFile, PublicModel, public_models
from usema.errors import BundleError, StoreError, UsemaError
from usema.store import cache, shelf, shelf_install
from usema.store.consent import ConsentNeeded
from usema.store.importing import import_model
from usema.store.install import install, question_of_entry
from usema.store.library import find_entry, find_model, library

LIGHT = "brain-tissue-light"


@pytest.fixture
def publisher(data, tmp_path):
    """The publisher's files as they lie on a disk: (name of the file) -> path."""
    folder = tmp_path / "publisher"
    shutil.copytree(data / "public_models" / "brainchop" / "weights", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture
def offered(monkeypatch):
    """Puts models on the shelf instead of the real ones, with other addresses."""

    def offer(*models: PublicModel):
        for module in (public, shelf, shelf_install):
            monkeypatch.setattr(module, "public_models", lambda: models)
        shelf.entries.cache_clear()
        return [shelf.find(model.name) for model in models]

    yield offer
    monkeypatch.undo()
    shelf.entries.cache_clear()


def known(name: str) -> PublicModel:
    return next(model for model in public_models() if model.name == name)


def at(model: PublicModel, *paths, sha256: str | None = "") -> PublicModel:
    """The model with its files at these places; ``sha256`` None: nobody states one."""
    files = [
        PublicFile(path.as_uri(), path.stat().st_size if sha256 == "" else None, file.sha256 if sha256 == "" else None)
        for path, file in zip(paths, model.files, strict=True)
    ]
    return replace(model, files=tuple(files))


# What is offered


def test_the_shelf_holds_the_three_families():
    by_format = [model.recipe["format"] for model in public_models()]
    tasks = {
        re.sub(r"-(1-5mm|3mm|6mm)$", "", m.name) for m in public_models() if m.recipe["format"] == "totalsegmentator"
    }
    assert len(tasks) >= 31
    assert by_format.count("auto3dseg") == 33
    assert by_format.count("brainchop") == 7
    assert len({model.name for model in public_models()}) == len(public_models())


@pytest.mark.parametrize("model", public_models(), ids=lambda model: model.name)
def test_every_entry_says_what_a_user_has_to_know(model):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", model.name)
    assert model.publisher
    assert model.citation
    assert model.licence["open"] in ("yes", "not stated")
    assert model.licence["stated_at"]
    assert model.modality in ("CT", "MR")
    assert model.labels
    assert len(set(model.labels)) == len(model.labels)
    assert all(other in {one.name for one in public_models()} for other in model.needs)
    for file in model.files:
        assert re.match(
            r"https://(github\.com/.+/releases/download/|raw\.githubusercontent\.com/.+/[0-9a-f]{40}/)", file.url
        )
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)


def test_models_whose_licence_is_not_open_are_not_offered(data):
    closed = (
        "coronary",
        "heartchambers",
        "appendicular",
        "tissue-types",
        "brain-structures",
        "aneurysm",
        "robust-tissue",
    )
    assert [model.name for model in public_models() if any(word in model.name for word in closed)] == []


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("left adrenal", "totalsegmentator-total-3mm"),
        ("hippocampus", "brain-subcortical"),
        ("Leber", "totalsegmentator-total-3mm"),
        ("linke Nebenniere", "totalsegmentator-total-3mm"),
        ("wirbel", "totalsegmentator-total-3mm"),
        ("prostate", "totalsegmentator-total-3mm"),
        ("lung nodules", "totalsegmentator-lung-nodules"),
        ("brain mask", "brain-mask"),
        ("Niere links", "totalsegmentator-total-3mm"),
        ("kidneys", "totalsegmentator-total-3mm"),
        ("Lebersegmente", "totalsegmentator-liver-segments"),
        ("Pleuraerguss", "totalsegmentator-pleural-pericard-effusion"),
        ("Wirbelkörper", "totalsegmentator-vertebrae-body"),
        ("weisse Substanz", "brain-subcortical"),
    ],
)
def test_a_structure_finds_the_models_that_segment_it(words, first):
    assert shelf.search(words)[0].name == first


def test_modality_and_region_narrow_the_search():
    assert {entry.model.modality for entry in shelf.search("liver", modality="mr")} == {"MR"}
    assert {entry.model.region for entry in shelf.search(region="head")} == {"head"}
    assert shelf.search("liver", region="head") == []


def test_labels_have_their_colours_before_the_file_is_here():
    def colours(name: str) -> dict[str, tuple[int, ...]]:
        return {label.name: tuple(label.color) for label in shelf.find(name).labels}

    assert (
        colours("totalsegmentator-total-3mm")["Liver"]
        == colours("auto3dseg-abdominal-organs")["Liver"]
        == (221, 130, 101)
    )
    assert colours("auto3dseg-muscles")["Left deep muscle of back"] == (192, 104, 88)
    assert colours(LIGHT) == {"White matter": (255, 255, 255), "Grey matter": (205, 62, 78)}


def test_the_library_knows_the_shelf_by_name_but_does_not_list_it():
    assert LIGHT not in [model.name for model in library().models]
    assert library().get(LIGHT).entry is shelf.find(LIGHT)
    assert find_entry(LIGHT).model.licence["name"] == "MIT"
    with pytest.raises(BundleError, match="usema models download"):
        find_model(LIGHT)


# From the publisher's file to a model


def test_a_publishers_file_becomes_a_model_that_says_where_it_comes_from(offered, publisher):
    (entry,) = offered(at(known(LIGHT), publisher / "model5_gw_ae" / "model.pth"))
    assert question_of_entry(entry) is None  # MIT
    steps = []
    bundle = install(entry, progress=steps.append)
    bundle.verify()
    card = (bundle.path / "card.md").read_text("utf-8")
    for words in ("brainchop", "MIT", "**Stated in:**", "**Please cite:** Masoud"):
        assert words in card
    assert (bundle.metadata.name, bundle.metadata.title) == (LIGHT, entry.title)
    assert [label.name for label in bundle.metadata.labels] == ["White matter", "Grey matter"]
    assert bundle.metadata.source["publisher"] == "neuroneural/brainchop-models"
    assert bundle.metadata.source["sha256"] == entry.model.files[0].sha256
    assert bundle.metadata.licence["open"] == "yes"
    assert library().get(LIGHT).state == "installed"
    assert not list(cache.sources().rglob("model.pth")), "no other model needs the file"
    assert steps[-1].message == "" or "Reading" in steps[-1].message
    assert install(entry).path == bundle.path


def test_a_file_that_several_models_need_comes_down_once(offered, publisher):
    mask = at(known("brain-mask"), publisher / "mindgrab" / "model.pth")
    regions = at(
        known("brain-aparc"), publisher / "model21_104class" / "model.pth", publisher / "mindgrab" / "model.pth"
    )
    first, second = offered(mask, regions)
    install(first)
    (publisher / "mindgrab" / "model.pth").write_bytes(b"gone")
    bundle = install(second)
    assert [part["name"] for part in bundle.metadata.parts] == ["mask", "regions"]
    assert len(bundle.metadata.labels) == 103


def test_progress_is_that_of_all_files_and_of_the_models_that_are_needed(offered, publisher):
    mask = at(known("brain-mask"), publisher / "mindgrab" / "model.pth")
    light = at(known(LIGHT), publisher / "model5_gw_ae" / "model.pth")
    _, entry = offered(mask, replace(light, needs=("brain-mask",)))
    steps = []
    install(entry, progress=steps.append)
    assert {step.total for step in steps} == {mask.size + light.size}
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == mask.size + light.size
    assert {model.name for model in cache.installed()} == {"brain-mask", LIGHT}
    assert shelf.needed(entry, {"brain-mask"}) == [entry]


def test_the_first_copy_of_a_file_without_a_checksum_counts(offered, publisher):
    path = publisher / "model5_gw_ae" / "model.pth"
    (entry,) = offered(at(known(LIGHT), path, sha256=None))
    said = []
    install(entry, report=said.append)
    assert "states no checksum of model.pth" in said[0]
    cache.remove(*cache.installed())
    other = publisher / "subcortical" / "model.pth"
    path.write_bytes(other.read_bytes())
    with pytest.raises(StoreError, match="another file than the first time"):
        install(entry)
    assert cache.installed() == []


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>sign in</html>", b"PK\x03\x04 half a zip", b""])
def test_what_is_no_model_is_refused_and_leaves_nothing(offered, publisher, content):
    path = publisher / "model5_gw_ae" / "model.pth"
    path.write_bytes(content)
    (entry,) = offered(at(known(LIGHT), path, sha256=None))
    with pytest.raises(BundleError, match="could not be made"):
        install(entry)
    assert cache.installed() == []
    assert [one for one in cache.sources().rglob("*") if one.is_file()] == []
    assert not list(cache.parts().glob("*.converted"))


def test_a_file_that_cannot_be_had_leaves_nothing(offered, publisher):
    model = at(known(LIGHT), publisher / "model5_gw_ae" / "model.pth")
    (publisher / "model5_gw_ae" / "model.pth").unlink()
    (entry,) = offered(model)
    with pytest.raises(StoreError, match="cannot be read"):
        install(entry)
    assert list(cache.sources().iterdir()) == []


def test_a_wrong_file_that_was_carried_here_is_named_where_no_other_can_be_had(offered, publisher):
    path = publisher / "model5_gw_ae" / "model.pth"
    model = at(known(LIGHT), path)
    (entry,) = offered(model)
    ((_, place),) = shelf_install.addresses(model)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half of it")
    hidden = path.rename(path.with_name("hidden"))
    with pytest.raises(StoreError, match=r"model\.pth lies here, but is another file") as refused:
        install(entry)
    assert str(model.files[0].sha256) in refused.value.message
    assert place.read_bytes() == b"half of it"  # the user's own file
    hidden.rename(path)
    assert install(entry).metadata.name == LIGHT


class Evil:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_with_code_is_refused_and_never_run(offered, publisher, tmp_path):
    torch = pytest.importorskip("torch")
    path = publisher / "model5_gw_ae" / "model.pth"
    torch.save({"model.0.weight": Evil(tmp_path / "ran")}, path)
    (entry,) = offered(at(known(LIGHT), path, sha256=None))
    with pytest.raises(BundleError, match="could not be made"):
        install(entry)
    assert not (tmp_path / "ran").exists()
    assert nothing_is_here()


@pytest.mark.parametrize("pages", [3, 7, 9, 11])
def test_a_full_disk_is_told_and_nothing_half_stays(offered, publisher, tmp_path, monkeypatch, pages):
    (entry,) = offered(at(known(LIGHT), publisher / "model5_gw_ae" / "model.pth", sha256=None))
    with mounted(tmp_path / "disk", f"size={4 * pages}k") as place:
        monkeypatch.setenv("USEMA_MODELS", str(place))
        with pytest.raises(UsemaError, match="The disk is full") as refused:
            install(entry)
        assert refused.value.hint
        assert "Errno" not in str(refused.value)
        assert cache.installed() == []
        assert not list(cache.parts().glob("*.converted"))


def test_an_import_onto_a_full_disk_is_told_in_the_same_words(publisher, tmp_path, monkeypatch):
    with mounted(tmp_path / "disk", "size=20k") as place:
        monkeypatch.setenv("USEMA_MODELS", str(place))
        with pytest.raises(StoreError, match="The disk is full"):
            import_model(publisher / "model5_gw_ae" / "model.pth")
        assert cache.installed() == []
        assert list(cache.parts().iterdir()) == []


@pytest.mark.parametrize("place", ["mindgrab", "model5_gw_ae/model.json", "model20chan3cls", "model5_gw_ae.zip"])
def test_a_publishers_own_model_json_is_not_taken_for_a_bundles(publisher, place):
    if place.endswith(".zip"):
        shutil.make_archive(str(publisher / "model5_gw_ae"), "zip", publisher / "model5_gw_ae")
    assert import_model(publisher / place).metadata.source["format"] == "brainchop"


def test_a_licence_that_is_refused_leaves_nothing(offered, publisher):
    model = at(known(LIGHT), publisher / "model5_gw_ae" / "model.pth")
    (entry,) = offered(replace(model, licence={**model.licence, "open": "not stated", "commercial_use": False}))
    with pytest.raises(ConsentNeeded):
        install(entry, consent=None)
    assert nothing_is_here()


def nothing_is_here() -> bool:
    files = [one for one in cache.sources().rglob("*") if one.is_file()]
    return cache.installed() == [] and files == [] and not list(cache.parts().glob("*.converted"))


def test_a_licence_that_is_not_stated_is_asked_about_once(offered, publisher):
    model = at(known(LIGHT), publisher / "model5_gw_ae" / "model.pth")
    unclear = {**model.licence, "name": "none stated", "open": "not stated", "commercial_use": False}
    (entry,) = offered(replace(model, licence=unclear))
    with pytest.raises(ConsentNeeded, match="not stated clearly"):
        install(entry)
    question = question_of_entry(entry)
    install(entry, consent=question)
    cache.remove(*cache.installed())
    install(entry)


def test_addresses_and_places_are_told_to_whoever_carries_files(offered, publisher):
    path = publisher / "model5_gw_ae" / "model.pth"
    model = at(known(LIGHT), path)
    (entry,) = offered(model)
    ((address, place),) = shelf_install.addresses(model)
    assert address == path.as_uri()
    size = path.stat().st_size
    assert shelf_install.to_download([entry]) == (size, True)
    place.parent.mkdir(parents=True)
    shutil.move(path, place)  # as if it had come on a stick
    assert shelf_install.to_download([entry]) == (0, True)
    assert install(entry).metadata.name == LIGHT


def test_the_data_of_the_shelf_are_plain(root):
    document = json.loads((root / "USEMASegmentation/usema/converters/public_models.json").read_text("utf-8"))
    assert document["schema_version"] == 1
    assert "$" not in json.dumps(document)


# A zip of Auto3DSeg's, by the command line


def test_an_auto3dseg_zip_is_installed_and_segments_on_the_command_line(offered, data, tmp_path):
    pytest.importorskip("monai")
    import auto3dseg_models as published
    import numpy as np
    import SimpleITK as sitk
    from click.testing import CliRunner
    from usema.cli import main

    image = sitk.ReadImage(str(data / "volumes/body_ct/example_ct_sm.nii.gz"))[30:84, 25:73, :]
    volume = tmp_path / "ct.nii.gz"
    sitk.WriteImage(image, str(volume))
    settings = published.config(resample_resolution=[4.5, 4.5, 4.5], orientation_ras=True)
    folder = published.save(tmp_path / "published", settings, published.train(settings, [volume]))
    zipped = published.zipped(folder, tmp_path / "abdominal-organs-3mm-v2.0.0.zip", "model/")
    (entry,) = offered(at(known("auto3dseg-abdominal-organs-3mm"), zipped, sha256=None))
    bundle = install(entry)
    assert (bundle.metadata.name, bundle.metadata.licence["name"]) == (entry.name, "CC BY 4.0")
    assert not list(cache.sources().rglob("*.zip"))

    words = ["segment", str(volume), "--model", entry.name, "-o", str(tmp_path / "out.nii.gz")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.nii.gz")))
    assert (labels == published.labels_by_monai(folder, [volume])).mean() > 0.999
    assert len(np.unique(labels)) == 4
