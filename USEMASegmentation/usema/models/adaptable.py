"""Which models can learn from corrections, told without torch. Standard library only."""

from __future__ import annotations

from .metadata import ModelMetadata

NETWORKS = ("USEMA", "MLLA-UNet", "Attention-Mamba", "PlainConvUNet", "ResidualEncoderUNet", "SegResNetDS")
KINDS = ("nnunet", "auto3dseg")  # of preprocessing, which tell where a voxel of the network lies


def why_not(metadata: ModelMetadata) -> str:
    """Why a model cannot learn from corrections, in a sentence; empty: it can."""
    name = f"The model '{metadata.name}'"
    if metadata.takes_images:
        return f"{name} is for two-dimensional images, which have no slices to learn from."
    if len(metadata.networks) > 1:
        return f"{name} joins {len(metadata.networks)} networks; only a single one can learn from corrections."
    part = metadata.networks[0]
    if part.architecture["name"] not in NETWORKS:
        return (
            f"{name} is a network of the kind {part.architecture['name']}, which has no last stage that could learn "
            f"from corrections; those that can are {', '.join(NETWORKS)}."
        )
    if part.kind not in KINDS:
        return f"{name} sees whole heads in a frame of its own (preprocessing '{part.kind}'), where nothing is learned."
    return ""
