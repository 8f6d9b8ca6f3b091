"""nnU-Net's two U-Nets: the logits of nnU-Net's own classes, from the same weights under the same names."""

from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet as TheirPlain
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet as TheirResidual
from torch import nn
from usema.errors import InputError
from usema.networks import build

PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
THREE, THIN = (3, 3, 3), (1, 3, 3)
ONE, TWO = (1, 1, 1), (2, 2, 2)

# name: (class, configuration, size of the image); what is not named is as nnU-Net's planner has it
CASES = {
    "3D": (PLAIN, {}, (16, 16, 8)),
    "3D, two channels, three heads": (PLAIN, {"in_channels": 2, "num_classes": 3}, (16, 16, 8)),
    "3D, anisotropic": (
        PLAIN,
        {"kernels": (THIN, THIN, THREE), "strides": (ONE, (1, 2, 2), TWO)},
        (6, 16, 24),
    ),
    "3D, transposed": (PLAIN, {"kernels": ((3, 3, 1), THREE, THREE), "strides": (ONE, (2, 2, 1), TWO)}, (16, 24, 6)),
    "3D, batch normalisation": (PLAIN, {"norm": "batch"}, (16, 16, 8)),
    "3D, no bias, ReLU, other numbers": (
        PLAIN,
        {"conv_bias": False, "activation": "relu", "convs": (1, 3, 2), "decoder_convs": (1, 3), "norm_eps": 1e-3},
        (16, 16, 8),
    ),
    "3D, activation first": (PLAIN, {"activation_first": True, "negative_slope": 0.2}, (16, 16, 8)),
    "3D, no normalisation": (PLAIN, {"norm": "none"}, (16, 16, 8)),
    "3D, not affine": (PLAIN, {"norm_affine": False}, (16, 16, 8)),
    "2D": (PLAIN, {"kernels": ((3, 3),) * 3, "strides": ((1, 1), (2, 2), (2, 2))}, (32, 20)),
    "2D, batch normalisation": (
        PLAIN,
        {"kernels": ((3, 3),) * 3, "strides": ((1, 1), (2, 2), (2, 1)), "norm": "batch"},
        (32, 20),
    ),
    "residual 3D": (RESIDUAL, {"convs": (1, 3, 4), "decoder_convs": (1, 1)}, (16, 16, 8)),
    "residual 3D, anisotropic, two channels": (
        RESIDUAL,
        {"kernels": (THIN, THREE, THREE), "strides": (ONE, (1, 2, 2), TWO), "in_channels": 2, "stem_channels": 4},
        (6, 16, 24),
    ),
    "residual 3D, channels that stay": (RESIDUAL, {"features": (8, 12, 12)}, (16, 16, 8)),
    "residual 2D, batch normalisation": (
        RESIDUAL,
        {"kernels": ((3, 3),) * 3, "strides": ((1, 1), (2, 2), (2, 2)), "norm": "batch", "conv_bias": False},
        (32, 20),
    ),
}


def configuration(changes: dict) -> dict:
    return {
        "in_channels": 1,
        "num_classes": 4,
        "features": (8, 12, 20),
        "kernels": (THREE,) * 3,
        "strides": (ONE, TWO, TWO),
        "convs": (2, 2, 2),
        "decoder_convs": (2, 2),
    } | changes


def their_network(name: str, config: dict) -> nn.Module:
    axes = len(config["kernels"][0])
    norms = {
        "instance": (nn.InstanceNorm2d, nn.InstanceNorm3d),
        "batch": (nn.BatchNorm2d, nn.BatchNorm3d),
        "none": (None, None),
    }
    relu = config.get("activation") == "relu"
    arguments = {
        "input_channels": config["in_channels"],
        "n_stages": len(config["features"]),
        "features_per_stage": config["features"],
        "conv_op": (nn.Conv2d, nn.Conv3d)[axes - 2],
        "kernel_sizes": config["kernels"],
        "strides": config["strides"],
        "num_classes": config["num_classes"],
        "n_conv_per_stage_decoder": config["decoder_convs"],
        "conv_bias": config.get("conv_bias", True),
        "norm_op": norms[config.get("norm", "instance")][axes - 2],
        "norm_op_kwargs": {"eps": config.get("norm_eps", 1e-5), "affine": config.get("norm_affine", True)},
        "nonlin": nn.ReLU if relu else nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True} if relu else {"negative_slope": config.get("negative_slope", 0.01)},
    }
    if name == PLAIN:
        arguments |= {"n_conv_per_stage": config["convs"], "nonlin_first": config.get("activation_first", False)}
        return TheirPlain(**arguments)
    arguments |= {"n_blocks_per_stage": config["convs"], "stem_channels": config.get("stem_channels")}
    return TheirResidual(**arguments)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_nnunet(case):
    name, changes, size = CASES[case]
    config = configuration(changes)
    torch.manual_seed(0)
    theirs = their_network(name, config)
    # Other weights than those of a fresh network: norms with scale and shift, batch statistics that are not 0 and 1.
    for key, value in theirs.state_dict().items():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand(value.shape))
        assert key.split(".")[0] in ("encoder", "decoder")
    theirs.eval()
    ours = build({"name": name, "config": config}).eval()
    weights = theirs.state_dict()
    ours.load_state_dict({key: weights[key] for key in ours.state_dict()})
    own = {tensor.data_ptr() for tensor in weights.values()}
    assert len(ours.state_dict()) == len(own), "each of their tensors is here, and once"
    image = torch.randn(2, config["in_channels"], *size)
    with torch.inference_mode():
        theirs.decoder.deep_supervision = False
        difference = (ours(image) - theirs(image)).abs().max().item()
        ours.deep_supervision = theirs.decoder.deep_supervision = True
        pairs = list(zip(ours(image), theirs(image), strict=True))
    assert difference < 1e-4
    assert all((one - other).abs().max() < 1e-4 for one, other in pairs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"convs": (2, 2)}, "must name the same stages"),
        ({"decoder_convs": (2, 2, 2)}, "decoder_convs"),
        ({"kernels": ((3, 3), THREE, THREE)}, "all 2D or all 3D"),
        ({"kernels": (THREE, THREE, (2, 3, 3))}, "is 2, and should be odd"),
        ({"norm": "group"}, "norm 'group'"),
        ({"activation": "gelu"}, "activation 'gelu'"),
        ({"features": (8, 0, 20)}, "0 is no number"),
        ({"strides": (ONE, TWO, (2, 2, 2.5))}, "2.5 is no number"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
@pytest.mark.parametrize("name", [PLAIN, RESIDUAL])
def test_a_configuration_that_does_not_fit_is_refused(name, changes, said):
    with pytest.raises(InputError, match=said):
        build({"name": name, "config": configuration(changes)})
