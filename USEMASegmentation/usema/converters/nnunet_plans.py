"""What nnU-Net's plans.json and dataset.json say of a network: its architecture, its preprocessing and its labels.

Keys and defaults are those of nnU-Net 2.0 to 2.8; plans older than 2.3 describe the network in other words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BundleError

NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
_NORMS = {"InstanceNorm": "instance", "BatchNorm": "batch"}
_ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}
_KNOWN = {
    "n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage",
    "n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin",
    "nonlin_kwargs", "deep_supervision", "nonlin_first", "block", "bottleneck_channels", "stem_channels",
}  # fmt: skip
_MOST_STAGES = 32
_UNSUPPORTED = "USEMA runs nnU-Net's PlainConvUNet and ResidualEncoderUNet with the settings of nnU-Net's planners."


@dataclass(frozen=True)
class Described:
    """A network as a bundle describes it.

    Attributes:
        dataset: its name.
        channels: names of the input volumes.
        label_names: of the values 1, 2, 3, ...
        architecture, preprocessing: as in ``model.json``.
        region_order: for networks that say yes or no of regions: the value each region writes; else empty.
        previous: cascade: the configuration whose labels this network gets; else empty.
        reorients: nnU-Net's reader turned the training volumes to RAS.
    """

    dataset: str
    channels: tuple[str, ...]
    label_names: tuple[str, ...]
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    region_order: tuple[int, ...]
    previous: str
    reorients: bool


def describe(plans: Mapping, dataset: Mapping, configuration: str, where: str) -> Described:
    """Reads one configuration.

    Args:
        plans, dataset: contents of plans.json and dataset.json.
        configuration: its name.
        where: where they come from, for messages.

    Raises:
        BundleError: something is missing, or is nothing that this engine has; named.
    """
    from ..inference.plan import Plan, configuration_of

    if "modalities" in plans and "configurations" not in plans:
        raise BundleError(f"{where} is a plan of nnU-Net 1.", V1_HINT)
    try:
        chosen = configuration_of(dict(plans), configuration)
        if plans.get("label_manager", "LabelManager") != "LabelManager":
            raise BundleError(f"{where} names the label manager '{plans['label_manager']}'.", _UNSUPPORTED)
        channels = _channels(dataset)
        if len(channels) != len(chosen["normalization_schemes"]):
            raise BundleError(
                f"{where}: dataset.json has {len(channels)} channel(s), {', '.join(channels)}, and the plans normalise "
                f"{len(chosen['normalization_schemes'])}.",
                "The two files are of different models: get the one that belongs to the checkpoint.",
            )
        names, regions = _labels(dataset, where)
        previous = chosen.get("previous_stage") or ""
        alone = {**plans, "configurations": {configuration: {**chosen, "previous_stage": None, "inherits_from": None}}}
        return Described(
            dataset=str(plans.get("dataset_name") or dataset.get("name") or "unnamed"),
            channels=channels,
            label_names=names,
            architecture=_architecture(
                chosen,
                where,
                in_channels=len(channels) + (len(names) if previous else 0),
                num_classes=len(regions) or len(names) + 1,
            ),
            preprocessing=_preprocessing(plans, Plan.from_nnunet(alone, configuration).to_dict()),
            region_order=regions,
            previous=str(previous),
            reorients="NibabelIOWithReorient"
            in (plans.get("image_reader_writer"), dataset.get("overwrite_image_reader_writer")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else f"a value of another kind ({error})"
        raise BundleError(
            f"{where} cannot be used: there is {what}.", "Get the files of the training again."
        ) from error


V1_HINT = "USEMA imports models of nnU-Net 2. Whoever has the training data can train the model again with it."


def _preprocessing(plans: Mapping, preprocessing: dict[str, Any]) -> dict[str, Any]:
    from ..inference.image_plans import image_preprocessing, saw_images

    return image_preprocessing(plans, preprocessing) if saw_images(plans) else preprocessing


def _channels(dataset: Mapping) -> tuple[str, ...]:
    names = dataset["channel_names"] if "channel_names" in dataset else dataset["modality"]
    return tuple(str(names[key]) or f"channel {key}" for key in sorted(names, key=int))


def _labels(dataset: Mapping, where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the values 1, 2, 3, ..., and for regions the value that each writes."""
    values = {name: _value(value) for name, value in dataset["labels"].items() if name != "ignore"}
    if values.get("background") != 0:
        raise BundleError(f"{where}: dataset.json has no label 'background' with the value 0.", _UNSUPPORTED)
    regions = {name: value for name, value in values.items() if value not in (0, (0,))}
    if not any(isinstance(value, tuple) for value in regions.values()):
        ordered = sorted(regions, key=regions.__getitem__)
        found = [regions[name] for name in ordered]
        if not found or found != list(range(1, len(found) + 1)):
            raise BundleError(f"{where}: the labels have the values {found}.", "They should be 1, 2, 3, ... in order.")
        _refuse_ignored(dataset, len(found), where)
        return tuple(ordered), ()
    order = tuple(int(value) for value in dataset.get("regions_class_order") or ())
    if len(order) != len(regions) or sorted(set(order)) != list(range(1, max(order) + 1)):
        raise BundleError(
            f"{where}: regions_class_order is {list(order)} for {len(regions)} regions.",
            "It should name a value from 1 on for each region, without gaps.",
        )
    _refuse_ignored(dataset, max(max(_values_of(value)) for value in regions.values()), where)
    return _region_names(regions, order), order


