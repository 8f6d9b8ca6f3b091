"""What inference needs of an nnU-Net plan, and the refusal of plans that ask for more than this engine has."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real

from ..errors import BundleError
from .normalization import REQUIRED_PROPERTIES, SCHEMES

_RETRAIN = "Plan and train the model again with nnU-Net's default planner."

# What the items of each value of a plan have to be.
_ITEMS = {
    "spacing": (Real, "numbers"),
    "patch_size": (Integral, "whole numbers"),
    "transpose_forward": (Integral, "whole numbers"),
    "transpose_backward": (Integral, "whole numbers"),
    "normalization": (str, "names"),
    "use_mask_for_norm": (bool, "true or false"),
    "intensity_properties": (dict, "dictionaries"),
}

SPLINE, LINEAR, LINEAR_TOGETHER = "spline", "linear", "linear, axes together"
RESAMPLINGS = (SPLINE, LINEAR, LINEAR_TOGETHER)


@dataclass(frozen=True)
class Plan:
    """One configuration of an nnU-Net plan. Axes are in transposed order.

    Args:
        spacing: mm; three numbers, or two for a 2D configuration, which leaves the first axis as it is.
        patch_size: voxels; as many as ``spacing``.
        transpose_forward: which axis of (z, y, x) becomes the first, second, third of the network's.
        transpose_backward: the inverse permutation.
        normalization: name of nnU-Net's scheme for each channel.
        use_mask_for_norm: for each channel, whether z-scores leave out what is zero around the object.
        intensity_properties: for each channel, the training set's foreground statistics (mean, std, percentile_00_5,
            percentile_99_5, ...).
        resampling: SPLINE is nnU-Net's ``resample_data_or_seg_to_shape``: images by cubic splines, logits linearly, a
            coarse axis apart from the others by the nearest slice. LINEAR is its ``resample_torch_fornnunet``, all
            linear, a coarse axis apart; LINEAR_TOGETHER the same with no axis apart.

    Raises:
        BundleError: a value is not of its kind, the values do not fit together, or a normalisation is none of ours.
    """

    spacing: tuple[float, ...]
    patch_size: tuple[int, ...]
    transpose_forward: tuple[int, int, int]
    transpose_backward: tuple[int, int, int]
    normalization: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    intensity_properties: tuple[dict, ...]
    resampling: str = SPLINE

    def __post_init__(self):
        if self.resampling not in RESAMPLINGS:
            raise BundleError(
                f"The plan's resampling {self.resampling!r} is not one of {', '.join(RESAMPLINGS)}.", _RETRAIN
            )
        for name, (kind, described) in _ITEMS.items():
            values = getattr(self, name)
            if not isinstance(values, (list, tuple)) or not all(isinstance(value, kind) for value in values):
                raise BundleError(f"The plan's {name} {values!r} is not a list of {described}.", _RETRAIN)
            object.__setattr__(self, name, tuple(values))
        self._check_grid()
        self._check_channels()

    @property
    def dimensions(self) -> int:
        """2 or 3: the dimensions of the network's patch."""
        return len(self.patch_size)

    @classmethod
    def from_nnunet(cls, plans: dict, configuration: str) -> Plan:
        """Read one configuration of nnU-Net's ``plans.json``, those of its first versions too.

        Whether it is the second stage of a cascade (``previous_stage`` in ``configuration_of``) is not the plan's
        concern.

        Raises:
            BundleError: the configuration is not there, or asks for a preprocessing that this engine does not have.
        """
        try:
            chosen = configuration_of(plans, configuration)
            properties = plans.get("foreground_intensity_properties_per_channel")
            if properties is None:  # its name in the first plans of nnU-Net 2
                properties = plans["foreground_intensity_properties_by_modality"]
            return cls(
                spacing=chosen["spacing"],
                patch_size=chosen["patch_size"],
                transpose_forward=plans["transpose_forward"],
                transpose_backward=plans["transpose_backward"],
                normalization=chosen["normalization_schemes"],
                use_mask_for_norm=chosen["use_mask_for_norm"],
                intensity_properties=[properties[str(i)] for i in range(len(chosen["normalization_schemes"]))],
                resampling=_resampling(chosen),
            )
        except KeyError as error:
            raise BundleError(f"nnU-Net's plan has no {error} for '{configuration}'.", _RETRAIN) from error

    def to_dict(self) -> dict:
        """JSON-ready."""
        values = {name: list(value) for name, value in asdict(self).items() if name != "resampling"}
        return values if self.resampling == SPLINE else {**values, "resampling": self.resampling}

    @classmethod
    def from_dict(cls, values: dict) -> Plan:
        """The inverse of `to_dict`.

        Raises:
            BundleError: a value is missing, not known, or does not fit.
        """
        differing = ({"resampling": SPLINE} | values).keys() ^ {field.name for field in fields(cls)}
        if differing:
            raise BundleError(
                f"The model's preprocessing lacks, or should not have: {', '.join(sorted(differing))}.",
                "Export the model again.",
            )
        return cls(**values)

    def _check_grid(self) -> None:
        positive = all(0 < value < math.inf for value in (*self.spacing, *self.patch_size))
        if len(self.spacing) not in (2, 3) or len(self.patch_size) != len(self.spacing) or not positive:
            raise BundleError(
                f"The plan's spacing {self.spacing} and patch size {self.patch_size} are not those of a 2D or 3D grid.",
                _RETRAIN,
            )
        forward, backward = self.transpose_forward, self.transpose_backward
        if sorted(forward) != [0, 1, 2] or backward != tuple(forward.index(axis) for axis in range(3)):
            raise BundleError(
                f"The plan's transpose_backward {backward} does not undo its transpose_forward {forward}.", _RETRAIN
            )

    def _check_channels(self) -> None:
        if not 0 < len(self.normalization) == len(self.use_mask_for_norm) == len(self.intensity_properties):
            raise BundleError(
                f"The plan does not tell how to normalise each channel: it names {len(self.normalization)} schemes, "
                f"{len(self.use_mask_for_norm)} masks and {len(self.intensity_properties)} intensity properties.",
                _RETRAIN,
            )
        for scheme, properties in zip(self.normalization, self.intensity_properties, strict=True):
            if scheme not in SCHEMES:
                raise BundleError(f"The plan's normalisation '{scheme}' is not one of {', '.join(SCHEMES)}.", _RETRAIN)
            for name in REQUIRED_PROPERTIES.get(scheme, ()):
                if not isinstance(properties.get(name), Real):
                    raise BundleError(f"The plan lacks the intensity property '{name}' that {scheme} needs.", _RETRAIN)


