"""The weights of an nnU-Net checkpoint, each tensor once and under the name that our network has for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import BundleError, InputError
from ..models.checkpoint import Checkpoint
from ..models.inert_pickle import plain, tensors
from .fit import and_more, misfits
from .nnunet_plans import V1_HINT

if TYPE_CHECKING:
    import numpy as np

_OTHER_FILE = "Get the plans.json, dataset.json and checkpoint of one training."
_WRAPPERS = ("module.", "_orig_mod.")  # several GPUs, a compiled network


class Training:
    """An nnU-Net checkpoint, open.

    Attributes:
        configuration: its name.
        plans, dataset: what training had of plans.json and dataset.json; None if the file does not say.
        trainer: the name of the class that trained it.
        epochs: that were trained; None if the file does not say.
        mirror_axes: along which it was trained on mirrored tiles.
    """

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint
        content = checkpoint.content
        if _is_of_nnunet_1(content):
            raise BundleError(f"{checkpoint.path} is a checkpoint of nnU-Net 1.", V1_HINT)
        if not is_nnunet(content) or not isinstance(content.get("init_args"), dict):
            raise BundleError(
                f"{checkpoint.path} is no checkpoint of nnU-Net 2: it has no network_weights or no init_args.",
                "Name a file that nnU-Net's trainer wrote, such as checkpoint_final.pth.",
            )
        arguments = content["init_args"]
        if not isinstance(arguments.get("configuration"), str):
            raise BundleError(f"{checkpoint.path} does not say which configuration it is.", _OTHER_FILE)
        self.configuration: str = arguments["configuration"]
        self.plans: dict[str, Any] | None = self._table(arguments, "plans")
        self.dataset: dict[str, Any] | None = self._table(arguments, "dataset_json")
        self.trainer = str(content.get("trainer_name", "nnUNetTrainer"))
        epochs = content.get("current_epoch")
        self.epochs = epochs if isinstance(epochs, int) else None
        axes = content.get("inference_allowed_mirroring_axes") or ()
        self.mirror_axes = sorted({int(axis) for axis in axes if isinstance(axis, int) and 0 <= axis <= 2})

    def _table(self, arguments: Mapping, key: str) -> dict | None:
        value = arguments.get(key)
        return plain(value, f"{self._checkpoint.path}: {key}") if isinstance(value, dict) else None

    def weights(self) -> dict[str, np.ndarray]:
        """The network's tensors, by canonical name.

        Raises:
            BundleError: two tensors that should be the same differ, or one cannot be read.
        """
        import numpy as np

        records = tensors(self._checkpoint.content["network_weights"], f"{self._checkpoint.path}: network_weights")
        first: dict[str, str] = {}
        arrays: dict[str, np.ndarray] = {}
        for name, record in records.items():
            canonical = canonical_name(name)
            if canonical not in arrays:
                first[canonical], arrays[canonical] = name, self._checkpoint.array(record)
            elif record != records[first[canonical]] and not np.array_equal(
                arrays[canonical], self._checkpoint.array(record), equal_nan=True
            ):
                raise BundleError(
                    f"{self._checkpoint.path}: {name} should be the same as {first[canonical]}, and is not.",
                    "The file is damaged, or its network is none of nnU-Net's. Get the checkpoint again.",
                )
        return arrays


def is_nnunet(content: Any) -> bool:
    """Whether a checkpoint's content is of nnU-Net, of either version."""
    return isinstance(content, dict) and ("network_weights" in content or _is_of_nnunet_1(content))


def _is_of_nnunet_1(content: Any) -> bool:
    return isinstance(content, dict) and {"state_dict", "plot_stuff"} <= set(content)


def canonical_name(name: str) -> str:
    """nnU-Net's state lists a convolution as ``conv`` and in ``all_modules``, and the encoder in the decoder again."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    name = re.sub(r"^decoder\.encoder\.", "encoder.", name)
    return re.sub(r"\.all_modules\.(\d+)\.", lambda found: ".conv." if found[1] == "0" else ".norm.", name)


def has_batch_norm(names: Iterable[str]) -> bool:
    """A trainer may have put batch normalisation in the place of what the plans say."""
    return any(name.endswith(".running_mean") for name in names)


def refuse_misfit(weights: Mapping[str, np.ndarray], architecture: Mapping[str, Any], where: str, trainer: str) -> None:
    """Raises BundleError if the tensors are not exactly those of the network, whichever trainer made them."""
    try:
        problems = misfits({name: array.shape for name, array in weights.items()}, architecture, "plans")
    except InputError as error:
        raise BundleError(f"{where}: its plans describe no network: {error.message}", _OTHER_FILE) from error
    if problems:
        hint = _OTHER_FILE
        if "USEMA" in trainer:
            hint = f"It was trained by {trainer}: `usema export` makes a bundle of it."
        elif trainer != "nnUNetTrainer":
            hint += f" It was trained by {trainer}, which may build a network of its own; USEMA does not know it then."
        raise BundleError(f"{where} does not fit its plans: {and_more(problems)}.", hint)
