"""Models of other programs, made into bundles: what is in a file or folder, and the choice of what to convert.

Each program's format is a file of one shape: it tells which models a source holds, and converts those that are chosen.
Store, worker, panel and command line know this file alone. Standard library only at file scope.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import BundleError, Cancelled, InputError, MissingDependencyError
from ..models.bundle import Bundle
from . import auto3dseg, brainchop, nnunet, totalsegmentator
from .source import Source, open_source, open_together


class Model(Protocol):
    """A model in a source.

    Attributes:
        key: tells it from the others: its place in the source.
        short: what people call it, such as its configuration; may be the same for several.
        summary: a line of what is known before it is read.
    """

    key: str
    short: str
    summary: str


class Converter(Protocol):
    """A format: a module with a name and two functions."""

    FORMAT: str  # "nnU-Net v2"

    def models(self, source: Source) -> Sequence[Model]:
        """What a source holds; nothing if it is of another format.

        Raises:
            BundleError: it is of this format, and cannot be used; says what to do.
        """

    def convert(self, source: Source, chosen: Sequence[Model], folder: Path, options: Options, work: Work) -> Bundle:
        """Writes a bundle of a model, or of several whose results are averaged.

        Raises:
            BundleError: a model cannot be used; says what to do.
        """


@dataclass(frozen=True)
class Options:
    """What the user may say of an import.

    Attributes:
        name: of the model; empty: made from what the source says.
        folds: of a cross-validation, to be averaged; empty: the one that was trained on all cases, else the first.
        checkpoint: "final" or "best".
        orientation: three letters, where the axes x, y, z of the training volumes increase towards; empty: what the
            source says, and if it says nothing, volumes are taken as they are stored.
        postprocessing: do to the labels what the source found to help.
    """

    name: str = ""
    folds: tuple[str, ...] = ()
    checkpoint: str = "final"
    orientation: str = ""
    postprocessing: bool = True


@dataclass(frozen=True)
class Work:
    """How a conversion tells of itself.

    Attributes:
        report: called with a sentence for the user.
        step: called with what is being done.
        should_stop: asked between steps.
    """

    report: Callable[[str], None] = lambda sentence: None
    step: Callable[[str], None] = lambda sentence: None
    should_stop: Callable[[], bool] = lambda: False

    def on_to(self, sentence: str) -> None:
        """The next step. Raises Cancelled if there shall be none."""
        if self.should_stop():
            raise Cancelled("Stopped before the model was imported. Nothing was changed.")
        self.step(sentence)


CONVERTERS: tuple[Converter, ...] = (brainchop, totalsegmentator, auto3dseg, nnunet)


def look(path: str | os.PathLike) -> list[Model]:
    """The models of other programs in a file or folder; nothing in it is run.

    Raises:
        BundleError: there are none, or they cannot be used; says what to do.
    """
    return _look(open_source(path))[1]


def convert_public(paths: Sequence[Path], name: str, folder: Path, work: Work) -> Bundle:
    """Makes the bundle of a public model from all its publisher's files.

    Args:
        paths: as downloaded.
        name: of the model, as ``public.public_models`` has it.
        folder: the bundle's; its parent exists.
        work: told of what is done.

    Raises:
        BundleError: the files are not what they should be; says what to do.
        Cancelled: ``work.should_stop`` said so. Nothing is left in ``folder``.
    """
    source = open_together(paths)
    converter, models = _look(source)
    chosen = [model for model in models if name in (model.key, model.short)]
    if len(chosen) != 1:
        files = ", ".join(path.name for path in paths)
        raise BundleError(
            f"{files}: this is not all of '{name}'. It holds: {', '.join(model.key for model in models)}.",
            "Download it again from its publisher.",
        )
    return converter.convert(source, chosen, folder, Options(), work)


def convert(
    path: str | os.PathLike,
    folder: Path,
    wanted: Sequence[str] = (),
    options: Options | None = None,
    work: Work | None = None,
) -> Bundle:
    """Makes a bundle.

    Args:
        path: file or folder.
        folder: the bundle's; its parent exists.
        wanted: which of the models: ``key`` or ``short`` of one, or of several to be averaged. Not needed for one.
        options: of the import.
        work: told of what is done.

    Raises:
        InputError: the choice is none, or does not fit.
        BundleError: the model cannot be used; says what to do.
        MissingDependencyError: torch is not installed.
        Cancelled: ``work.should_stop`` said so. Nothing is left in ``folder``.
    """
    for package in ("numpy", "torch", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(f"Importing a model of another program needs {package}.", "Install it first.")
    source = open_source(path)
    converter, models = _look(source)
    return converter.convert(source, choose(models, wanted, str(path)), folder, options or Options(), work or Work())


def choose(models: Sequence[Model], wanted: Sequence[str], path: str) -> list[Model]:
    """The models that are meant.

    Raises:
        InputError: none is, or a word means several.
    """
    if not wanted and len(models) == 1:
        return list(models)
    listed = "".join(f"\n  {model.key}: {model.summary}" for model in models)
    if not wanted:
        raise InputError(
            f"{path} holds {len(models)} models:{listed}\n",
            "Choose one (command line: --configuration NAME); several are averaged.",
        )
    chosen = []
    for word in wanted:
        found = [model for model in models if word == model.key]
        found = found or [model for model in models if word in (model.short, *model.key.split("/"))]
        if len(found) != 1:
            what = f"{len(found)} models are called" if found else "no model is called"
            raise InputError(f"In {path} {what} {word!r}:{listed}\n", "Choose by the whole name.")
        chosen += [model for model in found if model not in chosen]
    return chosen


def _look(source: Source) -> tuple[Converter, list[Model]]:
    problems = []
    for converter in CONVERTERS:
        try:
            models = list(converter.models(source))
        except BundleError as problem:  # another format may know it
            problems.append(problem)
            continue
        if models:
            return converter, models
    if problems:
        raise problems[0]
    raise BundleError(
        f"{source.path} holds no model that USEMA knows.",
        "It imports its own models (.usema, or a folder with model.json) and those of "
        f"{', '.join(converter.FORMAT for converter in CONVERTERS)}: a folder, a zip of it, or a checkpoint.",
    )
