"""`usema models download | export | import | publish`: models as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from .. import __version__
from ..errors import BundleError, Cancelled, InputError, StoreError, UsemaError
from ..files import refuse_existing
from ..models.bundle import Bundle, read_bundle
from ..store import archive, indexes
from ..store.consent import ConsentNeeded, Question
from ..store.index import Entry
from ..store.library import AVAILABLE, UPDATE, find_entry, find_model, library
from . import model_text, report
from .interrupt import stop_on_interrupt

_accept = click.option(
    "--accept-licence",
    is_flag=True,
    help="Accept licences that forbid commercial use, and those that are not stated clearly, without a question.",
)
_replace = click.option(
    "--replace", is_flag=True, help="Replace another model of the same name and version, without a question."
)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_accept
@_replace
def download(names: tuple[str, ...], accept_licence: bool, replace: bool) -> None:
    """Download models, or newer versions of them. An interrupted download goes on where it was."""
    from ..store.install import install, question_of_entry

    for problem in indexes.refresh():
        report(UsemaError(problem))
    wanted = [entry for entry in map(_offered, dict.fromkeys(names)) if entry]
    agree = partial(_agree, accept_licence=accept_licence, replace=replace)
    agreed = [agree(question_of_entry(entry)) for entry in wanted]  # all questions before the first download
    for entry, consent in zip(wanted, agreed, strict=True):
        warnings: list[str] = []
        bundle = _install(entry.name, partial(install, entry, report=warnings.append), consent, agree)
        _tell(bundle, warnings)


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--list", "only_list", is_flag=True, help="Only tell which models PATH holds.")
@click.option("--name", default="", help="What commands call the model.  [default: made from what PATH says]")
@click.option("--configuration", "wanted", multiple=True, help="Which of PATH's models; repeat to average several.")
@click.option("--folds", multiple=True, help="Folds to average, such as 0,1,2.  [default: all, else the first]")
@click.option("--checkpoint", type=click.Choice(["final", "best"]), default="final", show_default=True)
@click.option("--orientation", default="", help="How the training volumes lay, such as RAS.  [default: what PATH says]")
@click.option("--postprocessing/--no-postprocessing", default=True, help="What PATH says helps.  [default: do it]")
@_accept
@_replace
def import_file(
    paths, only_list, name, wanted, folds, checkpoint, orientation, postprocessing, accept_licence, replace
) -> None:
    """Install models that are on this computer: no network is needed, and PATH stays as it is.

    PATH is a .usema file, a bundle's folder, or a model of nnU-Net 2: a results folder, one of its folders, a zip of
    it, or a checkpoint. Nothing in it is run. --accept-licence and --replace are for USEMA's own models, the other
    options but --list for models of other programs.
    """
    from ..converters import Options
    from ..store.importing import import_model, look, question_of

    if only_list:
        for path in paths:
            for model in look(path):
                click.echo(f"{model.key}: {model.summary}")
        return
    if name and len(paths) > 1:
        raise InputError(f"--name {name} is one name for {len(paths)} models.", "Import them one by one.")
    options = Options(name, _words(folds), checkpoint, orientation, postprocessing)
    agree = partial(_agree, accept_licence=accept_licence, replace=replace)
    for path in paths:
        warnings: list[str] = []
        work = partial(import_model, path, wanted=_words(wanted), options=options, report=warnings.append)
        bundle = _install(path.name, work, agree(question_of(path)), agree)
        _tell(bundle, warnings)


def _words(given: tuple[str, ...]) -> tuple[str, ...]:
    """What was given with commas, spaces, or several times."""
    return tuple(word for text in given for word in text.replace(",", " ").split())


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file.  [default: NAME-VERSION.usema]")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def export(model: str, output: Path | None, overwrite: bool) -> None:
    """Write MODEL (a name, or a bundle's folder) as one .usema file, for `usema models import` elsewhere."""
    bundle = read_bundle(find_model(model))
    output = output or Path(f"{bundle.metadata.name}-{bundle.metadata.version}{archive.ENDING}")
    if output.suffix != archive.ENDING:
        raise InputError(f"{output.name} does not end with {archive.ENDING}.", "Name it so.")
    refuse_existing(output, overwrite)
    archive.pack(bundle.path, output)
    click.echo(f"{output}: {bundle.metadata.title} {bundle.metadata.version}, {output.stat().st_size / 1e6:.1f} MB")


@click.command()
@click.argument("model")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The index's folder.")
@click.option("--url", "urls", multiple=True, help="Where the file will be; repeat for mirrors.  [default: beside]")
@click.option("--picture", type=click.Path(path_type=Path), help="PNG or JPEG of a result.")
@click.option("--minimum-engine", default=__version__, show_default=True, help="The oldest USEMA that runs the model.")
@click.option("--title", help="Title of the index.")
@click.option("--json", "as_json", is_flag=True, help="Print the entry as it stands in models.json.")
def publish(model, output, urls, picture, minimum_engine, title, as_json) -> None:
    """Pack MODEL (a name, or a bundle's folder) into a folder that others add with `usema models index add`.

    The folder gets the .usema file, models.json and a page, models.html. Any static web server or share will do.
    """
    from ..store.publish import publish as publish_bundle

    entry = publish_bundle(
        read_bundle(find_model(model)), output, urls=urls, picture=picture, minimum_engine=minimum_engine, title=title
    )
    if as_json:
        click.echo(json.dumps(entry, indent=2, ensure_ascii=False))
    else:
        click.echo(model_text.of_entry(entry))
    click.echo(f"Packed and listed in {output}", err=True)


def _offered(name: str) -> Entry | None:
    """What is to be downloaded; None if it is here."""
    entry, model = find_entry(name), library().get(name)
    if model.state not in (AVAILABLE, UPDATE) and _is_here(model.bundle, entry):
        click.echo(f"{name} {model.version} is here already ({model.state}).")
        return None
    if entry.why_not:
        raise StoreError(entry.why_not, "Update USEMA.")
    return entry


def _is_here(bundle: Bundle | None, entry: Entry) -> bool:
    """Whether what is here is whole, and a newer model or the very one that is offered."""
    try:
        if bundle is not None:
            bundle.verify()
    except BundleError:
        return False
    return bundle is not None and (
        bundle.metadata.version != entry.version or entry.file.metadata_sha256 in ("", bundle.metadata_sha256)
    )


def _agree(question: Question | None, accept_licence: bool, replace: bool) -> Question | None:
    """Asks what the options do not answer; returns what was agreed to. Ends the command where the user says no."""
    if question is None:
        return None
    click.echo(question.text())
    if question.licence and not accept_licence:
        click.confirm("Do you accept this licence?", abort=True)
    if question.replaces and not replace:
        click.confirm("Replace what is here?", abort=True)
    return question


def _install(name: str, work: Callable[..., Bundle], consent: Question | None, agree: Callable) -> Bundle:
    """Runs ``work``, and once more after each further question: the file may tell another licence than the index."""
    while True:
        try:
            return _with_progress(name, partial(work, consent=consent))
        except ConsentNeeded as needed:
            consent = agree(needed.question)


def _with_progress(name: str, work: Callable[..., Bundle]) -> Bundle:
    """Runs ``work(progress=, should_stop=)`` under a bar; Ctrl+C ends it with exit code 130."""
    with stop_on_interrupt() as stop, _bar(name) as update:
        try:
            return work(progress=update, should_stop=stop.is_set)
        except Cancelled as error:
            stopped = error
    report(stopped)
    raise SystemExit(130)


@contextmanager
def _bar(name: str) -> Iterator[Callable]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None, note="")

        def update(step) -> None:
            note = step.message
            if not note and step.bytes_per_second:
                note = f"{step.bytes_per_second / 1e6:.1f} MB/s, {_duration(step.seconds_left or 0)} left"
            bar.update(task, completed=step.done, total=step.total, note=note)

        yield update


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _tell(bundle: Bundle, warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(warning, err=True)
    click.echo(f"{bundle.metadata.title} {bundle.metadata.version}: {bundle.path}")
