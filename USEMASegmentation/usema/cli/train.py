"""`usema train`: plan, preprocess, train, in one command that resumes."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--configuration", type=click.Choice(["2d", "3d_fullres"]), default="3d_fullres", show_default=True)
@click.option("--trainer", help="A class of usema.training.  [default: that of --start, else nnUNetTrainerUSEMASmall]")
@click.option("--fold", default="0", show_default=True, help="Fold to validate on, or 'all'.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Train on so many GPUs.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Train this long, resumed runs included.")
@click.option("--iterations", type=click.IntRange(min=1), help="Train for so many iterations.")
@click.option("--start", help="Name or path of a model of the same network: start from its weights.")
@click.option(
    "--spacing",
    type=click.FloatRange(min=0, min_open=True),
    nargs=3,
    help="Voxels that a 3D network sees, in mm, z y x; else the median.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Work folder.")
def train(dataset, configuration, trainer, fold, device, gpus, minutes, iterations, start, spacing, seed, runs) -> None:
    """Train USEMA on DATASET, a folder in nnU-Net's raw layout (DatasetNNN_Name). Run again to resume."""
    from ..models.bundle import read_bundle
    from ..store.library import find_model
    from ..training.run import train_dataset
    from ..training.starting import same_labels

    begun = None if start is None else read_bundle(find_model(start))
    trained_by = "" if begun is None else begun.metadata.training.get("trainer", "")
    results = train_dataset(
        dataset,
        runs,
        configuration=configuration,
        trainer=trainer or trained_by or "nnUNetTrainerUSEMASmall",
        fold=fold,
        device=device,
        gpus=gpus,
        minutes=minutes,
        iterations=iterations,
        start=begun,
        spacing=spacing,
        seed=seed,
    )
    like = "" if begun is None or not same_labels(begun, dataset) else f" --like '{start}'"
    click.echo(f"Trained. Make a bundle of it with: usema export '{results}' -o BUNDLE --dataset '{dataset}'{like}")
