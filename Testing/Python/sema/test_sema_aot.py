"""The kernels compiled ahead of time: up to date, complete, and launched as the driver wants it."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from usema.networks import build as build_network
from usema.networks.blocks import SEMABlock
from usema.resources import bundled_models
from usema.sema import aot, launch, operators, sema_attention
from usema.sema.aot import build, loader, variants

PAPER = {  # networks.md 2.2: the plan of current nnU-Net for 896 x 1536 pixels, 9 stages
    "in_channels": 3,
    "num_classes": 8,
    "features": [32, 64, 128, 256, 512, 512, 512, 512, 512],
    "kernels": [[3, 3]] * 9,
    "strides": [[1, 1], *[[2, 2]] * 7, [1, 2]],
}
BUNDLED_3D = {
    "in_channels": 1,
    "num_classes": 3,
    "features": [16, 32, 64, 128],
    "kernels": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 3],
    "sema_stages": "skip_full_resolution",
}
GPU = torch.device("cuda", 1)


def shipped_architectures():
    yield "the paper's plan", {"name": "USEMA", "config": PAPER}
    yield "the plan of the bundled 3D models", {"name": "USEMA", "config": BUNDLED_3D}
    for name, folder in bundled_models().items():
        yield name, json.loads((folder / "model.json").read_text(encoding="utf-8"))["architecture"]


# What is committed


def test_the_manifest_is_as_new_as_the_kernels():
    assert aot.manifest()["source_sha256"] == build.source_hash(), "run: python -m usema.sema.aot.build"


def test_the_manifest_lists_every_variant_and_every_file():
    listed = {entry["file"]: entry for entry in aot.manifest()["kernels"]}
    wanted = {f"{variant.name}.ptx": variant for variant in variants.variants()}
    assert set(listed) == set(wanted) == {path.name for path in aot.FOLDER.glob("*.ptx")}
    for file, variant in wanted.items():
        assert listed[file]["constants"] == variant.constants, "run: python -m usema.sema.aot.build"
        assert listed[file]["num_warps"] == variant.options["num_warps"]


def test_the_ptx_is_small_and_for_drivers_of_cuda_12_0():
    assert sum(path.stat().st_size for path in aot.FOLDER.iterdir() if path.is_file()) < 2_000_000
    for entry in aot.manifest()["kernels"]:
        ptx = (aot.FOLDER / entry["file"]).read_text(encoding="ascii")
        assert re.search(r"^\.version 8\.0$", ptx, re.MULTILINE)
        assert re.search(rf"^\.target sm_{entry['architecture']}$", ptx, re.MULTILINE)
        assert re.search(rf"^\.reqntid {32 * entry['num_warps']}$", ptx, re.MULTILINE)
        assert not re.search(r"\.loc|\.file|\.debug|//", ptx)
        # Two more pointers than the manifest's parameters: Triton's scratch memory.
        kinds = [*(kind for _, kind in entry["parameters"]), "*", "*"]
        declared = re.findall(r"\.param \.(u64|u32)\b", ptx[: ptx.index(")")])
        assert declared == ["u64" if kind.startswith("*") else "u32" for kind in kinds]


@pytest.mark.parametrize("entry", aot.manifest()["kernels"], ids=lambda entry: entry["file"])
def test_every_kernel_reads_and_writes_tokens_16_bytes_at_a_time(entry):
    ptx = (aot.FOLDER / entry["file"]).read_text(encoding="ascii")
    accesses = re.findall(r"^(@%p\d+ )?(ld|st|atom|red)\.global\.(.*?) ", ptx, re.MULTILINE)
    assert len(accesses) == len(re.findall(r"\.global\.", ptx))
    # Tokens may lie off the map, so a predicate guards them; a head's mean is there always, once a program.
    assert {width for guarded, access, width in accesses if access == "ld" and guarded} == {"v4.b32"}
    assert {width for guarded, access, width in accesses if access == "ld" and not guarded} <= {"v2.b32"}
    # A share of the mean is one float32 a lane, beside each other in memory.
    written = {"b32"} if entry["kernel"] == "mean_over_tokens" else {"v4.b32"}
    assert {width for _, access, width in accesses if access != "ld"} == written


@pytest.mark.parametrize("name", dict(shipped_architectures()))
def test_every_attention_layer_that_is_shipped_has_its_kernel_on_every_gpu(name):
    with torch.device("meta"):
        network = build_network(dict(shipped_architectures())[name])
    blocks = [module for module in network.modules() if isinstance(module, SEMABlock)]
    assert blocks
    for block in blocks:
        axes = block.inner_conv.conv.weight.dim() - 2
        for dtype in (torch.float16, torch.float32):
            for capability in (75, 80, 86, 89, 90, 100, 120):
                constants, _ = launch.window_constants(
                    "window_attention", (block.window,) * axes, block.gate.in_features // block.heads, dtype,
                    variants.properties(capability), block.rope, block.mean,
                )  # fmt: skip
                assert aot._find("window_attention", variants.TYPES[dtype], constants, capability)
                assert aot._find("mean_over_tokens", variants.TYPES[dtype], launch.MEAN_SIZES, capability)


@pytest.fixture(scope="session")
def triton_of_the_manifest():
    triton = pytest.importorskip("triton", reason="Triton compiles the kernels, and brings NVIDIA's assembler")
    if triton.__version__ != aot.manifest()["triton"]:
        pytest.skip(f"another Triton, {triton.__version__}, makes other code")


@pytest.mark.usefixtures("triton_of_the_manifest")
def test_building_again_gives_the_committed_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    built = tmp_path / "built"
    built.mkdir()
    build.build(built)
    for path in built.iterdir():
        assert path.read_bytes() == (aot.FOLDER / path.name).read_bytes(), "run: python -m usema.sema.aot.build"


@pytest.mark.usefixtures("triton_of_the_manifest")
@pytest.mark.parametrize("entry", aot.manifest()["kernels"], ids=lambda entry: entry["file"])
def test_no_kernel_spills_on_any_generation(entry):
    ptx = (aot.FOLDER / entry["file"]).read_text(encoding="ascii")
    for generation in (75, 80, 89, 90, 120):
        if generation >= entry["architecture"]:
            found = build.assemble(ptx, generation)
            assert found["spill_stores"] == found["spill_loads"] == 0, generation
            assert 0 < found["registers"] <= 255


# What is launched: on a library that stands in for the driver's


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the driver")
    target = tmp_path_factory.mktemp("driver") / "libfakecuda.so"
    source = Path(__file__).parents[1] / "helpers" / "fake_cuda.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", source, "-o", target], check=True)
    library = ctypes.CDLL(str(target))
    library.fake_log.restype = ctypes.c_char_p
    return library


@pytest.fixture
def fake(fake_library, monkeypatch):
    """The stand-in in place of the driver, and PyTorch's second GPU with stream 77 where the tensors are."""
    fake_library.fake_reset()
    driver = loader.Driver(fake_library)
    monkeypatch.setattr(aot, "driver", lambda: driver)
    monkeypatch.setattr(aot, "_index", lambda device: 1)
    monkeypatch.setattr(aot, "_stream", lambda device: 77)
    monkeypatch.setattr(aot, "_failures", {})
    return fake_library


