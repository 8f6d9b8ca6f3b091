"""Small models for two-dimensional images, trained on bright discs, so that their masks mean something."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from bundles import METADATA
from scipy import ndimage
from torch.nn import functional
from usema.models.bundle_writing import write_bundle
from usema.networks import build

WEIGHTS = Path(__file__).parent / "data" / "discs.safetensors"  # run this file to make it again
FLAT_USEMA = {
    "in_channels": 1,
    "num_classes": 2,
    "features": [4, 8],
    "kernels": [[3, 3], [3, 3]],
    "strides": [[1, 1], [2, 2]],
    "blocks": 1,
    "window": 4,
    "head_dim": 8,
}
IMAGE_PLAN = {
    "kind": "image",
    "spacing": [1.0, 1.0],
    "patch_size": [64, 64],
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "normalization": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "intensity_properties": [{}],
}


def image_plan(channels: int = 1, **changes) -> dict:
    """A plan of the kind image, at native pixels."""
    return {
        **IMAGE_PLAN,
        "normalization": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "intensity_properties": [{}] * channels,
        **changes,
    }


def labels(*names: str) -> list[dict]:
    """Labels of a model with these names."""
    made = []
    for value, name in enumerate(names, 1):
        label = copy.deepcopy(METADATA["labels"][0])
        label["terminology"].pop("type_modifier")
        made.append({**label, "value": value, "name": name, "color": [40 * value, 200, 90]})
    return made


def blobs(seed: int = 0, shape=(96, 128), count: int = 6, radius=(7, 12)) -> tuple[np.ndarray, np.ndarray]:
    """An 8-bit image (y, x) with bright discs on a darker, noisy, slanted background, and their mask."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape)
    mask = np.zeros(shape, bool)
    for _ in range(count):
        r = random.uniform(*radius)
        centre = [random.uniform(r + 1, length - r - 1) for length in shape]
        mask |= (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= r * r
    image = 60 + 20 * x / shape[1] + 90 * mask + random.normal(0, 4, shape)
    return image.clip(0, 255).astype(np.uint8), mask


def _trained(steps: int = 150) -> dict[str, torch.Tensor]:
    """Of the small network: background, the inside of bright discs, and their rim."""
    torch.manual_seed(0)
    network = build({"name": "USEMA", "config": {**FLAT_USEMA, "num_classes": 3}})
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(steps):
        image, mask = blobs(step, (64, 64), 3)
        inner = ndimage.binary_erosion(mask, iterations=2)
        target = torch.from_numpy(np.where(inner, 1, np.where(mask, 2, 0)))[None]
        values = torch.from_numpy(image.astype(np.float32))
        data = ((values - values.mean()) / values.std())[None, None]
        loss = functional.cross_entropy(network(data), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.state_dict()


@lru_cache(maxsize=4)
def _weights(channels: int, classes: int) -> dict[str, torch.Tensor]:
    """Those in the file beside this one, made for other channels (as if all showed the same) and without the rim."""
    state = safetensors.torch.load_file(WEIGHTS)
    made = {}
    for name, tensor in state.items():
        if name == "stem.0.weight":
            tensor = tensor.float().expand(-1, channels, -1, -1) / channels
        if tensor.ndim and tensor.shape[0] == 3:
            tensor = tensor[:classes]
        made[name] = tensor.float().contiguous()
    expected = build({"name": "USEMA", "config": {**FLAT_USEMA, "in_channels": channels, "num_classes": classes}})
    expected.load_state_dict(made)
    return made


def write_image_bundle(folder, *, channels: int = 1, names=("Disc",), preprocessing=None, **changes):
    """A bundle of a small USEMA network that finds bright discs; ``changes`` replace keys of its metadata."""
    config = {**FLAT_USEMA, "in_channels": channels, "num_classes": len(names) + 1}
    metadata = {
        **METADATA,
        "name": "discs",
        "title": "Bright discs",
        "modality": "OT",
        "anatomy": "Bright discs",
        "orientation": None,
        "channels": [{"name": name} for name in (["Grey"] if channels == 1 else ["red", "green", "blue"])],
        "labels": labels(*names),
        "architecture": {"name": "USEMA", "config": config},
        "preprocessing": image_plan(channels) if preprocessing is None else preprocessing,
        **changes,
    }
    return write_bundle(folder, metadata, _weights(channels, len(names) + 1))


def write_disc_counter(folder: Path) -> str:
    """A bundle that counts discs, which a rim tells apart; its path."""
    instances = {"label": "Disc", "boundary": "Rim", "method": "watershed", "minimum_pixels": 20}
    write_image_bundle(folder, names=("Disc", "Rim"), instances=instances, measurements=["objects"])
    return str(folder)


if __name__ == "__main__":
    safetensors.torch.save_file({name: tensor.half() for name, tensor in _trained().items()}, WEIGHTS)
