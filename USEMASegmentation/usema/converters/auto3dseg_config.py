"""What the configuration in an Auto3DSeg checkpoint says, as ``model.json`` has it. Plain values are compared, and no
text of it is ever evaluated: not what begins with "$", and not the ``_target_`` that names a class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BundleError, InputError

NETWORK = "SegResNetDS"
_BRATS = "brats"
_BRATS_ORDER = [2, 1, 3]  # the whole tumour leaves edema, its core necrosis, and on top lies what enhances
_NORMS = {"INSTANCE": "instance", "INSTANCE_NVFUSER": "instance", "BATCH": "batch"}
_NETWORK_KEYS = {
    "_target_", "spatial_dims", "init_filters", "in_channels", "out_channels", "act", "norm", "blocks_down",
    "blocks_up", "dsdepth", "preprocess", "upsample_mode", "resolution",
}  # fmt: skip
_OTHER = "USEMA runs the SegResNetDS models that MONAI's Auto3DSeg trained; this is another, and was not imported."
_AGAIN = "Get the file again from its publisher."


@dataclass(frozen=True)
class Described:
    """A configuration, read.

    Attributes:
        architecture, preprocessing, inference: as in ``model.json``.
        orientation: "RAS", or None: volumes as they are stored.
        modality: DICOM's, by how intensities are normalised.
        inputs: names of the volumes, as far as the configuration has any.
        labels: how many there are.
    """

    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    inference: dict[str, Any]
    orientation: str | None
    modality: str
    inputs: list[str]
    labels: int


def describe(config: Mapping[str, Any], where: str, brats: bool, report: Callable[[str], None]) -> Described:
    """Read a configuration.

    Args:
        config: plain values.
        where: what messages call the file.
        brats: whether the three outputs are the regions of BraTS.
        report: receives a sentence where something is done in another way.

    Raises:
        BundleError: it is of another network, or says something that is not known here.
    """
    try:
        return _described(config, brats, report)
    except KeyError as error:
        raise BundleError(f"{where}: its config has no {error}.", _AGAIN) from error
    except ValueError as error:
        raise BundleError(f"{where}: {error}.", _OTHER) from error
    except InputError as error:
        raise BundleError(f"{where}: its config describes no network: {error.message}", _AGAIN) from error


def _described(config: Mapping[str, Any], brats: bool, report: Callable[[str], None]) -> Described:
    if config.get("custom_data_transforms"):
        raise ValueError("its config has custom_data_transforms, which are code of its own")
    architecture = _architecture(_table(config["network"], "network"))
    outputs, sigmoid = architecture["config"]["num_classes"], _flag(config, "sigmoid", False)
    inference: dict[str, Any] = {"mirror_axes": [], "overlap": 0.625}
    if sigmoid:
        if brats and outputs != len(_BRATS_ORDER):
            raise ValueError(f"its network has {outputs} outputs, and BraTS has {len(_BRATS_ORDER)} regions")
        inference |= {"activation": "sigmoid", "region_order": _BRATS_ORDER if brats else [*range(1, outputs + 1)]}
    preprocessing, extra = _preprocessing(config, architecture["config"]["in_channels"])
    preprocessing["roi_size"] = _roi_size(config["roi_size"], architecture, report)
    if config.get("resample") is False and preprocessing["spacing"] is not None:
        report(
            "Its training did not resample, and its publisher's program does: volumes are brought to "
            f"{' x '.join(f'{mm:g}' for mm in preprocessing['spacing'])} mm."
        )
    return Described(
        architecture=architecture,
        preprocessing=preprocessing,
        inference=inference,
        orientation="RAS" if _flag(config, "orientation_ras", False) else None,
        modality={"range": "CT", "ct": "CT", "pet": "PT"}.get(preprocessing["normalization"][0], "MR"),
        inputs=extra,
        labels=outputs if sigmoid else outputs - 1,
    )


def _architecture(network: Mapping[str, Any]) -> dict[str, Any]:
    target = network["_target_"]
    if not isinstance(target, str) or not re.fullmatch(rf"([A-Za-z_]\w*\.)*{NETWORK}", target):
        raise ValueError(f"its network is a {target!r}, no {NETWORK}")
    for key, only in (("spatial_dims", 3), ("preprocess", None), ("upsample_mode", "deconv")):
        if network.get(key, only) != only:
            raise ValueError(f"its network has the {key} {network[key]!r}, which should be {only!r}")
    unknown = sorted(set(network) - _NETWORK_KEYS)
    if unknown:
        raise ValueError(f"its network has {unknown[0]!r}, which is not known here")
    act, options = _named(network.get("act", "relu"), "act")
    if act != "RELU" or set(options) - {"inplace"}:
        raise ValueError(f"its network has the act {network['act']!r}, which should be relu")
    norm, options = _named(network.get("norm", "batch"), "norm")
    if norm not in _NORMS or {"affine": True, "eps": 1e-5, **options} != {"affine": True, "eps": 1e-5}:
        raise ValueError(f"its network has the norm {network['norm']!r}, which should be one of {', '.join(_NORMS)}")
    down = _list(network["blocks_down"], "blocks_down")
    up = [1] * (len(down) - 1) if network.get("blocks_up") is None else _list(network["blocks_up"], "blocks_up")
    resolution = network.get("resolution")
    return {
        "name": NETWORK,
        "config": {
            "in_channels": _whole(network["in_channels"], "in_channels"),
            "num_classes": _whole(network["out_channels"], "out_channels"),
            "filters": _whole(network.get("init_filters", 32), "init_filters"),
            "blocks_down": [_whole(blocks, "blocks_down") for blocks in down],
            "blocks_up": [_whole(blocks, "blocks_up") for blocks in up],
            "resolution": None if resolution is None else _numbers(resolution, "resolution"),
            "norm": _NORMS[norm],
        },
    }


def _preprocessing(config: Mapping[str, Any], channels: int) -> tuple[dict[str, Any], list[str]]:
    """All but the tile; and the names of the further inputs."""
    mode = config["normalize_mode"]
    extra = _table(config.get("extra_modalities") or {}, "extra_modalities")
    modes = [mode, *extra.values()]
    together = not extra and channels > 1  # one image of several channels, as in BraTS
    if together:
        modes *= channels
    if len(modes) != channels:
        raise ValueError(f"its network takes {channels} inputs, and its config normalises {len(modes)}")
    spacing = config.get("resample_resolution")
    return {
        "kind": "auto3dseg",
        "normalization": modes,
        "intensity_bounds": _numbers(config.get("intensity_bounds") or [-250, 250], "intensity_bounds"),
        "crop_foreground": _flag(config, "crop_foreground", True),
        "spacing": None if spacing is None else _numbers(spacing, "resample_resolution"),
        **({"order": _BRATS} if together else {}),
    }, list(extra)


def _roi_size(value: Any, architecture: Mapping[str, Any], report: Callable[[str], None]) -> list[int]:
    """The tile, whose sides the network can halve as often as it does."""
    from ..networks import SegResNetDSConfig

    roi = [_whole(side, "roi_size") for side in _list(value, "roi_size")]
    if len(roi) != 3:
        raise ValueError(f"its config has the roi_size {value!r}, which should be three numbers")
    divisors = SegResNetDSConfig.from_dict(architecture["config"]).divisors
    fitting = [-(-side // divisor) * divisor for side, divisor in zip(roi, divisors, strict=True)]
    if fitting != roi:
        report(f"Its tile of {roi} voxels is none that its network can take: {fitting} is taken.")
    return fitting


def _named(value: Any, key: str) -> tuple[str, dict[str, Any]]:
    """MONAI writes a layer as its name, or as [name, options]."""
    name, options = value if isinstance(value, list) and len(value) == 2 else (value, {})
    if not isinstance(name, str):
        raise ValueError(f"its network has the {key} {value!r}, which is no name")
    return name.upper(), _table(options or {}, key)


def _table(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"its config has the {key} {value!r}, which should be a table")
    return value


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"its config has the {key} {value!r}, which should be a list")
    return value


def _numbers(value: Any, key: str) -> list[float]:
    if not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in _list(value, key)):
        raise ValueError(f"its config has the {key} {value!r}, which should be numbers")
    return [float(one) for one in value]


def _whole(value: Any, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 4096:
        raise ValueError(f"its config has the {key} {value!r}, which should be a whole number from 1 to 4096")
    return value


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"its config has the {key} {value!r}, which should be true or false")
    return value
