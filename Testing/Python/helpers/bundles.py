"""A small model's metadata and weights, for tests that need a bundle."""

from __future__ import annotations

import torch
from usema.models.bundle import read_bundle
from usema.models.bundle_writing import write_bundle
from usema.resources import bundled_models

BUNDLED_VERSION = read_bundle(bundled_models()["hippocampus-mr"]).metadata.version


def code(value, meaning):
    return {"scheme": "SCT", "value": value, "meaning": meaning}


def label(value, name, color, modifier):
    terminology = {"category": code("123037004", "Anatomical Structure"), "type": code("5366008", "Hippocampus")}
    return {"value": value, "name": name, "color": color, "terminology": {**terminology, "type_modifier": modifier}}


METADATA = {
    "name": "hippocampus-mr",
    "title": "Hippocampus (MR)",
    "version": "1.2.0",
    "description": "Head and body of the hippocampus.",
    "intended_use": "Research.",
    "limits": "T1-weighted MR of adults.",
    "modality": "MR",
    "anatomy": "Hippocampus",
    "channels": [{"name": "T1"}],
    "expected_spacing_mm": {"min": [0.8, 0.8, 0.8], "max": [1.2, 1.2, 1.5]},
    "expected_intensity_range": None,
    "orientation": "LPS",
    "labels": [
        label(1, "Anterior hippocampus", [216, 101, 79], code("255549009", "Anterior")),
        label(2, "Posterior hippocampus", [128, 174, 128], code("255551008", "Posterior")),
    ],
    "architecture": {"name": "USEMA", "config": {"features": [8, 16], "window": [4, 4, 4]}},
    "preprocessing": {"spacing": [1.0, 1.0, 1.0], "patch_size": [40, 56, 40]},
    "inference": {"mirror_axes": []},
    "training": {
        "dataset": "Dataset004_Hippocampus",
        "cases": 182,
        "framework": "nnU-Net 2.5",
        "iterations": 100,
        "seed": 1,
        "date": "2026-01-31",
        "optimiser": "SGD",
    },
    "metrics": {"validation": {"cases": 26, "dice": {"Anterior": 0.88, "Posterior": 0.86}}},
    "licence": {
        "name": "CC-BY-SA-4.0",
        "url": "https://creativecommons.org/licenses/by-sa/4.0/",
        "commercial_use": True,
        "attribution": "Medical Segmentation Decathlon",
    },
    "citation": "Antonelli et al. 2022, Nat Commun 13:4128",
}


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.BatchNorm3d(4), torch.nn.Conv3d(4, 3, 1))
    return network.state_dict()


TINY = {
    "in_channels": 1,
    "num_classes": 3,
    "features": [8, 16],
    "kernels": [[3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [2, 2, 2]],
    "blocks": 1,
    "window": 4,
    "head_dim": 8,
}


def plan(channels: int = 1) -> dict:
    """Preprocessing of the tiny network: 1 mm, z-scores."""
    return {
        "spacing": [1.0, 1.0, 1.0],
        "patch_size": [24, 32, 24],
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "normalization": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "intensity_properties": [{}] * channels,
    }


# The architectures that are not USEMA, in 2D, as small as they go, and their preprocessing.
_FLAT_UNET = {
    "in_channels": 1,
    "num_classes": 3,
    "features": [4, 8],
    "kernels": [[3, 3]] * 2,
    "strides": [[1, 1], [2, 2]],
    "convs": [1, 1],
    "decoder_convs": [1],
}
FLAT_NETWORKS = {
    "PlainConvUNet": _FLAT_UNET,
    "ResidualEncoderUNet": _FLAT_UNET,
    "MLLA-UNet": {
        "in_channels": 1, "num_classes": 3, "embed": 8, "depths": [1, 2], "heads": [1, 2], "decoder_depths": [1],
    },
    "Attention-Mamba": {
        "in_channels": 1, "num_classes": 3, "features": [4, 8, 8, 16], "width": 16, "blocks": 1, "states": 4,
    },
}  # fmt: skip
FLAT_BACKENDS = {  # what computes them on a CPU, as provenance and messages tell it
    "MLLA-UNet": "PyTorch (MLLA-UNet without SEMA attention)",
    "PlainConvUNet": "PyTorch (PlainConvUNet without SEMA attention)",
    "ResidualEncoderUNet": "PyTorch (ResidualEncoderUNet without SEMA attention)",
    "Attention-Mamba": "PyTorch (selective scan, no NVIDIA GPU)",
}
FLAT_PLAN = {**plan(), "spacing": [1.0, 1.0], "patch_size": [40, 36]}


def write_tiny_bundle(folder, **changes):
    """A bundle of a small untrained USEMA network that runs in no time; ``changes`` replace keys of METADATA."""
    from usema.networks import build

    architecture = {"name": "USEMA", "config": TINY}
    metadata = {**METADATA, "architecture": architecture, "preprocessing": plan(), **changes}
    torch.manual_seed(0)
    return write_bundle(folder, metadata, build(metadata["architecture"]).state_dict())


def write_crop_model(folder):
    """The bundled model as it was before it found hippocampi in whole heads: for crops alone, with two labels."""
    from usema.models.region_rules import FINDER_PREFIX

    bundled = read_bundle(bundled_models()["hippocampus-mr"])
    document = {**bundled.metadata.to_dict(), "labels": bundled.metadata.to_dict()["labels"][:2]}
    for key in ("find_regions", "schema_version", "weights"):
        del document[key]
    kept = {name: value for name, value in bundled.load_weights().items() if not name.startswith(FINDER_PREFIX)}
    return write_bundle(folder, document, kept)
