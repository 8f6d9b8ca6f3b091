"""The USEMA network: its size on published plans, its shapes, its switches."""

from __future__ import annotations

import pytest
import torch
from usema.errors import InputError
from usema.networks import USEMA, USEMAConfig, build
from usema.networks.blocks import TRANSPOSED_CONV, MambaLikeBlock, up_beside
from usema.networks.cost import cost

FEATURES = (32, 64, 128, 256, 512, 512, 512, 512, 512)


def plan_2d(stages: int, **switches) -> USEMAConfig:
    """nnU-Net's 2D plan with this many stages; 9 is that of EndoVis 2017 (RGB, 7 instruments)."""
    strides = ((1, 1), *((2, 2),) * (stages - 1))
    kernels = ((3, 3),) * stages
    values = {"in_channels": 3, "num_classes": 8, "value_projection": False} | switches
    return USEMAConfig(features=FEATURES[:stages], kernels=kernels, strides=strides, **values)


def millions(config: USEMAConfig) -> float:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in USEMA(config).parameters()) / 1e6


def test_the_control_network_has_the_published_size():
    assert millions(plan_2d(9, sema_stages="none")) == pytest.approx(107.3, abs=0.05)


# What one SEMA block per stage adds, by stages of the plan: whole; without MLP and second CPE; bottleneck only.
@pytest.mark.parametrize(("stages", "whole", "slim"), [(7, 11.5, 4.5), (8, 14.9, 5.8), (9, 18.3, 7.1)])
def test_sema_adds_the_parameters_that_were_derived(stages, whole, slim):
    control = millions(plan_2d(stages, sema_stages="none"))
    assert millions(plan_2d(stages)) - control == pytest.approx(whole, abs=0.06)
    assert millions(plan_2d(stages, mlp_ratio=0)) - control == pytest.approx(slim, abs=0.06)
    assert millions(plan_2d(stages, sema_stages="bottleneck")) - control == pytest.approx(3.4, abs=0.06)


def test_a_value_projection_adds_c_squared_plus_c_per_block():
    added = millions(plan_2d(7, value_projection=True)) - millions(plan_2d(7))
    assert added * 1e6 == pytest.approx(sum(c * c + c for c in FEATURES[:7]), abs=1)


def small(axes: int, **switches) -> USEMAConfig:
    strides = ((1,) * axes, (2,) * axes, (2,) * axes)
    return USEMAConfig(2, 3, (8, 16, 32), ((3,) * axes,) * 3, strides, **{"window": 4, "head_dim": 16} | switches)


@pytest.mark.parametrize("sema_stages", ["all", "bottleneck", "alternate", "skip_full_resolution", "none"])
@pytest.mark.parametrize("axes", [2, 3])
def test_logits_have_the_images_shape(axes, sema_stages):
    torch.manual_seed(0)
    network = USEMA(small(axes, sema_stages=sema_stages)).eval()
    shape = (20, 28, 12)[:axes]
    assert network(torch.randn(2, 2, *shape)).shape == (2, 3, *shape)


def test_deep_supervision_gives_one_output_per_decoder_level_full_resolution_first():
    torch.manual_seed(0)
    outputs = USEMA(small(3), deep_supervision=True)(torch.randn(1, 2, 8, 16, 8))
    assert [tuple(output.shape[2:]) for output in outputs] == [(8, 16, 8), (4, 8, 4)]


def test_an_anisotropic_plan_is_followed():
    config = USEMAConfig(1, 2, (8, 16, 32), ((1, 3, 3), (3, 3, 3), (3, 3, 3)), ((1, 1, 1), (1, 2, 2), (2, 2, 2)))
    assert USEMA(config).eval()(torch.randn(1, 1, 6, 16, 16)).shape == (1, 2, 6, 16, 16)


@pytest.mark.parametrize(
    "switch",
    [
        {"rope": False},
        {"lepe": False},
        {"cpe": False},
        {"mean": False},
        {"local": False},
        {"value_projection": False},
        {"mlp_ratio": 0},
    ],
)
def test_each_switch_changes_what_the_network_computes(switch):
    outputs = []
    for config in (small(2), small(2, **switch)):
        torch.manual_seed(0)
        network = USEMA(config)
        state = network.state_dict()
        generator = torch.Generator().manual_seed(1)
        # The same random weights under the same names, so that only the switch differs.
        for name in sorted(state):
            full = torch.randn(64 * 1024, generator=torch.Generator().manual_seed(sum(map(ord, name))))
            state[name] = full[: state[name].numel()].view_as(state[name]) * 0.3
        network.load_state_dict(state)
        outputs.append(network.eval()(torch.randn(1, 2, 16, 16, generator=generator)))
    assert not torch.allclose(*outputs, rtol=1e-3)


