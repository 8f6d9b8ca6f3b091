"""`usema networks`: what each network costs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import click
from rich.console import Console
from rich.table import Table

_FEATURES = (32, 64, 128, 256, 512, 512, 512, 512, 512)


def _plan(name: str, patch: tuple[int, ...], stages: int, channels: int, classes: int, last=None, features=_FEATURES):
    axes = len(patch)
    strides = ((1,) * axes, *((2,) * axes,) * (stages - 2), last or (2,) * axes)
    kernels = ((3,) * axes,) * stages
    return (
        name,
        patch,
        {
            "in_channels": channels,
            "num_classes": classes,
            "features": features[:stages],
            "kernels": kernels,
            "strides": strides,
        },
    )


# nnU-Net's plans of the data that USEMA and its neighbours were published on, and of our bundled data.
PLANS = (
    _plan("Endoscopy 896x1536", (896, 1536), 9, 3, 8, last=(1, 2)),
    _plan("Endoscopy 384x640", (384, 640), 7, 3, 8),
    _plan("Microscopy 512x512", (512, 512), 8, 3, 3),
    _plan("Abdomen MR 320x320", (320, 320), 7, 1, 14),
    _plan("Hippocampus 2D 56x40", (56, 40), 4, 1, 3),
    _plan("Hippocampus 3D 40x56x40", (40, 56, 40), 4, 1, 3),
)
VARIANTS = ("none", "bottleneck", "alternate", "skip_full_resolution", "all")


@click.command()
@click.option("--value-projection/--no-value-projection", default=True, show_default=True, help="v = Linear(u), or u.")
@click.option("--mlp-ratio", default=4.0, show_default=True, help="Hidden width of the MLP; 0: no MLP.")
def networks(value_projection: bool, mlp_ratio: float) -> None:
    """Print parameters and multiply-accumulates (MACs) of the networks on known plans.

    USEMA is shown by which stages have a SEMA block; "none" is the attention-free control network. The options are
    USEMA's. Its neighbours are 2D, of their papers' size. Operations are those of convolutions, linear layers and
    attention.
    """
    from ..networks import USEMA, AttentionMamba, AttentionMambaConfig, MLLAUNet, MLLAUNetConfig, USEMAConfig
    from ..networks.cost import cost

    table = Table("plan", "network", "parameters / M", "MACs / G")
    for name, patch, values in PLANS:
        channels, classes = values["in_channels"], values["num_classes"]
        config = USEMAConfig(**values, value_projection=value_projection, mlp_ratio=mlp_ratio)
        rows = [(f"USEMA {variant}", USEMA, replace(config, sema_stages=variant)) for variant in VARIANTS]
        if config.axes == 2:
            rows.append(("MLLA-UNet", MLLAUNet, MLLAUNetConfig(channels, classes)))
            rows.append(("Attention-Mamba", AttentionMamba, AttentionMambaConfig(channels, classes)))
        for title, network, settings in rows:
            parameters, macs = cost(partial(network, settings), (1, channels, *patch))
            table.add_row(name, title, f"{parameters / 1e6:.2f}", f"{macs / 1e9:.1f}")
            name = ""
        table.add_section()
    Console().print(table)
