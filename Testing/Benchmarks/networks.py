"""What networks cost per slice, and how that grows with the slice: USEMA, its neighbours and the field's references.

    python Testing/Benchmarks/networks.py --sides 224                      # about a minute
    python Testing/Benchmarks/networks.py [--rounds 3] [--device cpu] [--machine WORDS] [--write]

One slice of one channel, 14 classes, random weights, evaluation mode, float32. Every pass runs in a process of its own,
one after the other, in turn over all networks and sides:

- seconds: on a CPU the processor time of one thread in the program itself, which other work on the machine disturbs
  less than a clock; what the system spends on handing out memory is left out, as it depends on the system. On a GPU the
  clock, after passes to warm up (on a CPU, second passes took the same as first ones). Median of the rounds.
- peak memory: on a CPU the largest resident memory of the process less what it held after importing PyTorch; on a GPU
  what PyTorch allocated. Weights included.
- MACs: of convolutions, linear layers and attention (usema.networks.cost); a selective scan is not among them.

The U-Nets (USEMA, and nnU-Net's plain and residual ones with nnU-Net's numbers of blocks) share the plan that nnU-Net
makes for the side: features 32 to 512, stages down to 4 to 7 pixels, so 8 at 512. All run as they are: only USEMA and
MLLA-UNet lay their maps out with channels last, which is part of how they are built. The growth is the exponent of a
straight line through log(seconds) over log(pixels): 1 is linear.

--write puts tables into results/networks.md and the picture into results/networks_growth.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

from own_process import peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))
RESULTS = Path(__file__).with_name("results")
CHANNELS, CLASSES = 1, 14
SIDES = (224, 320, 448, 512, 640, 768, 1024)
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}


# The networks. Each function imports what it needs, and nothing of the others, and gives a builder.

Builder = Callable[[int], object]  # from the side of the slice


def plan(side: int) -> dict:
    """nnU-Net's 2D plan for square slices of this side: it halves them down to 4 to 7 pixels."""
    stages = 1 + int(math.log2(side / 4))
    features = [min(512, 32 * 2**stage) for stage in range(stages)]
    return {"features": features, "kernels": [[3, 3]] * stages, "strides": [[1, 1]] + [[2, 2]] * (stages - 1)}


def ours(name: str) -> Builder:
    from usema.networks import build

    def make(side: int):
        config = {"in_channels": CHANNELS, "num_classes": CLASSES, **(plan(side) if name == "USEMA" else {})}
        return build({"name": name, "config": config})

    return make


def nnunet(residual: bool) -> Builder:
    from dynamic_network_architectures.architectures import unet
    from torch import nn

    def make(side: int):
        features, kernels, strides = plan(side).values()
        stages = len(features)
        network = unet.ResidualEncoderUNet if residual else unet.PlainConvUNet
        blocks = [1, 3, 4, *[6] * stages][:stages] if residual else [2] * stages
        return network(
            CHANNELS,
            stages,
            features,
            nn.Conv2d,
            kernels,
            strides,
            blocks,
            CLASSES,
            [1 if residual else 2] * (stages - 1),
            conv_bias=True,
            norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
        )

    return make


def unetr() -> Builder:
    from monai.networks.nets import UNETR

    return lambda side: UNETR(CHANNELS, CLASSES, img_size=(side, side), spatial_dims=2)


def swin_unetr() -> Builder:
    from monai.networks.nets import SwinUNETR

    return lambda side: SwinUNETR(CHANNELS, CLASSES, feature_size=48, spatial_dims=2)


NETWORKS = {
    "USEMA": partial(ours, "USEMA"),
    "MLLA-UNet": partial(ours, "MLLA-UNet"),
    "Attention-Mamba": partial(ours, "Attention-Mamba"),
    "nnU-Net, plain": partial(nnunet, residual=False),
    "nnU-Net, residual": partial(nnunet, residual=True),
    "UNETR": unetr,
    "SwinUNETR": swin_unetr,
}


# Measuring


