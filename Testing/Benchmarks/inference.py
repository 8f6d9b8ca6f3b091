"""The same weights on the same volumes: ours by PyTorch and by OpenVINO, nnU-Net's predictor, MONAI's sliding window.

    python Testing/Benchmarks/inference.py --keep FOLDER [--volumes ct mr head] [--networks bundled plain imported]
        [--part 80 | --cube 300] [--memory] [--together] [--rounds 5] [--write]

Each engine runs in a process of its own on the same preprocessed data, all in turn, round by round; with ``--together``
a volume's engines share one process, which imports once, so that several rounds are affordable where many programs
compute; whole processes and peaks are not told then. What is finished is kept in FOLDER, and the same command goes on;
--table shows what there is so far. ``--part`` takes a cube of so many voxels from the middle of each volume, at 1.5 mm;
``--cube`` resamples all of it to a cube. ``--memory`` is for large
volumes: only three tiles are computed and all others get the answer of the third, so that the peak is that of a whole
run, and times and labels say nothing.

Prints, as medians of the rounds, processor seconds and seconds on the clock of inference, the ratio to our PyTorch
(median of the rounds' ratios), the gain over the better of nnU-Net's and MONAI's predictor (likewise), processor
seconds of the whole process (imports, loading, a first tile, and for OpenVINO compiling, the first time), its peak
memory, labels that differ from ours by PyTorch, and the floor: what the same multiplications take at the rate of a
large matrix product on the same thread. Processor seconds do not depend on who else computes here. All end with labels:
ours slab by slab, which is timed; nnU-Net and MONAI from the logits that they return, which is not. "fast" is OpenVINO
as with ``--speed fast``: less overlap, and bfloat16 where the processor has it; what it costs in Dice is told from the
cards of the models that are here.
--write puts the tables into results/inference.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from inference_tables import ENGINES, PEERS, memory_table, promises, table
from own_process import found_by, peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]
DATA = ROOT.parent / "shared/data"
VOLUMES = {
    "ct": "volumes/body_ct/example_ct_sm.nii.gz",
    "mr": "volumes/body_ct/example_mr_sm.nii.gz",
    "head": "volumes/whole_head/t1_whole_head.nii.gz",
}
SPACING = 1.5
CLASSES, TILE = 20, (40, 56, 40)  # as the bundled model has it: a small part has several
ANSWERED = 3  # tiles with --memory: the first ones allocate what later ones use again
UNTRAINED = {"kernels": [[3, 3, 3]] * 4, "strides": [[1, 1, 1], *[[2, 2, 2]] * 3], "features": [32, 64, 128, 256]}
BUNDLED, IMPORTED = "bundled", "imported"  # besides these: untrained networks of a usual size
NETWORKS = {
    "usema": ("USEMA", {"blocks": 1, "sema_stages": "bottleneck"}),
    "plain": ("PlainConvUNet", {"convs": [2] * 4, "decoder_convs": [2] * 3}),
    "residual": ("ResidualEncoderUNet", {"convs": [1, 3, 4, 6], "decoder_convs": [1] * 3}),
}


def network_of(name: str, folder: Path):
    """(network, tile, classes) in evaluation mode."""
    import torch
    from usema.networks import build

    if name in (BUNDLED, IMPORTED):
        from usema.inference.predictor import Predictor
        from usema.models.bundle import read_bundle
        from usema.store.library import find_model

        path = find_model("hippocampus-mr") if name == BUNDLED else folder / IMPORTED
        part = Predictor(read_bundle(path), "cpu").parts[0]
        return part.network, part.recipe.patch_size, part.outputs.count
    torch.manual_seed(0)
    architecture, config = NETWORKS[name]
    config = {"in_channels": 1, "num_classes": CLASSES, **UNTRAINED, **config}
    return build({"name": architecture, "config": config}).eval().requires_grad_(False), TILE, CLASSES


def import_model(folder: Path) -> None:
    """A residual-encoder U-Net that nnU-Net's trainer trained for a few steps, made into one of our models."""
    import nnunet_models
    from usema.converters import convert

    def wider(kind, axes: int) -> dict:
        described = narrow(kind, axes)
        described["architecture"]["arch_kwargs"]["features_per_stage"] = [16, 32, 64]
        return described

    narrow, nnunet_models.network_of = nnunet_models.network_of, wider
    kind = nnunet_models.Kind(residual=True, changes=(("patch_size", [40, 56, 40]),))
    nnunet_models.KINDS[IMPORTED] = kind
    convert(nnunet_models.train(IMPORTED, folder / "nnunet", DATA, steps=4), folder / IMPORTED)


