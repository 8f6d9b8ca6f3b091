"""Volumes in, labels out: the whole journey, and the only file that knows it.

find the region -> reorient to the axes the model was trained in -> resample first -> parts (preprocess -> sliding
window -> labels) -> postprocess -> back to the volume's own grid. What a model does not ask for is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ..errors import BundleError, Cancelled
from ..models.bundle import Bundle
from ..models.delta import Delta
from ..models.label_names import chosen
from ..models.metadata import Label
from ..volumes.doubts import doubts
from ..volumes.geometry import Geometry
from ..volumes.margins import Margins
from ..volumes.outside import fill_outside
from ..volumes.volume import Volume, reorient, resample_onto, restore
from .checks import HEADS, check_case, meant, refuse_separate_probabilities, shows_more_than_a_crop, why_empty
from .device import choose_device, describe
from .head_doubts import head_doubts
from .image_checks import channels_of
from .image_results import image_result, with_rims
from .images import run_frames
from .intensities import values_of
from .loading import LoadedPart, load_finder, load_parts
from .logit_margins import margins_on
from .postprocessing import postprocess
from .pre_resampling import back_to, pre_resample
from .provenance import provenance, shares
from .region import Box, box_around, cut, pasted
from .regions import check_lie, only_one, segment_regions
from .result import Segmentation
from .rough import RoughResults
from .running import Found, NoFirstPass, Teacher, Wishes, run_parts
from .speeds import EXACT, PREVIEW, overlap_of
from .spoilt_thread import spared


class Predictor:
    """A model, loaded and ready on a device.

    Args:
        bundle: what ``usema.models.bundle.read_bundle`` returns; its weights are verified and loaded here.
        device: see ``usema.inference.device.choose_device``.
        find_model: gives the bundle of another model by its name, for a model that has its region found by one; raises
            BundleError where that is not here.
        rough: where the results of such models are kept; to be shared by predictors that see the same volumes.
        delta: what the model has learned from corrections; results tell of it.

    Raises:
        BundleError: the weights are damaged or do not fit the architecture, or the delta is another model's.
        DeviceError: the device is not there.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        find_model: Callable[[str], Bundle] | None = None,
        rough: RoughResults | None = None,
        delta: Delta | None = None,
    ):
        self.metadata = bundle.metadata
        self._metadata_sha256 = bundle.metadata_sha256
        self.device = choose_device(device)
        self.num_classes = len(self.metadata.labels) + 1
        self.delta = delta
        self.parts = load_parts(bundle, self.device, delta)
        if len(self.parts) == 1:
            self.parts[0].network.to(self.device)
        self._find_model = find_model
        self._finders: dict[str, Predictor] = {}
        self._found_by = ""
        self._bundle, self._finder = bundle, None  # loaded with the first volume whose regions are to be found
        self._rough = RoughResults() if rough is None else rough

    def adapted(self, delta: Delta) -> Predictor:
        """Another one of the same model, with what it has learned."""
        return Predictor(self._bundle, str(self.device), self._find_model, self._rough, delta)

    @property
    def backend(self) -> str:
        """What computes the networks and why: before a run what is planned, afterwards what it was."""
        return "; ".join(dict.fromkeys(part.backend for part in self.parts))

    @property
    def temperature(self) -> float | list[float]:
        """What the logits of the last part are divided by to give probabilities: the bundle's, or 1. May be set."""
        temperatures = self.parts[-1].outputs.temperatures
        return temperatures[0] if len(temperatures) == 1 else list(temperatures)

    @temperature.setter
    def temperature(self, value: float | Sequence[float]) -> None:
        for part in self.parts:
            part.outputs.temperatures = tuple(value) if isinstance(value, (list, tuple)) else (float(value),)

    @spared
    def segment(
        self,
        volumes: Volume | Sequence[Volume],
        *,
        overlap: float | None = None,
        speed: str = EXACT,
        mirror: bool = False,
        probabilities: bool = False,
        margins: bool = False,
        labels: Sequence[str] = (),
        preview: Callable[[np.ndarray], None] | None = None,
        progress: Callable[[int, int, float | None], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        teacher: Teacher | None = None,
    ) -> Segmentation:
        """Segment one case.

        Args:
            volumes: one volume per channel of the model, in its order. The result lies on the first one's grid; the
                others are resampled onto it in physical space.
            overlap: of neighbouring tiles, 0 to 0.9 of their side; None: the model's own, or else 0.5.
            speed: one of ``speeds.SPEEDS``.
            mirror: average over mirrored copies, along the axes that training mirrored.
            probabilities: keep them.
            margins: keep them, as far as there are any.
            labels: names of those that are wanted; empty: all. Only the parts that hold one run, and where the model
                says what finds them and that is here, only in their box.
            preview: with the speed "preview", called with labels as those of the result, from tiles that do not
                overlap, as soon as they are known, if that takes half as long as the result at most. The result is not
                changed by it.
            progress: called with (tiles done, tiles in all, seconds left or None). Where the region is found first, the
                counting begins anew with the region, and after a preview with the result.
            should_stop: asked between tiles; when it says so, Cancelled is raised.
            teacher: see ``running.Teacher``.

        Raises:
            InputError: a volume cannot be segmented, or does not fit the model; or a label is none of the model's.
            DeviceError: memory is short in spite of every measure.
            BundleError: the model needs another one that is not here.
            Cancelled: ``should_stop`` said so.
        """
        started = time.monotonic()
        named = chosen(labels, self.metadata.result_labels)
        volumes, notes = self._filled([volumes] if isinstance(volumes, Volume) else volumes)
        warnings = notes + self.check(volumes, probabilities)
        wanted = meant(self.metadata, named or self.metadata.result_labels, volumes[0].geometry)
        margins = margins and not self.metadata.takes_images  # objects and rims are no matter of thresholds
        wishes = Wishes(
            overlap_of(speed, overlap), mirror, probabilities, margins, progress, should_stop, warnings, teacher=teacher
        )
        if should_stop is not None and should_stop():
            raise Cancelled("Stopped before the first tile.")
        parts = self._parts_with(wanted)
        if probabilities:
            refuse_separate_probabilities(self.metadata, [part.name for part in parts])
        if mirror and not any(part.mirror_axes(True) for part in parts):
            wishes.warn("Mirroring was asked for, but this model was not trained with it: it was left out.")

        self._found_by = ""
        if preview is not None and speed == PREVIEW and not self.metadata.takes_images:
            with suppress(NoFirstPass):
                preview(self._find(volumes, wishes.for_first_pass(), wanted).labels)
        begun = time.monotonic()
        found = self._find(volumes, wishes, wanted)
        seconds = time.monotonic() - begun
        labels, image = found.labels, None
        if self.metadata.takes_images:
            labels, image = image_result(labels, volumes[0], self.metadata, wanted, wishes)
        if not labels.any():
            wishes.warn(why_empty(self.metadata, found.highest, wishes.warnings))
        return Segmentation(
            labels=labels,
            geometry=volumes[0].geometry,
            model_labels=wanted,
            probabilities=found.probabilities,
            max_foreground_probability=found.highest,
            provenance=self._provenance(parts, wanted if named else (), wishes, time.monotonic() - started)
            | found.said
            | (image.provenance if image else {}),
            warnings=wishes.warnings,
            seconds_by_speed={name: seconds * share for name, share in found.tiles.items()},
            margins=found.margins and found.margins.only([label.value for label in wanted]).agreeing(labels),
            image=image,
        )

    def _find(self, volumes: Sequence[Volume], wishes: Wishes, wanted: Sequence[Label]) -> Found:
        """What ``segment`` finds in volumes that were checked."""
        if self.metadata.takes_images:
            wanted = with_rims(wanted, self.metadata)
            parts = self._parts_with(wanted)
            found = run_frames(lambda frame, wishes: self._run(frame, parts, wishes), volumes, self.metadata, wishes)
            return self._only(wanted, found)
        parts, volumes = self._parts_with(wanted), self._on_one_grid(volumes)
        crop = self.metadata.crop_first or self._crop_to_wanted(wanted)
        if self.metadata.find_regions is not None and shows_more_than_a_crop(self.metadata, volumes[0].geometry):
            found = self._run_in_regions(volumes, wanted, wishes)
        elif crop is None:
            found = self._run(volumes, parts, wishes)
            if self.metadata.find_regions is not None:
                found = only_one(found, self.metadata, volumes[0].geometry, wishes)
                found.said["fieldOfView"] = "crop"
        else:
            found = self._run_in_region(volumes, parts, crop, wishes)
        return self._only(wanted, found)

    def _only(self, wanted: Sequence[Label], found: Found) -> Found:
        if len(wanted) < len(self.metadata.labels):
            keep = np.zeros(self.num_classes, found.labels.dtype)
            keep[[label.value for label in wanted]] = [label.value for label in wanted]
            np.take(keep, found.labels, out=found.labels)
        return found

    def _parts_with(self, wanted: Sequence[Label]) -> list[LoadedPart]:
        """Those that find one of the labels, and those that they need; without what only finds the region."""
        if self.metadata.find_regions is not None:  # it has one network, whatever its labels become
            return list(self.parts)
        values, steps = {label.value for label in wanted}, self.metadata.steps_on_the_way
        names = {part.name for part in self.parts if part.name not in steps and values & set(part.part.values)}
        names |= self._aside
        for part in reversed(self.parts):  # an earlier stage comes before what needs it
            names |= {part.part.previous} if part.name in names else set()
        return [part for part in self.parts if part.name in names]

    @property
    def _aside(self) -> set[str]:
        return {step["part"] for step in self.metadata.postprocess or () if "part" in step}

    def _crop_to_wanted(self, wanted: Sequence[Label]) -> dict | None:
        """Where to look for some of the labels, as ``crop_first``; None: everywhere."""
        how = self.metadata.find_wanted
        if how is None or len(wanted) == len(self.metadata.labels) or self._find_model is None:
            return None
        try:
            known = {label.name for label in self._find_model(how["model"]).metadata.labels}
        except BundleError:  # that is not here: it takes longer
            return None
        names = [label.name for label in wanted]
        return {**how, "labels": names} if known.issuperset(names) else None

    def _filled(self, volumes: Sequence[Volume]) -> tuple[list[Volume], list[str]]:
        """NaN outside the field of view as background, for volumes that never were files; and what was done."""
        filled, notes = [], []
        if self.metadata.takes_images:
            volumes, notes = channels_of(volumes, self.metadata)
        for number, volume in enumerate(volumes):
            what = "image" if self.metadata.takes_images else "volume"
            name = f"The {what}" if len(volumes) == 1 else f"{what.capitalize()} {number + 1}"
            array, note = fill_outside(volume.array, name) if volume.array.ndim == 3 else (volume.array, "")
            filled.append(volume if array is volume.array else replace(volume, array=array))
            notes += [note] if note else []
        return filled, notes

    def check(self, volumes: Sequence[Volume], probabilities: bool = False) -> list[str]:
        """What speaks against segmenting these volumes with this model; ``checks.check_case`` needs no torch for it.

        Returns:
            warnings: the result may be poor, but can be computed.

        Raises:
            InputError: it cannot be computed.
        """
        found = [finding.message for finding in check_case(self.metadata, volumes, probabilities)]
        if self.metadata.takes_images:
            return found
        found += doubts(volumes, [channel["name"] for channel in self.metadata.channels])
        return found + (list(head_doubts(volumes[0]).values()) if self.metadata.networks[0].kind == HEADS else [])

    def _run(self, volumes: Sequence[Volume], parts: Sequence[LoadedPart], wishes: Wishes) -> Found:
        """Labels on the grid that the volumes share."""
        axes = self.metadata.orientation
        oriented = [reorient(volume, axes) for volume in volumes] if axes else volumes
        geometry = grid = oriented[0].geometry
        array = np.stack([volume.array for volume in oriented]) if len(oriented) > 1 else oriented[0].array[None]
        del oriented
        if self.metadata.pre_resample is not None:
            array, grid = pre_resample(array, geometry, self.metadata.pre_resample["spacing_mm"])
        aside = self._aside & {part.name for part in parts}
        found = run_parts(parts, array, grid, wishes, self.metadata.combine, aside)
        del array
        steps = [step for step in self.metadata.postprocess or () if step.get("part") in (None, *aside)]
        last = [step for step in steps if step.get("volume_grid")]
        labels = postprocess(found.labels, steps[: len(steps) - len(last)], grid.spacing_zyx, found.aside)

        def back(result: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(restore(back_to(result, geometry.shape), geometry, volumes[0].geometry))

        labels = back(labels)
        if last:
            others = {name: back(other) for name, other in found.aside.items()}
            labels = postprocess(labels, last, volumes[0].geometry.spacing_zyx, others)
        margins = found.margins and margins_on(found.margins, geometry, volumes[0].geometry)
        probabilities = None if found.probabilities is None else back(found.probabilities)
        return Found(labels, probabilities, found.highest, tiles=found.tiles, margins=margins)

    def _run_in_region(
        self, volumes: Sequence[Volume], parts: Sequence[LoadedPart], crop: dict, wishes: Wishes
    ) -> Found:
        """As ``_run``, but only where a rough result says that there is something."""
        box, shape = self._region(volumes, crop, wishes), volumes[0].array.shape
        if box is None:
            wishes.warn("The region that the model works in was not found in this volume, so the result is empty.")
            labels = np.zeros(shape, np.uint8 if len(self.metadata.labels) <= 255 else np.uint16)
            nowhere = None
            if wishes.probabilities:
                nowhere = np.zeros((self.num_classes, *shape), np.float16)
                nowhere[0] = 1
            return Found(labels, nowhere, 0.0, margins=Margins(shape, {}) if wishes.margins else None)
        found = self._run([cut(volume, box) for volume in volumes], parts, wishes)
        if (kept := found.probabilities) is not None:
            kept = pasted(kept, box, shape)
            outside = np.ones(shape, bool)
            outside[box] = False
            kept[0][outside] = 1
        margins = found.margins and found.margins.pasted([part.start for part in box], shape)
        return Found(pasted(found.labels, box, shape), kept, found.highest, tiles=found.tiles, margins=margins)

    def _run_in_regions(self, volumes: Sequence[Volume], wanted: Sequence[Label], wishes: Wishes) -> Found:
        """As ``_run``, but each region alone, where the model's own finder says that it lies."""

        def rough(lying: Sequence[Volume]) -> np.ndarray:
            if self._finder is None:
                self._finder = load_finder(self._bundle, self.device)
            array = np.stack([volume.array for volume in lying[: self._finder.recipe.channels]])
            return run_parts([self._finder], array, lying[0].geometry, wishes.for_finding()).labels

        def look(geometry: Geometry) -> np.ndarray:
            lying = [replace(volume, geometry=geometry) for volume in volumes]
            return self._rough.get(self.metadata, str(self.device), lying, lambda: rough(lying), of="finder")

        check_lie(self.metadata, volumes[0], wishes)
        return segment_regions(
            self.metadata, volumes, wanted, look, lambda crops, asked: self._run(crops, self.parts, asked), wishes
        )

    def _region(self, volumes: Sequence[Volume], crop: dict, wishes: Wishes) -> Box | None:
        rough = wishes.for_finding()
        if "part" in crop:
            labels = self.metadata.labels
            finder = [part for part in self.parts if part.name == crop["part"]]
            result = self._run(volumes, finder, rough).labels
        else:
            labels, result = self._rough_result(crop["model"], volumes, rough)
        values = {label.name: label.value for label in labels}
        missing = [name for name in crop.get("labels", ()) if name not in values]
        if missing:
            raise BundleError(
                f"The model '{self.metadata.name}' looks for {missing[0]!r} first, which is no label of what finds it.",
                "Ask whoever made the model to correct it.",
            )
        wanted = [values[name] for name in crop.get("labels", ())]
        return box_around(result, wanted, crop["margin_mm"], volumes[0].geometry)

    def _rough_result(self, name: str, volumes: Sequence[Volume], wishes: Wishes) -> tuple[Sequence[Label], np.ndarray]:
        """Another model's labels, and what it finds; it may itself have its region found."""
        if self._find_model is None:
            raise BundleError(
                f"The model '{self.metadata.name}' has its region found by the model '{name}'; that is not here.",
                f"Install '{name}' first.",
            )
        bundle = self._find_model(name)
        metadata = bundle.metadata
        volumes = volumes[: len(metadata.channels)]
        self._found_by = f"{metadata.name} {metadata.version}"

        def compute() -> np.ndarray:
            if name not in self._finders:
                self._finders[name] = Predictor(bundle, str(self.device), self._find_model, self._rough)
            return self._finders[name]._find(volumes, wishes, metadata.labels).labels

        return metadata.labels, self._rough.get(metadata, str(self.device), volumes, compute)

    @staticmethod
    def _on_one_grid(volumes: list[Volume]) -> list[Volume]:
        first, *others = volumes
        # Not the least value of all: outside the other volume there would then be one absurd voxel beside the other.
        return [first, *(resample_onto(volume, first.geometry, values_of(volume.array).low) for volume in others)]

    def _provenance(
        self, parts: Sequence[LoadedPart], named: Sequence[Label], wishes: Wishes, seconds: float
    ) -> dict[str, str]:
        said = provenance(self.metadata, parts, wishes.overlap, wishes.mirror) | {
            "metadataSha256": self._metadata_sha256,
            "device": describe(self.device),
            "attention": self.backend,
            "seconds": f"{seconds:.1f}",
            "times": shares(wishes.spent, seconds),
        }
        if named and len(named) < len(self.metadata.result_labels):
            said["labels"] = ", ".join(label.name for label in named)
        if self.delta is not None:
            said |= {"deltaSha256": self.delta.sha256, "adaptedFrom": self.delta.said.get("slices", "")}
        if self._found_by:
            said["regionFoundBy"] = self._found_by
        return said
