"""One case of `usema segment`: refuse early, read, segment, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .. import imports
from ..errors import Cancelled, InputError, OutputError
from ..inference.allocator import keeping_freed_memory
from ..inference.speeds import EXACT, offer
from ..models.bundle import Bundle, read_bundle
from ..models.delta import Delta
from ..store import expected
from ..volumes.segments import millilitres
from .case_images import columns, image_writers, read_images, told, write_labels
from .cases import Case
from .first_look import first_look
from .progress import RunProgress
from .statistics import check_statistics, write_statistics

if TYPE_CHECKING:
    from ..inference.predictor import Predictor
    from ..inference.result import Segmentation
    from ..volumes.measures import Measures
    from ..volumes.volume import Volume


@dataclass(frozen=True)
class Settings:
    """What the options say.

    Attributes:
        device: name of a device.
        overlap: of tiles; None: the model's.
        mirror: average over mirrored copies.
        interpolate_slices: missing slices of a DICOM series are made from their neighbours.
        only: names of the labels that are wanted, as the user wrote them; empty: all.
        speed: one of ``usema.inference.speeds``.
        delta: a file of what the model has learned; None: the model as it is.
        far_is_refused: an input unlike what the model was made for is refused, not warned of.
        measured: what is found is measured, too.
        pixel_size: of two-dimensional images, mm; None: what each says itself.
    """

    device: str
    overlap: float | None
    mirror: bool
    interpolate_slices: bool
    far_is_refused: bool
    only: tuple[str, ...] = ()
    measured: bool = False
    pixel_size: float | None = None
    speed: str = EXACT
    delta: Path | None = None


@dataclass
class Outcome:
    """What came of a case, as far as it got.

    Attributes:
        warnings: what the user should know, in sentences.
        written: the files that are complete, in order.
        millilitres: name of a label -> its volume.
        measures: name of a label -> what it measures, where that was asked for.
        numbers: of a two-dimensional image, column of a table -> what was measured.
        seconds: of segmenting.
    """

    warnings: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    millilitres: dict[str, float] = field(default_factory=dict)
    measures: dict[str, Measures] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None


@dataclass
class Engine:
    """The model; torch is loaded when its first case was read well, so that refusals come at once."""

    bundle: Bundle
    settings: Settings
    progress: RunProgress

    @cached_property
    def predictor(self) -> Predictor:
        """Raises BundleError or DeviceError; that ends the run, not one case."""
        with self.progress.console.status("Loading the model"):
            with imports.at_once():
                from ..inference.predictor import Predictor
            from ..store.library import find_model

            learned = self.settings.delta and Delta.read(self.settings.delta)
            predictor = Predictor(
                self.bundle, self.settings.device, lambda name: read_bundle(find_model(name)), delta=learned
            )
        metadata = predictor.metadata
        self.progress.say(
            f"Model {metadata.title} {metadata.version} on {predictor.device}, attention: {predictor.backend}"
        )
        return predictor


def read_case(case: Case, engine: Engine, outcome: Outcome) -> list[Volume]:
    """The volumes of a case that can be segmented and written. Tells what is odd about them, before the run.

    Raises:
        InputError: a volume cannot be read, or is not what the model is for.
        OutputError: something cannot be written where it should go.
    """
    from ..volumes import writing
    from ..volumes.volume import read_volume

    if engine.bundle.metadata.takes_images:
        check_channels(engine.bundle, len(case.inputs))
        pictures = read_images(case, engine.settings.pixel_size)
        _warn(case, engine, outcome, _far_from_model(case, pictures, engine))
        return pictures
    for path in filter(None, (case.output, case.probabilities)):
        writing.check_writable(path, case.overwrite)
    if case.preview:
        from ..quality.pictures import check_preview

        check_preview(case.preview, case.overwrite)
    if case.statistics:
        check_statistics(case.statistics, case.overwrite)
    check_channels(engine.bundle, len(case.inputs))
    interpolate = engine.settings.interpolate_slices
    if case.frame:
        from ..volumes.frames import read_frame

        volumes = [read_frame(case.inputs[0], *case.frame, interpolate_slices=interpolate)]
    else:
        volumes = [read_volume(path, interpolate_slices=interpolate) for path in case.inputs]
    if case.output.name.lower().endswith(writing.DICOM_SUFFIX):
        from ..volumes.dicom_results import check_dicom_result

        check_dicom_result(case.output, volumes[0].stack, case.inputs[0])
    _warn(case, engine, outcome, _far_from_model(case, volumes, engine))
    return volumes


@keeping_freed_memory()
def predict_case(
    case: Case, volumes: list[Volume], engine: Engine, outcome: Outcome, should_stop: Callable[[], bool]
) -> Segmentation:
    """Segments, and tells volumes and measures to ``outcome``.

    Raises:
        UsemaError: of any kind.
        Cancelled: ``should_stop`` said so.
    """
    settings = engine.settings
    with first_look(case, volumes[0], engine.progress) as preview:
        result = engine.predictor.segment(
            volumes,
            overlap=settings.overlap,
            speed=settings.speed,
            mirror=settings.mirror,
            probabilities=case.probabilities is not None,
            labels=settings.only,
            preview=preview,
            progress=engine.progress.case(case.name),
            should_stop=should_stop,
        )
    _warn(case, engine, outcome, result.warnings)
    outcome.seconds = float(result.provenance["seconds"])
    if not settings.only:
        expected.remember(engine.bundle.metadata.name, outcome.seconds)
    if result.image is not None:
        outcome.numbers = columns(result)
    for label in result.model_labels if result.image is None else ():
        voxels = int((result.labels == label.value).sum())
        outcome.millilitres[label.name] = millilitres(voxels, result.geometry.spacing)
    if result.image is None and (settings.measured or case.statistics):
        from ..volumes.measures import measure

        values = {label.name: label.value for label in result.model_labels}
        found = measure(result.labels, volumes[0].array, result.geometry, list(values.values()))
        outcome.measures = {name: found[value] for name, value in values.items()}
    return result


def write_case(
    case: Case,
    volume: Volume,
    result: Segmentation,
    engine: Engine,
    outcome: Outcome,
    should_stop: Callable[[], bool],
    when_written: Callable[[], None],
) -> None:
    """Writes; ``outcome`` holds what was written even where this raises, ``when_written`` hears of each.

    Raises:
        OutputError: a file cannot be written.
        Cancelled: ``should_stop`` said so; each file is whole or not there.
    """
    for path, write in _writers(case, volume, result, outcome):
        if should_stop():
            raise Cancelled("Stopped.")
        for note in write() or ():
            _warn(case, engine, outcome, [note])
        outcome.written.append(path)
        when_written()
    found = ", ".join(f"{name} {volume:.2f} ml" for name, volume in outcome.millilitres.items())
    found = found if result.image is None else told(result)
    seen = result.provenance.get("fieldOfView")  # of a model that takes a whole volume or a crop
    found = f"seen as a {seen}: {found}" if seen else found
    if asymmetry := result.provenance.get("asymmetry"):
        found += f"; {asymmetry}"
    written = ", ".join(map(str, outcome.written))
    engine.progress.say(f"{case.name}: {found} ({result.provenance['seconds']} s) -> {written}")
    offered = offer(result.seconds_by_speed, engine.settings.speed)
    times = "; ".join(filter(None, (result.provenance["times"], offered)))
    engine.progress.say(f"{case.name}: {times}", "dim")


def check_channels(bundle: Bundle, given: int) -> None:
    """Raises InputError where a model takes another number of volumes."""
    names = bundle.metadata.inputs
    if given != len(names):
        what = "image" if bundle.metadata.takes_images else "volume"
        raise InputError(
            f"The model '{bundle.metadata.name}' takes {len(names)} {what}(s) ({', '.join(names)}), not {given}.",
            f"Give one {what} per channel, in this order: the first as INPUT, each further one with --channel.",
        )


def make_folders(case: Case) -> None:
    """Makes the folders of a case's results. Raises OutputError."""
    for path in case.outputs:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            there = next(one for one in (path.parent, *path.parent.parents) if os.path.exists(one))
            reason = error.strerror if os.path.isdir(there) else f"{there} is no folder"
            raise OutputError(f"The folder {path.parent} cannot be made: {reason}.", "Choose another.") from error


