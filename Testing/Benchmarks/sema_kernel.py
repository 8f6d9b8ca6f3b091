"""Speed of SEMA attention: the fused kernels beside other ways to compute it, for every layer that USEMA ships.

    python Testing/Benchmarks/sema_kernel.py --proof     # on a GPU: all checks first; under 8 minutes
    python Testing/Benchmarks/sema_kernel.py --cpu-smoke # anywhere: tiny shapes in Triton's interpreter, no results

What counts is memory traffic: attention inside windows of 49 tokens does few operations on what it reads. The floor is
the least that must be moved, at the bandwidth that this GPU reaches in a plain copy: forward q, k, v, out and, for the
mean, v again, 5 n C e bytes (n tokens, C channels, e bytes an element); backward q, k, v, grad, again grad, and three
gradients, 8 n C e. In 3D, windows of 343 tokens need so many exponentials that the units that compute them (16 a clock
and multiprocessor) have a floor of their own, in the column "exp".

Times are medians of replays of a CUDA graph, the cache emptied before each, so neither Python nor a warm cache counts.
Each way is compared with the definition in float64 before it is timed, the fused ones on memory full of NaN.

Why LePE and the gate do not join the kernel, counted in units of n C e: the attention moves 5. LePE (2), its addition
(3) and the gate (3) move 8; inside the kernel only the gate's 1 would remain, for v is there already. That is 7 of the
about 67 units that the whole SEMA block moves, whose three other depthwise convolutions, six Linear layers and MLP stay
as they are; and torch.compile saves 2 of the 7 by itself. Against these 10 % stand a set of kernels for each depthwise
kernel, the gradient of its weights, and nine (3D: 27) shifted reads of v, which would about double the instructions of
a kernel that has few to spare. The addition of the mean, on the other hand, is inside: it saves 2 for one load a
program.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from math import prod
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(Path(__file__).parent)]
if "--cpu-smoke" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import torch  # noqa: E402
from sema_competitors import OTHER, SEMA, Attention, Shape, Unavailable  # noqa: E402
from usema.networks import build  # noqa: E402
from usema.sema import dispatch, eager  # noqa: E402

RESULTS = Path(__file__).with_name("results")
PAPER_MAPS = ((896, 1536), (448, 768), (224, 384), (112, 192), (56, 96), (28, 48), (14, 24), (7, 12), (7, 6))
PAPER_FEATURES = (32, 64, 128, 256, 512, 512, 512, 512, 512)
SHAPES = [
    *(Shape("paper's plan", 2, m, c) for m, c in zip(PAPER_MAPS, PAPER_FEATURES, strict=True)),
    Shape("kernel.md's example", 8, (112, 192), 128),
    Shape("bundled 3D, stage 2", 8, (20, 28, 20), 32),
    Shape("bundled 3D, stage 3", 8, (10, 14, 10), 64),
    Shape("bundled 3D, stage 4", 8, (5, 7, 5), 128),
    Shape("3D patch of 128, stage 2", 1, (64, 64, 64), 64),
]
SMOKE_SHAPES = [Shape("smoke, 2D", 1, (6, 5), 32, window=4), Shape("smoke, 3D", 1, (3, 2, 4), 32, window=3)]
NETWORKS = {  # configuration, batch, patch
    "paper's plan": (
        {
            "in_channels": 3,
            "num_classes": 8,
            "features": PAPER_FEATURES,
            "kernels": [[3, 3]] * 9,
            "strides": [[1, 1], *[[2, 2]] * 7, [1, 2]],
        },
        2,
        (896, 1536),
    ),
    "bundled 3D": (
        {
            "in_channels": 1,
            "num_classes": 3,
            "features": (16, 32, 64, 128),
            "kernels": [[3, 3, 3]] * 4,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * 3],
            "sema_stages": "skip_full_resolution",
            "blocks": 1,
        },
        8,
        (40, 56, 40),
    ),
}
FUSED = ("triton", "ptx")
COLUMNS = (
    "layer", "map", "batch", "channels", "dtype", "tokens", "way", "error", "forward_us", "forward_floor_us",
    "forward_share", "exp_us", "backward_us", "backward_floor_us", "backward_share", "note",
)  # fmt: skip
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


# Measuring


def median_us(prepare: Callable[[], Callable[[], object]]) -> float:
    """Median time on the GPU of what ``prepare`` gives: replays of a CUDA graph, cold cache. On a CPU, one call."""
    if not GPU:
        work = prepare()
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) * 1e6
    torch.cuda.synchronize()
    # Prepared on the stream that is captured: a backward pass runs on the stream of its forward pass.
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work = prepare()
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    graph.replay()
    return median_of_events(graph.replay)


def median_of_events(work: Callable[[], object], repeats: int = 30, seconds: float = 1.0) -> float:
    """Median of the times between two events on the GPU, the cache emptied before each."""
    cache = torch.empty(256 * 2**20, dtype=torch.uint8, device=DEVICE)  # larger than any GPU's, and 60 us of head start
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 5 or (len(times) < repeats and time.perf_counter() < stop):
        cache.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy inside the GPU's memory."""
    source = torch.rand(2**28 if GPU else 2**20, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_us(lambda: lambda: target.copy_(source)) * 1e6


def definition(qkv: torch.Tensor, shape: Shape) -> torch.Tensor:
    """The output in float64, image by image, which keeps its memory small."""
    images = [
        eager.sema_attention(*image.double().chunk(3, dim=-1), **shape.settings, local=True) for image in qkv.split(1)
    ]
    return torch.cat(images)


def check(attention: Attention, qkv: torch.Tensor, exact: torch.Tensor, poison: bool) -> float:
    """||out - exact|| / ||exact||; with poison, every new tensor is full of NaN, which shows what is never written."""
    torch.use_deterministic_algorithms(poison, warn_only=True)
    try:
        with torch.no_grad():
            out = attention(*qkv.chunk(3, dim=-1))
    finally:
        torch.use_deterministic_algorithms(False)
    return float((out.double() - exact).norm() / exact.norm())


def backward(attention: Attention, qkv: torch.Tensor, grad: torch.Tensor) -> Callable[[], object]:
    """Compute the forward pass, and give its backward pass."""
    leaves = [x.detach().requires_grad_() for x in qkv.chunk(3, dim=-1)]
    out = attention(*leaves)
    # What is no SEMA attention may order its axes otherwise.
    given = grad if out.shape == grad.shape else grad.reshape(out.shape)
    return lambda: torch.autograd.grad(out, leaves, given, retain_graph=True)


def measure(shape: Shape, dtype: torch.dtype, way: str, bandwidth: float, clock: float, exact, qkv, grad) -> dict:
    """One row of the table."""
    bytes_once = shape.tokens * shape.channels * qkv.element_size()
    row = {
        "layer": shape.name, "map": "x".join(map(str, shape.map)), "batch": shape.batch, "channels": shape.channels,
        "dtype": str(dtype).removeprefix("torch."), "tokens": shape.tokens, "way": way,
        "forward_floor_us": 5 * bytes_once / bandwidth * 1e6, "backward_floor_us": 8 * bytes_once / bandwidth * 1e6,
        "exp_us": shape.tokens * shape.heads * prod(shape.windows) / clock * 1e6,
    }  # fmt: skip
    try:
        attention = {**SEMA, **OTHER}[way](shape)
        if way in SEMA:
            row["error"] = check(attention, qkv, exact, poison=way in FUSED)
            if not row["error"] < (1e-5 if dtype == torch.float32 else 1e-2):
                return row | {"note": "WRONG"}
        q, k, v = qkv.chunk(3, dim=-1)
        with torch.no_grad():
            row["forward_us"] = median_us(lambda: lambda: attention(q, k, v))
        row["forward_share"] = row["forward_floor_us"] / row["forward_us"]
        if way == "ptx":
            attention(q, k, v)  # raises where a launch failed meanwhile
        else:
            row["backward_us"] = median_us(lambda: backward(attention, qkv, grad))
            row["backward_share"] = row["backward_floor_us"] / row["backward_us"]
    except Unavailable as reason:
        row["note"] = str(reason)
    except Exception as error:  # one way that breaks on this machine must not end the others
        row["note"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120]
    finally:
        torch.compiler.reset()
    return row


def layers(shapes: list[Shape], minutes: float) -> list[dict]:
    """Rows for every layer: fused and eager everywhere, then the others for as long as ``minutes`` allow."""
    stop = time.monotonic() + 60 * minutes
    bandwidth, clock = copy_bandwidth(), exponentials()
    print(f"copy bandwidth: {bandwidth / 1e12:.2f} TB/s")
    # The largest first: they decide.
    jobs = [(shape, torch.float16) for shape in sorted(shapes, key=lambda shape: -shape.tokens * shape.channels)]
    jobs += [(shape, dtype) for shape in shapes if "example" in shape.name for dtype in (torch.bfloat16, torch.float32)]
    rows = []
    for ways in ((*FUSED, "eager"), ("compile", "flex", *OTHER)):
        for shape, dtype in jobs:
            if time.monotonic() > stop:
                print(f"out of time: {ways} of {shape} and what follows are not measured")
                break
            generator = torch.Generator(DEVICE).manual_seed(0)
            size = (shape.batch, *shape.map)
            qkv = torch.randn(*size, 3 * shape.channels, generator=generator, device=DEVICE, dtype=dtype)
            grad = torch.randn(*size, shape.channels, generator=generator, device=DEVICE, dtype=dtype)
            exact = definition(qkv, shape)
            for way in ways:
                rows.append(measure(shape, dtype, way, bandwidth, clock, exact, qkv, grad))
                print(in_words(rows[-1]), flush=True)
    return rows


def exponentials() -> float:
    """Exponentials a second: 16 a clock and multiprocessor."""
    if not GPU:
        return float("inf")
    properties = torch.cuda.get_device_properties(DEVICE)
    return 16 * properties.multi_processor_count * 1e3 * getattr(properties, "clock_rate", 1.98e6)


def in_words(row: dict) -> str:
    numbers = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in row.items()}
    return "  ".join(f"{key} {numbers[key]}" for key in COLUMNS[1:] if key in numbers)


