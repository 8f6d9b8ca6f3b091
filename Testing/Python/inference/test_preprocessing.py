"""Preprocessing, against nnU-Net's own preprocessor on real volumes."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from nnunet_cases import CASES, load, planned, read_volume
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from usema.errors import BundleError, InputError
from usema.inference.nnunet_recipe import preprocess
from usema.inference.plan import Plan
from usema.inference.resampling import separate_axis

# Of the largest value. float32 rounds at 6e-8; up to 2e-7 was seen, where a spline runs along all three axes.
TOLERANCE = 1e-6

CT = {"mean": 10.0, "std": 200.0, "percentile_00_5": -800.0, "percentile_99_5": 900.0}


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def plan_with(**changes) -> Plan:
    """A plan of one CT channel at 1 mm."""
    values = {
        "spacing": (1.0, 1.0, 1.0),
        "patch_size": (32, 32, 32),
        "transpose_forward": (0, 1, 2),
        "transpose_backward": (0, 1, 2),
        "normalization": ("CTNormalization",),
        "use_mask_for_norm": (False,),
        "intensity_properties": (CT,),
    }
    return Plan(**{**values, **changes})


@pytest.mark.parametrize("name", CASES)
def test_a_real_volume_is_prepared_as_nnunet_prepares_it(name, data):
    case = load(name, data)
    theirs, properties = case.preprocessed_by_nnunet()
    before = case.array.copy()
    ours = preprocess(case.array, case.spacing, Plan.from_nnunet(case.plans, case.configuration))
    assert_same(ours.data, theirs)
    assert ours.cropped_shape == tuple(properties["shape_after_cropping_and_before_resampling"])
    assert [[part.start, part.stop] for part in ours.crop] == np.asarray(properties["bbox_used_for_cropping"]).tolist()
    assert np.array_equal(case.array, before)


def test_the_cases_meet_every_way_of_resampling(data):
    met = set()
    for name in CASES:
        case = load(name, data)
        result = preprocess(case.array, case.spacing, Plan.from_nnunet(case.plans, case.configuration))
        resampled = result.data.shape[1:] != result.cropped_shape
        met.add((resampled, separate_axis(result.input_spacing, result.spacing)))
    assert met >= {(False, None), (False, 0), (True, None), (True, 0), (True, 1), (True, 2)}


def test_the_separate_axis_is_the_one_that_nnunet_chooses():
    distances = (0.7, 1.0, 2.0, 3.0, 3.1)
    for spacing in itertools.product(distances, repeat=3):
        for new_spacing in itertools.product((0.9, 1.1, 3.4), repeat=3):
            apart, axis = determine_do_sep_z_and_axis(None, spacing, new_spacing)
            assert separate_axis(spacing, new_spacing) == (axis if apart else None), (spacing, new_spacing)


@pytest.mark.parametrize("masked", [False, True])
def test_each_channel_gets_its_own_scheme(masked, data):
    array, spacing = read_volume("sarcoma in zeros", data)
    eight_bit = (array / array.max() * 255).round()
    schemes = [
        "ZScoreNormalization",
        "CTNormalization",
        "NoNormalization",
        "RescaleTo01Normalization",
        "RGBTo01Normalization",
    ]
    channels = np.concatenate([array, array - 300, -array, array - 50, eight_bit])
    channels[1, 2:] = 0  # crop and mask are of all channels together
    plans = planned("sarcoma")
    plans["configurations"]["3d_fullres"].update(
        normalization_schemes=schemes, use_mask_for_norm=[masked] * 5, spacing=[4.0, 1.0, 1.0]
    )
    plans["foreground_intensity_properties_per_channel"] = {str(channel): CT for channel in range(5)}
    manager = PlansManager(plans)
    theirs = DefaultPreprocessor(verbose=False).run_case_npy(
        channels, None, {"spacing": spacing}, manager, manager.get_configuration("3d_fullres"), {}
    )[0]
    ours = preprocess(channels, spacing, Plan.from_nnunet(plans, "3d_fullres")).data
    for channel in range(5):
        assert_same(ours[channel], theirs[channel])


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float64])
def test_number_type_and_memory_order_make_no_difference(kind, data):
    array = read_volume("body CT", data)[0].clip(0, 255).astype(kind)
    plan = plan_with(spacing=(3.5, 2.5, 3.0))
    expected = preprocess(array.astype(np.float32), (3.0, 3.0, 3.0), plan).data
    assert np.array_equal(preprocess(np.asfortranarray(array), (3.0, 3.0, 3.0), plan).data, expected)
    twice = np.repeat(array, 2, axis=3)[..., ::2]
    assert np.array_equal(preprocess(twice, (3.0, 3.0, 3.0), plan).data, expected)
    assert expected.flags.c_contiguous


def test_a_volume_at_the_plans_spacing_needs_one_float32_copy(data):
    array = np.tile(read_volume("body CT", data)[0], (1, 4, 2, 2))
    plan = plan_with()
    preprocess(array[:, :4], (1.0, 1.0, 1.0), plan)
    tracemalloc.start()
    preprocess(array, (1.0, 1.0, 1.0), plan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 4 * array.size


def test_a_resampled_volume_needs_its_result_and_two_copies(data):
    array = np.tile(read_volume("body CT", data)[0], (1, 4, 2, 2))
    plan = plan_with()
    tracemalloc.start()
    result = preprocess(array, (0.9, 0.95, 0.95), plan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * (result.data.nbytes + 2 * 4 * array.size)


def test_a_volume_of_zeros_is_refused():
    with pytest.raises(InputError, match="zero everywhere"):
        preprocess(np.zeros((1, 4, 5, 6), np.int16), (1.0, 1.0, 1.0), plan_with())


def test_a_wrong_number_of_channels_is_refused(data):
    array, spacing = read_volume("hippocampus", data)
    with pytest.raises(InputError, match=r"expects 1 channel.*\(2, 35, 51, 35\)"):
        preprocess(np.concatenate([array, array]), spacing, plan_with())


def test_a_volume_thinner_than_half_a_voxel_of_the_model_is_refused(data):
    array, _ = read_volume("hippocampus slice", data)
    with pytest.raises(InputError, match="only 1 mm thick"):
        preprocess(array, (1.0, 1.0, 1.0), plan_with(spacing=(2.5, 1.0, 1.0)))


def test_colours_beyond_eight_bits_are_refused(data):
    array, spacing = read_volume("body CT", data)
    with pytest.raises(InputError, match="0 to 255; the volume holds -1100 to 1207"):
        preprocess(array, spacing, plan_with(normalization=("RGBTo01Normalization",)))


def test_a_plan_survives_json():
    plan = Plan.from_nnunet(planned("sarcoma"), "2d")
    assert plan.dimensions == 2
    assert plan.patch_size == (160, 160)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_configuration_inherits_what_it_does_not_name():
    plans = planned("hippocampus")
    plans["configurations"]["large"] = {"inherits_from": "3d_fullres", "patch_size": [48, 64, 48]}
    plans["configurations"]["larger"] = {"inherits_from": "large", "spacing": [2.0, 2.0, 2.0]}
    plan = Plan.from_nnunet(plans, "larger")
    assert plan.patch_size == (48, 64, 48)
    assert plan.spacing == (2.0, 2.0, 2.0)
    assert plan.normalization == ("ZScoreNormalization",)


def test_a_configuration_that_inherits_from_itself_is_refused():
    plans = planned("hippocampus")
    plans["configurations"]["a"] = {"inherits_from": "b"}
    plans["configurations"]["b"] = {"inherits_from": "a"}
    with pytest.raises(BundleError, match="inherits from itself"):
        Plan.from_nnunet(plans, "a")


def test_an_unknown_configuration_is_refused_with_those_that_exist():
    with pytest.raises(BundleError, match=r"no configuration '3d_lowres'.*2d, 3d_fullres"):
        Plan.from_nnunet(planned("hippocampus"), "3d_lowres")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"normalization_schemes": ["MyNormalization"]}, "MyNormalization"),
        ({"normalization_schemes": ["ZScoreNormalization"] * 2}, "'1'"),
        ({"preprocessor_name": "MyPreprocessor"}, "MyPreprocessor"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "resample_torch_fornnunet"),
        ({"resampling_fn_probabilities": "no_resampling_hack"}, "no_resampling_hack"),
        (
            {"resampling_fn_data": "resample_torch_fornnunet", "resampling_fn_data_kwargs": {"is_seg": False}},
            "by different rules",
        ),
        ({"resampling_fn_data_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}}, "order"),
        (
            {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "force_separate_z": True}},
            "'force_separate_z': True",
        ),
        ({"patch_size": [32, 32]}, r"patch size \(32, 32\)"),
    ],
)
def test_a_plan_that_asks_for_other_rules_is_refused_by_name(changes, named):
    plans = planned("hippocampus")
    plans["configurations"]["3d_fullres"].update(changes)
    with pytest.raises(BundleError, match=named):
        Plan.from_nnunet(plans, "3d_fullres")


def test_a_ct_plan_without_its_intensities_is_refused():
    with pytest.raises(BundleError, match="'percentile_99_5' that CTNormalization needs"):
        plan_with(intensity_properties=({"mean": 0.0, "std": 1.0, "percentile_00_5": -800.0},))


def test_a_transposition_that_is_not_undone_is_refused():
    with pytest.raises(BundleError, match=r"\(2, 0, 1\)"):
        plan_with(transpose_forward=(2, 0, 1), transpose_backward=(2, 0, 1))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"spacing": None}, "spacing None"),
        ({"spacing": [1.0, 1.0, float("nan")]}, "spacing .*nan"),
        ({"spacing": [1.0, 1.0, 0.0]}, "spacing .*0.0"),
        ({"spacing": ["1", "1", "1"]}, "spacing .* not a list of numbers"),
        ({"patch_size": [32, 32.5, 32]}, "32.5"),
        ({"patch_size": [32, 0, 32]}, r"patch size \(32, 0, 32\)"),
        ({"transpose_forward": [0, 1]}, r"\(0, 1\)"),
        ({"normalization": "CTNormalization"}, "not a list of names"),
        ({"use_mask_for_norm": ["no"]}, "use_mask_for_norm"),
        ({"intensity_properties": [{**CT, "mean": None}]}, "'mean'"),
        ({"normalization": [], "use_mask_for_norm": [], "intensity_properties": []}, "0 schemes"),
        ({"spacings": [1.0]}, "spacings"),
    ],
)
def test_a_damaged_plan_is_refused_with_the_value(changes, named):
    with pytest.raises(BundleError, match=named):
        Plan.from_dict({**plan_with().to_dict(), **changes})


def test_a_plan_that_lacks_a_value_is_refused_by_its_name():
    values = plan_with().to_dict()
    del values["patch_size"]
    with pytest.raises(BundleError, match="patch_size"):
        Plan.from_dict(values)
