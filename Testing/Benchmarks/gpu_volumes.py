"""What ``gpu.py`` measures beside the sliding window: how many tiles at a time, CUDA graphs, and the whole way from a
volume to its labels. The functions return rows of Markdown; with the device "cpu" they show that they run.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from inference import DATA, VOLUMES, network_of
from usema.inference.batch_search import BatchSearch
from usema.inference.nnunet_recipe import preprocess
from usema.inference.outputs import Outputs
from usema.inference.plan import Plan
from usema.inference.sliding_window import predict_logits
from usema.volumes.volume import read_volume

# Voxels at 1 mm, and the seconds that KonfAI 1.8.7 is said to take on an RTX PRO 5000, with its weights.
SIZES = {(240, 220, 200): 7.6, (249, 246, 246): 17.7, (512, 512, 531): 212.0}
SMALL = {(40, 60, 50): None}
SPACING = 1.5
MOST_TILES = 16


class Graphed(torch.nn.Module):
    """A network on a GPU whose launches are recorded once for each shape, and then replayed as one; else as it is."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network, self._recorded = network, {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cuda":
            return self.network(x)
        # Else autocast would keep its copies of the weights only for this call, and the graph would read them later.
        with torch.autocast("cuda", torch.float16, cache_enabled=False):
            if x.shape not in self._recorded:
                self._recorded[x.shape] = self._record(x)
            given, graph, found = self._recorded[x.shape]
            given.copy_(x)
            graph.replay()
            return found.clone()

    def _record(self, x: torch.Tensor):
        given, graph, stream = x.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.network(given)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            found = self.network(given)
        return given, graph, found


def wait(device: str) -> float:
    """When the device has done what it was given, by the clock."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.inference_mode()
def batches(names: list[str], folder, device: str, most: int = MOST_TILES) -> list[str]:
    """Milliseconds of a tile by how many are computed at a time, and how many the engine would take."""
    rows = ["| network | ms a tile, by tiles at a time | chosen |", "|---" * 3 + "|"]
    for name in names:
        network, tile, _ = network_of(name, folder)
        network, search, told = network.to(device), BatchSearch(most), {}
        while not search.ended:
            x = torch.zeros(search.batch_size, 1, *tile, device=device)
            begun = wait(device)
            with torch.autocast("cuda", torch.float16, enabled=device == "cuda"):
                network(x)
            seconds = wait(device) - begun
            told[len(x)] = 1e3 * seconds / len(x)
            search.took(len(x), seconds)
        times = ", ".join(f"{size}: {each:.1f}" for size, each in told.items())
        rows.append(f"| {name} | {times} | {search.batch_size} |")
        print(rows[-1], flush=True)
    return rows


def journeys(name: str, folder, device: str, sizes: dict) -> list[str]:
    """From a volume at 1 mm to labels on its grid, the network at 1.5 mm: resampled by the CPU and by the device."""
    network, tile, classes = network_of(name, folder)
    plan = Plan((SPACING,) * 3, tile, (0, 1, 2), (0, 1, 2), ("ZScoreNormalization",), (False,), ({},))
    rows = [
        "| voxels | resampled by | s, preparing | s, all | KonfAI, s | largest difference | labels that differ |",
        "|---" * 7 + "|",
    ]
    source = read_volume(DATA / VOLUMES["ct"]).array
    for shape, public in sizes.items():
        missing = [(0, max(0, wanted - there)) for wanted, there in zip(shape, source.shape, strict=True)]
        array = np.pad(source, missing, mode="symmetric")[tuple(slice(0, n) for n in shape)][None]
        first = None
        for way in ("CPU", device):
            begun = wait(device)
            prepared = preprocess(array, (1.0,) * 3, plan, device=None if way == "CPU" else torch.device(device))
            prepared_at = wait(device)
            collector = prepared.collector(Outputs.classes(classes), keep_probabilities=False)
            slabs = predict_logits(network, prepared.data, patch_size=tile, num_classes=classes, device=device)
            for slab in slabs:
                collector.add(*slab)
                del slab
            labels, _ = collector.finish()
            ended = wait(device)
            data, first = prepared.data, first or (prepared.data, labels)
            told = [f"{prepared_at - begun:.2f}", f"{ended - begun:.2f}", "" if public is None else f"{public:g}"]
            told += [f"{abs(data - first[0]).max():.1e}", f"{(labels != first[1]).mean():.1e}"]
            rows.append(f"| {'x'.join(map(str, shape))} | {way} | {' | '.join(told)} |")
            print(rows[-1], flush=True)
    return rows
