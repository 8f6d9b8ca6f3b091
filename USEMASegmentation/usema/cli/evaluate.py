"""`usema evaluate`: a folder of predictions against a folder of reference labels."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from ..errors import InputError, printable
from ..files import refuse_existing
from .tables import add_row, print_table

# metric -> column title
TITLES = {"dice": "Dice", "surface_dice": "surface Dice", "hausdorff95_mm": "HD95"}
PIXELS = "lengths and tolerances of pictures are in pixels: a picture does not say how large they are"


@click.command()
@click.argument("predictions", type=click.Path(path_type=Path))
@click.argument("references", type=click.Path(path_type=Path))
@click.option("--model", help="Name or path of a model: only its labels, under its names.")
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="MM | LABEL=MM",
    help="Tolerance of the surface Dice, in mm (of pictures: in pixels); again for a label (its name, or its value) "
    "that has one of its own.  [default: 1.0]",
)
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write one row per case and label here.")
@click.option("--overwrite", is_flag=True, help="Replace the CSV file if it exists.")
def evaluate(predictions, references, model, tolerances, csv_file, overwrite) -> None:
    """Dice, normalised surface Dice and 95 % Hausdorff distance of PREDICTIONS against REFERENCES, per label.

    Files are paired by name, whatever their format; CASE_0000 is CASE. Segments of two .seg.nrrd are paired by their
    names. Missed are cases that have the label in one of the two only: they count with a Dice of 0, and are left out
    of the mean HD95.
    """
    from ..models.bundle import read_bundle
    from ..quality.evaluation import evaluate_folders, summary, write_csv
    from ..quality.metrics import SURFACE_DICE_COUNTS
    from ..store.library import find_model

    if csv_file is not None:
        if csv_file.suffix.lower() != ".csv":  # so it replaces no label map either
            raise InputError(f"{csv_file} is no name of a CSV file.", "Let it end with .csv.")
        refuse_existing(csv_file, overwrite)
    labels = None
    if model is not None:
        labels = {label.value: label.name for label in read_bundle(find_model(model)).metadata.labels}

    def report(sentence: str) -> None:
        click.secho(f"Note: {printable(sentence)}", fg="yellow", err=True)

    scores = evaluate_folders(predictions, references, labels, _tolerances(tolerances), report)
    units = sorted({"pixels" if score.in_pixels else "mm" for score in scores}) or ["mm"]
    titles = TITLES | {"hausdorff95_mm": f"{TITLES['hausdorff95_mm']} / {' or '.join(units)}"}
    caption = ["mean / median over cases", SURFACE_DICE_COUNTS, *([PIXELS] if "pixels" in units else [])]
    table = Table("label", "cases", "missed", *titles.values(), caption="\n".join(caption))
    for row in summary(scores):
        values = (f"{row.mean[metric]:.3f} / {row.median[metric]:.3f}" for metric in TITLES)
        add_row(table, row.name, row.cases, row.missed, *values)
    print_table(table)
    if csv_file is not None:
        write_csv(csv_file, scores, overwrite)
        click.echo(f"One row per case and label: {csv_file}")


def _tolerances(given: tuple[str, ...]) -> dict[str, float]:
    """Label -> mm, as ``evaluate_folders`` takes them; "" is all others."""
    found = {}
    for text in given:
        label, _, value = text.rpartition("=")
        try:
            found[label.strip()] = float(value)
        except ValueError:
            raise InputError(
                f"'{text}' is no tolerance.",
                "Give millimetres, or a label and its own: --tolerance 1 --tolerance liver=5",
            ) from None
    return found
