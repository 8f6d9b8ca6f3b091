"""MLLA-UNet: its published sizes, its linear attention against the definition, and its way through the engine."""

from __future__ import annotations

import pytest
import torch
from bundles import FLAT_NETWORKS
from usema.errors import InputError
from usema.networks import MLLAUNet, MLLAUNetConfig, build
from usema.networks.blocks import MambaLikeBlock
from usema.networks.mlla_unet import PRESETS, linear_attention

TINY = FLAT_NETWORKS["MLLA-UNet"]


def tiny(**changes) -> MLLAUNet:
    torch.manual_seed(0)
    return build({"name": "MLLA-UNet", "config": {**TINY, **changes}})


# The network


@pytest.fixture(scope="module")
def network() -> MLLAUNet:
    """Of the paper's size T."""
    torch.manual_seed(0)
    return MLLAUNet(MLLAUNetConfig(1, 4)).eval()


@pytest.mark.parametrize(("size", "millions"), [("T", 28.5), ("S", 47.1), ("B", 105.6)])
def test_each_size_has_the_published_parameters(size, millions):
    with torch.device("meta"):
        network = MLLAUNet(MLLAUNetConfig(1, 14, **PRESETS[size]))
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("shape", [(37, 61), (56, 40), (224, 224), (1, 5)])
def test_logits_have_the_images_shape_whatever_it_is(network, shape):
    with torch.inference_mode():
        assert network(torch.randn(1, 1, *shape)).shape == (1, 4, *shape)


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


def test_with_deep_supervision_the_one_output_comes_in_a_list():
    network, image = tiny().eval(), torch.randn(1, 1, 16, 16)
    logits = network(image)
    network.deep_supervision = True
    (output,) = network(image)
    torch.testing.assert_close(output, logits)


def test_every_parameter_learns():
    network = tiny(drop_path=0.0)
    network(torch.randn(2, 1, 24, 32)).square().mean().backward()
    still = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert still == []


def test_drop_path_rises_linearly_over_the_encoder_and_spares_the_decoder():
    with torch.device("meta"):
        network = MLLAUNet(MLLAUNetConfig(1, 2, drop_path=0.17))

    def probabilities(part):
        return [block.drop_path.probability for block in part.modules() if isinstance(block, MambaLikeBlock)]

    assert probabilities(network.encoder) == pytest.approx([0.01 * block for block in range(18)])
    assert probabilities(network.decoder) == [0.0] * 6


def test_linear_layers_start_at_a_fiftieth_and_without_bias(network):
    linears = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    weights = torch.cat([linear.weight.detach().flatten() for linear in linears])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    assert not any(linear.bias.any() for linear in linears if linear.bias is not None)


def test_a_configuration_survives_json():
    config = MLLAUNetConfig.from_dict(TINY)
    assert MLLAUNetConfig.from_dict(config.to_dict()) == config == tiny().config
    assert config.depths == (1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 7}, "MLLA-UNet network: window"),
        ({"depths": [1, 2, 3]}, "3, 2 and 1"),
        ({"decoder_depths": [1, 1]}, "2, 2 and 2"),
        ({"heads": [1, 3]}, "16 channels with 3 heads"),
        ({"heads": [0, 1]}, "8 channels with 0 heads"),
        ({"embed": 6}, "6 channels"),
        ({"embed": "64"}, "MLLA-UNet network does not fit"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_value(change, message):
    with pytest.raises(InputError, match=message):
        tiny(**change)


def test_a_missing_setting_is_named():
    with pytest.raises(InputError, match="num_classes"):
        build({"name": "MLLA-UNet", "config": {"in_channels": 1}})


# The attention


def qkv(shape=(5, 6), channels=16, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, *shape, channels, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def turned(x: torch.Tensor) -> torch.Tensor:
    """MILA's RoPE in complex numbers: all channels are pairs, the first half turns with the row, the other with the
    column, at position * 10000 ** (-k / (C / 4)), k = 0 .. C / 4 - 1."""
    height, width, channels = x.shape[1:]
    theta = 10000.0 ** (-torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
    rows = torch.arange(height)[:, None, None] * theta.expand(height, width, -1)
    columns = torch.arange(width)[:, None] * theta.expand(height, width, -1)
    angles = torch.cat((rows, columns), dim=-1)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def by_definition(q, k, v, heads: int) -> torch.Tensor:
    """With the whole matrix of n x n weights, in float64."""
    q, k = (torch.nn.functional.elu(x.double()) + 1 for x in (q, k))
    plain_q, plain_k, turned_q, turned_k, v = (
        x.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, turned(q), turned(k), v.double())
    )
    normaliser = (plain_q @ plain_k.transpose(-2, -1)).mean(dim=-1, keepdim=True) + 1e-6
    weights = turned_q @ turned_k.transpose(-2, -1) / v.shape[-2] / normaliser
    return (weights @ v).transpose(1, 2).reshape_as(q)


@pytest.mark.parametrize(("shape", "channels", "heads"), [((5, 6), 16, 2), ((1, 1), 8, 1), ((7, 3), 48, 3)])
def test_linear_attention_is_its_definition(shape, channels, heads):
    q, k, v = qkv(shape, channels)
    actual = linear_attention(q, k, v, heads=heads)
    torch.testing.assert_close(actual, by_definition(q, k, v, heads), rtol=1e-12, atol=1e-12)


def test_without_distance_the_weights_of_a_token_add_up_to_one():
    q, k, _ = qkv((1, 1))
    torch.testing.assert_close(
        linear_attention(q, k, torch.ones_like(q), heads=2), torch.ones_like(q), atol=1e-5, rtol=0
    )


def test_gradients_of_linear_attention_are_right():
    inputs = [x.requires_grad_() for x in qkv((2, 3), 8)]
    assert torch.autograd.gradcheck(lambda q, k, v: linear_attention(q, k, v, heads=2), inputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_half_precision_loses_no_more_than_its_rounding(dtype, tolerance):
    # 16,384 tokens: the products' sum over them, unlike their mean, is more than float16 holds.
    q, k, v = (3 * x for x in qkv((128, 128), 4, dtype))
    with torch.autocast("cpu", torch.bfloat16):
        actual = linear_attention(q, k, v, heads=1)
    assert actual.dtype == dtype
    expected = linear_attention(q.double(), k.double(), v.double(), heads=1)
    assert (actual.double() - expected).norm() / expected.norm() < tolerance
