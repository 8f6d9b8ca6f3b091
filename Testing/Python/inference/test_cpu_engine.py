"""Who computes a network on a CPU: OpenVINO where it is right, pays and is faster, and PyTorch with a reason."""

from __future__ import annotations

import os
import re
import socket
import sys

import numpy as np
import pytest
import torch
from bundles import FLAT_NETWORKS, TINY, plan, write_tiny_bundle
from other_user import NOBODY
from usema.errors import InputError
from usema.inference import compiled_models, cpu_engine, openvino_engine
from usema.inference.cpu_engine import CPUEngine
from usema.inference.predictor import Predictor
from usema.networks import build
from usema.volumes.volume import read_volume

needs_openvino = pytest.mark.skipif(bool(openvino_engine.why_not()), reason="OpenVINO is not installed")

USEMA_2D = {**TINY, "kernels": [[3, 3]] * 2, "strides": [[1, 1], [2, 2]]}
UNET_3D = {**FLAT_NETWORKS["PlainConvUNet"], "kernels": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]]}
NETWORKS = {
    "USEMA 2D, all stages": ("USEMA", {**USEMA_2D, "value_projection": False}, (32, 40)),
    "USEMA 3D, bottleneck": ("USEMA", {**TINY, "sema_stages": "bottleneck"}, (16, 24, 20)),
    "USEMA 3D, all stages": ("USEMA", {**TINY, "sema_stages": "all"}, (16, 24, 20)),
    "plain": ("PlainConvUNet", UNET_3D, (16, 24, 20)),
    "residual": ("ResidualEncoderUNet", UNET_3D, (16, 24, 20)),
    "MLLA-UNet": ("MLLA-UNet", FLAT_NETWORKS["MLLA-UNet"], (64, 64)),
    "Attention-Mamba": ("Attention-Mamba", FLAT_NETWORKS["Attention-Mamba"], (64, 64)),
}
WRONG_IN_OPENVINO = {"Attention-Mamba"}
TAKES_LONG_TO_COMPILE = {"MLLA-UNet", "Attention-Mamba"}


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch):
    """Tiny networks would never pay; whether they are faster depends on who else computes here."""
    monkeypatch.delenv(cpu_engine.ENVIRONMENT_VARIABLE, raising=False)
    for name in ("COMPILING_PAYS", "LOADING_PAYS"):
        monkeypatch.setattr(cpu_engine, name, -1.0)
    trusted = cpu_engine.why_not_trusted
    monkeypatch.setattr(
        cpu_engine, "why_not_trusted", lambda run, x, y, seconds, *precision: trusted(run, x, y, 1e9, *precision)
    )


def network_of(name: str, config: dict) -> torch.nn.Module:
    """With weights that let every branch count; those of initialisation are partly zero."""
    torch.manual_seed(0)
    network = build({"name": name, "config": config}).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            parameter += 0.3 * torch.randn_like(parameter)
    return network


@torch.inference_mode()
def run(engine: CPUEngine, *tiles: torch.Tensor, fast: bool = False) -> list[torch.Tensor]:
    engine.expect(len(tiles), fast)
    return [engine(x) for x in tiles]


@needs_openvino
@pytest.mark.parametrize(
    "case", [pytest.param(one, marks=[pytest.mark.slow] if one in TAKES_LONG_TO_COMPILE else []) for one in NETWORKS]
)
def test_a_network_is_computed_as_by_pytorch_whoever_computes_it(case):
    name, config, shape = NETWORKS[case]
    network = network_of(name, config)
    tiles = [torch.randn(1, 1, *shape) for _ in range(3)]
    engine = CPUEngine(network, case)
    found = run(engine, *tiles)
    with torch.inference_mode():
        expected = [network(x) for x in tiles]
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-4
        assert (one.argmax(1) == other.argmax(1)).float().mean() > 0.999
    assert engine.choice.name == ("pytorch" if case in WRONG_IN_OPENVINO else "openvino")
    if case in WRONG_IN_OPENVINO:
        assert str(engine.choice).startswith("PyTorch (OpenVINO's self-test is off by ")
        assert not compiled_models.folder().exists()


@pytest.fixture
def plain() -> tuple[torch.nn.Module, torch.Tensor]:
    name, config, shape = NETWORKS["plain"]
    return network_of(name, config), torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))


@needs_openvino
def test_what_was_compiled_is_loaded_by_the_next_process_unless_it_is_damaged(plain, monkeypatch):
    network, x = plain
    run(CPUEngine(network, "a"), x)
    (file,) = compiled_models.folder().iterdir()

    compiled = openvino_engine.Compiler.compiled
    monkeypatch.setattr(openvino_engine.Compiler, "compiled", lambda self: pytest.fail("compiled again"))
    engine = CPUEngine(network, "a")
    expected = run(engine, x, x)[1]
    others = [bytearray(b"\xff") * file.stat().st_size for _ in range(8)]  # where freed memory would be used again
    assert torch.equal(run(engine, x)[0], expected)
    assert engine.choice.name == "openvino"
    del others

    file.write_bytes(file.read_bytes()[:-1000])
    monkeypatch.setattr(openvino_engine.Compiler, "compiled", compiled)
    engine = CPUEngine(network, "a")
    run(engine, x)
    assert engine.choice.name == "openvino"
    assert len(list(compiled_models.folder().iterdir())) == 1


