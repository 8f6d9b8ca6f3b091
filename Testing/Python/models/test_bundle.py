"""A model on disk: what is written is read back, and what is broken is refused with the reason."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from bundles import METADATA, weights
from usema.errors import BundleError, OutputError
from usema.models.bundle import METADATA_FILE, WEIGHTS_FILE, Bundle, read_bundle
from usema.models.bundle_writing import change_metadata, write_bundle
from usema.models.metadata import ModelMetadata


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_bundle(tmp_path / "hippocampus-mr", METADATA, weights()).path


@pytest.fixture
def document(bundle) -> dict:
    return json.loads((bundle / METADATA_FILE).read_text(encoding="utf-8"))


def zipped(bundle: Path, target: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(bundle.iterdir()):
            archive.write(file, inside + file.name)
    return target


# What is written is read back


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("form", ["a folder", "a zip", "a zip of the folder"])
def test_weights_come_back_in_float32_from_every_form(form, half, tmp_path):
    path = write_bundle(tmp_path / "model", METADATA, weights(), half=half).path
    if form != "a folder":
        path = zipped(path, tmp_path / "model.usema", "model/" if form == "a zip of the folder" else "")
    bundle = read_bundle(path)
    loaded, expected = bundle.load_weights(), weights()
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert loaded[name].dtype == (torch.float32 if tensor.is_floating_point() else torch.int64)
        stored = tensor.half().float() if half and tensor.is_floating_point() else tensor
        assert torch.equal(loaded[name], stored), name
    assert bundle.metadata.weights["dtype"] == ("float16" if half else "float32")
    assert [(each.value, each.name, each.color) for each in bundle.metadata.labels] == [
        (1, "Anterior hippocampus", (216, 101, 79)),
        (2, "Posterior hippocampus", (128, 174, 128)),
    ]


def test_metadata_come_back_as_they_were(bundle, document):
    metadata = read_bundle(bundle).metadata
    assert metadata.to_dict() == document
    assert ModelMetadata.from_dict(metadata.to_dict()) == metadata
    assert {key: document[key] for key in METADATA} == METADATA


def test_the_same_weights_have_the_same_hash(bundle, tmp_path):
    again = write_bundle(tmp_path / "again", METADATA, weights())
    assert (again.path / METADATA_FILE).read_bytes() == (bundle / METADATA_FILE).read_bytes()


def test_metadata_are_read_with_the_standard_library_alone(bundle, root, tmp_path):
    archive = zipped(bundle, tmp_path / "model.zip")
    program = (
        "import importlib.util, sys; sys.path.insert(0, sys.argv[1])\n"
        "assert not any(importlib.util.find_spec(name) for name in ('torch', 'numpy', 'safetensors', 'jsonschema'))\n"
        "from usema.models.bundle import read_bundle\n"
        "for path in sys.argv[2:]:\n"
        "    bundle = read_bundle(path); bundle.verify(); print(bundle.metadata.title)\n"
    )
    # -S: without site-packages; -E: without PYTHONPATH
    run = subprocess.run(
        [sys.executable, "-S", "-E", "-c", program, root / "USEMASegmentation", bundle, archive],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert (run.stdout, run.returncode) == ("Hippocampus (MR)\n" * 2, 0), run.stderr


def test_layers_that_share_their_weights_are_stored_like_any_other(tmp_path):
    shared = torch.arange(6.0)
    loaded = write_bundle(tmp_path / "m", METADATA, {"a": shared, "b": shared[2:]}, half=False).load_weights()
    assert loaded["a"].tolist() == [0, 1, 2, 3, 4, 5]
    assert loaded["b"].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("zip_it", [False, True], ids=["folder", "zip"])
def test_verifying_takes_no_memory_however_large_the_weights_are(zip_it, tmp_path):
    large = write_bundle(tmp_path / "large", METADATA, {"w": torch.zeros(16 * 2**20)}).path  # 32 MiB
    bundle = read_bundle(zipped(large, tmp_path / "large.zip") if zip_it else large)
    tracemalloc.start()
    try:
        bundle.verify()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_the_address_that_published_scripts_use_is_the_same_thing(tmp_path):
    from usema import bundle as door

    made = door.write_bundle(tmp_path / "model", METADATA, weights())
    assert isinstance(made, Bundle)
    assert door.change_metadata(made, version="2.0.0") == read_bundle(made.path) == door.read_bundle(made.path)
    assert (made.path / door.METADATA_FILE).is_file()
    assert (made.path / door.WEIGHTS_FILE).is_file()


# Broken bundles


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def replace_weights(bundle: Path, data: bytes) -> None:
    """A forger's work: other weights, with size and hash to match."""
    document = json.loads((bundle / METADATA_FILE).read_text())
    document["weights"].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (bundle / METADATA_FILE).write_text(json.dumps(document))
    (bundle / WEIGHTS_FILE).write_bytes(data)