def _values_of(value: int | tuple[int, ...]) -> tuple[int, ...]:
    """The label values of a region, or of a single label."""
    return value if isinstance(value, tuple) else (value,)


def _value(value: Any) -> int | tuple[int, ...]:
    """A label's value; of a region, its values. A list of one is that one."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        values = tuple(int(item) for item in value)
        return values if len(values) != 1 else values[0]
    return int(value)


def _refuse_ignored(dataset: Mapping, last: int, where: str) -> None:
    """What training ignored has no output, and is the last value."""
    ignored = dataset["labels"].get("ignore")
    if ignored is not None and ignored != last + 1:
        raise BundleError(f"{where}: the label 'ignore' is {ignored}, and should be {last + 1}.", _UNSUPPORTED)


def _region_names(regions: Mapping[str, int | tuple[int, ...]], order: Sequence[int]) -> tuple[str, ...]:
    """What each value is: the last region that writes it, without those that overwrite it later."""
    named, items = {}, list(regions.items())
    for index, value in enumerate(order):
        name, own = items[index][0], set(_values_of(items[index][1]))
        later = [other for other, values in items[index + 1 :] if own & set(_values_of(values))]
        # What lies in another of them needs no mention.
        outer = [a for a in later if not any(set(_values_of(regions[a])) < set(_values_of(regions[b])) for b in later)]
        named[value] = f"{name} without {' and '.join(outer)}" if outer else name
    return tuple(named[value] for value in sorted(named))


def _architecture(chosen: Mapping, where: str, in_channels: int, num_classes: int) -> dict[str, Any]:
    """As ``usema.networks.build`` takes it."""
    described = chosen.get("architecture") or _of_old_plans(chosen)
    name = str(described["network_class_name"]).rpartition(".")[2]
    if name not in NETWORKS:
        raise BundleError(f"{where}: the network is a {name}.", _UNSUPPORTED)
    kwargs = described["arch_kwargs"]
    _refuse_other(name, kwargs, where)
    axes, stages = len(chosen["patch_size"]), int(kwargs["n_stages"])
    if not 2 <= stages <= _MOST_STAGES or not str(kwargs["conv_op"]).endswith(f"Conv{axes}d"):
        raise BundleError(f"{where}: {stages} stages of {kwargs['conv_op']} are no {axes}D U-Net.", _UNSUPPORTED)
    norm = kwargs.get("norm_op_kwargs") or {}
    activation = kwargs.get("nonlin_kwargs") or {}
    config = {
        "in_channels": in_channels,
        "num_classes": num_classes,
        "features": _per_stage(kwargs["features_per_stage"], stages),
        "kernels": [_per_axis(side, axes) for side in _per_stage(kwargs["kernel_sizes"], stages)],
        "strides": [_per_axis(side, axes) for side in _per_stage(kwargs["strides"], stages)],
        "convs": _per_stage(kwargs["n_conv_per_stage" if name == NETWORKS[0] else "n_blocks_per_stage"], stages),
        "decoder_convs": _per_stage(kwargs["n_conv_per_stage_decoder"], stages - 1),
        "conv_bias": bool(kwargs.get("conv_bias", False)),
        "norm": _known_name(kwargs.get("norm_op"), _NORMS, axes, where),
        "norm_eps": float(norm.get("eps", 1e-5)),
        # Where nothing is said, the classes themselves decide, and differ.
        "norm_affine": bool(norm.get("affine", "BatchNorm" in str(kwargs.get("norm_op")))),
        "activation": _known_name(kwargs.get("nonlin"), _ACTIVATIONS, None, where),
        "negative_slope": float(activation.get("negative_slope", 0.01)),
    }
    if name == NETWORKS[0]:
        config["activation_first"] = bool(kwargs.get("nonlin_first", False))
    else:
        config["stem_channels"] = int(kwargs.get("stem_channels") or 0)
    return {"name": name, "config": config}


def _of_old_plans(chosen: Mapping) -> dict[str, Any]:
    """The words of plans before nnU-Net 2.3, in today's."""
    name = str(chosen["UNet_class_name"])
    axes, convs = len(chosen["patch_size"]), list(chosen["n_conv_per_stage_encoder"])
    first, most = chosen["UNet_base_num_features"], chosen["unet_max_num_features"]
    return {
        "network_class_name": name,
        "arch_kwargs": {
            "n_stages": len(convs),
            "features_per_stage": [min(first * 2**stage, most) for stage in range(len(convs))],
            "conv_op": f"Conv{axes}d",
            "kernel_sizes": chosen["conv_kernel_sizes"],
            "strides": chosen["pool_op_kernel_sizes"],
            "n_conv_per_stage": convs,
            "n_blocks_per_stage": convs,
            "n_conv_per_stage_decoder": chosen["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "LeakyReLU",
        },
    }


def _refuse_other(name: str, kwargs: Mapping, where: str) -> None:
    """What the two networks can be told and ours cannot."""
    unknown = sorted(set(kwargs) - _KNOWN)
    others = {
        key: kwargs[key]
        for key, allowed in (("bottleneck_channels", (None,)), ("block", (None,)))
        if kwargs.get(key) not in allowed and not str(kwargs[key]).endswith("BasicBlockD")
    }
    norm, activation = kwargs.get("norm_op_kwargs") or {}, kwargs.get("nonlin_kwargs") or {}
    batch = "BatchNorm" in str(kwargs.get("norm_op"))
    if norm.get("track_running_stats", batch) is not batch:
        others["track_running_stats"] = norm["track_running_stats"]
    if name != NETWORKS[0] and kwargs.get("nonlin_first"):
        others["nonlin_first"] = True
    dropout = str(kwargs.get("dropout_op") or "Dropout").rpartition(".")[2]
    if not dropout.startswith("Dropout"):  # which does nothing after training
        others["dropout_op"] = dropout
    unknown += sorted(set(norm) - {"eps", "affine", "momentum", "track_running_stats"})
    unknown += sorted(set(activation) - {"inplace", "negative_slope"})
    if unknown or others:
        said = ", ".join([*unknown, *(f"{key} {value}" for key, value in others.items())])
        raise BundleError(f"{where}: the {name} has settings that USEMA does not know: {said}.", _UNSUPPORTED)


def _known_name(given: Any, known: Mapping[str, str], axes: int | None, where: str) -> str:
    """A class by the last part of its name. Names are compared, never looked up."""
    if given is None and axes is not None:
        return "none"
    name = str(given).rpartition(".")[2]
    stem = name.removesuffix(f"{axes}d") if axes else name
    if stem not in known or (axes and stem == name):
        raise BundleError(f"{where} names {given}, which USEMA does not have.", _UNSUPPORTED)
    return known[stem]


def _per_stage(value: Any, stages: int) -> list:
    """A list is kept if it has a value for each stage; a number stands for all of them."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * stages
    if len(values) != stages:
        raise ValueError(f"{len(values)} values for {stages} stages")
    return values


def _per_axis(value: Any, axes: int) -> list[int]:
    return [int(side) for side in value] if isinstance(value, (list, tuple)) else [int(value)] * axes