def networks() -> list[dict]:
    """Whole networks with each backend: one inference pass and one training step, float16 autocast, in milliseconds."""
    rows = []
    for name, (config, batch, patch) in NETWORKS.items():
        torch.manual_seed(0)
        network = build({"name": "USEMA", "config": config}).to(DEVICE)
        image = torch.randn(batch, config["in_channels"], *patch, device=DEVICE)
        for backend in ("eager", "triton", "ptx"):
            os.environ[dispatch.ENVIRONMENT_VARIABLE] = backend
            row = {"network": name, "backend": backend}
            for what, gradient in (("inference_ms", False), ("training_ms", True)):
                if gradient and backend == "ptx":
                    continue

                def step(gradient=gradient, network=network, image=image):
                    with torch.set_grad_enabled(gradient), torch.autocast(DEVICE.type, torch.float16):
                        out = network(image).float().square().mean()
                    if gradient:
                        out.backward()
                        network.zero_grad(set_to_none=True)

                try:
                    for _ in range(3):
                        step()
                    row[what] = median_of_events(step, repeats=10, seconds=5) / 1e3
                except torch.OutOfMemoryError:
                    row[what] = "out of memory"
            rows.append(row)
            print(row, flush=True)
    del os.environ[dispatch.ENVIRONMENT_VARIABLE]
    return rows


