"""`usema recipe`: train on the data sets of the paper, each with one command after its download."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import click
from rich import box
from rich.table import Column, Table

from ..errors import InputError
from .tables import add_row, print_table

_FOLDER = click.Path(path_type=Path)


@click.group()
def recipe() -> None:
    """Train on the data sets of the paper: prepare a download, train, compare with published numbers."""


@recipe.command("list")
def list_recipes() -> None:
    """One line per data set."""
    from ..training.recipes import RECIPES

    table = Table(Column("name", no_wrap=True), "data", "training cases", "nnU-Net's plan")
    for one in RECIPES.values():
        add_row(table, one.name, one.title, one.cases, _plan(one))
    print_table(table)


@recipe.command()
@click.argument("name")
def show(name: str) -> None:
    """What others published on NAME, with room for USEMA, and the commands that fill it."""
    from ..training.recipes import find_recipe
    from ..training.recipes.recipe import METHODS

    one = find_recipe(name)
    click.echo(f"{one.title}, {one.dataset}: {one.cases} training cases, {len(one.labels) - 1} labels")
    click.echo("\n".join(f"Download: {page}" for page in one.pages))
    click.echo(f"Licence: {one.licence}\nExpected folders: {one.layout}\nnnU-Net's plan: {_plan(one)}")
    titles = [method.replace("_", "\n").replace("Swin", "Swin\n").replace("\n-", "-\n") for method in METHODS]
    for results in one.results:
        table = Table(
            Column("", no_wrap=True),
            *titles,
            "USEMA",
            title=results.title,
            caption=f"Source: {results.source}",
            box=box.SIMPLE,
            collapse_padding=True,
        )
        for metric, values in results.rows.items():
            add_row(table, metric, *values, "")
        print_table(table)
    click.echo("\n".join(f"* {note}" for note in one.notes))
    click.echo("\nCommands:\n" + "\n".join(f"  {command}" for command in _commands(one)))
    click.echo("\nScores:\n" + "\n".join(f"  {line.format(dataset=one.dataset)}" for line in one.scoring))


@recipe.command()
@click.argument("name")
@click.option("--download", type=_FOLDER, required=True, help="Where the downloaded archives were unpacked.")
@click.option("--output", type=_FOLDER, required=True, help="Folder for raw data sets.")
def prepare(name: str, download: Path, output: Path) -> None:
    """Convert the download of NAME to nnU-Net's raw layout."""
    from ..training.recipes import find_recipe
    from ..training.recipes.raw_dataset import count_cases
    from ..training.recipes.raw_dataset import prepare as convert

    one = find_recipe(name)
    dataset = convert(one, download, output)
    training, test = count_cases(dataset), count_cases(dataset, "Ts")
    click.echo(f"{dataset}: {training} training cases, {test} test cases with labels.")
    if training != one.cases:
        click.echo(f"The published runs had {one.cases} training cases.")
    click.echo(f"Train with: usema recipe train {name} --raw '{output}'")


@recipe.command()
@click.argument("name")
@click.option("--raw", type=_FOLDER, required=True, help="The --output of prepare.")
@click.option("--runs", type=_FOLDER, default=Path("runs"), show_default=True, help="Work folder.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Train on so many GPUs.")
@click.option("--trainer", help="Another class of usema.training, for a comparison on the same plan.")
@click.option("--fold", help="Fold to validate on, or 'all'. Default: as in the published runs.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--iterations", type=click.IntRange(min=1), help="Fewer than the published 1000 epochs of 250.")
@click.option("--seed", default=0, show_default=True)
def train(name, raw, runs, gpus, trainer, fold, device, iterations, seed) -> None:
    """Plan, preprocess and train NAME as its recipe says. Run again to resume."""
    from ..training.recipes import find_recipe
    from ..training.run import train_dataset

    one = find_recipe(name)
    if not (raw / one.dataset).is_dir():
        raise InputError(
            f"{raw} has no {one.dataset}.", f"Make it: usema recipe prepare {name} --download FOLDER --output '{raw}'"
        )
    if gpus > one.plan.batch_size:
        raise InputError(
            f"{gpus} GPUs cannot share a batch of {one.plan.batch_size}.",
            f"nnU-Net splits the plan's batch: train {name} on {one.plan.batch_size} GPUs at most.",
        )
    results = train_dataset(
        raw / one.dataset,
        runs,
        configuration=one.configuration,
        trainer=trainer or one.trainer,
        fold=fold or one.fold,
        device=device,
        gpus=gpus,
        iterations=iterations,
        seed=seed,
    )
    click.echo(f"Trained: {results}. What comes next: usema recipe show {name}")


@recipe.command("cell-f1")
@click.argument("predictions", type=_FOLDER)
@click.argument("references", type=_FOLDER)
def cell_f1(predictions: Path, references: Path) -> None:
    """F1 of cells at an overlap of 0.5: three-class PREDICTIONS against REFERENCES with one number per cell."""
    from ..training.recipes.cell_f1 import score_folders

    scores = score_folders(predictions, references)
    table = Table("image", "F1")
    for case, score in scores.items():
        add_row(table, case, f"{score:.4f}")
    print_table(table)
    click.echo(f"Mean of {len(scores)} images: {fmean(scores.values()):.4f}")


def _plan(one) -> str:
    height, width = one.plan.patch_size
    return f"{height}x{width}, batch {one.plan.batch_size}, {one.plan.stages} stages"


def _commands(one) -> list[str]:
    results = f"RUNS/results nnUNetv2_predict -d {one.dataset} -c {one.configuration} -tr {one.trainer} -f {one.fold}"
    return [
        f"usema recipe prepare {one.name} --download FOLDER --output RAW",
        f"usema recipe train {one.name} --raw RAW --runs RUNS --gpus 1",
        f"nnUNet_results={results} --disable_tta -i RAW/{one.dataset}/imagesTs -o PREDICTIONS",
    ]
