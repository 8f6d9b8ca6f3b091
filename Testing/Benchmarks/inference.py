"""The same weights on the same volume: ours by PyTorch and by OpenVINO, nnU-Net's predictor, MONAI's sliding window.

Each engine runs in a process of its own on the same preprocessed data, in turn, several rounds:

    python Testing/Benchmarks/inference.py [--volume FILE] [--network bundled|usema|plain] [--part 100] [--write]

``--volume`` may be a CT, an MR or a whole head; ``--spacing 1.5`` resamples it so, and ``--part`` takes a cube of so
many voxels from its middle. Prints processor seconds and seconds on the clock of inference (medians), the ratio to our
PyTorch (median of the rounds' ratios), peak memory of the process, labels that differ, and the floor: what the same
multiplications take at the rate of a large matrix product on the same thread. Processor seconds do not depend on who
else computes here. --write appends the table to Testing/Benchmarks/results/inference.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))
VOLUME = ROOT.parent / "shared/data/volumes/body_ct/example_mr_sm.nii.gz"
ENGINES = ("usema", "openvino", "nnunet", "monai")
CLASSES, TILE = 20, (64, 64, 64)
UNTRAINED = {"kernels": [[3, 3, 3]] * 4, "strides": [[1, 1, 1], *[[2, 2, 2]] * 3], "features": [32, 64, 128, 256]}
NETWORKS = {  # besides the bundled model: untrained networks of a usual size
    "usema": ("USEMA", {"blocks": 1, "sema_stages": "bottleneck"}),
    "plain": ("PlainConvUNet", {"convs": [2] * 4, "decoder_convs": [2] * 3}),
}


def network_of(name: str):
    """(network, tile, classes) in evaluation mode."""
    import torch
    from usema.networks import build

    if name == "bundled":
        from usema.inference.predictor import Predictor
        from usema.models.bundle import read_bundle
        from usema.store.library import find_model

        predictor = Predictor(read_bundle(find_model("hippocampus-mr")), "cpu")
        return predictor.parts[0].network, predictor.parts[0].recipe.patch_size, predictor.parts[0].outputs.count
    torch.manual_seed(0)
    architecture, config = NETWORKS[name]
    config = {"in_channels": 1, "num_classes": CLASSES, **UNTRAINED, **config}
    return build({"name": architecture, "config": config}).eval().requires_grad_(False), TILE, CLASSES


def prepare(volume: Path, spacing: float, part: int | None, target: Path) -> None:
    """Normalise and resample once, for all engines alike."""
    from usema.inference.nnunet_recipe import preprocess
    from usema.inference.plan import Plan
    from usema.volumes.volume import read_volume

    image = read_volume(volume)
    plan = Plan(
        (spacing,) * 3, TILE, (0, 1, 2), (0, 1, 2), ("ZScoreNormalization",), (False,), ({},)
    )  # z-scores do for CT, too, where only time is asked for
    data = preprocess(image.array[None], image.geometry.spacing_zyx, plan).data
    if part:
        data = data[(slice(None), *(slice(max(0, (n - part) // 2), (n - part) // 2 + part) for n in data.shape[1:]))]
    np.save(target, np.ascontiguousarray(data))


def infer(engine: str, name: str, data: np.ndarray, overlap: float) -> tuple[np.ndarray, float, float, str]:
    """Logits (K, z, y, x), processor and clock seconds of the sliding window alone, and what computed them."""
    import torch
    from usema.inference.cpu_engine import CPUEngine
    from usema.inference.sliding_window import predict_logits

    network, tile, classes = network_of(name)
    by = f"PyTorch {torch.__version__}"
    with torch.inference_mode():
        network(torch.zeros(1, data.shape[0], *tile))  # first-call costs are not the engine's
        if engine == "openvino":
            network = CPUEngine(network, f"benchmark {name}")
            network.prove(torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, *tile), np.float32)))
            by = str(network.choice)
            network.expect(1)
    clock, processor = time.perf_counter(), time.process_time()
    if engine in ("usema", "openvino"):
        slabs = predict_logits(network, data, patch_size=tile, num_classes=classes, overlap=overlap)
        logits = np.concatenate([slab.numpy() for _, slab in slabs], axis=1)
    elif engine == "nnunet":
        from types import SimpleNamespace

        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        peer = nnUNetPredictor(
            tile_step_size=1 - overlap,
            use_mirroring=False,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        peer.network, peer.allowed_mirroring_axes = network, None
        peer.configuration_manager = SimpleNamespace(patch_size=tile)
        peer.label_manager = SimpleNamespace(num_segmentation_heads=classes)
        logits = peer.predict_sliding_window_return_logits(torch.from_numpy(data)).float().numpy()
    else:
        from monai.inferers import sliding_window_inference

        with torch.inference_mode():
            image = torch.from_numpy(data)[None]
            logits = sliding_window_inference(image, tile, 1, network, overlap=overlap, mode="gaussian")[0].numpy()
    return logits, time.process_time() - processor, time.perf_counter() - clock, by


def floor_seconds(name: str, shape: tuple[int, ...], overlap: float) -> float:
    """Processor seconds of the multiplications of all tiles, at the rate of a large matrix product."""
    import torch
    from usema.inference.tiling import Tiling
    from usema.networks.cost import cost

    network, tile, _ = network_of(name)
    matrix = torch.randn(1024, 1024)
    torch.mm(matrix, matrix)
    begun = time.process_time()
    for _ in range(8):
        torch.mm(matrix, matrix)
    rate = 8 * 1024**3 / (time.process_time() - begun)
    _, multiplications = cost(lambda: network.to("meta"), (1, 1, *tile))
    return multiplications * Tiling.of(shape, tile, overlap).count / rate


def run_engine(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.folder)
    data = np.load(folder / "data.npy")
    if arguments.engine == "floor":
        print(json.dumps({"processor": floor_seconds(arguments.network, data.shape[1:], arguments.overlap)}))
        return
    logits, processor, clock, by = infer(arguments.engine, arguments.network, data, arguments.overlap)
    np.save(folder / f"{arguments.engine}.npy", logits.argmax(0).astype(np.uint8))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"processor": processor, "clock": clock, "peak_gib": peak, "by": by}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, default=VOLUME)
    parser.add_argument("--network", choices=["bundled", *NETWORKS], default="bundled")
    parser.add_argument("--spacing", type=float, default=1.5, help="mm")
    parser.add_argument("--part", type=int, help="voxels of a side of the cube to take; all of the volume without")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--machine", default="", help="in words, for the results file")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--engine", choices=[*ENGINES, "floor"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        run_engine(arguments)
        return

    own = ["--network", arguments.network, "--overlap", str(arguments.overlap)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def ask(engine: str, folder: str) -> dict:
        command = [sys.executable, __file__, "--engine", engine, "--folder", folder, *own]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        return json.loads(output.stdout.splitlines()[-1])

    with tempfile.TemporaryDirectory() as folder:
        environment.setdefault("USEMA_CACHE", folder)
        prepare(arguments.volume, arguments.spacing, arguments.part, Path(folder) / "data.npy")
        shape = "x".join(map(str, np.load(Path(folder) / "data.npy").shape[1:]))
        measured = {engine: [] for engine in ENGINES}
        for _ in range(arguments.rounds):
            for engine in ENGINES:
                measured[engine].append(ask(engine, folder))
        floor = ask("floor", folder)["processor"]
        labels = {engine: np.load(Path(folder) / f"{engine}.npy") for engine in ENGINES}
    load = f", load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
    title = (
        f"{date.today()}, {arguments.machine or platform.processor() or platform.machine()}, one thread{load}; "
        f"{arguments.volume.name} at {arguments.spacing:g} mm, {shape}; network {arguments.network}"
    )
    text = f"## {title}\n\n`python Testing/Benchmarks/{' '.join([Path(__file__).name, *sys.argv[1:]])}`\n\n"
    text += render(measured, labels, floor)
    print(text)
    if arguments.write:
        with (ROOT / "Testing/Benchmarks/results/inference.md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def render(measured: dict[str, list[dict]], labels: dict[str, np.ndarray], floor: float) -> str:
    rows = [
        "| engine | processor s | ratio | clock s | peak GiB | labels that differ | computed by |",
        "|---" * 7 + "|",
    ]
    base = [run["processor"] for run in measured["usema"]]

    def median(engine: str, key: str) -> float:
        return statistics.median(run[key] for run in measured[engine])

    for engine in ENGINES:
        ratio = statistics.median(run["processor"] / one for run, one in zip(measured[engine], base, strict=True))
        differing = (labels[engine] != labels["usema"]).mean()
        rows.append(
            f"| {engine} | {median(engine, 'processor'):.1f} | {ratio:.2f} | {median(engine, 'clock'):.1f} | "
            f"{median(engine, 'peak_gib'):.2f} | {differing:.1e} | {measured[engine][-1]['by']} |"
        )
    ratio = floor / statistics.median(base)
    rows.append(f"| floor: matrix product | {floor:.1f} | {ratio:.2f} | | | | |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
