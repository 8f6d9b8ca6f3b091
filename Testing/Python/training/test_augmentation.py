"""What the recipes change in images and labels, and what they compute in which type."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from usema.training import robust, robust_2d
from usema.training.cpu_bfloat16 import spare_narrow_convolutions


@pytest.mark.parametrize("axes", [2, 3])
def test_in_bfloat16_a_stride_that_leaves_one_column_computes_in_float32(axes):
    """Random memory went into these results on a CPU with matrix units."""
    convolution = (torch.nn.Conv2d, torch.nn.Conv3d)[axes - 2](256, 256, 3, stride=2, padding=1)
    narrow = torch.randn(2, 256, *(5,) * (axes - 1), 2, generator=torch.Generator().manual_seed(0))
    expected = convolution(narrow)
    expected.sum().backward()
    gradient, convolution.weight.grad = convolution.weight.grad, None
    spare_narrow_convolutions(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(convolution(narrow), expected)
        convolution(narrow).sum().backward()
        assert convolution(torch.cat((narrow, narrow), dim=-1)).dtype == torch.bfloat16
    torch.testing.assert_close(convolution.weight.grad, gradient)


def test_the_robust_recipe_fills_the_surroundings_and_leaves_the_image_alone():
    random.seed(0)
    torch.manual_seed(0)
    image, labels = torch.full((1, 20, 24, 16), 5.0), torch.full((1, 20, 24, 16), robust.OUTSIDE)
    inside = np.s_[:, 4:16, 3:20, 2:14]
    labels[inside] = 1
    filled = robust.Surroundings()(image=image.clone(), segmentation=labels.clone())
    assert filled["segmentation"].equal(labels)
    assert (filled["image"][inside] == 5).all()
    outside = filled["image"][labels == robust.OUTSIDE]
    assert outside.isfinite().all()
    assert outside.std() > 0.1
    assert (outside == 5).sum() == 0


def test_the_robust_recipe_averages_neighbouring_slices():
    random.seed(0)
    image = torch.randn(1, 20, 24, 16, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        thick = robust.ThickSlices()(image=image.clone())["image"]
        repeated = [(thick.diff(dim=axis) == 0).float().mean().item() for axis in (1, 2, 3)]
        assert sorted(share > 0.4 for share in repeated) == [False, False, True]
        assert thick.shape == image.shape
        assert thick.mean().item() == pytest.approx(image.mean().item(), abs=1e-5)


def test_the_robust_recipe_moves_image_and_labels_together():
    random.seed(0)
    labels = torch.randint(0, 3, (1, 20, 24, 16), generator=torch.Generator().manual_seed(0)).float()
    for _ in range(5):
        moved = robust.Shift()(image=10 + labels, segmentation=labels)
        stays = moved["segmentation"] != robust.OUTSIDE
        assert 0 < stays.sum() < labels.numel()
        assert (moved["image"][~stays] == 0).all()
        box = [slice(hits.amin(), hits.amax() + 1) for hits in stays[0].nonzero().T]
        assert stays[0][tuple(box)].all()
        # What is left of the labels lay at the opposite end of each axis.
        source = [
            slice(0, part.stop - part.start) if part.start else slice(side - part.stop, side)
            for part, side in zip(box, labels.shape[1:], strict=True)
        ]
        assert moved["segmentation"][0][tuple(box)].equal(labels[0][tuple(source)])
        assert moved["image"][0][tuple(box)].equal(10 + labels[0][tuple(source)])


def test_the_2d_recipe_shows_darkness_where_the_picture_ends():
    image = torch.linspace(-1, 3, 80).reshape(1, 8, 10).clone()
    labels = torch.zeros_like(image)
    labels[0, :, 7:] = robust.OUTSIDE
    dark = robust_2d.Darkness()(image=image.clone(), segmentation=labels.clone())["image"]
    assert dark[..., :7].equal(image[..., :7])
    assert (dark[..., 7:] == image[..., :7].min()).all()
    nothing = torch.full_like(labels, robust.OUTSIDE)
    assert robust_2d.Darkness()(image=image.clone(), segmentation=nothing)["image"].equal(image)


def test_the_2d_recipe_lights_a_picture_unevenly_and_smoothly():
    random.seed(0)
    torch.manual_seed(0)
    image = torch.zeros(1, 40, 56)
    lit = robust_2d.UnevenLight()(image=image)["image"]
    assert lit.shape == image.shape
    assert lit.std() > 0.01
    assert lit.diff(dim=1).abs().max() < 0.1 * (lit.max() - lit.min())
    assert (image == 0).all()


def test_what_is_averaged_goes_on_with_a_run_and_is_what_is_kept(tmp_path, monkeypatch):
    """Of a run that was interrupted the average goes on where it was; at the end the network has the average."""

    class Short(robust_2d.nnUNetTrainerUSEMARobust2D):
        def __init__(self):
            twice = torch.nn.Linear(2, 2)  # as nnU-Net's networks hold their modules
            self.network = torch.nn.Sequential(twice, twice)
            self.is_ddp, self.local_rank, self.disable_checkpointing = False, 0, False
            self.make_average()

    for name in ("train_step", "save_checkpoint", "load_checkpoint", "on_train_end"):
        monkeypatch.setattr(robust_2d.nnUNetTrainerUSEMASmall, name, lambda *arguments: {})
    first, checkpoint = Short(), str(tmp_path / "checkpoint_latest.pth")
    seen = []
    for _ in range(3):
        with torch.no_grad():
            first.network[0].weight += 1
        seen.append(first.network[0].weight.detach().clone())
        first.train_step({})
    share = first.average_decay
    expected = share * (share * seen[0] + (1 - share) * seen[1]) + (1 - share) * seen[2]
    torch.testing.assert_close(first.average.module[0].weight, expected)
    first.save_checkpoint(checkpoint)
    second = Short()
    second.load_checkpoint(checkpoint)
    second.network[0].weight.data.zero_()
    second.train_step({})
    torch.testing.assert_close(second.average.module[0].weight, share * expected)
    second.on_train_end()
    assert second.network[0].weight.equal(second.average.module[0].weight)
