"""`usema models compare`: whether a model that was trained further may take the place of the one that is here."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ..errors import InputError
from ..models.bundle import read_bundle
from ..store.library import find_model
from .model_files import import_file
from .tables import add_row, print_table


@click.command()
@click.argument("old")
@click.argument("new")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--split", type=click.Path(path_type=Path), help="splits_final.json.  [default: the one in DATASET]")
@click.option("--fold", default=0, show_default=True, help="The fold of it whose validation cases are used.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ... or mps.")
@click.option("--install", is_flag=True, help="If NEW is not worse: import it, so that it is used from now on.")
@click.pass_context
def compare(context, old, new, dataset, split, fold, device, install) -> None:
    """Compare the models OLD and NEW (names or paths) on the held-back cases of DATASET (nnU-Net's raw layout).

    Held back are the validation cases of the split that NEW was trained with: `usema train` keeps it in its work
    folder, as preprocessed/DATASET/splits_final.json. The exit code is 1 if the mean Dice falls, or that of one label
    by more than 0.01; then NEW is not installed.
    """
    from ..quality.labelled_cases import find_cases, refuse_trained_on
    from ..training.comparison import FEW, compare_models

    bundles = [read_bundle(find_model(name)) for name in (old, new)]
    split = split or dataset / "splits_final.json"
    if not split.is_file():
        raise InputError(
            f"{split} is missing, so which cases were held back is not known.",
            "Name it with --split; `usema train` keeps it in its work folder, preprocessed/DATASET/splits_final.json.",
        )
    channels = len(bundles[0].metadata.channels)
    cases = find_cases(dataset / "imagesTr", dataset / "labelsTr", channels, split, fold)
    refuse_trained_on(bundles[1].metadata, dataset / "imagesTr", split, fold)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Comparing", total=len(cases))

        def progress(case: str) -> None:
            bar.update(task, advance=1, description=escape(case))

        found = compare_models(*bundles, cases, device, progress)
    table = Table("label", "cases", "old", "new", "new minus old", "95 % interval", caption="mean Dice")
    for row in (*found.labels, found.mean):
        interval = "{:+.4f} to {:+.4f}".format(*row.interval) if row.interval else "too few cases"
        figures = (f"{row.old:.4f}", f"{row.new:.4f}", f"{row.difference:+.4f}", interval)
        add_row(table, row.name, row.cases, *figures)
    print_table(table)
    described = [f"{bundle.metadata.name} {bundle.metadata.version}" for bundle in bundles]
    if found.lost:
        click.echo(f"{described[1]} should not take the place of {described[0]}: {found.lost}.")
        context.exit(1)
    click.echo(f"{described[1]} is not worse than {described[0]} on these {len(cases)} cases.")
    if len(cases) < FEW:
        click.echo(f"That is less than {FEW} cases and says little: look at results of both before you trust it.")
    if install:
        context.invoke(import_file, paths=(Path(bundles[1].path),), folds=(), wanted=(), name="", orientation="")
