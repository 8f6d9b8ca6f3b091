"""Which numbers of a network are learned from corrections: its heads, and perhaps its last stage and all its norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from ..errors import InputError
from ..inference.loading import Ensemble
from ..networks import USEMA, AttentionMamba, MLLAUNet, PlainConvUNet, ResidualEncoderUNet, SegResNetDS

Place = tuple[nn.Module, str]  # a module and the name of one that it holds


def _decoder(network: nn.Module) -> list[nn.Module]:
    return [network.decoder.stages[-1], network.decoder.seg_layers[-1]]


# What lies behind the last map that comes from the decoder's coarser levels.
LAST: dict[type[nn.Module], Callable[[nn.Module], list[nn.Module]]] = {
    USEMA: lambda network: [network.decoder[-1], network.heads[-1]],
    PlainConvUNet: _decoder,
    ResidualEncoderUNet: _decoder,
    SegResNetDS: lambda network: [network.up_layers[-1]["blocks"], network.up_layers[-1]["head"]],
    MLLAUNet: lambda network: [network.decoder[-1], network.decoder_norm, network.expand, network.head],
    AttentionMamba: lambda network: [network.scores, network.channel_attention.weigh, network.spatial_attention.weigh],
}
# The convolution of side 1 that makes the logits of maps, where nothing comes after it.
HEADS: dict[type[nn.Module], Callable[[nn.Module], Place]] = {
    USEMA: lambda network: (network.heads, str(len(network.heads) - 1)),
    PlainConvUNet: lambda network: (network.decoder.seg_layers, str(len(network.decoder.seg_layers) - 1)),
    ResidualEncoderUNet: lambda network: (network.decoder.seg_layers, str(len(network.decoder.seg_layers) - 1)),
    SegResNetDS: lambda network: (network.up_layers[-1], "head"),
    MLLAUNet: lambda network: (network, "head"),
}
NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)


def networks_of(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Those that a part averages, or its only one, with what the names of their parameters begin with."""
    if isinstance(network, Ensemble):
        yield from ((f"networks.{index}.", one) for index, one in enumerate(network.networks))
    else:
        yield "", network


def head_of(network: nn.Module) -> Place | None:
    """Where the head of one network is; None: its logits are more than a head makes of a map."""
    return HEADS[type(network)](network) if type(network) in HEADS else None


def has_heads(network: nn.Module) -> bool:
    """Whether the heads of all networks of a part can learn alone."""
    return all(head_of(one) is not None for _, one in networks_of(network))


def learned(network: nn.Module, deep: bool) -> dict[str, nn.Parameter]:
    """The parameters that are learned, by name.

    Args:
        network: of a part; of one that averages several networks, those of all of them.
        deep: norms and last stage, too; else each must have a head.

    Raises:
        InputError: it has none.
    """
    found: dict[str, nn.Parameter] = {}
    for prefix, one in networks_of(network):
        if type(one) not in LAST:
            raise InputError(
                f"The network {type(one).__name__} has no stage that could learn from corrections.",
                f"Those that can are {', '.join(sorted(kind.__name__ for kind in LAST))}.",
            )
        if deep:
            modules = [*LAST[type(one)](one), *norms(one)]
        else:
            holder, name = head_of(one)
            modules = [holder.get_submodule(name)]
        wanted = {id(parameter) for module in modules for parameter in module.parameters()}
        found |= {prefix + name: each for name, each in one.named_parameters() if id(each) in wanted}
    return found


def norms(network: nn.Module) -> list[nn.Module]:
    """Its normalisations."""
    return [module for module in network.modules() if isinstance(module, NORMS)]
