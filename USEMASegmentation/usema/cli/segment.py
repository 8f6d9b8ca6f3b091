"""`usema segment`: one volume or many, one model."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import Cancelled, InputError, UsemaError
from . import report
from .cases import Case, plan_cases
from .interrupt import stop_on_interrupt

DEFAULT_MODEL = "hippocampus-mr"


@click.command()
@click.argument("inputs", nargs=-1, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File (.seg.nrrd, .nii.gz, ...) or folder.")
@click.option("--sample", is_flag=True, help="Segment the sample volume that comes with USEMA.")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Name of a model, or path of a bundle.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ... or mps.")
@click.option("--overlap", default=0.5, show_default=True, help="Overlap of neighbouring tiles, 0 to 0.9.")
@click.option("--mirror", is_flag=True, help="Average over mirrored copies: slower, sometimes better.")
@click.option("--channel", "channels", multiple=True, type=click.Path(path_type=Path), help="Further input channel.")
@click.option("--probabilities", type=click.Path(path_type=Path), help="Also write each class's probability here.")
@click.option("--preview", type=click.Path(path_type=Path), help="Also write a picture (.png) here.")
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
def segment(inputs, output, sample, model, device, overlap, mirror, channels, probabilities, preview, overwrite):
    """Segment INPUT (NIfTI, NRRD, MHA, or a folder with a DICOM series) into OUTPUT.

    With several inputs, or a folder of volumes, OUTPUT, --probabilities and --preview are folders; each result carries
    its input's name and format. A case that fails does not stop the rest; the exit code is 1 if any failed.
    """
    if sample:
        if inputs:
            raise click.UsageError("Give either --sample or INPUT.")
        inputs, output, preview = _sample_arguments(output, preview)
    if not inputs:
        raise click.UsageError("Give a volume to segment, or --sample.")
    if output is None:
        raise click.UsageError("Say where the result goes: -o FILE or -o FOLDER.")
    if not 0 <= overlap <= 0.9:
        raise InputError(f"The overlap {overlap} is not between 0 and 0.9.", "0.5 is the usual value.")
    cases = plan_cases(inputs, channels, output, probabilities, preview)

    console = Console(stderr=True)
    with console.status("Loading the model"):
        from ..inference.predictor import Predictor
        from ..models.bundle import read_bundle
        from ..store.library import find_model

        predictor = Predictor(read_bundle(find_model(model)), device)
    console.print(
        f"Model {predictor.metadata.title} {predictor.metadata.version} on {predictor.device}, "
        f"attention: {predictor.backend}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    failed = 0
    with stop_on_interrupt() as stop, _progress(console) as bar:
        for case in cases:
            task = bar.add_task(case.name, total=None)
            try:
                _segment_case(predictor, case, bar, task, stop, overlap, mirror, overwrite)
            except Cancelled as error:
                bar.stop()
                report(error)
                raise SystemExit(130) from None
            except UsemaError as error:
                failed += 1
                bar.remove_task(task)
                report(error, case.name if len(cases) > 1 else "")
            except Exception as error:  # a defect in one case must not cost the others
                if "USEMA_DEBUG" in os.environ:
                    raise
                failed += 1
                bar.remove_task(task)
                hint = "Please report it with what `usema doctor` prints; USEMA_DEBUG=1 shows where it happened."
                report(UsemaError(f"USEMA failed: {type(error).__name__}: {error}", hint), case.name)
    if failed:
        if len(cases) > 1:
            click.echo(f"{failed} of {len(cases)} failed.", err=True)
        raise SystemExit(1)
    if sample:
        _compare_with_reference(cases[0])


def _segment_case(predictor, case: Case, bar: Progress, task, stop, overlap: float, mirror: bool, overwrite: bool):
    from ..volumes import writing
    from ..volumes.volume import read_volume

    writing.check_writable(case.output, overwrite)
    if case.probabilities:
        writing.check_writable(case.probabilities, overwrite)
    if case.preview:
        from ..quality.pictures import check_preview, write_preview

        check_preview(case.preview, overwrite)
    volumes = [read_volume(path) for path in case.inputs]
    result = predictor.segment(
        volumes,
        overlap=overlap,
        mirror=mirror,
        probabilities=case.probabilities is not None,
        progress=lambda done, total, seconds_left: bar.update(task, completed=done, total=total),
        should_stop=stop.is_set,
    )
    for warning in result.warnings:
        bar.console.print(f"{case.name}: {warning}", style="yellow", soft_wrap=True, highlight=False, markup=False)
    if case.output.name.lower().endswith(writing.SEGMENTATION_SUFFIX):
        writing.write_segmentation(
            case.output, result.labels, result.geometry, result.model_labels, result.provenance, overwrite
        )
    else:
        writing.write_label_map(case.output, result.labels, result.geometry, overwrite)
    written = [case.output]
    if case.probabilities:
        writing.write_probabilities(case.probabilities, result.probabilities, result.geometry, overwrite)
        written.append(case.probabilities)
    if case.preview:
        write_preview(case.preview, volumes[0], result, overwrite)
        written.append(case.preview)
    found = ", ".join(
        f"{label.name} {(result.labels == label.value).sum() * _millilitres(result.geometry):.2f} ml"
        for label in result.model_labels
    )
    line = f"{case.name}: {found} ({result.provenance['seconds']} s) -> {', '.join(map(str, written))}"
    bar.console.print(line, soft_wrap=True, highlight=False, markup=False)


def _millilitres(geometry) -> float:
    x, y, z = geometry.spacing
    return x * y * z / 1000


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("tile {task.completed} of {task.total}"))
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


def _sample_arguments(output: Path | None, preview: Path | None) -> tuple[tuple[Path, ...], Path, Path | None]:
    from ..resources import sample_volume

    if output is None:
        folder = Path("usema-sample")
        folder.mkdir(exist_ok=True)
        output, preview = folder / "segmentation.seg.nrrd", preview or folder / "preview.png"
    return (sample_volume(),), output, preview


def _compare_with_reference(case: Case) -> None:
    """The sample comes with labels drawn by hand: say how close the result is."""
    import numpy as np

    from ..volumes.volume import load_volume

    reference = case.inputs[0].parent / "reference" / case.inputs[0].name
    if not reference.is_file():
        raise InputError(f"The sample's reference labels are missing: {reference}.", "Install USEMA again.")
    expected, found = load_volume(reference).array, load_volume(case.output).array
    for value in np.unique(expected[expected > 0]):
        overlap = ((expected == value) & (found == value)).sum()
        dice = 2 * overlap / ((expected == value).sum() + (found == value).sum())
        click.echo(f"Dice with the reference, label {value}: {dice:.3f}")
