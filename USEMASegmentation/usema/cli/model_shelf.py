"""`usema models list --search` and `usema models fetch-list`: public models, found by what they segment."""

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
from ..store import expected, shelf, shelf_install
from ..store.library import find_model, library


def print_found(text: str, modality: str, region: str) -> None:
    """A line for each public model that a search finds.

    Raises:
        InputError: none is found.
    """
    found = shelf.search(text, modality, region)
    if not found:
        regions = sorted({entry.model.region for entry in shelf.entries()})
        raise InputError(
            f"No public model is found by {' '.join(filter(None, [text, modality, region]))!r}.",
            f"Search for a structure (liver, left adrenal), --modality CT or MR, --region {', '.join(regions)}.",
        )
    whole = {"name", "download"}
    names = ("name", "title", "modality", "structures", "licence", "download", "memory", "time here")
    table = Table(*(Column(name, no_wrap=name in whole, overflow="fold") for name in names))
    here = {model.name for model in library().models if model.path}
    for entry in found:
        model = entry.model
        structures = ", ".join(shelf.matching(text, model)[:3]) or f"{model.label_count}"
        size = "is here" if entry.name in here else _download(entry, here)
        takes = expected.of(model)
        memory = expected.memory_in_words(takes).removesuffix(" of memory")
        time = expected.in_words(takes)
        row = (entry.name, entry.title, model.modality, structures, model.licence["name"], size, memory, time)
        table.add_row(*map(escape, row))
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
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        entry = shelf.find(name)
        if entry is None:
            raise BundleError(f"{name!r} is no public model.", "`usema models list --search WORD` finds them.")
        waiting += entry.model.needs
        lines.update(shelf_install.addresses(entry.model))
    for address, place in lines.items():
        click.echo(f"{address}\t{place}")


def _download(entry: shelf.PublicEntry, here: set[str]) -> str:
    """Megabytes that are still to come, with those of the models that it needs."""
    waiting, files = [entry], {}
    while waiting:
        model = waiting.pop().model
        places = zip(model.files, shelf_install.addresses(model), strict=True)
        files |= {file.url: file.size for file, (_, place) in places if not place.is_file()}
        waiting += [shelf.find(name) for name in model.needs if name not in here]
    known = sum(size or 0 for size in files.values()) / 1e6
    unknown = sum(size is None for size in files.values())
    text = f"{known:.0f} MB" if known >= 1 else f"{known:.1f} MB"
    if unknown:
        return f"{text} and more" if known else "size not stated"
    return text
