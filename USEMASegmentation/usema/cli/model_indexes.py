"""`usema models index`: where models are looked for besides USEMA's own index."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ..errors import UsemaError
from ..store import indexes, settings
from ..store.faults import shown
from . import report


@click.group()
def index() -> None:
    """Your own indexes: folders, shares or web addresses that offer models."""


@index.command("list")
def list_indexes() -> None:
    """The indexes, in the order in which a model is looked for."""
    table = Table(Column("index", overflow="fold"), Column("where", overflow="fold"), "models", "copy")
    try:
        sources = indexes.sources()
    except UsemaError as error:
        report(error)
        sources = indexes.ours()
    for source in sources:
        count = str(len(source.index.entries)) if source.index else "-"
        table.add_row(*map(escape, (source.title, shown(source.place), count, source.age)))
    Console().print(table)
    for source in sources:
        if source.problem:
            click.echo(source.problem, err=True)


@index.command()
@click.argument("place")
@click.option("--ca-bundle", help="Certificates (PEM) that downloads are to trust from now on; '' for the system's.")
def add(place: str, ca_bundle: str | None) -> None:
    """Fetch the index at PLACE and look there for models from now on, before USEMA's own.

    PLACE: the address or path of a models.json, or of the folder that holds it.
    """
    if ca_bundle is not None:
        settings.trust(ca_bundle)
    found = indexes.fetch(place)
    if found.place not in settings.read().indexes:  # a script for all computers may run again
        settings.add_index(place)
    click.echo(f"{found.title}: {len(found.entries)} model(s), from {shown(found.place)}")
    if found.place.startswith("http://"):
        click.echo(
            "This address is not protected: whoever is on the way can change which models it offers, and read a "
            "password from .netrc that is sent there. Prefer https:// where the server has it.",
            err=True,
        )


@index.command()
@click.argument("place")
def remove(place: str) -> None:
    """Look no longer at PLACE. Models that were downloaded from there stay."""
    place = settings.remove_index(place)
    indexes.forget(place)
    click.echo(f"Removed {shown(place)}")
