"""`usema calibrate`: gives a bundle the temperature at which its probabilities say how often they are right."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table


@click.command()
@click.argument("bundle")
@click.argument("images", type=click.Path(path_type=Path))
@click.argument("labels", type=click.Path(path_type=Path))
@click.option("--split", type=click.Path(path_type=Path), help="nnU-Net's splits_final.json: only validation cases.")
@click.option("--fold", default=0, show_default=True, help="The fold of --split.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ... or mps.")
@click.option("--plot", type=click.Path(path_type=Path), help="Also draw a reliability plot (.png) here.")
@click.option("--overwrite", is_flag=True, help="Replace the plot if it exists.")
@click.option("--dry-run", is_flag=True, help="Only measure: leave the bundle as it is.")
def calibrate(bundle, images, labels, split, fold, device, plot, overwrite, dry_run) -> None:
    """Fit the temperature of BUNDLE (a model's folder) on labelled cases, and write it into model.json.

    Give cases that training left out: of those that it saw, a model is right too often. IMAGES and LABELS are folders
    in nnU-Net's layout (CASE_0000.nii.gz, one per channel, and CASE.nii.gz). Labels stay what they are; probabilities
    change. What is said of the fitted temperature is measured on cases that it was not fitted on: each half of the
    cases with the temperature of the other half. The bundle gets that of all; a model card that it has is made again,
    with the plot. A model that came with USEMA or was installed, given by its name, is only measured: --dry-run.
    """
    from ..inference.predictor import Predictor
    from ..models.bundle import read_bundle
    from ..models.bundle_writing import change_metadata
    from ..models.card_files import CASES_FILE, RELIABILITY_PICTURE
    from ..quality import calibration, calibration_voxels
    from ..quality.card.text import write_card
    from ..quality.labelled_cases import describe_cases, find_cases
    from ..quality.pictures import check_preview
    from ..store.library import find_folder, find_model

    if plot is not None:
        check_preview(plot, overwrite)
    model = read_bundle(find_model(bundle)) if dry_run else find_folder(bundle)
    metadata = model.metadata
    cases = find_cases(images, labels, len(metadata.channels), split, fold)
    predictor = Predictor(model, device)
    predictor.temperature = calibration_voxels.LOGIT_TEMPERATURE
    voxels = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for case in bar.track(cases, description=metadata.name):
            found, warnings = calibration_voxels.read_voxels(predictor, case)
            voxels.append(found)
            for warning in warnings:
                line = f"{case.name}: {warning}"
                bar.console.print(line, style="yellow", soft_wrap=True, highlight=False, markup=False)
    result = calibration.calibrate(voxels)

    region = calibration_voxels.region_of(metadata)
    _print_table(result, region)
    title = f"{metadata.title} {metadata.version}\n{result.cases} cases, {region}"
    if plot is not None:
        calibration.write_plot(plot, result, title)
        click.echo(f"Reliability plot: {plot}")
    before = metadata.inference.get("temperature", "none")
    change = f"inference.temperature {before} -> {result.temperature}, metrics.calibration"
    if dry_run:
        click.echo(f"Would change in {model.path}: {change}")
        return
    cases_from, left_out = describe_cases(metadata, images, split, fold)
    measured = {**result.to_dict(region), "cases_from": cases_from, "left_out": left_out}
    model = change_metadata(
        model,
        inference={**metadata.inference, "temperature": result.temperature},
        metrics={**metadata.metrics, "calibration": measured},
    )
    click.echo(f"Changed in {model.path}: {change}")
    if (model.path / CASES_FILE).is_file():
        calibration.write_plot(model.path / RELIABILITY_PICTURE, result, title)
        click.echo(write_card(model))


def _print_table(result, region: str) -> None:
    first, second = result.halves
    caption = f"{result.cases} cases, {result.before.voxels} {region}; halves: {first} and {second}"
    table = Table("", "without temperature", "with, on the other half", caption=caption)
    for name, title in (("ece", "expected calibration error"), ("nll", "negative log-likelihood"), ("brier", "Brier")):
        table.add_row(title, f"{getattr(result.before, name):.4f}", f"{getattr(result.after, name):.4f}")
    Console().print(table)