def configuration_of(plans: dict, name: str, heirs: tuple[str, ...] = ()) -> dict:
    """A configuration of nnU-Net's plans with what it inherits filled in.

    Raises:
        BundleError: it is not there, or inherits from itself.
    """
    if name not in plans["configurations"]:
        raise BundleError(
            f"nnU-Net's plan has no configuration '{name}'.", f"It has: {', '.join(plans['configurations']) or 'none'}."
        )
    if name in heirs:
        raise BundleError(f"The configuration '{name}' of nnU-Net's plan inherits from itself.", _RETRAIN)
    own = plans["configurations"][name]
    parent = own.get("inherits_from")
    return own if parent is None else {**configuration_of(plans, parent, (*heirs, name)), **own}


# nnU-Net's resampling functions.
_DEFAULT = "resample_data_or_seg_to_shape"
_TORCH = "resample_torch_fornnunet"


def _resampling(chosen: dict) -> str:
    """Raises BundleError if the configuration asks for a preprocessing that this engine does not have."""
    preprocessor = chosen.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise BundleError(f"nnU-Net's preprocessor '{preprocessor}' is not supported.", _RETRAIN)
    found = {_rule(chosen, "data", 3), _rule(chosen, "probabilities", 1)}
    if len(found) > 1:
        raise BundleError(
            f"nnU-Net's resampling of images and of results by different rules ({', '.join(sorted(found))}) is not "
            "supported.",
            _RETRAIN,
        )
    return found.pop()


def _rule(chosen: dict, kind: str, order: int) -> str:
    name = chosen.get(f"resampling_fn_{kind}", _DEFAULT)
    options = chosen.get(f"resampling_fn_{kind}_kwargs", {"order": order, "force_separate_z": None})
    if name == _DEFAULT:
        usual = {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}
        # Options left out are the function's own, among them a separate axis that is never taken apart.
        if {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False, **options} == usual:
            return SPLINE
    elif name == _TORCH:
        usual = {"is_seg": False, "mode": "linear", "aniso_axis_mode": "nearest-exact"}
        # These two change how it computes, not what.
        asked = {
            key: value for key, value in options.items() if key not in ("memefficient_seg_resampling", "num_threads")
        }
        separate = asked.pop("force_separate_z", None)
        if {**usual, **asked} == usual and separate in (None, False):
            return LINEAR if separate is None else LINEAR_TOGETHER
    else:
        raise BundleError(f"nnU-Net's resampling '{name}' is not supported.", _RETRAIN)
    raise BundleError(f"nnU-Net's resampling '{name}' with the options {options} is not supported.", _RETRAIN)
