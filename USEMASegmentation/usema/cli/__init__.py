"""The command `usema`. Each command is a file of this folder, and loads what it needs when it is called."""

from __future__ import annotations

import atexit
import gc
import importlib
import os

import click

from .. import __version__, imports
from ..errors import UsemaError, printable
from .interrupt import Stopped, signals_raise
from .streams import DEBUG, prepare_streams

# name -> one line of help; the function of the same name lies in the file of the same name
COMMANDS = {
    "segment": "Segment volumes with a model.",
    "adapt": "Correct a few slices of a result: the rest follows.",
    "evaluate": "Compare segmentations with reference labels.",
    "calibrate": "Make a model's probabilities say how often they are right.",
    "card": "Measure a model on labelled cases and write its model card.",
    "models": "List, download, check and publish models.",
    "networks": "Parameters and operations of the network per configuration.",
    "train": "Train USEMA on a dataset in nnU-Net's layout.",
    "export": "Turn a training's results into a model bundle.",
    "web": "Segment and correct in a browser.",
    "worker": "Serve another program over JSON lines, keeping a model warm.",
    "doctor": "What runs here: versions, devices, attention backend.",
}


class _Commands(click.Group):
    """Loads a command's file only when it is used: `usema --help` must not wait for torch."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        with imports.at_once():
            return getattr(importlib.import_module(f".{name}", __package__), name)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Refuses an empty argument: it would mean the folder one is in, or the model that is taken without a word."""
        for before, one in zip(("usema", *args), args, strict=False):
            if one == "" or (one.startswith("--") and one.endswith("=")):
                empty = f"What follows '{before}' is empty." if one == "" else f"What follows '{one}' is missing."
                raise click.UsageError(f"{empty} Is a variable of the shell not set?")
        return super().parse_args(context, args)

    def main(self, *args, **kwargs):
        prepare_streams()
        # What is left at the end is not looked through for garbage, with PyTorch for half a second.
        atexit.register(gc.freeze)
        with signals_raise():
            return super().main(*args, **kwargs)

    def invoke(self, context: click.Context):
        """Every error ends as one message on stderr and exit code 1, without a traceback; a stop as 128 + signal."""
        try:
            return super().invoke(context)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise  # click's own, and readers such as `head` that have seen enough
        except KeyboardInterrupt as stop:
            report(UsemaError("Stopped."))
            context.exit(stop.exit_code if isinstance(stop, Stopped) else 130)
        except Exception as error:
            report(explained(error))
        context.exit(1)


def explained(error: Exception) -> UsemaError:
    """What to tell of an error. One that nobody expected is raised as it is where the user wants to see it."""
    if isinstance(error, UsemaError):
        return error
    from ..inference.memory import is_out_of_memory, too_small

    if is_out_of_memory(error):
        return too_small(error)
    if isinstance(error, OSError):  # paths that are too long, may not be looked at, are no folders, ...
        return UsemaError(f"{error.filename or 'A file'}: {error.strerror or error}.")
    if DEBUG in os.environ:
        raise error
    hint = f"Please report it with what `usema doctor` prints; {DEBUG}=1 shows where it happened."
    return UsemaError(f"USEMA failed: {type(error).__name__}: {error}", hint)


def report(error: UsemaError, case: str = "") -> None:
    """Tell an error on stderr: what is wrong, and in a second line what to do."""
    prefix = f"{printable(case)}: " if case else ""
    click.secho(f"Error: {prefix}{error.message}", fg="red", err=True)
    if error.hint:
        click.echo(f"       {error.hint}", err=True)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="usema")
def main() -> None:
    """USEMA: segmentation of medical volumes and images."""
