"""nnU-Net's resampling with torch, which some of its planners choose, against nnU-Net's own function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunet_cases import load
from nnunetv2.preprocessing.resampling import default_resampling, resample_torch
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from scipy import ndimage
from usema.errors import BundleError
from usema.inference.logits_to_labels import LogitsToLabels
from usema.inference.nnunet_recipe import preprocess
from usema.inference.outputs import Outputs
from usema.inference.plan import Plan
from usema.inference.resampling import resample_labels, separate_axis

TOGETHER = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
APART = {**TOGETHER, "force_separate_z": None}
# Coarse along one axis, along none; up and down.
NAMES = [
    "hippocampus, other spacing",
    "sarcoma, coarser",
    "sarcoma, coarse along another axis",
    "sarcoma, half in plane",
]


@pytest.fixture(autouse=True)
def mended(monkeypatch):
    """Version 2.5 asks for the length of the separate axis, which is a number since its rule for it was moved."""

    def axis_in_a_list(*arguments):
        apart, axis = default_resampling.determine_do_sep_z_and_axis(*arguments)
        return apart, None if axis is None else [int(axis)]

    monkeypatch.setattr(resample_torch, "determine_do_sep_z_and_axis", axis_in_a_list)


def with_torch(name, data, kwargs):
    case = load(name, data)
    chosen = case.plans["configurations"][case.configuration]
    for kind in ("data", "probabilities"):
        chosen[f"resampling_fn_{kind}"] = "resample_torch_fornnunet"
        chosen[f"resampling_fn_{kind}_kwargs"] = kwargs
    return case, Plan.from_nnunet(case.plans, case.configuration)


@pytest.mark.parametrize("kwargs", [TOGETHER, APART], ids=["together", "apart"])
@pytest.mark.parametrize("name", NAMES)
def test_volumes_and_logits_are_resampled_as_nnunet_resamples_them(name, kwargs, data):
    case, plan = with_torch(name, data, kwargs)
    assert Plan.from_dict(plan.to_dict()) == plan
    theirs, _ = case.preprocessed_by_nnunet()
    ours = preprocess(case.array, case.spacing, plan)
    np.testing.assert_allclose(ours.data, theirs, atol=1e-5 * abs(theirs).max())

    noise = np.random.default_rng(0).normal(size=(3, *ours.data.shape[1:]))
    logits = torch.from_numpy(60 * ndimage.gaussian_filter(noise, (0, 2, 2, 2))).float()
    before = [case.spacing[axis] for axis in plan.transpose_forward]
    back = resample_torch.resample_torch_fornnunet(logits, ours.cropped_shape, ours.spacing, before, **kwargs)
    expected = back.argmax(0).numpy()
    collector = LogitsToLabels(ours, Outputs.classes(3))
    for start in range(0, logits.shape[1], 5):
        collector.add(start, logits[:, start : start + 5])
    found = collector.finish()[0].transpose(plan.transpose_forward)[ours.crop]
    assert (found == expected).mean() > 0.9999


@pytest.mark.parametrize("name", NAMES)
def test_the_labels_of_a_previous_stage_are_resampled_as_nnunet_resamples_them(name, data):
    case = load(name, data)
    chosen = case.plans["configurations"][case.configuration]
    shape = case.array.shape[1:]
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(4, *shape)), (0, 1, 2, 2))
    labels = noise.argmax(0).astype(np.int16)
    new_shape = [round(n * old / new) for n, old, new in zip(shape, case.spacing, chosen["spacing"], strict=True)]
    separate = separate_axis(case.spacing, chosen["spacing"])
    ours = resample_labels(labels, new_shape, separate, exact=False)
    _, configuration = case.nnunet()
    theirs = configuration.resampling_fn_seg(labels[None], new_shape, case.spacing, chosen["spacing"])[0]
    assert ours.shape == theirs.shape
    assert (ours == theirs).mean() > 0.999
    kwargs = {**APART, "is_seg": True}
    with_torch = resample_torch.resample_torch_fornnunet(
        labels[None], new_shape, case.spacing, chosen["spacing"], **kwargs
    )
    ours = resample_labels(labels, new_shape, separate, exact=True)
    assert (ours == np.asarray(with_torch)[0]).mean() > 0.999
    assert len(convert_labelmap_to_one_hot(ours, [1, 2, 3])) == 3


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({**TOGETHER, "force_separate_z": True}, "'force_separate_z': True"),
        ({**TOGETHER, "mode": "nearest"}, "'mode': 'nearest'"),
        ({**TOGETHER, "order": 3}, "'order': 3"),
    ],
)
def test_other_options_are_refused_by_name(kwargs, words, data):
    with pytest.raises(BundleError, match=f"resample_torch_fornnunet' with the options .*{words}"):
        with_torch("hippocampus, 3d", data, kwargs)
