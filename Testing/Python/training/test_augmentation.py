"""What the recipes change in images and labels, and what they compute in which type."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from usema.measure.objects import rims
from usema.training import averaged, further_2d, robust, robust_2d
from usema.training.cpu_bfloat16 import hasten_depthwise_convolutions, spare_narrow_convolutions


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


def test_in_bfloat16_depthwise_convolutions_of_volumes_compute_in_float32_and_others_as_they_did():
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(4, 8, 3, padding=1), torch.nn.Conv3d(8, 8, 3, padding=1, groups=8), torch.nn.Conv3d(8, 2, 1)
    )
    x, seen = torch.randn(2, 4, 6, 7, 5, generator=generator), {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, inputs, out, name=name: seen.update({name: (inputs[0], out)}))
    hasten_depthwise_convolutions(network)
    with torch.autocast("cpu", torch.bfloat16):
        network(x).float().sum().backward()
    assert [seen[name][1].dtype for name in "012"] == [torch.bfloat16] * 3
    given, found = seen["1"]
    exact = torch.nn.functional.conv3d(given.float(), network[1].weight, network[1].bias, padding=1, groups=8)
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-6)
    assert network[1].weight.grad.dtype == torch.float32


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


def test_training_on_meets_other_fields_of_view_half_as_often_and_ends_at_no_learning_rate():
    patch = ((40, 56, 40), (-0.5, 0.5), [1, 1, 1], (2,), None)

    def shares(trainer):
        every = trainer.get_training_transforms(*patch).transforms
        return {type(each.transform): each.apply_probability for each in every if hasattr(each, "apply_probability")}

    before, after = (
        shares(trainer)
        for trainer in (robust.nnUNetTrainerUSEMARobustBothSides, averaged.nnUNetTrainerUSEMARobustBothSidesFurther)
    )
    rare = {robust.Shift, robust.Surroundings, robust.ThickSlices, robust.Level}
    assert {kind: share * 2 for kind, share in after.items() if kind in rare} == {kind: before[kind] for kind in rare}
    assert {kind: before[kind] for kind in before.keys() - rare} == {kind: after[kind] for kind in after.keys() - rare}

    trainer = object.__new__(averaged.nnUNetTrainerUSEMARobustBothSidesFurther)
    trainer.network, trainer.weight_decay, trainer.num_epochs = torch.nn.Linear(1, 1), 0, 4
    optimizer, schedule = trainer.configure_optimizers()
    rates = []
    for epoch in (0, 2, 4):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([5e-4, 2.5e-4, 0])


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


def test_rims_are_drawn_anew_after_objects_were_magnified():
    """Labels 1 and 2 become numbers that touch and come back as rims of the same width at twice the size."""
    y, x = np.indices((60, 90))
    drawn = np.zeros((60, 90), np.int32)
    drawn[(x - 30) ** 2 + (y - 30) ** 2 < 200] = 1
    drawn[((x - 57) ** 2 + (y - 30) ** 2 < 200) & (drawn == 0)] = 2
    labels = torch.from_numpy(rims(drawn).astype(np.int16))[None]
    labels[0, :, 80:] = robust.OUTSIDE
    numbers = further_2d.Numbers()(image=torch.zeros(1, 60, 90), segmentation=labels)["segmentation"]
    assert (numbers[0, :, :80].numpy() != drawn[:, :80]).mean() < 0.005  # where both rims meet
    twice = numbers.repeat_interleave(2, 1).repeat_interleave(2, 2)
    again = further_2d.Rims()(image=torch.zeros(1, 120, 180), segmentation=twice)["segmentation"]
    assert again.dtype == labels.dtype
    assert (again[0, :, 160:] == robust.OUTSIDE).all()
    assert (again[0, :, :160].numpy() != rims(drawn.repeat(2, 0).repeat(2, 1))[:, :160]).mean() < 0.005


def test_other_devices_change_the_tones_and_the_frame_and_not_what_was_drawn():
    random.seed(1)
    torch.manual_seed(1)
    image = torch.linspace(-2, 2, 80 * 96).reshape(1, 80, 96) + 0.1 * torch.randn(1, 80, 96)
    labels = torch.ones(1, 80, 96, dtype=torch.int16)
    for _ in range(10):
        order = image.flatten().argsort()
        curved = further_2d.ToneCurve()(image=image.clone())["image"]
        assert (curved.flatten()[order].diff() >= -1e-5).all()
        assert curved.mean().abs() < 0.01
        assert curved.std() == pytest.approx(1, abs=0.01)
        marked = further_2d.Marks()(image=image.clone(), segmentation=labels)
        assert 0 < (marked["image"] != image).float().mean() < 0.5
        assert marked["segmentation"].equal(labels)
        framed = further_2d.Collimator()(image=image.clone(), segmentation=labels.clone())
        covered = framed["segmentation"] == 0
        assert not covered[:, 10:-10, 12:-12].any()
        assert len(framed["image"][covered].unique()) <= 1
        sharp = further_2d.LocalContrast()(image=image.clone())["image"]
        assert sharp.shape == image.shape
        assert sharp.isfinite().all()
    flat = torch.zeros(1, 80, 96)
    assert further_2d.ToneCurve()(image=flat)["image"].equal(flat)


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
    shares = [(1 + number) / (10 + number) for number in (1, 2, 3)]
    expected = shares[1] * (shares[0] * seen[0] + (1 - shares[0]) * seen[1]) + (1 - shares[1]) * seen[2]
    torch.testing.assert_close(first.average.module[0].weight, expected)
    first.save_checkpoint(checkpoint)
    second = Short()
    second.load_checkpoint(checkpoint)
    second.network[0].weight.data.zero_()
    second.train_step({})
    torch.testing.assert_close(second.average.module[0].weight, shares[2] * expected)
    second.on_train_end()
    assert second.network[0].weight.equal(second.average.module[0].weight)


def test_the_average_of_a_short_training_holds_nothing_of_its_first_weights():
    trainer = object.__new__(averaged.nnUNetTrainerUSEMARobustBothSidesFurther)
    trainer.network, trainer.is_ddp = torch.nn.Linear(1, 1, bias=False), False
    trainer.make_average()
    with torch.no_grad():
        for iteration in range(300):
            trainer.network.weight.fill_(1e6 if iteration == 0 else 1)
            trainer.average.update_parameters(trainer.network)
    assert trainer.average.module.weight.item() == pytest.approx(1, abs=1e-6)
    numbers = torch.full((1,), 10**6)
    average, weights = torch.zeros(1), torch.ones(1)
    trainer._move_average([average], [weights], numbers)
    assert average.item() == pytest.approx(1 - trainer.average_decay, rel=1e-3)  # of a long one it is as ever
