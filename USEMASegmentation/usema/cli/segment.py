"""`usema segment`: one volume or many, one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.console import Console

from ..errors import InputError
from ..inference.speeds import EXACT, SPEEDS, overlap_of
from ..models.bundle import Bundle, read_bundle
from ..models.delta import Delta
from ..models.label_names import chosen
from ..models.metadata import ModelMetadata
from ..volumes.label_pictures import LABEL_PICTURE_SUFFIXES
from ..volumes.writing import RESULT_SUFFIXES
from .case_run import Settings, check_channels, folders_for
from .cases import Case, Target, plan_cases, refuse_clashes, result_suffixes, targets
from .cohort import TABLE, Cohort, part_of
from .device_names import check_device_name
from .engines import Choice, engine_options
from .frames import Sequence4D, split_into_frames
from .interrupt import stop_on_interrupt
from .progress import RunProgress
from .sample import compare_with_reference, note_written, sample_arguments
from .statuses import results_in
from .tables import say

DEFAULT_MODEL = "hippocampus-mr"


@click.command()
@click.argument("inputs", nargs=-1, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option("-o", "--output", type=click.Path(), help="File (.seg.nrrd, .nii.gz, ...) or folder/.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice((*RESULT_SUFFIXES, *LABEL_PICTURE_SUFFIXES)),
    help="Of results in a folder.  [default: the input's]",
)
@click.option("--sample", is_flag=True, help="Segment the sample volume that comes with USEMA.")
@click.option("--model", help=f"Name of a model, or path of a bundle.  [default: {DEFAULT_MODEL}]")
@click.option("--delta", type=click.Path(path_type=Path), help="What the model has learned (usema adapt --save-delta).")
@click.option("--only", multiple=True, metavar="NAMES", help="Only these structures, with commas between: faster.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ... or mps.")
@click.option("--speed", type=click.Choice(SPEEDS), default=EXACT, show_default=True, help="See below.")
@click.option("--overlap", type=float, help="Overlap of neighbouring tiles, 0 to 0.9.  [default: the model's]")
@click.option("--mirror", is_flag=True, help="Average over mirrored copies: slower, sometimes better.")
@click.option("--channel", "channels", multiple=True, type=click.Path(path_type=Path), help="Further input channel.")
@click.option("--probabilities", type=click.Path(), help="Also write each class's probability here.")
@click.option("--preview", "--overlay", "preview", type=click.Path(), help="Also write a picture (.png) here.")
@click.option("--objects", type=click.Path(), help="Of an image: also write the numbers of its objects here.")
@click.option("--table", type=click.Path(), help="Of an image: also write what each object measures (.csv).")
@click.option("--pixel-size", type=float, metavar="MM", help="Of an image, in place of what the file says.")
@click.option("--statistics", type=click.Path(path_type=Path), help="Also write what segments measure (.csv, .json).")
@click.option("--interpolate-slices", is_flag=True, help="Make missing DICOM slices from their neighbours.")
@click.option("--anyway", is_flag=True, help="Take the default model for an input that it was not made for.")
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
@click.option("--part", metavar="I/N", help="Of many cases only the I-th of N parts: one for each computer.")
@engine_options
def segment(
    inputs,
    output,
    suffix,
    sample,
    model,
    delta,
    only,
    device,
    speed,
    overlap,
    mirror,
    channels,
    probabilities,
    preview,
    objects,
    table,
    pixel_size,
    statistics,
    interpolate_slices,
    anyway,
    overwrite,
    part,
    **engine,
):
    """Segment INPUT (NIfTI, NRRD, MHA, or a folder with a DICOM series) into OUTPUT.

    A model for images takes PNG, JPEG, TIFF, single DICOM images and single slices; OUTPUT may then be .png or .tif.

    With several inputs, or a folder with volumes in it or below it, OUTPUT, --probabilities and --preview are folders;
    each result carries its input's name and, without --format, its format. A DICOM series can become a DICOM SEG
    (.dcm) or an RT Structure Set (.rtstruct.dcm). Folders are made. A case that fails does not stop the rest; the
    exit code is 1 if any failed. Given again, the command does what is not done yet. OUTPUT/cohort.csv tells of each
    case: volumes, warnings, seconds, and why it failed. Each frame of a 4D file, or of a DICOM series of several
    phases, is a case: OUTPUT becomes a 4D label map or, a folder, gets a file a frame.

    --speed fast lets tiles overlap by a quarter at most: fewer of them, and seams may show where they meet; with
    OpenVINO, a processor that has bfloat16 computes in it. --speed preview writes a first look beside the result,
    where that takes half as long at most; the result is the same as with exact and replaces it.

    Without --model, an input that the default model was not made for is refused, unless you say --anyway.
    """
    in_own_folder = sample and output is None
    if sample:
        if inputs:
            raise click.UsageError("Give either --sample or INPUT.")
        inputs, output, preview, replaced = sample_arguments(output, preview, overwrite)
        overwrite = overwrite or replaced
    if not inputs:
        raise click.UsageError("Give a volume to segment, or --sample.")
    if output is None:
        raise click.UsageError("Say where the result goes: -o FILE or -o FOLDER.")
    _check_speed(speed, overlap)
    check_device_name(device)
    choice = Choice(**engine)
    bundle = _find_bundle(model or DEFAULT_MODEL)
    images = bundle.metadata.takes_images
    _check_image_options(bundle.metadata, suffix, pixel_size, objects, table, statistics)
    places = targets(output, probabilities, preview, objects, table, images)
    if suffix and places[0].is_file:
        raise click.UsageError(f"--format is of results in a folder, and {output} is a file: leave out one of the two.")
    chosen(only, bundle.metadata.result_labels)
    if channels:
        check_channels(bundle, 1 + len(channels))
    earlier = () if places[0].is_file else results_in(places[0].path)
    expected = len(bundle.metadata.inputs)
    cases, left_out = plan_cases(inputs, channels, places, expected, overwrite, suffix, images, earlier)
    cases, sequences = (cases, []) if images else split_into_frames(cases, places[0], expected)
    refuse_clashes(cases)
    job = _Job(cases, sequences, places[0], part, choice)
    if statistics:
        job = job.with_statistics(statistics)
    many = job.is_cohort or _is_a_folder_of_volumes(inputs, job.cases[0], places[0])
    far = model is None and not anyway
    if delta is not None:
        delta = delta.resolve()
        Delta.read(delta).check_model(bundle.metadata)
    settings = Settings(device, overlap, mirror, interpolate_slices, far, only, many, pixel_size, speed, delta)
    console = Console(stderr=True)
    for line in left_out:
        say(console, line)
    failed = job.run(bundle, settings, Cohort(job.folder, bundle, settings) if many else None, console)
    if failed:
        raise SystemExit(1)
    if sample:
        if in_own_folder:
            note_written(job.cases[0])
        compare_with_reference(job.cases[0], bundle.metadata, only)


@dataclass(frozen=True)
class _Job:
    """The cases of a command, and how they are run.

    Raises:
        UsageError: several computers or an engine are to share a single file.
    """

    cases: list[Case]
    sequences: Sequence[Sequence4D]
    place: Target
    part: str | None
    choice: Choice

    def __post_init__(self):
        shared = self.part is not None or not self.choice.is_local
        if self.place.is_file and not self._together and shared:
            raise click.UsageError(f"--part and --engine are for results in a folder, and {self.place.path} is a file.")

    @property
    def _together(self) -> bool:
        """Whether frames become one file in the end."""
        return any(sequence.together for sequence in self.sequences)

    @property
    def folder(self) -> Path:
        return self.sequences[0].folder if self._together else self.place.path

    @property
    def is_cohort(self) -> bool:
        return len(self.cases) > 1 or self.part is not None or not self.choice.is_local

    def with_statistics(self, path: Path) -> _Job:
        """Raises UsageError for several cases, InputError if it would replace another file of the case."""
        if self.is_cohort:
            raise click.UsageError(f"--statistics is for one volume; of several, {self.folder / TABLE} has them.")
        cases = [replace(self.cases[0], statistics=path)]
        refuse_clashes(cases)
        return replace(self, cases=cases)

    def run(self, bundle: Bundle, settings: Settings, cohort: Cohort | None, console: Console) -> int:
        """Does what is not done yet, and says how many failed."""
        wanted = self.cases if self.part is None else part_of(self.cases, self.part)
        to_do = cohort.left_to_do(wanted) if cohort else wanted
        if len(to_do) < len(wanted):
            say(console, f"{len(wanted) - len(to_do)} of {len(wanted)} were done before.")
        with stop_on_interrupt() as stop, RunProgress(console) as progress, folders_for(to_do):
            try:
                failed = self.choice.run(to_do, bundle, settings, cohort, self.folder, stop, progress)
                for sequence in self.sequences:
                    if made := sequence.finish(cohort):
                        say(console, f"{sequence.source.name}: all frames -> {', '.join(map(str, made))}")
            finally:
                for sequence in self.sequences:
                    sequence.clear(cohort)
                if cohort and (written := cohort.write_table()):
                    say(console, f"Table of all cases: {written}")
        if failed and len(wanted) > 1:
            click.echo(f"{failed} of {len(wanted)} failed.", err=True)
        return failed


def _check_speed(speed: str, overlap: float | None) -> None:
    """Raises InputError."""
    if overlap is not None and not 0 <= overlap <= 0.9:
        raise InputError(f"The overlap {overlap} is not between 0 and 0.9.", "0.5 is the usual value.")
    overlap_of(speed, overlap)


def _is_a_folder_of_volumes(inputs, case: Case, place: Target) -> bool:
    """Whether the only case is a folder's, which may hold more tomorrow, and no volume that the user named himself."""
    return not place.is_file and any(path.is_dir() and path not in case.inputs for path in inputs)


def _check_image_options(
    metadata: ModelMetadata, suffix: str | None, pixel_size: float | None, objects, table, statistics
) -> None:
    """Refuses options that belong to models of the other kind. Raises InputError."""
    images = metadata.takes_images
    if images and statistics:
        raise InputError("--statistics is for volumes.", "Of images, --table writes what was measured.")
    if images and suffix and suffix not in result_suffixes(images):
        raise InputError(f"--format {suffix} is for volumes.", f"Of images: {', '.join(result_suffixes(images))}.")
    if images and objects and metadata.instances is None:
        raise InputError(
            f"The model '{metadata.name}' does not split what it finds into objects.", "Leave out --objects."
        )
    if not images:
        for name, value in (("--objects", objects), ("--table", table), ("--pixel-size", pixel_size)):
            if value is not None:
                raise InputError(
                    f"{name} is for two-dimensional images, and the model is for volumes.", "Leave it out."
                )
    if pixel_size is not None and not 0 < pixel_size < 1000:
        raise InputError(f"A pixel of {pixel_size:g} mm is none.", "Give its side in mm, above 0.")


def _find_bundle(model: str) -> Bundle:
    from ..store.library import find_model

    return read_bundle(find_model(model))