def lines(fake) -> list[str]:
    return fake.fake_log().decode().splitlines()


def qkv(shape=(15, 9), channels=64, dtype=torch.float16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *shape, 3 * channels, generator=generator).to(dtype).chunk(3, dim=-1)


def why_not(window=(7, 7), dtype=torch.float16, head_dim=32, mean=True):
    return aot.why_not(GPU, dtype, window, head_dim, True, mean)


def test_a_layer_is_launched_with_its_parameters_on_pytorchs_stream_and_context(fake):
    q, k, v = qkv()
    out = launch.forward(q, k, v, 2, (7, 7), True, True, aot)
    context, load_mean, mean, load, attention = lines(fake)
    assert context == "context of device 1"
    assert load_mean == load == "load in context 1001: .version 8.0"
    place = "launch in context 1001 on stream 77:"
    assert mean.startswith(f"{place} grid 1 2 2, 128 threads, 512 bytes: {v.data_ptr()} ")
    # Parts of the mean; row stride; tokens, channels, splits; two null pointers.
    assert re.search(r": \d+ \d+ 192 135 64 1 0 0$", mean)
    # 2 heads x 2 windows across, 3 down, 2 images; 2 warps.
    start = f"{place} grid 4 3 2, 64 threads, 12288 bytes: {q.data_ptr()} {k.data_ptr()} {v.data_ptr()} "
    assert attention.startswith(start)
    # Output; strides of q, k, v; depth, height, width, heads; two null pointers.
    assert attention.endswith(f" {out.data_ptr()} 192 192 192 1 15 9 2 0 0")
    assert fake.fake_current_context() == -1, "the context that was current is current again"


