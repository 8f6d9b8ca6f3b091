"""`usema card`: measures a bundle on labelled cases and writes its model card."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress


@click.command()
@click.argument("bundle")
@click.option("--images", type=click.Path(path_type=Path), help="Folder with CASE_0000.nii.gz, one per channel.")
@click.option("--labels", type=click.Path(path_type=Path), help="Folder with CASE.nii.gz, drawn by a person.")
@click.option("--split", type=click.Path(path_type=Path), help="nnU-Net's splits_final.json: only validation cases.")
@click.option("--fold", default=0, show_default=True, help="The fold of --split.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ... or mps.")
def card(bundle, images, labels, split, fold, device) -> None:
    """Write the model card of BUNDLE (a model's folder): card.md, and card/ with pictures and figures.

    With --images and --labels, the model is measured on these cases first, at every speed, which should be some that
    training left out, and metrics.validation and metrics.speeds of its model.json are replaced. Without, the card is
    made again from what was measured before. The card travels with the model, and holds names and pictures of cases:
    delete pictures that must not be shown, and make the card again.
    """
    from ..quality.card.text import write_card
    from ..store.library import find_folder

    if (images is None) != (labels is None):
        raise click.UsageError("Give --images and --labels, or neither.")
    if split is not None and images is None:
        raise click.UsageError("--split chooses among --images and --labels: give them too.")
    model = find_folder(bundle)
    if images is not None:
        model = _measure(model, images, labels, split, fold, device)
    click.echo(write_card(model))


def _measure(model, images: Path, labels: Path, split: Path | None, fold: int, device: str):
    from ..quality.card.measure import measure
    from ..quality.labelled_cases import describe_cases, find_cases

    cases = find_cases(images, labels, len(model.metadata.channels), split, fold)
    cases_from, left_out = describe_cases(model.metadata, images, split, fold)
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(model.metadata.name, total=len(cases))

        def progress(case: str) -> None:
            bar.update(task, advance=1, description=escape(case))

        return measure(
            model,
            cases,
            cases_from=cases_from,
            left_out=left_out,
            device=device,
            progress=progress,
        )
