"""`usema export`: a training's results become a bundle."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle's folder.")
@click.option("--card", type=click.Path(path_type=Path), help="JSON with title, use, limits, labels, licence, ...")
@click.option("--dataset", type=click.Path(path_type=Path), help="Raw dataset: tells orientation and spacings.")
@click.option("--like", help="Name or path of the model that the training started from: keeps what it says of itself.")
@click.option("--fold", default="0", show_default=True)
@click.option("--checkpoint", type=click.Choice(["final", "best", "latest"]), default="final", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the bundle if it exists.")
def export(results, output, card, dataset, like, fold, checkpoint, overwrite) -> None:
    """Turn RESULTS (the folder that a training names at its end) into a model bundle for `usema segment --model`."""
    from ..models.bundle import read_bundle
    from ..store.library import find_model
    from ..training.export import export_bundle

    bundle = export_bundle(
        results,
        output,
        card=card,
        dataset=dataset,
        like=None if like is None else read_bundle(find_model(like)),
        fold=fold,
        checkpoint=checkpoint,
        overwrite=overwrite,
        report=lambda sentence: click.echo(sentence, err=True),
    )
    metadata = bundle.metadata
    click.echo(f"{bundle.path}: {metadata.title} {metadata.version}, {metadata.weights['bytes'] / 1e6:.1f} MB")