def test_a_kernel_is_loaded_once(fake):
    for _ in range(3):
        launch.forward(*qkv(), 2, (7, 7), True, True, aot)
    assert len([line for line in lines(fake) if line.startswith("load")]) == 2
    assert len([line for line in lines(fake) if line.startswith("launch")]) == 6


@pytest.mark.parametrize(("capability", "threads"), [(75, 128), (80, 64), (86, 64), (90, 64), (120, 64)])
def test_each_gpu_gets_the_newest_kernel_that_it_can_run(fake, capability, threads):
    fake.fake_capability(capability)
    assert why_not() is None
    launch.forward(*qkv(), 2, (7, 7), True, True, aot)
    assert f"{threads} threads" in lines(fake)[-1]


def test_gpus_have_contexts_and_modules_of_their_own(fake, monkeypatch):
    for index in (0, 1, 0):
        monkeypatch.setattr(aot, "_index", lambda device, index=index: index)
        launch.forward(*qkv(), 2, (7, 7), True, True, aot)
    contexts = [line[:23] for line in lines(fake) if line.startswith("load")]
    assert contexts == ["load in context 1000: ."[:23]] * 2 + ["load in context 1001: ."[:23]] * 2
    launches = [line for line in lines(fake) if line.startswith("launch")]
    assert [line.split()[3] for line in launches] == ["1000"] * 2 + ["1001"] * 2 + ["1000"] * 2


def test_more_shared_memory_than_is_ordinary_is_asked_for(fake):
    driver = loader.Driver(fake)
    ptx = b".visible .entry kernel(.param .u32 n)"
    driver.function(0, "small", "kernel", lambda name: ptx, 48 * 1024)
    assert "attribute" not in fake.fake_log().decode()
    function = driver.function(0, "large", "kernel", lambda name: ptx, 100_000)
    assert lines(fake)[-1] == "attribute 8 of a function is 100000"
    driver.launch(0, 3, function, (2, 1, 1), 32, 100_000, [("i32", -5)])
    assert lines(fake)[-1] == "launch in context 1000 on stream 3: grid 2 1 1, 32 threads, 100000 bytes: -5"


