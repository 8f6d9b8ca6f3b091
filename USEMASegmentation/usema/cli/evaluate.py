"""`usema evaluate`: a folder of predictions against a folder of reference labels."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ..errors import InputError
from .tables import add_row

# metric -> column title
TITLES = {"dice": "Dice", "surface_dice": "surface Dice", "hausdorff95_mm": "HD95 / mm"}


@click.command()
@click.argument("predictions", type=click.Path(path_type=Path))
@click.argument("references", type=click.Path(path_type=Path))
@click.option("--model", help="Name or path of a model: only its labels, under its names.")
@click.option("--tolerance", default=1.0, show_default=True, help="Tolerance of the surface Dice, in mm.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write one row per case and label here.")
@click.option("--overwrite", is_flag=True, help="Replace the CSV file if it exists.")
def evaluate(predictions, references, model, tolerance, csv_file, overwrite) -> None:
    """Dice, normalised surface Dice and 95 % Hausdorff distance of PREDICTIONS against REFERENCES, per label.

    Files are paired by name, whatever their format.
    """
    from ..models.bundle import read_bundle
    from ..quality.evaluation import evaluate_folders, summary, write_csv
    from ..store.library import find_model

    if csv_file is not None and csv_file.exists() and not overwrite:
        raise InputError(f"{csv_file} exists already.", "Choose another name, or --overwrite.")
    labels = None
    if model is not None:
        labels = {label.value: label.name for label in read_bundle(find_model(model)).metadata.labels}
    scores = evaluate_folders(predictions, references, labels, tolerance)
    table = Table("label", "cases", *TITLES.values(), caption="mean / median over cases")
    for row in summary(scores):
        values = (f"{row.mean[metric]:.3f} / {row.median[metric]:.3f}" for metric in TITLES)
        add_row(table, row.name, row.cases, *values)
    Console().print(table)
    if csv_file is not None:
        write_csv(csv_file, scores, overwrite)
        click.echo(f"One row per case and label: {csv_file}")
