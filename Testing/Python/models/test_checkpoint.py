"""Checkpoints of PyTorch: read as torch reads them, and nothing that one says is ever run."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from usema.errors import BundleError
from usema.models import inert_pickle
from usema.models.checkpoint import open_checkpoint
from usema.models.inert_pickle import TensorRecord, plain, tensors


def saved(content, path, **options):
    torch.save(content, path, **options)
    return path


def like_nnunets() -> dict:
    """What nnU-Net's trainer saves, after a few steps of its optimiser."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3), torch.nn.BatchNorm3d(4))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.99, nesterov=True)
    network(torch.randn(1, 2, 5, 5, 5)).square().sum().backward()
    optimizer.step()
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "_growth_tracker": 3},
        "logging": {
            "mean_fg_dice": [np.float64(0.25)], "ema_fg_dice": [np.float32(0.5)], "lrs": [0.1], "n": [np.int64(-3)],
        },
        "_best_ema": np.float64(0.125),
        "current_epoch": 1,
        "init_args": {
            "configuration": "3d_fullres", "fold": "all", "device": torch.device("cuda", 0), "plans": {"a": [1, None]},
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_checkpoint_as_nnunet_writes_it_is_read(tmp_path, protocol):
    content = like_nnunets()
    path = saved(content, tmp_path / "checkpoint_final.pth", pickle_protocol=protocol)
    with open_checkpoint(path) as checkpoint:
        found = checkpoint.content
        assert list(found) == list(content)
        arrays = {name: checkpoint.array(record) for name, record in tensors(found["network_weights"], "it").items()}
    for name, tensor in content["network_weights"].items():
        assert arrays[name].dtype == tensor.numpy().dtype
        assert np.array_equal(arrays[name], tensor.numpy())
    assert plain(found["logging"], "it") == {"mean_fg_dice": [0.25], "ema_fg_dice": [0.5], "lrs": [0.1], "n": [-3]}
    assert found["_best_ema"] == 0.125
    assert plain(found["init_args"], "it") == {
        "configuration": "3d_fullres", "fold": "all", "device": "cuda:0", "plans": {"a": [1, None]},
    }  # fmt: skip
    assert found["inference_allowed_mirroring_axes"] == (0, 1, 2)


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_every_type_of_number_and_every_view_of_a_storage_is_read(tmp_path, dtype):
    whole = torch.arange(60).reshape(3, 4, 5).to(getattr(torch, dtype))
    content = {"whole": whole, "turned": whole.permute(2, 0, 1), "part": whole[1:, ::2, 1], "one": whole[2, 3, 4]}
    content["empty"] = whole[:0]
    with open_checkpoint(saved(content, tmp_path / "a.pth")) as checkpoint:
        for name, tensor in content.items():
            expected = tensor.float() if dtype == "bfloat16" else tensor
            assert np.array_equal(checkpoint.array(checkpoint.content[name]), expected.numpy())


def test_the_numbers_of_an_optimiser_are_not_read(tmp_path):
    """A file without them is as good."""
    path = saved(like_nnunets(), tmp_path / "a.pth")
    with open_checkpoint(path) as checkpoint:
        needed = {record.storage for record in checkpoint.content["network_weights"].values()}
    with zipfile.ZipFile(path) as full, zipfile.ZipFile(tmp_path / "b.pth", "w") as slim:
        for member in full.namelist():
            if "/data/" not in member or member.rpartition("/")[2] in needed:
                slim.writestr(member, full.read(member))
    assert (tmp_path / "b.pth").stat().st_size < path.stat().st_size
    with open_checkpoint(tmp_path / "b.pth") as checkpoint:
        for record in checkpoint.content["network_weights"].values():
            checkpoint.array(record)


class Running:
    """Its pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, getattr, torch.load, collections.Counter, np.load, os.getcwd])
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_checkpoint_is_refused_by_name_and_does_not_run(tmp_path, monkeypatch, function, protocol):
    monkeypatch.chdir(tmp_path)
    arguments = {os.system: ("touch ran",), eval: ("open('ran', 'w').close()",), getattr: ("text", "upper")}
    content = {**like_nnunets(), "init_args": [Running(function, *arguments.get(function, ()))]}
    if function is os.system:  # that the pickle would have run it: in a process of torch's own, once
        torch.load(saved(content, "a.pth", pickle_protocol=protocol), weights_only=False)
        assert (tmp_path / "ran").exists()
        os.remove("ran")
    saved(content, "a.pth", pickle_protocol=protocol)
    with (
        pytest.raises(BundleError, match=f"more than weights: it names .*{function.__name__}") as refusal,
        open_checkpoint("a.pth"),
    ):
        pass
    assert "Nothing of it was run" in refusal.value.hint
    assert not (tmp_path / "ran").exists()


def with_pickle(path, program: bytes):
    """A checkpoint whose pickle is another."""
    saved({"a": torch.ones(3)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, program if name.endswith("data.pkl") else data)
    return path


def call(name: str, storage: str, *arguments) -> bytes:
    """A pickle of {"a": a tensor}, its storage and layout as told."""
    out = io.BytesIO()
    out.write(b"\x80\x02}X\x01\x00\x00\x00a" + f"ctorch._utils\n{name}\n".encode() + b"((X\x07\x00\x00\x00storage")
    out.write(f"ctorch\n{storage}\n".encode() + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x03tQ")
    for argument in arguments:
        out.write(pickle.dumps(argument, 2)[2:-1])
    out.write(b"tRs.")
    return out.getvalue()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.", "os.system"),
        (b"\x80\x02(X\x02\x00\x00\x00lsios\nsystem\n.", "instruction INST"),
        (b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00lso.", "os.system"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02)R.", "damaged"),
        (b"\x80\x02]", "damaged|no end"),
        (b"\x80\x02Na.", "damaged"),
        (b"\x80\x02e.", "damaged"),
        (b"garbage", "damaged"),
        (b"", "damaged|no end"),
        (call("_rebuild_tensor_v2", "FloatStorage", 0, (3,), (1,)), ""),
        (call("_rebuild_tensor_v2", "FloatStorage", 0, (4,), (1,)), "does not lie in its storage"),
        (call("_rebuild_tensor_v2", "FloatStorage", 2, (2,), (1,)), "does not lie in its storage"),
        (call("_rebuild_tensor_v2", "FloatStorage", 0, (10**9, 10**9), (0, 0)), "does not lie in its storage"),
        (call("_rebuild_tensor_v2", "FloatStorage", -1, (1,), (1,)), "does not lie in its storage"),
        (call("_rebuild_tensor_v2", "DoubleStorage", 0, (3,), (1,)), "12 bytes of 24"),
        (call("_rebuild_tensor_v2", "UntypedStorage", 0, (3,), (1,)), "UntypedStorage"),
        (call("_rebuild_sparse_tensor", "FloatStorage", 0, (3,), (1,)), "_rebuild_sparse_tensor"),
    ],
)
def test_a_made_up_pickle_ends_in_a_sentence(tmp_path, program, said):
    path = with_pickle(tmp_path / "a.pth", program)

    def read():
        with open_checkpoint(path) as checkpoint:
            assert isinstance(checkpoint.content["a"], TensorRecord)
            return checkpoint.array(checkpoint.content["a"])

    if said:
        with pytest.raises(BundleError, match=said):
            read()
    else:
        assert read().tolist() == [1, 1, 1]


def test_plain_values_without_an_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(inert_pickle, "_MAX_VALUES", 10_000)  # it takes seconds to count to a million
    itself, doubled = [], [0]
    itself.append(itself)
    for _ in range(60):
        doubled = [doubled, doubled]
    for value in (itself, doubled, {"tensor": torch.ones(1)}):
        with open_checkpoint(saved({"a": value}, tmp_path / "a.pth")) as checkpoint:
            content = checkpoint.content
        with pytest.raises(BundleError, match="The plans"):
            plain(content, "The plans")


def damaged(path, how: str):
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[:-500])
    elif how == "changed":  # a byte of the tensor's numbers
        place = data.index(torch.arange(1000.0).numpy().tobytes()) + 7
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    elif how == "old":
        torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    elif how == "text":
        path.write_text("<html>404</html>")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if how == "compressed" else 0) as archive:
            for name, content in members.items():
                if how != "incomplete" or not name.endswith("/data/0"):
                    archive.writestr("../../a" if how == "escaping" and name.endswith("/version") else name, content)
    return path


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated", "is truncated"),
        ("changed", "cannot be read: Bad CRC"),
        ("old", "PyTorch's old format"),
        ("text", "is no checkpoint"),
        ("empty", "is no checkpoint"),
        ("incomplete", "is incomplete"),
        ("compressed", "compressed"),
        ("escaping", "leads out of its folder"),
    ],
)
def test_a_damaged_file_ends_in_a_sentence(tmp_path, how, said):
    path = damaged(saved({"a": torch.arange(1000.0)}, tmp_path / "a.pth"), how)
    with pytest.raises(BundleError, match=said) as refusal, open_checkpoint(path) as checkpoint:
        checkpoint.array(checkpoint.content["a"])
    assert refusal.value.hint
    assert str(path) in refusal.value.message
