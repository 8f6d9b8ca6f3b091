"""Models found by what they segment, and what there is to know of public ones before they are downloaded."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ..converters import public_card
from ..converters.public_cost import USUAL_CT
from ..errors import BundleError, InputError
from ..inference.memory import free_memory
from ..models.card_files import CARD_FILE
from ..store import expected, finding, shelf, shelf_install
from ..store.library import BUNDLED, find_model, library

_NAMED = 3  # structures in a row


def print_found(text: str, modality: str, region: str) -> None:
    """A line for each model that a search finds: those that are here first, public ones last.

    Raises:
        InputError: none is found.
    """
    found = finding.search(library(), text, modality, region)
    if not found:
        raise InputError(
            f"No model is found by {' '.join(filter(None, [text, modality, region]))!r}.",
            "Search for a structure (liver, left adrenal), --modality CT or MR, "
            f"--region {', '.join(finding.regions())}.",
        )
    whole = {"name", "download"}
    names = ("name", "title", "modality", "structures", "licence", "download", "memory", "time here")
    table = Table(*(Column(name, no_wrap=name in whole, overflow="fold") for name in names))
    for one in found:
        table.add_row(*map(escape, _row(one)))
    console = Console()
    if not console.is_terminal:  # nobody looks: one line per model, for grep
        console.width = max(console.width, 200)
    console.print(table)
    free = free_memory()
    lines = [
        f"Memory and time are those of a head, or of a CT of {' x '.join(map(str, USUAL_CT[0][::-1]))} voxels.",
        "" if free is None else f"{free / 1e9:.1f} GB of memory are free.",
        "`usema models card NAME` says whose a model is, `usema models download NAME` gets it from its publisher.",
    ]
    click.echo(" ".join(filter(None, lines)), err=True)


def _row(one: finding.Found) -> tuple[str, ...]:
    model = one.model
    structures = ", ".join(one.structures[:_NAMED]) or str(len(model.labels))
    more = len(one.structures) - _NAMED
    licence = model.licence.name if model.licence else ""
    memory = expected.memory_in_words(one.takes).removesuffix(" of memory")
    time = expected.in_words(one.takes)
    structures = f"{structures} and {more} more" if more > 0 else structures
    return model.name, model.title, model.modality, structures, licence, _download(one), memory, time


def _download(one: finding.Found) -> str:
    """Megabytes that are still to come, with those of the models that it needs."""
    if one.is_here:
        return "bundled" if one.model.state == BUNDLED else "is here"
    if not one.size:
        return "its files are here" if one.is_size_known else "size not stated"
    kilobytes = one.size / 1e3
    text = f"{kilobytes:.0f} kB" if kilobytes < 100 else f"{kilobytes / 1e3:.{0 if kilobytes >= 1e4 else 1}f} MB"
    return text if one.is_size_known else f"{text} and more"


@click.command()
@click.argument("name")
def card(name: str) -> None:
    """Print the model card of NAME: who made it, on which terms, how to cite it, and what was measured.

    Public models have theirs before they are downloaded.
    """
    model, entry = library().get(name), shelf.find(name)
    if model is not None and model.path is not None and (place := Path(model.path) / CARD_FILE).is_file():
        click.echo(place.read_text(encoding="utf-8"))
    elif entry is not None:
        click.echo(public_card.markdown(entry.model))
    else:
        find_model(name)  # says what is wrong with the name
        raise BundleError(f"The model '{name}' has no card.", f"`usema models show {name}` tells what there is.")


@click.command("fetch-list")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def fetch_list(names: tuple[str, ...]) -> None:
    """Print what to download elsewhere for public models, and where to put it here, for a computer without a network.

    One line a file: address, tab, place. `usema models download NAME` then finds the files there.
    """
    lines = {}
    for name in names:
        entry = shelf.find(name)
        if entry is None:
            raise BundleError(f"{name!r} is no public model.", "`usema models list --search WORD` finds them.")
        for one in shelf.needed(entry, ()):
            lines.update(shelf_install.addresses(one.model))
    for address, place in lines.items():
        click.echo(f"{address}\t{place}")