@contextmanager
def folders_for(cases: Iterable[Case]) -> Iterator[None]:
    """At the end, folders that were made for results and stay empty, because cases failed, go again."""
    places = {folder for case in cases for path in case.outputs for folder in path.parents}
    missing = [folder for folder in places if not folder.exists()]
    try:
        yield
    finally:
        for folder in sorted(missing, key=lambda one: -len(one.parts)):
            with suppress(OSError):  # not empty: it holds a result; or never made
                folder.rmdir()


def _far_from_model(case: Case, volumes: list[Volume], engine: Engine) -> list[str]:
    """Why the model may be wrong for these volumes. Raises InputError where that is a reason not to start."""
    from ..inference.checks import check_case
    from ..volumes.doubts import doubts

    metadata = engine.bundle.metadata
    found = [finding.message for finding in check_case(metadata, volumes, case.probabilities is not None)]
    if not metadata.takes_images:
        found += doubts(volumes, [channel["name"] for channel in metadata.channels])
    if found and engine.settings.far_is_refused:
        made_for = f"the default model '{metadata.name}' is for {metadata.modality} of: {metadata.anatomy}."
        raise InputError(
            f"{' '.join(found)} No model was named, and {made_for}",
            "Name the model that is meant for this volume with --model (`usema models list`), or say --anyway.",
        )
    return found