@needs_openvino
def test_what_is_kept_of_other_code_is_found_wrong_and_made_anew(plain):
    network, x = plain
    run(CPUEngine(network, "a"), x)
    changed = network_of("PlainConvUNet", UNET_3D)
    for parameter in changed.parameters():
        parameter *= 1.5
    engine = CPUEngine(changed, "a")
    run(engine, x)
    found = run(engine, x)[0]
    with torch.inference_mode():
        torch.testing.assert_close(found, changed(x), rtol=1e-3, atol=1e-3)
    assert engine.choice.name == "openvino"


@needs_openvino
def test_a_place_that_cannot_be_written_costs_only_the_time(plain, tmp_path, monkeypatch):
    monkeypatch.setenv(compiled_models.ENVIRONMENT_VARIABLE, str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("")
    network, x = plain
    engine = CPUEngine(network, "a")
    run(engine, x)
    assert engine.choice.name == "openvino"


@needs_openvino
def test_results_stay_when_the_next_tile_is_computed(plain):
    network, x = plain
    engine = CPUEngine(network, "a")
    run(engine, x)
    first, copy = (one := run(engine, x)[0]), one.clone()
    run(engine, x.flip(2))
    assert torch.equal(first, copy)


@needs_openvino
def test_a_tile_of_one_value_is_no_test_and_other_shapes_are_pytorchs(plain):
    network, x = plain
    engine = CPUEngine(network, "a")
    run(engine, torch.zeros_like(x))
    assert str(engine.choice) == "PyTorch (too little work for OpenVINO)"
    run(engine, x)
    with torch.inference_mode():
        assert torch.equal(engine(x[:, :, :8]), network(x[:, :, :8]))
    assert engine.choice.name == "openvino"


@needs_openvino
@pytest.mark.parametrize("processor_has_it", [True, False])
def test_what_is_to_be_fast_is_computed_in_bfloat16_where_the_processor_has_it_and_the_next_exactly(
    plain, monkeypatch, processor_has_it
):
    really = openvino_engine.computes_bfloat16()  # where it is only said, OpenVINO computes in single precision
    monkeypatch.setattr(openvino_engine, "computes_bfloat16", lambda: processor_has_it)
    network, x = plain
    engine = CPUEngine(network, "a")
    with torch.inference_mode():
        expected = network(x)
    for fast in (True, False, True):
        found = run(engine, x, x, fast=fast)[1]
        expects = fast and processor_has_it
        assert ("in bfloat16" in str(engine.choice)) is expects
        error = float((found - expected).norm() / expected.norm())
        assert 1e-4 < error < 5e-2 if expects and really else error < 1e-4
        assert (found.argmax(1) == expected.argmax(1)).float().mean() > (0.98 if expects else 0.999)


@needs_openvino
def test_a_network_that_bfloat16_spoils_is_computed_exactly_and_the_reason_is_told(plain, monkeypatch):
    monkeypatch.setattr(openvino_engine, "computes_bfloat16", lambda: True)
    monkeypatch.setitem(cpu_engine.TOLERANCES, openvino_engine.BFLOAT16, 0.0)
    network, x = plain
    engine = CPUEngine(network, "a")
    found = run(engine, x, x, fast=True)[1]
    assert engine.choice.name == "openvino"
    assert re.search(r"on the first tile; not in bfloat16: OpenVINO's self-test is off by \d", str(engine.choice))
    with torch.inference_mode():
        torch.testing.assert_close(found, network(x), rtol=1e-3, atol=1e-3)
    run(engine, x, x)
    assert "bfloat16" not in str(engine.choice), "nobody asked for it"


@needs_openvino
def test_little_work_is_left_to_pytorch(plain, monkeypatch):
    monkeypatch.setattr(cpu_engine, "COMPILING_PAYS", 1e9)
    engine = CPUEngine(plain[0], "a")
    run(engine, plain[1])
    assert str(engine.choice) == "PyTorch (too little work for OpenVINO)"


def test_whatever_openvino_raises_pytorch_computes_and_the_reason_is_told(plain, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("Check 'false' failed at src/plugin.cpp:12:\nno such kernel")

    monkeypatch.setattr(openvino_engine, "Compiler", fail)
    engine = CPUEngine(plain[0], "a")
    with torch.inference_mode():
        assert torch.equal(run(engine, plain[1])[0], plain[0](plain[1]))
    assert str(engine.choice) == "PyTorch (OpenVINO failed: Check 'false' failed at src/plugin.cpp:12:)"


@needs_openvino
def test_nothing_is_reported_to_anybody(plain, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("a connection was opened"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("an address was looked up"))
    run(CPUEngine(plain[0], "a"), plain[1])
    assert sys.modules.get("openvino_telemetry") is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda y: y * 1.01, "OpenVINO's self-test is off by 1.0e-02"),
        (lambda y: y * torch.nan, "OpenVINO's self-test is off by nan"),
        (lambda y: y[:, :2], "OpenVINO's self-test gives (1, 2, 4, 4) for (1, 3, 4, 4)"),
        (lambda y: y, None),
    ],
)
def test_what_is_not_what_pytorch_found_is_not_trusted(change, reason):
    expected = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert cpu_engine.why_not_trusted(lambda x: change(expected), torch.zeros(1), expected, 1.0) == reason