def put(bundle, name, data):
    (bundle / name).write_bytes(data)


def saved_by_torch(bundle):
    torch.save({"a": Marker(bundle / "was-unpickled")}, bundle / "x")
    replace_weights(bundle, (bundle / "x").read_bytes())


BROKEN = {
    "no model.json": (lambda b: (b / METADATA_FILE).unlink(), "has no model.json"),
    "no weights": (lambda b: (b / WEIGHTS_FILE).unlink(), "has no weights.safetensors"),
    "not JSON": (lambda b: put(b, METADATA_FILE, b'{"name": '), "not valid JSON"),
    "not UTF-8": (lambda b: put(b, METADATA_FILE, b"\xff\xfe{}"), "not valid JSON"),
    "not a number": (lambda b: put(b, METADATA_FILE, b'{"metrics": {"dice": NaN}}'), "NaN is not JSON"),
    "a list": (lambda b: put(b, METADATA_FILE, b"[]"), "the document is \\[\\], which is no object"),
    "too deep": (lambda b: put(b, METADATA_FILE, b"[" * 10**6), "not valid JSON"),
    "metrics a thousand deep": (
        lambda b: put(
            b, METADATA_FILE, json.dumps({**METADATA, "metrics": json.loads("[" * 900 + "]" * 900)}).encode()
        ),
        "nested deeper than 64",
    ),
    "a text that moves a cursor": (
        lambda b: put(b, METADATA_FILE, json.dumps({**METADATA, "title": "\x1b[2J"}).encode()),
        "holds the character",
    ),
    "too large": (lambda b: put(b, METADATA_FILE, b" " * 5 * 2**20), "has 5242880 bytes"),
    "truncated": (
        lambda b: put(b, WEIGHTS_FILE, (b / WEIGHTS_FILE).read_bytes()[:-7]),
        r"truncated: \d+ bytes of \d+",
    ),
    "longer": (lambda b: put(b, WEIGHTS_FILE, (b / WEIGHTS_FILE).read_bytes() + b"x"), "altered"),
    "pickle": (lambda b: replace_weights(b, pickle.dumps(Marker(b / "was-unpickled"))), "not a safetensors file"),
    "torch.save": (saved_by_torch, "not a safetensors file; it begins with b'PK"),
    "no header": (lambda b: replace_weights(b, bytes([8, *bytes(7)]) + b"12345678"), "not a safetensors file"),
    "endless header": (lambda b: replace_weights(b, b"\xff" * 8 + b"{}"), "not a safetensors file"),
}


