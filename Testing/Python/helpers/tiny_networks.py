"""Small networks and volumes for the tests of sliding-window inference."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from usema.inference.sliding_window import predict_logits

CLASSES = 3


def make_network(dimensions: int, channels: int = 1, seed: int = 0) -> nn.Module:
    """A small network with seeded weights; for its stride, it matters where exactly a voxel lies in its tile."""
    torch.manual_seed(seed)
    if dimensions == 3:
        conv, norm, up = nn.Conv3d, nn.InstanceNorm3d, nn.ConvTranspose3d
    else:
        conv, norm, up = nn.Conv2d, nn.InstanceNorm2d, nn.ConvTranspose2d
    network = nn.Sequential(
        conv(channels, 6, 3, stride=2, padding=1),
        norm(6),
        nn.LeakyReLU(),
        conv(6, 6, 3, padding=1),
        up(6, CLASSES, 2, stride=2),
    )
    return network.requires_grad_(False)


def make_data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def predict(network: nn.Module, data: np.ndarray, **options) -> torch.Tensor:
    """All slabs put together, having checked that they come in order, without gap or overlap."""
    planes, slabs = 0, []
    for start, slab in predict_logits(network, data, num_classes=CLASSES, **options):
        assert start == planes
        assert slab.shape[0] == CLASSES
        assert slab.shape[2:] == data.shape[2:]
        assert slab.dtype == torch.float32
        planes += slab.shape[1]
        slabs.append(slab)
    assert planes == data.shape[1]
    return torch.cat(slabs, dim=1)
