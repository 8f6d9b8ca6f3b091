"""`usema models`: the models that are here, and what each says of itself."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ..bundle import find_model, read_bundle
from ..errors import UsemaError
from ..resources import bundled_models


@click.group()
def models() -> None:
    """List the models that are here, or show one."""


@models.command("list")
def list_models() -> None:
    """One line per model."""
    table = Table(Column("name", no_wrap=True), "version", "title", "modality", "labels", "licence", "state")
    for name, path in bundled_models().items():
        try:
            model = read_bundle(path).metadata
        except UsemaError as error:
            table.add_row(name, "", "", "", "", "", f"[red]{escape(str(error))}")
            continue
        labels = ", ".join(label.name for label in model.labels)
        cells = (name, model.version, model.title, model.modality, labels, model.licence["name"], "bundled")
        table.add_row(*map(escape, cells))
    Console().print(table)


@models.command()
@click.argument("model")
def show(model: str) -> None:
    """All that MODEL (a name, or the path of a bundle) says of itself, as JSON; its weights are verified."""
    bundle = read_bundle(find_model(model))
    bundle.verify()
    click.echo(json.dumps(bundle.metadata.to_dict(), indent=2, ensure_ascii=False))
