"""`usema models`: the models that are here, those to be had, and what each says of itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ..errors import BundleError, UsemaError
from ..models.bundle import read_bundle
from ..models.card_files import CARD_FILE
from ..resources import bundled_models
from ..store import cache, indexes, verification
from ..store.library import UPDATE, KnownModel, find_model, library
from . import model_text, report
from .model_compare import compare
from .model_files import download, export, import_file, publish
from .model_indexes import index
from .model_shelf import card, fetch_list, print_found


@click.group()
def models() -> None:
    """List, download, check and publish models."""


for _command in (card, compare, download, export, fetch_list, import_file, publish, index):
    models.add_command(_command)


@models.command("list")
@click.option("--refresh", is_flag=True, help="Fetch your indexes first.")
@click.option(
    "--search", "text", help="Models by the structures that they find, such as 'left adrenal'; public ones too."
)
@click.option("--modality", default="", help="Models for a modality, such as CT or MR; public ones too.")
@click.option("--region", default="", help="Models for a region of the body, such as head; public ones too.")
def list_models(refresh: bool, text: str | None, modality: str, region: str) -> None:
    """One line per model: those that are here, and those that an index offers. Offline, unless --refresh.

    With --search, --modality or --region: those that are meant, and public models, which are downloaded from their own
    publishers.
    """
    if text is not None or modality or region:
        print_found(text or "", modality, region)
        return
    problems = indexes.refresh() if refresh else []
    known = library()
    # What a narrow terminal, or a pipe, must not cut stays whole; the rest is folded.
    whole = {"name", "version", "size", "state"}
    names = ("name", "version", "title", "modality", "licence", "size", "from", "state")
    table = Table(*(Column(name, no_wrap=name in whole, overflow="fold") for name in names))
    for model in known.models:
        licence = model.licence.name if model.licence else ""
        size = f"{model.size / 1e6:.1f} MB"
        row = (model.name, model.version, model.title, model.modality, licence, size, model.source, _state(model))
        table.add_row(*map(escape, row))
    console = Console()
    if not console.is_terminal:  # nobody looks: one line per model, for grep
        console.width = max(console.width, 200)
    console.print(table)
    for line in [line for model in known.models for line in _remarks(model)] + _left_over():
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for problem in dict.fromkeys([*problems, *known.problems]):
        report(UsemaError(problem))
    if problems:
        click.get_current_context().exit(1)  # so that a script that keeps indexes fresh notices


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="All of it, as it stands in model.json or models.json.")
def show(model: str, as_json: bool) -> None:
    """What MODEL (a name, or the path of a bundle) says of itself; its weights are verified.

    Where its model card lies is said on stderr.

    For a model that is not here: what the index says of it.
    """
    known = library().get(model)
    if known is not None and known.path is None and not Path(model).exists():
        document = asdict(known.entry)
        text = model_text.of_entry(document)
    else:
        bundle = read_bundle(find_model(model))
        bundle.verify()
        document = bundle.metadata.to_dict()
        text = model_text.of_bundle(document, bundle.metadata_sha256)
        card = Path(bundle.path) / CARD_FILE
        if card.is_file():
            click.echo(f"Model card: {card}", err=True)
    click.echo(json.dumps(document, indent=2, ensure_ascii=False) if as_json else text)


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> None:
    """Compare all models that are here, or those named, with their hashes: weights and model.json."""
    here = [(name, path, "Install USEMA again.") for name, path in bundled_models().items()]
    again = "`usema models download {0}` gets it again, `usema models remove {0}` deletes it."
    here += [(model.name, model.path, again.format(model.name)) for model in cache.installed()]
    for name in names:
        if name not in [known for known, _, _ in here]:
            find_model(name)  # says how to get it
            raise BundleError(f"{name} is no model's name.", "`usema models show PATH` verifies a bundle by its path.")
    failed = False
    for name, path, hint in here:
        if names and name not in names:
            continue
        try:
            bundle = read_bundle(path)
            click.echo(f"{name} {bundle.metadata.version}: {verification.verify(bundle)}")
        except UsemaError as error:
            failed = True
            report(UsemaError(error.message, hint), name)
    if failed:
        raise SystemExit(1)


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--version", help="Only this version.")
@click.option("--interrupted", is_flag=True, help="Also what interrupted downloads left.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(names: tuple[str, ...], version: str | None, interrupted: bool, yes: bool) -> None:
    """Delete downloaded models from this computer."""
    if not names and not interrupted:
        raise click.UsageError("Give the name of a model, or --interrupted.")
    chosen = []
    for name in dict.fromkeys(names):  # one given twice counts once
        found = [one for one in cache.installed() if one.name == name and version in (None, one.version)]
        if not found:
            _refuse_to_remove(name, version)
        chosen += found
    left = cache.left_parts() if interrupted else []
    for model in chosen:
        click.echo(f"{model.name} {model.version}, {model.size / 1e6:.1f} MB: {model.path}")
    for path, size in left:
        click.echo(f"left by a download, {size / 1e6:.1f} MB: {path}")
    if not chosen and not left:
        click.echo("There is nothing to delete.")
        return
    if not yes:
        click.confirm("Delete?", abort=True)
    for model in chosen:
        cache.remove(model)
    cache.remove_parts(path for path, _ in left)


def _refuse_to_remove(name: str, version: str | None) -> None:
    if name in bundled_models() and not cache.installed_versions(name):
        raise BundleError(f"{name} came with USEMA and cannot be removed on its own.")
    installed = ", ".join(f"{one.name} {one.version}" for one in cache.installed())
    what = f"{name} {version}" if version else name
    raise BundleError(f"{what} is not installed.", f"Installed: {installed or 'none'}.")


def _state(model: KnownModel) -> str:
    if model.problem:
        return "damaged"
    return f"update: {model.entry.version}" if model.state == UPDATE else model.state


def _remarks(model: KnownModel) -> list[str]:
    """What does not fit into the table."""
    lines = [model.problem, model.why_not]
    if model.state == UPDATE and model.entry.source != model.source:
        lines.append(f"{model.name} {model.entry.version} is offered by {model.entry.source}.")
    lines += [
        f"{model.name} {one.version} of {one.source} is hidden by that of {model.entry.source}." for one in model.others
    ]
    older = [one for one in cache.installed_versions(model.name) if Path(cache.place(model.name, one)) != model.path]
    if older:
        lines.append(
            f"{model.name} is here in {', '.join(older)} too: `usema models remove {model.name} --version {older[-1]}`."
        )
    return [line for line in lines if line]


def _left_over() -> list[str]:
    size = sum(size for _, size in cache.left_parts())
    return (
        [f"Interrupted downloads take {size / 1e6:.1f} MB: resume, or `usema models remove --interrupted`."]
        if size
        else []
    )
