"""Attention-Mamba: its published size, its layers against plain code, and its way through the engine."""

from __future__ import annotations

import math

import pytest
import torch
from bundles import FLAT_NETWORKS
from usema.errors import InputError
from usema.networks import AttentionMamba, AttentionMambaConfig, build
from usema.networks.attention_mamba import Alignment, BidirectionalMamba, Flow
from usema.networks.mamba import SS2D, Mamba, SelectiveSSM
from usema.scan import selective_scan

TINY = FLAT_NETWORKS["Attention-Mamba"]


def tiny(**changes) -> AttentionMamba:
    torch.manual_seed(0)
    return build({"name": "Attention-Mamba", "config": {**TINY, **changes}})


# The network


@pytest.fixture(scope="module")
def network() -> AttentionMamba:
    """Of the paper's size."""
    torch.manual_seed(0)
    return AttentionMamba(AttentionMambaConfig(1, 9)).eval()


def parameters(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_it_has_the_published_parameters(network):
    """14.05 M for the 9 classes of Synapse, with or without the heads that serve training alone."""
    assert parameters(network) / 1e6 == pytest.approx(14.055, abs=0.0005)
    assert (parameters(network) - parameters(network.in_heads)) / 1e6 == pytest.approx(14.05, abs=0.0005)


def test_vmambas_and_mambas_layers_have_their_parameters():
    assert parameters(SS2D(96)) == 2 * 96 * 192 + 10 * 192 + 4 * 192 * (38 + 6 + 1 + 16 + 1) + 2 * 192 + 192 * 96
    assert parameters(Mamba(16)) == 16 * 64 + 5 * 32 + 32 * (33 + 1 + 1 + 16 + 1) + 32 * 16


@pytest.mark.parametrize("shape", [(56, 40), (37, 61), (1, 5), (64, 2)])
def test_logits_have_the_images_shape_whatever_it_is(network, shape):
    with torch.inference_mode():
        logits = network(torch.randn(1, 1, *shape))
    assert logits.shape == (1, 9, *shape)
    assert logits.isfinite().all()


def test_an_image_that_does_not_fit_is_continued_with_zeros():
    image = torch.randn(2, 1, 13, 22)
    padded = torch.nn.functional.pad(image, (0, 2, 0, 3))
    network = tiny().eval()
    torch.testing.assert_close(network(image), network(padded)[..., :13, :22])


def test_a_single_channel_counts_as_three_equal_ones():
    image = torch.randn(1, 1, 16, 24)
    grey, colour = tiny().eval(), tiny(in_channels=3).eval()
    torch.testing.assert_close(grey(image), colour(image.expand(-1, 3, -1, -1)))
    assert tiny(in_channels=2)(torch.randn(2, 2, 16, 16)).shape == (2, 3, 16, 16)


def test_an_image_is_segmented_alike_alone_and_in_a_batch():
    images = torch.randn(3, 1, 56, 40, dtype=torch.float64)
    network = tiny().eval().double()
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_in_training_nine_outputs_come_at_the_images_size_the_final_one_first():
    network, image = tiny(), torch.randn(2, 1, 37, 41)
    assert network(image).shape == (2, 3, 37, 41)
    network.deep_supervision = True
    outputs = network(image)
    assert [tuple(output.shape) for output in outputs] == [(2, 3, 37, 41)] * 9
    # Which heads made them: without a head's weights, its output is constant.
    for heads, first in ((network.scores, 1), (network.in_heads, 5)):
        for number, head in enumerate(heads):
            torch.nn.init.zeros_(head.weight)
            assert network(image)[first + number].std(dim=(2, 3)).max() < 1e-6
    assert torch.is_tensor(network.eval()(image))


def test_the_final_scores_are_the_levels_weighed_by_class_and_by_place():
    network, image = tiny(), torch.randn(2, 1, 32, 32)
    network.deep_supervision = True
    for weights in (network.channel_attention.weigh[-1], network.spatial_attention.weigh):
        torch.nn.init.zeros_(weights.weight)  # all weights are sigmoid(bias)
    torch.nn.init.constant_(network.spatial_attention.weigh.bias, math.log(3))
    final, *outputs = network(image)
    torch.testing.assert_close(final, 0.5 * 0.75 * sum(outputs[:4]))


def test_every_parameter_learns():
    network = tiny()
    network.deep_supervision = True
    network.train()
    sum(output.square().mean() for output in network(torch.randn(2, 1, 56, 40))).backward()
    still = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert still == []


def test_bfloat16_loses_no_more_than_its_rounding():
    network, image = tiny().eval(), torch.randn(2, 1, 40, 36)
    expected = network(image)
    with torch.autocast("cpu", torch.bfloat16):
        actual = network(image).float()
    assert (actual - expected).norm() / expected.norm() < 0.03


def test_a_configuration_survives_json():
    config = AttentionMambaConfig.from_dict(TINY)
    assert AttentionMambaConfig.from_dict(config.to_dict()) == config == tiny().config
    assert config.features == (4, 8, 8, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": [8, 16]}, "4 levels, but has 2"),
        ({"width": 8}, "8 channels is too small"),
        ({"window": 7}, "Attention-Mamba network: window"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_value(change, message):
    with pytest.raises(InputError, match=message):
        tiny(**change)


# Its layers


def test_without_flow_alignment_is_upsampling():
    torch.manual_seed(0)
    alignment = Alignment(4)
    for flow in alignment.flows:
        torch.nn.init.zeros_(flow.flow.weight)
    levels = [torch.randn(2, 4, side, side + 3) for side in (17, 9, 5, 3)]
    aligned = alignment(levels)
    torch.testing.assert_close(aligned[0], levels[0])
    up = levels[3]
    for level in levels[2::-1]:
        up = torch.nn.functional.interpolate(up, level.shape[2:], mode="bilinear", align_corners=True)
    torch.testing.assert_close(aligned[3], up)


def test_a_flow_of_the_whole_map_looks_half_a_map_away():
    """The grid's unit is half the map; the flow is in places of the fine level, over its width and height."""
    flow = Flow(2)
    for convolution in (flow.fine, flow.coarse):
        torch.nn.init.ones_(convolution.weight)
    torch.nn.init.zeros_(flow.flow.weight)
    flow.flow.weight.data[0, :, 1, 1] = 1  # to the right only
    fine = torch.ones(1, 2, 3, 5)
    grid = flow(fine, torch.full((1, 2, 2, 2), 0.25))  # 2 of the fine level + 0.5 of the coarse one = 2.5 places
    torch.testing.assert_close(grid[0, 1, :, 0], torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5]))
    torch.testing.assert_close(grid[0, :, 2, 1], torch.tensor([-1.0, 0.0, 1.0]))


def test_ss2d_reads_the_map_in_four_directions():
    """Every place reaches its whole row and column through some direction; one direction alone reaches half of all."""
    torch.manual_seed(0)
    layer = SS2D(8, states=4)
    torch.nn.init.dirac_(layer.conv.conv.weight, groups=16)  # no neighbourhood of its own
    tokens = torch.randn(1, 5, 6, 8, requires_grad=True)
    layer(tokens)[0, 2, 3].sum().backward()
    assert (tokens.grad.abs().sum(-1) > 0).all()
    layer.zero_grad()
    mirrored = layer(tokens.transpose(1, 2)).transpose(1, 2)
    assert not torch.allclose(mirrored, layer(tokens), atol=1e-6)  # rows and columns have weights of their own
    with torch.no_grad():  # unless they are set alike
        for parameter in (layer.ssm.project, layer.ssm.step):
            parameter.copy_(parameter[:1].expand_as(parameter))
        for parameter in (layer.ssm.step_bias, layer.ssm.log_rate, layer.ssm.skip):
            parameter.copy_(parameter[:16].repeat(4, *[1] * (parameter.dim() - 1)))
    torch.testing.assert_close(layer(tokens.transpose(1, 2)).transpose(1, 2), layer(tokens))
    torch.testing.assert_close(layer(tokens.flip(1, 2)).flip(1, 2), layer(tokens))


def test_ss2d_is_four_scans_added():
    torch.manual_seed(0)
    height, width, channels = 3, 4, 6
    layer = SS2D(channels, states=2).double()
    tokens = torch.randn(2, height, width, channels, dtype=torch.float64)
    x, gate = layer.inner(tokens).chunk(2, dim=-1)
    x = torch.nn.functional.silu(layer.conv(x.permute(0, 3, 1, 2)))
    total = torch.zeros_like(x)
    orders = [
        [(i, j) for i in range(height) for j in range(width)],
        [(i, j) for j in range(width) for i in range(height)],
    ]
    for direction, order in enumerate([*orders, orders[0][::-1], orders[1][::-1]]):
        sequence = torch.stack([x[:, :, i, j] for i, j in order], dim=-1)
        rank, B, C = (layer.ssm.project[direction] @ sequence).split(layer.ssm.sizes, dim=1)
        part = slice(2 * channels * direction, 2 * channels * (direction + 1))
        y = selective_scan(
            sequence, layer.ssm.step[direction] @ rank, -layer.ssm.log_rate[part].exp(), B, C,
            layer.ssm.skip[part], layer.ssm.step_bias[part], True, backend="reference",
        )  # fmt: skip
        for position, (i, j) in enumerate(order):
            total[:, :, i, j] += y[..., position]
    expected = layer.out(layer.norm(total.permute(0, 2, 3, 1)) * torch.nn.functional.silu(gate))
    torch.testing.assert_close(layer(tokens), expected)


def test_mamba_is_causal_and_both_directions_together_are_not():
    torch.manual_seed(0)
    for layer, reached in ((Mamba(3), 5), (BidirectionalMamba(3, AttentionMambaConfig(1, 2)), 12)):
        tokens = torch.randn(1, 12, 3, requires_grad=True)
        layer(tokens)[0, 4].sum().backward()
        assert int((tokens.grad.abs().sum(-1) > 0).sum()) == reached


def test_step_sizes_start_between_a_thousandth_and_a_tenth():
    torch.manual_seed(0)
    steps = torch.nn.functional.softplus(SelectiveSSM(256, 16, 8).step_bias.detach())
    assert 0.00099 < float(steps.min()) < 0.0012
    assert 0.08 < float(steps.max()) < 0.101
    assert float(steps.log().mean()) == pytest.approx(math.log(0.01), abs=0.2)