def prepare(volume: Path, part: int | None, target: Path, cube: int | None = None) -> None:
    """Normalise and resample once, for all engines alike."""
    from usema.inference.nnunet_recipe import preprocess
    from usema.inference.plan import Plan
    from usema.inference.resampling import resample_image
    from usema.volumes.volume import read_volume

    image = read_volume(volume)
    plan = Plan(
        (SPACING,) * 3, TILE, (0, 1, 2), (0, 1, 2), ("ZScoreNormalization",), (False,), ({},)
    )  # z-scores do for CT, too, where only time is asked for
    data = preprocess(image.array[None], image.geometry.spacing_zyx, plan).data
    if part:
        data = data[(slice(None), *(slice(max(0, (n - part) // 2), (n - part) // 2 + part) for n in data.shape[1:]))]
    if cube:
        data = resample_image(data, (cube,) * 3, None)
    np.save(target, np.ascontiguousarray(data))


def answering(network):
    """The network, which after a few tiles gives its last answer again, as a tensor of its own."""
    import torch

    class Answering(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.left, self.answer = network, ANSWERED, None

        def forward(self, x):
            if self.left:
                self.left -= 1
                self.answer = self.network(x)
            return self.answer.clone()

    return Answering().eval()


def infer(engine: str, *how, **options) -> tuple[np.ndarray, float, float, str]:
    """See ``_infer``; the engine's memory as the command has it."""
    from usema.inference.allocator import keeping_freed_memory

    with nullcontext() if engine in PEERS else keeping_freed_memory():
        return _infer(engine, *how, **options)


def _infer(
    engine: str,
    name: str,
    data: np.ndarray,
    folder: Path,
    device: str = "cpu",
    memory: bool = False,
    made_of: Callable = lambda network: network,
) -> tuple[np.ndarray, float, float, str]:
    """Labels (z, y, x), processor and clock seconds of the sliding window alone, and what computed them.

    ``made_of`` gives what is computed in the network's place.
    """
    import torch
    from usema.inference.cpu_engine import CPUEngine
    from usema.inference.nnunet_recipe import Preprocessed
    from usema.inference.outputs import Outputs
    from usema.inference.sliding_window import predict_logits
    from usema.inference.speeds import FAST, MOST_OVERLAP

    network, tile, classes = network_of(name, folder)
    overlap = MOST_OVERLAP[FAST] if engine == FAST else 0.5
    by = f"PyTorch {torch.__version__}"
    network = made_of(network.to(device))
    half = torch.autocast("cuda", torch.float16, enabled=device == "cuda")  # as our engine and nnU-Net's have it
    # Imports and first calls are not the sliding window's; the whole process has them.
    with torch.inference_mode(), half:
        for _ in range(1 if device == "cpu" else 3):
            network(torch.zeros(1, data.shape[0], *tile, device=device))
        if engine in ("openvino", FAST):
            network = CPUEngine(network, f"benchmark {name}")
            noise = np.random.default_rng(0).standard_normal((1, 1, *tile), np.float32)
            network.prove(torch.from_numpy(noise), engine == FAST)
            by = str(network.choice)
            network.expect(1, engine == FAST)
    if memory:
        network = answering(network)
    if engine == "nnunet":
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        peer = nnUNetPredictor(
            tile_step_size=1 - overlap,
            use_mirroring=False,
            perform_everything_on_device=device == "cuda",
            device=torch.device(device),
            allow_tqdm=False,
        )
        peer.network, peer.allowed_mirroring_axes = network, None
        peer.configuration_manager = SimpleNamespace(patch_size=tile)
        peer.label_manager = SimpleNamespace(num_segmentation_heads=classes)
    elif engine == "monai":
        from monai.inferers import sliding_window_inference
    clock, processor = time.perf_counter(), time.process_time()
    if engine == "nnunet":
        logits = peer.predict_sliding_window_return_logits(torch.from_numpy(data))
    elif engine == "monai":
        with torch.inference_mode(), half:
            image = torch.from_numpy(data)[None].to(device)
            logits = sliding_window_inference(image, tile, 1, network, overlap=overlap, mode="gaussian")[0]
    else:
        logits, shape = None, data.shape[1:]
        whole = Preprocessed(
            data, shape, (0, 1, 2), tuple(slice(0, n) for n in shape), (SPACING,) * 3, (SPACING,) * 3, None
        )
        collector = whole.collector(Outputs.classes(classes), keep_probabilities=False)
        slabs = predict_logits(network, data, patch_size=tile, num_classes=classes, overlap=overlap, device=device)
        for start, slab in slabs:
            collector.add(start, slab)
            del slab  # else it would be held while the next is computed
        labels, _ = collector.finish()
    spent = time.process_time() - processor, time.perf_counter() - clock
    if logits is not None:
        labels = logits.argmax(0).to(torch.uint8).cpu().numpy()
    return labels, *spent, by


def floor_seconds(name: str, shape: tuple[int, ...], folder: Path) -> float:
    """Processor seconds of the multiplications of all tiles, at the rate of a large matrix product."""
    import torch
    from usema.inference.tiling import Tiling
    from usema.networks.cost import cost

    network, tile, _ = network_of(name, folder)
    matrix = torch.randn(1024, 1024)
    torch.mm(matrix, matrix)
    begun = time.process_time()
    for _ in range(8):
        torch.mm(matrix, matrix)
    rate = 8 * 1024**3 / (time.process_time() - begun)
    _, multiplications = cost(lambda: network.to("meta"), (1, 1, *tile))
    return multiplications * Tiling.of(shape, tile, 0.5).count / rate


def run_engine(engine: str, volume: str, network: str, folder: Path, memory: bool) -> None:
    """In a process of its own: prints what was measured."""
    data = np.load(folder / f"{volume}.npy")
    if engine == "floor":
        print(json.dumps({"processor": floor_seconds(network, data.shape[1:], folder)}))
        return
    labels, processor, clock, by = infer(engine, network, data, folder, memory=memory)
    np.save(folder / f"{volume}-{network}-{engine}.npy", labels)
    spent = resource.getrusage(resource.RUSAGE_SELF)
    told = {"processor": processor, "clock": clock, "whole": spent.ru_utime + spent.ru_stime, "by": by}
    print(json.dumps({**told, "peak_gib": peak_bytes() / 2**30, "shape": "x".join(map(str, data.shape[1:]))}))


def measure(volume: str, network: str, number: int, folder: Path, *how: str) -> None:
    """One round of all engines, of which those that are kept are not run again."""
    for engine in ENGINES if how else (*ENGINES, "floor"):
        kept = folder / f"{volume}-{network}-{engine}-{number}.json"
        if kept.exists():
            continue
        options = ["--engine", engine, "--keep", folder, "--volumes", volume, "--networks", network, *how]
        found = found_by(__file__, *options, USEMA_CACHE=str(folder / "compiled"))
        kept.write_text(json.dumps(found), encoding="utf-8")
        print(f"{kept.stem}: {kept.read_text()}", flush=True)


def run_together(volume: str, network: str, rounds: int, folder: Path) -> None:
    """All rounds of all engines in this process; keeps each result, and goes on where it was broken off."""
    data = np.load(folder / f"{volume}.npy")
    shape = "x".join(map(str, data.shape[1:]))
    for number, engine in itertools.product(range(rounds), (*ENGINES, "floor")):
        kept = folder / f"{volume}-{network}-{engine}-{number}.json"
        if kept.exists():
            continue
        if engine == "floor":
            told = {"processor": floor_seconds(network, data.shape[1:], folder)}
        else:
            labels, processor, clock, by = infer(engine, network, data, folder)
            np.save(folder / f"{volume}-{network}-{engine}.npy", labels)
            told = {"processor": processor, "clock": clock, "by": by, "shape": shape}
        kept.write_text(json.dumps(told), encoding="utf-8")
        print(f"{kept.stem}: {kept.read_text()}", file=sys.stderr, flush=True)
    print("{}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, help="folder of what is finished")
    parser.add_argument("--volumes", nargs="+", choices=list(VOLUMES), default=list(VOLUMES))
    networks = [BUNDLED, IMPORTED, *NETWORKS]
    parser.add_argument("--networks", nargs="+", choices=networks, default=[BUNDLED, "plain", IMPORTED])
    parser.add_argument("--part", type=int, help="voxels of a side of the cube to take; all of the volume without")
    parser.add_argument("--cube", type=int, help="voxels of a side that all of the volume is resampled to")
    parser.add_argument("--memory", action="store_true", help="compute a few tiles only: peaks, no times or labels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="measure nothing, show what is kept")
    parser.add_argument("--machine", default="", help="in words, for the results file")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--together", action="store_true", help="all engines of a volume in one process")
    parser.add_argument("--engine", choices=[*ENGINES, "floor", "together"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.keep.resolve()
    if arguments.engine == "together":
        run_together(arguments.volumes[0], arguments.networks[0], arguments.rounds, folder)
        return
    if arguments.engine:
        run_engine(arguments.engine, arguments.volumes[0], arguments.networks[0], folder, arguments.memory)
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(volume, network) for network in arguments.networks for volume in arguments.volumes]
    if not arguments.table:
        for volume in arguments.volumes:
            if not (folder / f"{volume}.npy").exists():
                prepare(DATA / VOLUMES[volume], arguments.part, folder / f"{volume}.npy", arguments.cube)
        if IMPORTED in arguments.networks and not (folder / IMPORTED / "model.json").exists():
            import_model(folder)
        for volume, network in rows if arguments.together else ():
            options = ["--engine", "together", "--keep", folder, "--volumes", volume, "--networks", network]
            found_by(__file__, *options, "--rounds", arguments.rounds, USEMA_CACHE=str(folder / "compiled"))
        for number in range(0 if arguments.together else 1 if arguments.memory else arguments.rounds):
            for volume, network in rows:
                measure(volume, network, number, folder, *(["--memory"] if arguments.memory else []))
    load = f", load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
    text = f"## {date.today()}, {arguments.machine or platform.processor() or platform.machine()}, one thread{load}\n\n"
    command = " ".join([Path(__file__).name, *sys.argv[1:]]).replace(str(arguments.keep), "FOLDER")
    text += f"`python Testing/Benchmarks/{command}`\n\n"
    if arguments.memory:
        text += memory_table(arguments.volumes, arguments.networks, folder)
    else:
        text += "\n".join([promises(rows, folder), *filter(None, (table(*row, folder) for row in rows))])
    print(text)
    if arguments.write:
        with (ROOT / "Testing/Benchmarks/results/inference.md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
