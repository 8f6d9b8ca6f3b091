"""SegResNetDS gives MONAI's own logits from MONAI's own weights, whatever its levels, resolution and heads."""

from __future__ import annotations

import pytest
import torch
from usema.errors import InputError
from usema.networks import SegResNetDS, SegResNetDSConfig, build

monai_networks = pytest.importorskip("monai.networks.nets")

CASES = {
    "isotropic, four heads": ({"blocks_down": (1, 2, 2), "dsdepth": 2}, (16, 20, 12)),
    "as Auto3DSeg has it": ({"blocks_down": (1, 2, 2, 4, 4), "dsdepth": 4, "init_filters": 8}, (32, 16, 16)),
    "anisotropic": ({"blocks_down": (1, 1, 2, 1), "resolution": (0.6, 0.6, 3.0), "dsdepth": 3}, (16, 24, 6)),
    "coarse first axis": ({"blocks_down": (1, 1, 1), "resolution": (5.0, 1.0, 1.0)}, (5, 12, 8)),
    "four channels": ({"blocks_down": (1, 1), "in_channels": 4, "out_channels": 3}, (6, 4, 8)),
    "more blocks on the way up": ({"blocks_down": (1, 1, 1), "blocks_up": (2, 3)}, (8, 8, 8)),
    "batch norm": ({"blocks_down": (1, 2), "norm": "batch"}, (6, 8, 4)),
}


def networks(options: dict) -> tuple[torch.nn.Module, SegResNetDS]:
    """MONAI's network and ours with its weights."""
    options = {"init_filters": 4, "in_channels": 1, "out_channels": 5, "norm": "instance", "dsdepth": 1, **options}
    torch.manual_seed(0)
    theirs = monai_networks.SegResNetDS(**options).eval().requires_grad_(False)
    for name, value in theirs.state_dict().items():  # norms start as the identity, which would hide a missing one
        if value.is_floating_point() and value.ndim == 1:
            value.add_(torch.rand_like(value) * 0.5)
            assert "norm" in name or "head" in name
    config = {
        "in_channels": options["in_channels"],
        "num_classes": options["out_channels"],
        "filters": options["init_filters"],
        "blocks_down": list(options["blocks_down"]),
        "blocks_up": list(options.get("blocks_up", (1,) * (len(options["blocks_down"]) - 1))),
        "resolution": options.get("resolution"),
        "norm": options["norm"],
    }
    ours = build({"name": "SegResNetDS", "config": config}).eval().requires_grad_(False)
    weights = {name: value for name, value in theirs.state_dict().items() if name in ours.state_dict()}
    left = {name for name in theirs.state_dict() if name not in weights}
    assert all(".head." in name for name in left), left
    ours.load_state_dict(weights)
    return theirs, ours


@pytest.mark.parametrize("case", CASES)
def test_the_logits_are_monais(case):
    options, shape = CASES[case]
    theirs, ours = networks(options)
    image = torch.randn(1, options.get("in_channels", 1), *shape)
    assert tuple(ours.config.divisors) == tuple(theirs.shape_factor())
    assert (ours(image) - theirs(image)).abs().max() < 1e-4


def test_the_published_size_comes_out():
    with torch.device("meta"):
        network = SegResNetDS(SegResNetDSConfig(1, 24))
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(87_174_848, rel=1e-3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"filters": 10**5}, "100000"),
        ({"blocks_up": (1,)}, "5 and 1"),
        ({"resolution": (1.0, 0.0, 1.0)}, "resolution"),
        ({"norm": "layer"}, "'layer'"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_value(wrong, words):
    with pytest.raises(InputError, match=words):
        SegResNetDSConfig(**{"in_channels": 1, "num_classes": 2, **wrong})
