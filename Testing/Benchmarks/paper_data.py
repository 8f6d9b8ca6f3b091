"""Trains on the data sets of USEMA's paper and its neighbours, each with one command after its download.

    python Testing/Benchmarks/paper_data.py list
    python Testing/Benchmarks/paper_data.py show NAME
    python Testing/Benchmarks/paper_data.py prepare NAME --download FOLDER --output RAW
    python Testing/Benchmarks/paper_data.py train NAME --raw RAW

What others published lies in paper/published.json.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean

import click
from rich import box
from rich.table import Column, Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "USEMASegmentation"))

from paper import RECIPES, find_recipe
from paper.cell_f1 import score_folders
from paper.raw_dataset import count_cases
from paper.raw_dataset import prepare as convert
from paper.recipe import METHODS
from usema.cli import report
from usema.cli.streams import prepare_streams
from usema.cli.tables import add_row, print_table
from usema.errors import InputError, UsemaError

COMMAND = "python Testing/Benchmarks/paper_data.py"
_FOLDER = click.Path(path_type=Path)


class _Commands(click.Group):
    """Expected errors end as one message and exit code 1, as those of `usema` do."""

    def main(self, *args, **kwargs):
        prepare_streams()
        return super().main(*args, **kwargs)

    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except UsemaError as error:
            report(error)
        context.exit(1)


@click.group(cls=_Commands)
def main() -> None:
    """Train on the data sets of the paper: prepare a download, train, compare with published numbers."""


@main.command("list")
def list_recipes() -> None:
    """One line per data set."""
    table = Table(Column("name", no_wrap=True), "data", "training cases", "nnU-Net's plan")
    for one in RECIPES.values():
        add_row(table, one.name, one.title, one.cases, _plan(one))
    print_table(table)


@main.command()
@click.argument("name")
def show(name: str) -> None:
    """What others published on NAME, with room for USEMA, and the commands that fill it."""
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
    click.echo("\nScores:\n" + "\n".join(f"  {_scoring(one, line)}" for line in one.scoring))


@main.command()
@click.argument("name")
@click.option("--download", type=_FOLDER, required=True, help="Where the downloaded archives were unpacked.")
@click.option("--output", type=_FOLDER, required=True, help="Folder for raw data sets.")
def prepare(name: str, download: Path, output: Path) -> None:
    """Convert the download of NAME to nnU-Net's raw layout."""
    one = find_recipe(name)
    dataset = convert(one, download, output)
    training, test = count_cases(dataset), count_cases(dataset, "Ts")
    click.echo(f"{dataset}: {training} training cases, {test} test cases with labels.")
    if training != one.cases:
        click.echo(f"The published runs had {one.cases} training cases.")
    click.echo(f"Train with: {COMMAND} train {name} --raw '{output}'")


@main.command()
@click.argument("name")
@click.option("--raw", type=_FOLDER, required=True, help="The --output of prepare.")
@click.option("--runs", type=_FOLDER, default=Path("runs"), show_default=True, help="Work folder.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Train on so many GPUs.")
@click.option("--trainer", help="Another class of usema.training, for a comparison on the same plan.")
@click.option("--fold", help="Fold to validate on, or 'all'. Default: as in the published runs.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--iterations", type=click.IntRange(min=1), help="Fewer than the published 1000 epochs of 250.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def train(name, raw, runs, gpus, trainer, fold, device, iterations, seed) -> None:
    """Plan, preprocess and train NAME as its recipe says. Run again to resume."""
    from usema.training.run import train_dataset

    one = find_recipe(name)
    if not (raw / one.dataset).is_dir():
        raise InputError(
            f"{raw} has no {one.dataset}.", f"Make it: {COMMAND} prepare {name} --download FOLDER --output '{raw}'"
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
    click.echo(f"Trained: {results}. What comes next: {COMMAND} show {name}")


@main.command("cell-f1")
@click.argument("predictions", type=_FOLDER)
@click.argument("references", type=_FOLDER)
def cell_f1(predictions: Path, references: Path) -> None:
    """F1 of cells at an overlap of 0.5: three-class PREDICTIONS against REFERENCES with one number per cell."""
    scores = score_folders(predictions, references)
    table = Table("image", "F1")
    for case, score in scores.items():
        add_row(table, case, f"{score:.4f}")
    print_table(table)
    click.echo(f"Mean of {len(scores)} images: {fmean(scores.values()):.4f}")


def _scoring(one, line: str) -> str:
    tolerances = " ".join(f"--tolerance {one.labels.index(label)}={mm:g}" for label, mm in one.tolerances_mm.items())
    return line.format(dataset=one.dataset, tolerances=tolerances)


def _plan(one) -> str:
    height, width = one.plan.patch_size
    return f"{height}x{width}, batch {one.plan.batch_size}, {one.plan.stages} stages"


def _commands(one) -> list[str]:
    results = f"RUNS/results nnUNetv2_predict -d {one.dataset} -c {one.configuration} -tr {one.trainer} -f {one.fold}"
    return [
        f"{COMMAND} prepare {one.name} --download FOLDER --output RAW",
        f"{COMMAND} train {one.name} --raw RAW --runs RUNS --gpus 1",
        f"nnUNet_results={results} --disable_tta -i RAW/{one.dataset}/imagesTs -o PREDICTIONS",
    ]


if __name__ == "__main__":
    main()