@pytest.mark.parametrize(
    ("function", "code", "reason"),
    [
        ("cuModuleLoadData", 222, "the NVIDIA driver is older than CUDA 12.0"),
        ("cuModuleLoadData", 218, "the NVIDIA driver does not accept the PTX"),
        ("cuModuleGetFunction", 500, "the NVIDIA driver refuses"),
        ("cuLaunchKernel", 701, "the kernel needs more than this GPU has"),
    ],
)
def test_a_refusal_that_lasts_leaves_the_device_to_pytorch_and_the_reason_stays(fake, caplog, function, code, reason):
    q, k, v = qkv(dtype=torch.float32)
    settings = {"heads": 2, "window": (7, 7), "rope": True, "mean": True}
    fake.fake_refuse(function.encode(), code)
    actual = operators.sema_attention(q, k, v, **settings, local=True, launcher="ptx")
    torch.testing.assert_close(actual, sema_attention(q, k, v, heads=2, window=7, backend="eager"))
    assert why_not() == f"{reason} ({function}: error {code})"
    assert caplog.messages == [f"SEMA attention on cuda:1 is left to PyTorch: {why_not()}"]
    before = lines(fake)
    operators.sema_attention(q, k, v, **settings, local=True, launcher="ptx")
    assert lines(fake) == before, "a device that failed is not tried again"
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("function", "code", "reason"),
    [
        ("cuModuleLoadData", 2, "out of GPU memory"),
        ("cuDevicePrimaryCtxRetain", 2, "out of GPU memory"),
        ("cuCtxPushCurrent_v2", 201, "the NVIDIA driver refuses"),
        ("cuLaunchKernel", 1, "the NVIDIA driver refuses"),
    ],
)
def test_after_a_refusal_that_may_pass_the_kernel_is_launched_again(fake, caplog, monkeypatch, function, code, reason):
    monkeypatch.setattr(aot, "_said", set())
    q, k, v = qkv(dtype=torch.float32)
    settings = {"heads": 2, "window": (7, 7), "rope": True, "mean": True, "local": True}
    expected = sema_attention(q, k, v, heads=2, window=7, backend="eager")
    fake.fake_refuse(function.encode(), code)
    for _ in range(2):
        torch.testing.assert_close(operators.sema_attention(q, k, v, **settings, launcher="ptx"), expected)
    said = f"SEMA attention on cuda:1 is left to PyTorch this time: {reason} ({function}: error {code})"
    assert caplog.messages == [said], "once, not for every layer"
    assert why_not() is None
    fake.fake_refuse(b"", 0)
    operators.sema_attention(q, k, v, **settings, launcher="ptx")
    assert lines(fake)[-1].startswith("launch in context")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ({"window": (5, 5)}, "no PTX for window attention in windows of 1x5x5 with heads of 32 channels in fp16"),
        ({"head_dim": 16}, "no PTX for window attention in windows of 1x7x7 with heads of 16 channels in fp16"),
        ({"dtype": torch.bfloat16}, "no PTX for window attention .* in bf16"),
        ({"mean": False}, "no PTX for window attention"),
    ],
)
def test_a_layer_without_a_kernel_is_refused_by_name(fake, layer, reason):
    assert re.match(reason, why_not(**layer))
    assert why_not() is None


def test_a_gpu_before_turing_or_none_at_all_is_refused(fake, monkeypatch):
    unasked = loader.Driver(fake)
    fake.fake_capability(70)
    assert why_not() == "this GPU is older than Turing"
    monkeypatch.setattr(aot, "driver", lambda: unasked)
    fake.fake_refuse(b"cuDeviceGet", 100)
    assert why_not() == "no NVIDIA GPU (cuDeviceGet: error 100)"
    fake.fake_refuse(b"cuInit", 999)
    with pytest.raises(launch.LaunchError, match="cuInit: error 999"):
        loader.Driver(fake)


def test_a_machine_without_the_driver_is_told_so(monkeypatch):
    monkeypatch.setattr(loader, "_LIBRARY", "libno-such-driver.so.1")
    loader.driver.cache_clear()
    with pytest.raises(launch.LaunchError, match="no NVIDIA driver"):
        loader.driver()
    with pytest.raises(launch.LaunchError, match="the NVIDIA driver has no cuInit"):
        loader.Driver(ctypes.CDLL(None))  # a library, but not the driver's


def test_tensors_that_a_kernel_would_misread_are_not_given_to_it(fake):
    x = torch.zeros(40, 32, dtype=torch.float16)
    good = {"x": x, "parts": torch.zeros(1, 1, 32), "stride": 32, "tokens": 40, "channels": 32, "splits": 1}
    sizes, options = launch.MEAN_SIZES, launch.MEAN_OPTIONS
    aot.launch("mean_over_tokens", (1, 1, 1), good, sizes, **options)
    shifted = torch.zeros(2000, dtype=torch.float16)[1:1281].view(40, 32)
    unequal = ({"stride": 40}, {"channels": 24})
    for wrong in ({"x": shifted}, {"parts": torch.zeros(1, 1, 32, dtype=torch.float64)}, *unequal):
        with pytest.raises(launch.LaunchError, match="does not take this"):
            aot.launch("mean_over_tokens", (1, 1, 1), good | wrong, sizes, **options)
        assert aot.failure(GPU) is None, "a caller's mistake says nothing about the device"


def test_a_damaged_installation_is_refused_in_words(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(aot, "FOLDER", tmp_path)
    aot.manifest.cache_clear()
    aot._found.cache_clear()
    try:
        assert why_not() == "manifest.json cannot be read: No such file or directory"
        (tmp_path / "manifest.json").write_text("{", encoding="ascii")
        assert why_not() == "the PTX manifest is damaged"
    finally:
        aot.manifest.cache_clear()
