"""The .usema file: a bundle goes in and comes out, and nothing else does."""

from __future__ import annotations

import os
import shutil
import stat
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
from bundles import METADATA, weights
from usema.errors import BundleError, Cancelled, OutputError
from usema.models.bundle import METADATA_FILE, WEIGHTS_FILE, read_bundle
from usema.models.bundle_writing import write_bundle
from usema.store import archive

MIB = 2**20


@pytest.fixture
def bundle(tmp_path) -> Path:
    folder = write_bundle(tmp_path / "hippocampus-mr", METADATA, weights()).path
    (folder / "README.md").write_text("For teaching.")
    (folder / "notes.txt").write_text("Not for others.")
    return folder


def zipped(bundle: Path, file: Path, top: str = "", how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", how) as made:
        for path in sorted(bundle.iterdir()):
            made.write(path, top + path.name)
    return file


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What goes in comes out


def test_a_bundle_comes_back_as_it_was_with_what_describes_it_and_nothing_else(bundle, tmp_path):
    file = archive.pack(bundle, tmp_path / "model.usema")
    unpacked = archive.unpack(file, tmp_path / "out")
    assert unpacked.metadata == read_bundle(bundle).metadata
    expected = files(bundle)
    del expected["notes.txt"]
    assert files(tmp_path / "out") == expected
    assert archive.size_of(file) == sum(map(len, expected.values()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hippocampus-mr", "model.usema", "out"]


def test_the_same_bundle_gives_the_same_bytes(bundle, tmp_path):
    first = archive.pack(bundle, tmp_path / "a.usema").read_bytes()
    os.utime(bundle / WEIGHTS_FILE, (0, 0))
    assert archive.pack(bundle, tmp_path / "b.usema").read_bytes() == first


def test_a_packed_model_is_used_where_it_lies(bundle, tmp_path):
    file = archive.pack(bundle, tmp_path / "model.usema")
    assert read_bundle(file).load_weights().keys() == weights().keys()


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "hippocampus-mr/"])
def test_a_zip_that_somebody_made_by_hand_does_as_well(top, how, bundle, tmp_path):
    file = zipped(bundle, tmp_path / "model.zip", top, how)
    archive.unpack(file, tmp_path / "out").verify()
    assert sorted(files(tmp_path / "out")) == ["README.md", METADATA_FILE, WEIGHTS_FILE]


def test_unpacking_tells_how_far_it_is_and_can_be_stopped(bundle, tmp_path):
    file, seen = archive.pack(bundle, tmp_path / "model.usema"), []
    archive.unpack(file, tmp_path / "out", seen.append)
    assert seen[-1] == archive.size_of(file)
    assert seen == sorted(seen)

    def stop(done: int) -> None:
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        archive.unpack(file, tmp_path / "stopped", stop)


@pytest.mark.fault
def test_what_is_no_whole_bundle_is_not_packed(bundle, tmp_path):
    with pytest.raises(BundleError, match="is no bundle's folder"):
        archive.pack(tmp_path / "nowhere", tmp_path / "m.usema")
    data = (bundle / WEIGHTS_FILE).read_bytes()
    (bundle / WEIGHTS_FILE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match="was altered"):
        archive.pack(bundle, tmp_path / "m.usema")
    assert not (tmp_path / "m.usema").exists()


@pytest.mark.fault
def test_a_place_that_cannot_be_written_is_said(bundle, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        archive.pack(bundle, bundle / WEIGHTS_FILE / "m.usema")  # the folder is a file


def test_a_folder_that_is_missing_is_made(bundle, tmp_path):
    assert read_bundle(archive.pack(bundle, tmp_path / "missing" / "m.usema")).metadata.name == METADATA["name"]


# What must not come out


def add(file: Path, name: str, data: bytes = b"evil", mode: int = 0o644) -> None:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    with zipfile.ZipFile(file, "a") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a name is there twice
        opened.writestr(member, data)


def announce(file: Path, name: str, size: int) -> None:
    """Writes another size of a member into both places where a zip has it."""
    with zipfile.ZipFile(file) as opened:
        member = opened.getinfo(name)
        central = opened.start_dir
    data = bytearray(file.read_bytes())
    encoded = size.to_bytes(4, "little")
    data[member.header_offset + 22 : member.header_offset + 26] = encoded
    entry = data.index(name.encode(), central) - 46
    data[entry + 24 : entry + 28] = encoded
    file.write_bytes(data)


def rewritten(bundle: Path, file: Path, how: int = zipfile.ZIP_DEFLATED, **replaced: bytes) -> None:
    (bundle / "notes.txt").unlink()
    for name, data in replaced.items():
        (bundle / name.replace("_", ".")).write_bytes(data)
    zipped(bundle, file, how=how)


def weights_bomb(bundle: Path, file: Path) -> None:
    """Weights that say how large they are, and unpack to a hundred times as much."""
    size = (bundle / WEIGHTS_FILE).stat().st_size
    rewritten(bundle, file, weights_safetensors=(bundle / WEIGHTS_FILE).read_bytes()[:20] + bytes(100 * MIB))
    announce(file, WEIGHTS_FILE, size)


def metadata_bomb(bundle: Path, file: Path) -> None:
    rewritten(bundle, file, model_json=b" " * (100 * MIB))
    announce(file, METADATA_FILE, 1000)


def swap_weights(bundle: Path, file: Path) -> None:
    data = (bundle / WEIGHTS_FILE).read_bytes()
    rewritten(bundle, file, weights_safetensors=data[:-1] + bytes([data[-1] ^ 1]))


def cut(bundle: Path, file: Path) -> None:
    zipped(bundle, file)
    file.write_bytes(file.read_bytes()[:-300])


def flip_in_the_middle(bundle: Path, file: Path) -> None:
    archive.pack(bundle, file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def encrypted(bundle: Path, file: Path) -> None:
    zipped(bundle, file)
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as opened:
        data[opened.getinfo("README.md").header_offset + 6] |= 1
        data[data.index(b"README.md", opened.start_dir) - 46 + 8] |= 1
    file.write_bytes(data)


def with_member(name: str, mode: int = 0o644):
    def make(bundle: Path, file: Path) -> None:
        zipped(bundle, file)
        add(file, name, b"../../evil" if stat.S_ISLNK(mode) else b"evil", mode)

    return make


def many(bundle: Path, file: Path) -> None:
    zipped(bundle, file)
    with zipfile.ZipFile(file, "a") as opened:
        for number in range(1000):
            opened.writestr(f"x/{number}", b"")


def ballooning(bundle: Path, file: Path) -> None:
    """Announced as what they are; but a disk of any size is filled by a file that fits into a letter."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        opened.write(bundle / METADATA_FILE, METADATA_FILE)
        with opened.open(WEIGHTS_FILE, "w") as sink:
            for _ in range(300):
                sink.write(bytes(MIB))


UNSAFE = {
    "a way up": (with_member("../evil"), r"'\.\./evil', which leads out of its folder"),
    "a way up on the way down": (with_member("a/../../evil"), "leads out"),
    "an absolute path": (with_member("/tmp/evil"), "leads out"),
    "a drive": (with_member("C:evil"), "leads out"),
    "backslashes": (with_member("..\\evil"), "leads out"),
    "a link": (with_member("LICENSE", stat.S_IFLNK | 0o777), "'LICENSE', which is a link"),
    "a link of another name": (with_member("x", stat.S_IFLNK | 0o777), "'x', which is a link"),
    "a pipe": (with_member("x", stat.S_IFIFO | 0o644), "'x', which is no plain file"),
    "too many files": (many, "holds 1004 files, more than 1000"),
    "weights of nothing but zeros": (ballooning, r"weights\.safetensors', which grows from \d+ to 314572800 bytes"),
    "the same name twice": (with_member("README.md"), "'README.md' twice"),
    "two models": (with_member("second/model.json"), "2 files model.json"),
    "a bomb in the weights": (weights_bomb, "Bad CRC-32"),
    "a bomb in model.json": (metadata_bomb, "Bad CRC-32"),
    "an announced bomb in the weights": (
        lambda bundle, file: rewritten(bundle, file, weights_safetensors=bytes(100 * MIB)),
        "104857600 bytes of",
    ),
    "an announced bomb in model.json": (
        lambda bundle, file: rewritten(bundle, file, model_json=b" " * (100 * MIB)),
        "model.json has 104857600 bytes",
    ),
    "a bomb beside them": (
        lambda bundle, file: rewritten(bundle, file, README_md=bytes(100 * MIB)),
        "README.md of 104857600 bytes",
    ),
    "bzip2": (lambda bundle, file: zipped(bundle, file, how=zipfile.ZIP_BZIP2), "compression that is not used"),
    "lzma": (lambda bundle, file: zipped(bundle, file, how=zipfile.ZIP_LZMA), "compression that is not used"),
    "a password": (encrypted, "password"),
    "weights of another model": (swap_weights, "was altered: its SHA-256 is"),
    "the end is missing": (cut, "no model, or is damaged"),
    "a bit is wrong": (flip_in_the_middle, "Bad CRC-32"),
    "no weights": (lambda bundle, file: ((bundle / WEIGHTS_FILE).unlink(), zipped(bundle, file)), WEIGHTS_FILE),
    "no model.json": (lambda bundle, file: ((bundle / METADATA_FILE).unlink(), zipped(bundle, file)), METADATA_FILE),
    "no zip": (lambda bundle, file: file.write_bytes(b"<html>Please sign in.</html>"), "no model, or is damaged"),
    "empty": (lambda bundle, file: file.write_bytes(b""), "no model, or is damaged"),
    "a folder": (lambda bundle, file: shutil.copytree(bundle, file), "no model, or is damaged"),
    "nothing": (lambda bundle, file: None, "There is no file"),
}


@pytest.mark.fault
@pytest.mark.parametrize("what", UNSAFE)
def test_a_file_is_refused_that_has(what, bundle, tmp_path):
    make, message = UNSAFE[what]
    place = tmp_path / "in" / "here"
    place.mkdir(parents=True)
    make(bundle, place / "model.usema")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleError, match=message) as caught:
        archive.unpack(place / "model.usema", tmp_path / "in" / "here" / "out")
    assert str(place / "model.usema") in caught.value.message
    assert caught.value.hint or what == "nothing"
    outside = [path for path in tmp_path.rglob("*") if "out" not in path.parts]
    assert sorted(outside) == before, "something was written beside the folder"
    written = sum(path.stat().st_size for path in (place / "out").glob("*"))
    assert written < MIB, "a bomb went off"


def test_an_unknown_member_is_left_in_the_zip(bundle, tmp_path):
    file = zipped(bundle, tmp_path / "model.zip")
    add(file, "run.py")
    add(file, "deeper/LICENSE")
    add(file, "__MACOSX/._model.json")
    archive.unpack(file, tmp_path / "out")
    assert sorted(files(tmp_path / "out")) == ["README.md", METADATA_FILE, WEIGHTS_FILE]


@pytest.mark.fault
def test_a_bomb_takes_no_memory(bundle, tmp_path):
    """zipfile would decompress a member as a whole before it cuts it to its announced size."""
    metadata_bomb(bundle, tmp_path / "model.usema")
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            read_bundle(tmp_path / "model.usema")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * MIB