def measure(name: str, side: int, device: str) -> dict[str, float]:
    """In a process of its own: one network on one slice."""
    import torch
    from usema.networks.cost import cost

    torch.manual_seed(0)
    torch.set_num_threads(1)
    gpu = device.startswith("cuda")
    clock = time.perf_counter if gpu else lambda: resource.getrusage(resource.RUSAGE_SELF).ru_utime
    make = NETWORKS[name]()
    before = peak_bytes()
    network = make(side).eval().to(device)
    image = torch.randn(1, CHANNELS, side, side, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(12 if gpu else 1):
            started = clock()
            logits = network(image)
            if gpu:
                torch.cuda.synchronize()
            seconds.append(clock() - started)
    assert logits.shape == (1, CLASSES, side, side)
    peak = torch.cuda.max_memory_allocated() if gpu else peak_bytes() - before
    parameters, macs = cost(lambda: network.to("meta"), image.shape)
    return {"parameters": parameters, "macs": macs, "seconds": statistics.median(seconds[-10:]), "bytes": peak}


def in_a_process(name: str, side: int, device: str, limit: float) -> dict[str, float] | str:
    """What :func:`measure` gives there, or in words why it gave nothing."""
    command = [sys.executable, __file__, "--one", name, str(side), "--device", device]
    try:
        run = subprocess.run(
            command, env=os.environ | ONE_THREAD, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {limit:g} s"
    if run.returncode < 0:
        return f"ended by signal {-run.returncode}; 9 is what the system sends when memory runs out"
    if run.returncode:
        return run.stderr.strip().splitlines()[-1].rstrip(".")
    return json.loads(run.stdout.splitlines()[-1])


Results = dict[tuple[str, int], dict[str, float]]


def measure_all(options: argparse.Namespace) -> tuple[Results, dict[str, str]]:
    """Medians over the rounds by network and side, and why networks stopped short of the last side."""
    runs: dict[tuple[str, int], list[dict]] = {}
    stopped: dict[str, tuple[int, str]] = {}
    for number in range(options.rounds):
        for side in sorted(options.sides):
            for name in options.networks:
                if name in stopped and side >= stopped[name][0]:
                    continue
                result = in_a_process(name, side, options.device, options.limit)
                if isinstance(result, str):
                    stopped[name] = (side, result)
                    runs.pop((name, side), None)
                else:
                    runs.setdefault((name, side), []).append(result)
                print(f"round {number + 1}, {side}, {name}: {result}", flush=True)
    medians = {
        key: {value: statistics.median(run[value] for run in results) for value in results[0]}
        for key, results in runs.items()
    }
    return medians, {name: f"{name} was not measured from {side} on: {why}." for name, (side, why) in stopped.items()}


# Showing


def growth(results: Results, name: str, value: str) -> tuple[list[int], list[float], float]:
    """Sides, values, and the exponent of the number of pixels that fits them best; NaN for fewer than two sides."""
    sides = [side for network, side in results if network == name]
    values = [results[name, side][value] for side in sides]
    if len(sides) < 2:
        return sides, values, math.nan
    return (
        sides,
        values,
        statistics.linear_regression([2 * math.log(side) for side in sides], [math.log(v) for v in values])[0],
    )


def table(rows: list[list[str]]) -> str:
    header, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rest])


def tables(results: Results, networks: list[str], sides: list[int]) -> str:
    parts = []
    for side in [side for side in (224, 512) if side in sides]:
        first = results[networks[0], side]
        ratio = f"ratio to {networks[0]}"
        rows = [["network", "parameters / M", "MACs / G", "seconds", ratio, "peak memory / MiB", ratio]]
        for name in networks:
            if found := results.get((name, side)):
                seconds, peak = found["seconds"], found["bytes"]
                rows.append(
                    [
                        name,
                        f"{found['parameters'] / 1e6:.1f}",
                        f"{found['macs'] / 1e9:.1f}",
                        f"{seconds:.3g}",
                        f"{seconds / first['seconds']:.2f}",
                        f"{peak / 2**20:.0f}",
                        f"{peak / first['bytes']:.2f}",
                    ]
                )
        parts.append(f"One slice of {side} x {side}:\n\n{table(rows)}")
    if len(sides) > 1:
        for title, value, unit, digits in (
            ("Seconds", "seconds", 1, ".3g"),
            ("Peak memory in MiB", "bytes", 2**20, ".0f"),
        ):
            rows = [["network", *map(str, sides), "exponent"]]
            for name in networks:
                cells = [f"{results[name, s][value] / unit:{digits}}" if (name, s) in results else "" for s in sides]
                rows.append([name, *cells, f"{growth(results, name, value)[2]:.2f}"])
            parts.append(f"{title} by side, and the exponent of the number of pixels:\n\n{table(rows)}")
    return "\n\n".join(parts)


def draw(results: Results, networks: list[str], title: str, target: Path) -> None:
    """Seconds and memory over the side, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = (("seconds", 1, "seconds per slice"), ("bytes", 2**20, "peak memory / MiB"))
    for panel, (value, unit, label) in zip(axes, panels, strict=True):
        ticks = sorted({side for _, side in results})
        for name, marker in zip(networks, "osD^vP*X", strict=False):
            sides, values, exponent = growth(results, name, value)
            width = 2.5 if name == "USEMA" else 1.2
            panel.plot(sides, [v / unit for v in values], marker=marker, lw=width, label=f"{name}: {exponent:.2f}")
        panel.set(xscale="log", yscale="log", xlabel="side of the slice / pixels", ylabel=label)
        panel.set_xticks(ticks, [str(side) for side in ticks])
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        legend = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 2}
        panel.legend(title="growth: exponent of the number of pixels (1 is linear)", **legend)
    figure.savefig(target, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a process is ended")
    parser.add_argument("--machine", default="", help="in words, for the results")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.device)))
        return
    for side in options.sides:
        if side < 128 or side % 2 ** (len(plan(side)["features"]) - 1):
            parser.error(f"a plan cannot halve {side} down to 4 to 7 pixels; take one of {SIDES}")

    results, stopped = measure_all(options)
    machine = options.machine or f"{os.cpu_count()} cores, {options.device}"
    title = f"{date.today()}, {machine}, rounds: {options.rounds}"
    command = f"python Testing/Benchmarks/networks.py --rounds {options.rounds} --device {options.device}"
    notes = "".join(f"\n\n{note}" for note in stopped.values())
    text = f"## {title}\n\n`{command}`\n\n{tables(results, options.networks, sorted(options.sides))}{notes}\n"
    print(text)
    if options.write:
        with (RESULTS / "networks.md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        draw(results, options.networks, title, RESULTS / "networks_growth.png")


if __name__ == "__main__":
    main()