@pytest.mark.parametrize("zip_it", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_bundle_is_refused_with_the_reason(what, zip_it, bundle, tmp_path):
    spoil, message = BROKEN[what]
    spoil(bundle)
    path = zipped(bundle, tmp_path / "model.zip") if zip_it else bundle
    with pytest.raises(BundleError, match=message.replace("has no", "(has no|holds 0 files)")):
        read_bundle(path)
    assert not (bundle / "was-unpickled").exists()


@pytest.mark.parametrize("zip_it", [False, True], ids=["folder", "zip"])
def test_altered_weights_of_the_right_size_are_refused_before_they_are_used(zip_it, bundle, tmp_path):
    data = bytearray((bundle / WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    (bundle / WEIGHTS_FILE).write_bytes(data)
    altered = read_bundle(zipped(bundle, tmp_path / "model.zip") if zip_it else bundle)
    for use in (altered.verify, altered.load_weights):
        with pytest.raises(BundleError, match=r"altered: its SHA-256 is [0-9a-f]{64}, model.json says"):
            use()


def test_a_file_that_only_begins_as_safetensors_is_refused(bundle):
    data = (bundle / WEIGHTS_FILE).read_bytes()
    replace_weights(bundle, data[:9] + b"}" * (len(data) - 9))
    with pytest.raises(BundleError, match="cannot be read"):
        read_bundle(bundle).load_weights()


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:/evil", "..\\evil"])
def test_a_zip_that_leads_out_of_its_folder_is_refused(name, bundle, tmp_path):
    archive = zipped(bundle, tmp_path / "model.zip")
    with zipfile.ZipFile(archive, "a") as stream:
        stream.writestr(name, b"")
    with pytest.raises(BundleError, match="leads out of its folder"):
        read_bundle(archive)


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_a_compression_that_unpacks_without_a_limit_is_refused_before_it_does(how, bundle, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", how) as archive:
        archive.write(bundle / WEIGHTS_FILE, WEIGHTS_FILE, zipfile.ZIP_STORED)
        archive.writestr(METADATA_FILE, b" " * (64 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match=r"'model\.json' in a compression that is not used"):
            read_bundle(tmp_path / "bomb.zip")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_zip_that_is_not_one_model_is_refused(bundle, tmp_path):
    archive = zipped(bundle, tmp_path / "model.zip")
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"cut\.zip cannot be read"):
        read_bundle(tmp_path / "cut.zip")
    with zipfile.ZipFile(archive, "a") as stream:
        stream.writestr("second/model.json", b"{}")
    with pytest.raises(BundleError, match=r"holds 2 files model\.json"):
        read_bundle(archive)
    with pytest.raises(BundleError, match="There is no model at"):
        read_bundle(tmp_path / "nowhere")


# Writing


def test_what_is_written_asks_for_no_newer_engine_than_its_keys_do(bundle, tmp_path):
    assert read_bundle(bundle).metadata.schema_version == 1
    assert change_metadata(read_bundle(bundle), version="1.3.0").metadata.schema_version == 1
    soft = {**METADATA, "inference": {"mirror_axes": [], "temperature": 1.5}}
    newer = write_bundle(tmp_path / "soft", soft, weights())
    assert newer.metadata.schema_version == 2
    assert change_metadata(newer, version="1.3.0").metadata.schema_version == 2
    assert change_metadata(newer, inference=METADATA["inference"]).metadata.schema_version == 1
    with pytest.raises(BundleError, match=r"inference is 1\.5"):
        change_metadata(newer, inference=1.5)


@pytest.mark.parametrize(
    ("metadata", "state", "message"),
    [
        ({**METADATA, "version": "one"}, weights(), "version"),
        ({**METADATA, "metrics": {"dice": float("nan")}}, weights(), "do not fit into JSON"),
        ({**METADATA, "metrics": {"dice": Path()}}, weights(), "do not fit into JSON"),
        (METADATA, {"a": torch.tensor([1e5])}, "'a' has values that are not finite in float16.*half=False"),
        (METADATA, {"a": torch.tensor([float("nan")])}, "'a' has values.*training went wrong"),
    ],
)
def test_what_no_reader_would_accept_is_not_written(metadata, state, message, tmp_path):
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "model", metadata, state)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_only_when_asked_and_nothing_else_ever(bundle, tmp_path):
    before = (bundle / METADATA_FILE).read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_bundle(bundle, METADATA, weights())
    with pytest.raises(BundleError):
        write_bundle(bundle, {**METADATA, "version": "one"}, weights(), overwrite=True)
    assert (bundle / METADATA_FILE).read_bytes() == before
    write_bundle(bundle, {**METADATA, "version": "2.0.0"}, weights(), overwrite=True)
    assert read_bundle(bundle).metadata.version == "2.0.0"

    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError):
        write_bundle(precious, METADATA, weights(), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hippocampus-mr", "precious"]


def test_a_bundle_stays_as_it_was_when_the_disk_fails(bundle, tmp_path, monkeypatch):
    before = (bundle / METADATA_FILE).read_bytes()
    rename = Path.rename

    def fails_for_the_new_one(path, target):
        if target == bundle and not path.name.endswith("-old"):
            raise OSError("disk failure")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(OutputError, match="disk failure"):
        write_bundle(bundle, {**METADATA, "version": "2.0.0"}, weights(), overwrite=True)
    assert (bundle / METADATA_FILE).read_bytes() == before
    assert list(tmp_path.iterdir()) == [bundle]


def test_a_folder_that_cannot_be_written_is_said_and_one_that_is_missing_is_made(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "model", METADATA, weights())
    assert write_bundle(tmp_path / "missing" / "model", METADATA, weights()).path == tmp_path / "missing" / "model"