def _writers(case: Case, volume: Volume, result: Segmentation, outcome: Outcome) -> Iterator[tuple[Path, Callable]]:
    """Each file with what writes it; the segmentation first, because it is what the run is for."""
    from ..inference.result import as_stored
    from ..volumes import writing

    stored, overwrite = as_stored(result, volume), case.overwrite
    yield case.output, lambda: write_labels_as_named(case.output, volume, result, stored, overwrite)
    if case.probabilities:
        yield (
            case.probabilities,
            lambda: writing.write_probabilities(case.probabilities, stored.probabilities, stored.geometry, overwrite),
        )
    if result.image is not None:
        yield from image_writers(case, volume, result, stored)
        return
    if case.preview:
        from ..quality.pictures import write_preview

        yield case.preview, lambda: write_preview(case.preview, volume, result, overwrite)
    if case.statistics:
        yield case.statistics, lambda: write_statistics(case.statistics, outcome.measures, overwrite)


def write_labels_as_named(
    path: Path, volume: Volume, result: Segmentation, stored: Segmentation, overwrite: bool
) -> None:
    """In the format that the name says; ``stored`` is the result on the grid of the file."""
    from ..volumes import writing

    if write_labels(path, result, overwrite):
        return
    more = (stored.model_labels, stored.provenance, overwrite)
    suffix = writing.result_suffix(path)
    if suffix == writing.RTSTRUCT_SUFFIX:
        from ..volumes.dicom_rtstruct import write_rtstruct

        write_rtstruct(path, stored.labels, volume.stack, *more)
    elif suffix == writing.DICOM_SUFFIX:
        from ..volumes.dicom_seg import write_dicom_segmentation

        write_dicom_segmentation(path, stored.labels, volume.stack, *more)
    elif suffix == writing.SEGMENTATION_SUFFIX:
        writing.write_segmentation(path, stored.labels, stored.geometry, *more)
    else:
        writing.write_label_map(path, stored.labels, stored.geometry, overwrite)


def _warn(case: Case, engine: Engine, outcome: Outcome, warnings: list[str]) -> None:
    """Tells each warning once, when it is known."""
    for warning in warnings:
        if warning not in outcome.warnings:
            outcome.warnings.append(warning)
            engine.progress.say(f"{case.name}: {warning}", "yellow")