def test_every_parameter_learns():
    torch.manual_seed(0)
    network = USEMA(small(3), deep_supervision=True)
    for module in network.modules():  # residual branches start at zero; let gradients through
        if isinstance(module, torch.nn.InstanceNorm3d):
            torch.nn.init.ones_(module.weight)
    sum(output.square().mean() for output in network(torch.randn(2, 2, 8, 16, 8))).backward()
    still = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert still == []


def test_a_configuration_survives_json():
    config = small(3, drop_path=0.1)
    network = build({"name": "USEMA", "config": config.to_dict()})
    assert USEMAConfig.from_dict(config.to_dict()) == config == network.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sema_stages": "some"}, "'some'"),
        ({"features": [8, 16]}, "2, 3 and 3"),
        ({"features": [8, 16, 33]}, "33 features"),
        ({"windows": 7}, "USEMA network: windows"),
        ({"features": 8}, "USEMA network does not fit"),
        ({"kernels": [[3, 3], [3, 3, 3], [3, 3, 3]]}, r"\[2, 3\]"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_value(change, message):
    with pytest.raises(InputError, match=message):
        build({"name": "USEMA", "config": small(3).to_dict() | change})


def test_cost_counts_any_network_without_memory_for_it():
    assert cost(lambda: torch.nn.Conv2d(1, 4, 3, padding=1), (1, 1, 8, 8)) == (40, 4 * 9 * 64)
    description = {"name": "MLLA-UNet", "config": {"in_channels": 1, "num_classes": 14}}
    parameters, macs = cost(lambda: build(description), (1, 1, 224, 224))
    assert parameters / 1e6 == pytest.approx(28.5, abs=0.05)
    assert macs / 1e9 > 4.13  # those of its encoder alone, which the classifier MILA-T is known by


def test_an_unknown_architecture_is_refused_by_name():
    with pytest.raises(InputError, match="'UNETR'"):
        build({"name": "UNETR", "config": {}})


@pytest.mark.parametrize("value_projection", [True, False])
@pytest.mark.parametrize("axes", [2, 3])
def test_q_k_v_are_parts_of_one_linear_layer_as_published_weights_have_them(axes, value_projection):
    torch.manual_seed(0)
    seen = []

    def attend(q, k, v):
        seen.extend((q, k, v))
        return v

    block = MambaLikeBlock(16, (3,) * axes, attend, value_projection=value_projection).double().eval()
    inputs = []
    block.inner_conv.register_forward_hook(lambda module, given, output: inputs.append(output))
    block(torch.randn(2, 16, *(5, 6, 7)[:axes], dtype=torch.float64))
    u = torch.nn.functional.silu(inputs[0]).movedim(1, -1)
    together = block.qkv(u)
    expected = together.chunk(3, dim=-1) if value_projection else (*together.chunk(2, dim=-1), u)
    for found, wanted in zip(seen, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("stride", "kernel", "bias"), [((2, 2, 2), (2, 2, 2), True), ((1, 3, 2), (1, 3, 2), False), ((2, 1), (2, 1), True)]
)
def test_a_transposed_convolution_without_overlap_is_a_matrix_product(stride, kernel, bias):
    torch.manual_seed(0)
    up = TRANSPOSED_CONV[len(stride)](6, 4, kernel, stride, bias=bias)
    x = torch.randn(2, 6, *(5, 4, 3)[: len(stride)])
    skip = torch.randn(2, 3, *(n * step for n, step in zip(x.shape[2:], stride, strict=True)))
    expected = torch.cat((up(x), skip), dim=1)
    assert up_beside(up, x, skip).requires_grad
    for given in (x, x.transpose(0, 1).contiguous().transpose(0, 1)):
        with torch.inference_mode():
            torch.testing.assert_close(up_beside(up, given, skip), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad(), pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        up_beside(up, x, skip[..., :-1])


def test_a_transposed_convolution_with_overlap_is_left_to_pytorch():
    up = TRANSPOSED_CONV[2](2, 2, (3, 3), (2, 2), padding=1, output_padding=1)
    x, skip = torch.randn(1, 2, 4, 4), torch.randn(1, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(up_beside(up, x, skip), torch.cat((up(x), skip), dim=1))