# Reporting


def machine() -> str:
    if not GPU:
        return f"{os.cpu_count()} CPU cores, no GPU"
    properties = torch.cuda.get_device_properties(DEVICE)
    return (
        f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
        f"{properties.multi_processor_count} multiprocessors, {properties.total_memory / 2**30:.0f} GiB"
    )


def write(rows: list[dict], network_rows: list[dict], folder: Path) -> None:
    """The table as CSV, and as Markdown with what it takes to understand it."""
    today = datetime.date.today().isoformat()
    stem = f"sema_kernel_{today}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    triton = importlib.util.find_spec("triton") and __import__("triton").__version__
    shown = [column for column in COLUMNS if column != "tokens"]
    lines = [
        "# Speed of SEMA attention", "",
        f"{today}, {machine()}, {platform.system()}, torch {torch.__version__}, triton {triton}. Made by "
        f"`python {' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}`; what the columns mean is said there.", "",
        f"| {' | '.join(shown)} |", f"|{'---|' * len(shown)}",
    ]  # fmt: skip
    for row in rows:
        cells = [f"{row.get(c, ''):.3g}" if isinstance(row.get(c), float) else str(row.get(c, "")) for c in shown]
        lines.append(f"| {' | '.join(cells)} |")
    if network_rows:
        columns = ("network", "backend", "inference_ms", "training_ms")
        lines += ["", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in network_rows]
    (folder / f"{stem}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written: {folder / stem}.csv and .md")


def proof() -> None:
    """Run every test of the kernels on this machine; leave if one fails."""
    tests = [f"Testing/Python/sema/{name}.py" for name in ("sema_kernel_checks", "test_sema_aot", "test_sema_dispatch")]
    parallel = ["-n", "8"] if importlib.util.find_spec("xdist") else []
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", *parallel, *tests], cwd=ROOT)
    if run.returncode:
        sys.exit("The kernels are not right on this machine: nothing was timed.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proof", action="store_true", help="run the tests of the kernels first")
    parser.add_argument("--cpu-smoke", action="store_true", help="only show that this script runs")
    parser.add_argument("--minutes", type=float, default=4, help="for timing layers; what does not fit is left out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args()
    if not GPU and not options.cpu_smoke:
        sys.exit("No NVIDIA GPU here. --cpu-smoke shows that this script runs.")
    if options.cpu_smoke and options.out == RESULTS:
        parser.error("--cpu-smoke measures nothing: give it another folder with --out")
    if options.proof:
        proof()
    rows = layers(SMOKE_SHAPES if options.cpu_smoke else SHAPES, options.minutes)
    write(rows, [] if options.cpu_smoke else networks(), options.out)
    if any(row.get("note") == "WRONG" for row in rows):
        sys.exit("A way to compute SEMA is wrong.")


if __name__ == "__main__":
    main()
