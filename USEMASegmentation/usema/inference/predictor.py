"""Volumes in, labels out: the whole journey, and the only file that knows it.

reorient to the axes the model was trained in -> preprocess -> sliding window -> labels -> back to the volume's axes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

import numpy as np
import torch

from .. import __version__
from ..backends import Choice
from ..errors import BundleError, Cancelled, InputError
from ..models.bundle import Bundle
from ..models.metadata import Label
from ..networks import build
from ..networks.blocks import SEMABlock
from ..networks.mamba import SelectiveSSM
from ..scan import choose as choose_scan
from ..sema import Layer, choose
from ..volumes.doubts import doubts
from ..volumes.geometry import Geometry
from ..volumes.volume import Volume, check_volume, reorient, resample_onto, restore
from .checks import input_warnings
from .device import choose_device, describe
from .logits_to_labels import LogitsToLabels
from .memory import free_memory
from .preprocessing import Plan, preprocess
from .sliding_window import predict_logits


@dataclass(frozen=True)
class Segmentation:
    """What a model found in a volume.

    Attributes:
        labels: (z, y, x) on ``geometry``; 0 is background.
        geometry: that of the first input volume, exactly.
        model_labels: what the values of ``labels`` mean.
        probabilities: (classes, z, y, x) float16, background first; None unless they were asked for.
        max_foreground_probability: the largest probability of any label in any voxel; says why a result is empty.
        provenance: how the result was made, text by name, for files and scenes.
        warnings: what the user should know, in sentences.
    """

    labels: np.ndarray
    geometry: Geometry
    model_labels: tuple[Label, ...]
    probabilities: np.ndarray | None
    max_foreground_probability: float
    provenance: dict[str, str]
    warnings: list[str] = field(default_factory=list)


class Predictor:
    """A model, loaded and ready on a device.

    Args:
        bundle: what ``usema.models.bundle.read_bundle`` returns; its weights are verified and loaded here.
        device: see ``usema.inference.device.choose_device``.

    Attributes:
        temperature: what logits are divided by to give probabilities: the bundle's, or 1. May be set to another.

    Raises:
        BundleError: the weights are damaged or do not fit the architecture.
        DeviceError: the device is not there.
    """

    def __init__(self, bundle: Bundle, device: str = "auto"):
        self.metadata = bundle.metadata
        self._metadata_sha256 = bundle.metadata_sha256
        self.device = choose_device(device)
        self.plan = Plan.from_dict(self.metadata.preprocessing)
        self.num_classes = len(self.metadata.labels) + 1
        self.temperature = float(self.metadata.inference.get("temperature", 1))
        try:
            self.network = build(self.metadata.architecture)
        except InputError as error:
            raise BundleError(f"{bundle.path}: {error.message}", error.hint) from error
        if self.network.config.axes != self.plan.dimensions:
            raise BundleError(
                f"{bundle.path}: the network is {self.network.config.axes}D, its preprocessing plan "
                f"{self.plan.dimensions}D.",
                "Export the model again.",
            )
        self.backend = str(self._attention_backend())
        try:
            self.network.load_state_dict(bundle.load_weights())
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise BundleError(
                f"{bundle.path}: the weights do not fit the architecture: {reason}", "Get the model again."
            ) from error
        self.network.to(self.device).eval()

    def segment(
        self,
        volumes: Volume | Sequence[Volume],
        *,
        overlap: float = 0.5,
        mirror: bool = False,
        probabilities: bool = False,
        progress: Callable[[int, int, float | None], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Segmentation:
        """Segment one case.

        Args:
            volumes: one volume per channel of the model, in its order. The result lies on the first one's grid; the
                others are resampled onto it in physical space.
            overlap: of neighbouring tiles, 0 to 0.9 of their side.
            mirror: average over mirrored copies, along the axes that training mirrored.
            probabilities: keep them.
            progress: called with (tiles done, tiles in all, seconds left or None).
            should_stop: asked between tiles; when it says so, Cancelled is raised.

        Raises:
            InputError: a volume cannot be segmented, or does not fit the model.
            DeviceError: memory is short in spite of every measure.
            Cancelled: ``should_stop`` said so.
        """
        started = time.monotonic()
        volumes = [volumes] if isinstance(volumes, Volume) else list(volumes)
        warnings = self.check(volumes)
        if probabilities:
            self._refuse_too_many_probabilities(volumes[0])
        if should_stop is not None and should_stop():
            raise Cancelled("Stopped before the first tile.")

        reference = volumes[0].geometry
        oriented = [self._oriented(volume) for volume in self._on_one_grid(volumes)]
        geometry = oriented[0].geometry
        channels = np.stack([volume.array for volume in oriented]) if len(oriented) > 1 else oriented[0].array[None]
        prepared = preprocess(channels, geometry.spacing_zyx, self.plan)
        del oriented, channels
        collector = LogitsToLabels(prepared, self.num_classes, probabilities, self.temperature)
        mirror_axes = tuple(self.metadata.inference["mirror_axes"]) if mirror else ()
        if mirror and not mirror_axes:
            warnings.append("Mirroring was asked for, but this model was not trained with it: it was left out.")
        for start, logits in predict_logits(
            self.network,
            prepared.data,
            patch_size=self.plan.patch_size,
            num_classes=self.num_classes,
            overlap=overlap,
            mirror_axes=mirror_axes,
            device=self.device,
            progress=progress,
            should_stop=should_stop,
            report=warnings.append,
        ):
            collector.add(start, logits)
        labels, kept = collector.finish()

        if not labels.any():
            warnings.append(self._why_empty(collector.max_foreground_probability, warnings))
        return Segmentation(
            labels=np.ascontiguousarray(restore(labels, geometry, reference)),
            geometry=reference,
            model_labels=self.metadata.labels,
            probabilities=None if kept is None else restore(kept, geometry, reference),
            max_foreground_probability=collector.max_foreground_probability,
            provenance=self._provenance(overlap, mirror_axes, time.monotonic() - started),
            warnings=warnings,
        )

    def _attention_backend(self) -> Choice:
        """What computes the network's SEMA attention, or the scan in its place, known before it runs."""
        kinds = {type(module) for module in self.network.modules()}
        if SelectiveSSM in kinds:
            scan = choose_scan(self.device)
            return replace(scan, reason=f"selective scan, {scan.reason}")
        if SEMABlock not in kinds:
            return Choice("eager", f"{self.metadata.architecture['name']} without SEMA attention")
        config = self.metadata.architecture["config"]
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        window = (config.get("window", 7),) * self.plan.dimensions
        return choose(self.device, layer=Layer(dtype, window, config.get("head_dim", 32)))

    def check(self, volumes: Sequence[Volume]) -> list[str]:
        """What speaks against segmenting these volumes with this model, before any work is done.

        Returns:
            warnings: the result may be poor, but can be computed.

        Raises:
            InputError: it cannot be computed.
        """
        expected = [channel["name"] for channel in self.metadata.channels]
        if len(volumes) != len(expected):
            raise InputError(
                f"The model '{self.metadata.name}' takes {len(expected)} volume(s) ({', '.join(expected)}), "
                f"not {len(volumes)}.",
                "Give one volume per channel, in this order.",
            )
        for name, volume in zip(expected, volumes, strict=True):
            check_volume(volume, "The volume" if len(expected) == 1 else f"The {name} volume")
        self._refuse_thin(volumes[0])
        first = volumes[0]
        intensities = (float(first.array.min()), float(first.array.max()))
        return [*input_warnings(self.metadata, first.geometry, intensities), *doubts(volumes, expected)]

    def _refuse_thin(self, volume: Volume) -> None:
        """Less than one attention window of a 3D model is not enough to recognise anything by."""
        window = self.metadata.architecture["config"].get("window", 7)
        if self.plan.dimensions == 2:
            return
        geometry = self._oriented(volume).geometry
        spacing = [self.plan.spacing[self.plan.transpose_forward.index(axis)] for axis in range(3)]
        extents = zip("zyx", geometry.shape, geometry.spacing_zyx, spacing, strict=True)
        for axis, voxels, distance, wanted in extents:
            if voxels * distance / wanted < window:
                raise InputError(
                    f"The volume is too thin along {axis}: {voxels} voxels of {distance:g} mm are "
                    f"{voxels * distance:g} mm, and the model '{self.metadata.name}' needs {window * wanted:g} mm.",
                    "Give a volume that shows more, not a cut-out or a localizer.",
                )

    def _refuse_too_many_probabilities(self, volume: Volume) -> None:
        """Say before the work, not after it, that they do not fit: in half precision and, for writing, in full."""
        needed, free = 6 * self.num_classes * volume.array.size, free_memory("cpu")
        if free is not None and needed > free:
            raise InputError(
                f"Keeping the probabilities of {self.num_classes} classes needs {needed / 2**30:.1f} GiB of memory, "
                f"and {free / 2**30:.1f} GiB are free.",
                "Segment without probabilities, or a smaller part of the volume.",
            )

    def _oriented(self, volume: Volume) -> Volume:
        orientation = self.metadata.orientation
        return volume if orientation is None else reorient(volume, orientation)

    @staticmethod
    def _on_one_grid(volumes: list[Volume]) -> list[Volume]:
        first, *others = volumes
        return [first, *(resample_onto(volume, first.geometry, float(volume.array.min())) for volume in others)]

    def _why_empty(self, probability: float, warnings: list[str]) -> str:
        reason = "nothing looked like it" if probability < 0.1 else "it was never the likeliest class"
        hint = " See the other warnings." if warnings else " Is this the right model for the volume?"
        return (
            f"Nothing was found: the highest probability of any label was {probability:.2f} ({reason}). The model "
            f"expects {self.metadata.modality} of: {self.metadata.anatomy}.{hint}"
        )

    def _provenance(self, overlap: float, mirror_axes: Sequence[int], seconds: float) -> dict[str, str]:
        return {
            "model": self.metadata.name,
            "modelVersion": self.metadata.version,
            "architecture": self.metadata.architecture["name"],
            "weightsSha256": self.metadata.weights["sha256"],
            "metadataSha256": self._metadata_sha256,
            "usemaVersion": __version__,
            "device": describe(self.device),
            "attention": self.backend,
            "overlap": f"{overlap:g}",
            "temperature": f"{self.temperature:g}",
            "mirrorAxes": ",".join(map(str, mirror_axes)),
            "seconds": f"{seconds:.1f}",
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
