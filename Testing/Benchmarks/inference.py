"""The same weights on the same volume through our engine, nnU-Net's predictor and MONAI's sliding window.

Each engine runs in a process of its own, on the same preprocessed data, one after the other, several rounds in turn:

    python Testing/Benchmarks/inference.py [--volume FILE] [--device cpu] [--rounds 3] [--write]

Prints seconds of inference (best round), peak memory of the process, and how far the logits are from ours, with ratios
to our engine. --write appends the table to Testing/Benchmarks/results/inference.md.
"""

from __future__ import annotations

import argparse
import json
import resource
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
ENGINES = ("usema", "nnunet", "monai")


def prepare(model: str, volume: Path, target: Path) -> None:
    """Preprocess once, for all engines alike."""
    from usema.inference.nnunet_recipe import preprocess
    from usema.inference.plan import Plan
    from usema.models.bundle import read_bundle
    from usema.store.library import find_model
    from usema.volumes.volume import read_volume

    image = read_volume(volume)
    plan = Plan.from_dict(read_bundle(find_model(model)).metadata.preprocessing)
    np.save(target, preprocess(image.array[None], image.geometry.spacing_zyx, plan).data)


def infer(engine: str, model: str, data: np.ndarray, device: str, overlap: float) -> tuple[np.ndarray, float]:
    """Logits (K, z, y, x) and the seconds that the sliding window took, model loading left out."""
    import torch
    from usema.inference.predictor import Predictor
    from usema.models.bundle import read_bundle
    from usema.store.library import find_model

    predictor = Predictor(read_bundle(find_model(model)), device)
    (part,) = predictor.parts
    network, tile, classes = part.network, part.recipe.patch_size, predictor.num_classes
    network(torch.zeros(1, data.shape[0], *tile, device=device))  # first-call costs are not the engine's
    started = time.perf_counter()
    if engine == "usema":
        from usema.inference.sliding_window import predict_logits

        slabs = predict_logits(network, data, patch_size=tile, num_classes=classes, overlap=overlap, device=device)
        logits = np.concatenate([slab.cpu().numpy() for _, slab in slabs], axis=1)
    elif engine == "nnunet":
        from types import SimpleNamespace

        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        peer = nnUNetPredictor(
            tile_step_size=1 - overlap,
            use_mirroring=False,
            perform_everything_on_device=device != "cpu",
            device=torch.device(device),
            allow_tqdm=False,
        )
        peer.network, peer.allowed_mirroring_axes = network, None
        peer.configuration_manager = SimpleNamespace(patch_size=tile)
        peer.label_manager = SimpleNamespace(num_segmentation_heads=classes)
        logits = peer.predict_sliding_window_return_logits(torch.from_numpy(data)).float().cpu().numpy()
    else:
        from monai.inferers import sliding_window_inference

        with torch.inference_mode():
            image = torch.from_numpy(data)[None]
            logits = sliding_window_inference(
                image, tile, 1, network, overlap=overlap, mode="gaussian", sw_device=device, device="cpu"
            )
        logits = logits[0].numpy()
    return logits, time.perf_counter() - started


def run_engine(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.folder)
    logits, seconds = infer(
        arguments.engine, arguments.model, np.load(folder / "data.npy"), arguments.device, arguments.overlap
    )
    np.save(folder / f"{arguments.engine}.npy", logits)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, default=VOLUME)
    parser.add_argument("--model", default="hippocampus-mr")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--machine", default="", help="in words, for the results file")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        run_engine(arguments)
        return

    volume = arguments.volume
    with tempfile.TemporaryDirectory() as folder:
        prepare(arguments.model, volume, Path(folder) / "data.npy")
        measured = {engine: [] for engine in ENGINES}
        for _ in range(arguments.rounds):
            for engine in ENGINES:
                own = ["--engine", engine, "--folder", folder, "--model", arguments.model]
                own += ["--device", arguments.device, "--overlap", str(arguments.overlap)]
                output = subprocess.run([sys.executable, __file__, *own], check=True, capture_output=True, text=True)
                measured[engine].append(json.loads(output.stdout.splitlines()[-1]))
        logits = {engine: np.load(Path(folder) / f"{engine}.npy") for engine in ENGINES}
    table = render(measured, logits)
    shape = "x".join(map(str, logits["usema"].shape[1:]))
    title = (
        f"{date.today()}, {arguments.machine or arguments.device}, {volume.name} at {shape}, model {arguments.model}"
    )
    command = f"python Testing/Benchmarks/inference.py --device {arguments.device} --rounds {arguments.rounds}"
    text = f"## {title}\n\n`{command}`\n\n{table}\n"
    print(text)
    if arguments.write:
        with (ROOT / "Testing/Benchmarks/results/inference.md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def render(measured: dict[str, list[dict]], logits: dict[str, np.ndarray]) -> str:
    best = {engine: min(run["seconds"] for run in runs) for engine, runs in measured.items()}
    peak = {engine: min(run["peak_gib"] for run in runs) for engine, runs in measured.items()}
    ours = logits["usema"]
    rows = [
        "| engine | seconds | ratio | peak GiB | ratio | mean abs. difference | labels that differ |",
        "|---" * 7 + "|",
    ]
    for engine in ENGINES:
        difference = np.abs(logits[engine] - ours).mean()
        labels = (logits[engine].argmax(0) != ours.argmax(0)).mean()
        rows.append(
            f"| {engine} | {best[engine]:.2f} | {best[engine] / best['usema']:.2f} | {peak[engine]:.2f} | "
            f"{peak[engine] / peak['usema']:.2f} | {difference:.1e} | {labels:.1e} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