def test_the_choice_can_be_forced_and_says_by_what(monkeypatch):
    assert cpu_engine.choose("cuda").name == "pytorch"
    monkeypatch.setenv(cpu_engine.ENVIRONMENT_VARIABLE, "pytorch")
    assert str(cpu_engine.choose("cpu")) == "PyTorch (set by USEMA_CPU_BACKEND)"
    monkeypatch.setenv(cpu_engine.ENVIRONMENT_VARIABLE, "tflite")
    with pytest.raises(InputError, match="'tflite'"):
        cpu_engine.choose("cpu")
    monkeypatch.delenv(cpu_engine.ENVIRONMENT_VARIABLE)
    monkeypatch.setenv("USEMA_SEMA_BACKEND", "reference")
    assert str(cpu_engine.choose("cpu")) == "PyTorch (set by USEMA_SEMA_BACKEND)"


def test_without_openvino_pytorch_computes_and_asking_for_it_is_refused(monkeypatch):
    monkeypatch.setattr(openvino_engine, "version", lambda: "")
    assert str(cpu_engine.choose("cpu")) == "PyTorch (OpenVINO is not installed)"
    monkeypatch.setenv(cpu_engine.ENVIRONMENT_VARIABLE, "openvino")
    with pytest.raises(InputError, match="OpenVINO is not installed"):
        cpu_engine.choose("cpu")


def test_what_is_kept_is_bounded_and_the_longest_unused_leaves_first(monkeypatch):
    monkeypatch.setattr(compiled_models, "MOST_BYTES", 2500)
    for name in "abc":
        compiled_models.keep(name, name.encode() * 1000)
    assert compiled_models.find("a") is None
    assert [compiled_models.find(name)[:1] for name in "bc"] == [b"b", b"c"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="who owns a file is asked otherwise here")
def test_what_somebody_else_may_have_written_is_not_read():
    compiled_models.keep("a", b"mine")
    (file,) = compiled_models.folder().iterdir()
    assert compiled_models.find("a") == b"mine"
    file.chmod(0o666)
    assert not compiled_models.holds("a")
    assert compiled_models.find("a") is None
    file.chmod(0o600)
    if os.getuid() == 0:
        os.chown(file, NOBODY, NOBODY)
        assert compiled_models.find("a") is None
    os.mkfifo(file.with_name(f"b-{'0' * 64}.blob"))  # whoever opens it waits for ever
    file.with_name(f"c-{'0' * 64}.blob").symlink_to("/dev/zero")
    assert not any(map(compiled_models.holds, "bc"))
    assert not any(map(compiled_models.find, "bc"))


def test_what_a_killed_process_left_of_a_compiled_model_goes():
    compiled_models.keep("a", b"1")
    left = compiled_models.folder() / ".usema-00000000-1-00000000"
    left.write_bytes(bytes(1000))
    os.utime(left, (0, 0))
    compiled_models.keep("b", b"2")
    assert len(list(compiled_models.folder().iterdir())) == 2


@needs_openvino
def test_a_case_has_the_labels_of_pytorch_and_its_provenance_tells_what_computed_it(tmp_path, data, monkeypatch):
    volume = read_volume(data / "volumes/spine_mr/t2.nii.gz")
    bundle = write_tiny_bundle(tmp_path / "tiny", preprocessing={**plan(), "spacing": [2.0, 3.0, 3.0]})
    predictor = Predictor(bundle, "cpu")
    assert predictor.backend.startswith("OpenVINO (")
    fast = predictor.segment(volume, mirror=False)
    assert fast.provenance["attention"].startswith("OpenVINO (")
    monkeypatch.setenv(cpu_engine.ENVIRONMENT_VARIABLE, "pytorch")
    exact = Predictor(bundle, "cpu").segment(volume)
    assert exact.provenance["attention"] == "PyTorch (no NVIDIA GPU)"
    assert np.mean(fast.labels == exact.labels) > 0.999


@needs_openvino
def test_a_run_in_bfloat16_does_not_say_what_an_exact_one_would_take(tmp_path, data, monkeypatch):
    monkeypatch.setattr(openvino_engine, "computes_bfloat16", lambda: True)
    volume = read_volume(data / "volumes/spine_mr/t2.nii.gz")
    bundle = write_tiny_bundle(tmp_path / "tiny", preprocessing={**plan(), "spacing": [2.0, 3.0, 3.0]})
    predictor = Predictor(bundle, "cpu")
    for speed, known in (("fast", {"fast"}), ("exact", {"fast", "exact"})):
        result = predictor.segment(volume, speed=speed)
        assert ("in bfloat16" in result.provenance["attention"]) is (speed == "fast")
        assert set(result.seconds_by_speed) == known
