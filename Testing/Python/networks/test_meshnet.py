"""MeshNet computes the chain that its publisher trained, whole or plane by plane, and refuses what is none."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from torch import nn
from usema.errors import InputError
from usema.networks import MeshNet, MeshNetConfig, build, meshnet

DILATIONS = (1, 2, 4, 8, 16, 8, 4, 2, 1)


def network(norm: str = "none", channels: int = 5, affine: bool = False, **more) -> MeshNet:
    torch.manual_seed(0)
    config = MeshNetConfig(1, 4, channels, (3, 1, 2), norm=norm, affine=affine, **more)
    made = MeshNet(config).eval().requires_grad_(False)
    for one in made.norms if affine else ():
        one.weight.normal_()
        one.bias.normal_()
    return made


def chain(made: MeshNet, image: torch.Tensor) -> torch.Tensor:
    """The same network from PyTorch's own layers, one after another."""
    activation = {"relu": nn.ReLU(), "elu": nn.ELU(), "gelu": nn.GELU()}[made.config.activation]
    for index, convolution in enumerate(made.convolutions):
        image = convolution(image)
        image = activation(made.norms[index](image) if made.norms else image)
    return made.head(image)


@pytest.mark.parametrize("activation", ["relu", "elu", "gelu"])
@pytest.mark.parametrize(
    ("norm", "affine", "bias"), [("none", False, True), ("instance", False, False), ("instance", True, True)]
)
def test_it_is_a_chain_of_dilated_convolutions(norm, affine, bias, activation):
    made = network(norm, affine=affine, bias=bias, activation=activation)
    image = torch.rand(2, 1, 9, 14, 11)
    assert torch.allclose(made(image), chain(made, image), atol=1e-5)


@pytest.mark.parametrize("planes", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("channels", [5, 9, 33])
def test_plane_by_plane_gives_the_same_logits_for_any_number_of_planes(planes, channels):
    made = network(channels=channels)
    image = torch.rand(1, 1, planes, 13, 10)
    slabs = list(made.slabs(image))
    starts = [start for start, _ in slabs]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert torch.allclose(torch.cat([logits for _, logits in slabs], dim=1)[None], made(image), atol=1e-6)


@pytest.mark.parametrize("rows", [6, 13, 25, 40])
def test_strips_give_the_same_logits_and_take_little_memory(rows, monkeypatch):
    made = network()
    image = torch.rand(1, 1, 9, rows, 10)
    whole = made.strips(image.shape[2:])
    assert whole == [(0, rows)]
    monkeypatch.setattr(meshnet, "_MOST_RING_BYTES", 1)
    strips = made.strips(image.shape[2:])
    assert len(strips) == max(1, rows // 6)
    assert [begin for begin, _ in strips] == [0, *(end for _, end in strips[:-1])]
    assert strips[-1][1] == rows
    cut = [torch.cat([logits for _, logits in made.slabs(image, strip)], dim=1) for strip in strips]
    assert torch.allclose(torch.cat(cut, dim=2)[None], made(image), atol=1e-6)


def test_a_whole_head_is_cut_only_where_its_planes_would_take_a_gigabyte():
    head = (256, 256, 256)
    assert len(MeshNet(MeshNetConfig(1, 3, 5, DILATIONS)).strips(head)) == 1
    assert [len(MeshNet(MeshNetConfig(1, 18, wide, DILATIONS)).strips(head)) for wide in (21, 30)] == [2, 2]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("activation", ["relu", "elu", "gelu"])
def test_norms_over_the_whole_image_see_all_strips_and_planes(activation, affine):
    made = network("instance", affine=affine, bias=affine, activation=activation)
    image = torch.rand(1, 1, 9, 14, 11)
    kept = image.clone()
    assert made.strips(image.shape[2:]) == [(0, 14)]
    logits = torch.cat([part for _, part in made.slabs(image)], dim=1)[None]
    assert torch.allclose(logits, chain(made, image), atol=1e-5)
    assert torch.equal(image, kept)


@pytest.mark.parametrize(
    ("folder", "activation"), [("model18cls", "elu"), ("model5_gw_ae", "relu"), ("subcortical", "elu")]
)
def test_public_weights_give_what_their_chain_gives(data, folder, activation):
    weights = safetensors.torch.load_file(data / "public_models" / "brainchop" / "weights" / folder / "model.pth")
    layers: list[nn.Module] = []
    for index, dilation in enumerate(DILATIONS):
        weight = weights[f"model.{2 * index}.weight"]
        layers += [nn.Conv3d(*weight.shape[1::-1], 3, padding=dilation, dilation=dilation)]
        layers += [{"elu": nn.ELU, "relu": nn.ReLU}[activation]()]
    classes, channels = weights["model.18.weight"].shape[:2]
    publishers = nn.Sequential(*layers, nn.Conv3d(channels, classes, 1)).requires_grad_(False)
    publishers.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    config = {"in_channels": 1, "num_classes": classes, "channels": channels, "dilations": list(DILATIONS)}
    ours = build({"name": "MeshNet", "config": {**config, "activation": activation}}).requires_grad_(False)
    for target, source in zip(ours.parameters(), publishers.parameters(), strict=True):
        target.copy_(source)
    image = torch.rand(1, 1, 34, 36, 32, generator=torch.Generator().manual_seed(1))
    assert (ours(image) - publishers(image)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"channels": 0}, "0"),
        ({"channels": 100_000}, "100000"),
        ({"dilations": ()}, "sizes"),
        ({"norm": "batch"}, "'batch'"),
        ({"activation": "tanh"}, "'tanh'"),
    ],
)
def test_what_is_no_meshnet_is_refused_by_name(wrong, words):
    with pytest.raises(InputError, match=words):
        MeshNetConfig(**{"in_channels": 1, "num_classes": 2, "channels": 5, "dilations": (1, 2), **wrong})
