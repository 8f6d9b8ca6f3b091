"""`usema web`: the panel in a browser."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import click

from ..errors import MissingDependencyError

_SECONDS = 10  # to end what runs and to remove its files, which hold the volumes that were opened


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, resolve_path=True))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, show_default="a free one", type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option("--browser/--no-browser", default=True, help="Open the page, or only print its address.")
def web(paths: tuple[str, ...], host: str, port: int, browser: bool) -> None:
    """Segment and correct in a browser: the flow of the panel, for people without 3D Slicer.

    PATHS, volumes or a folder of DICOM images, are opened at the start. One process serves one person. It listens to
    this computer alone unless --host says otherwise; the address it prints holds a token, without which nobody gets in.
    """
    if importlib.util.find_spec("trame_slicer") is None:
        raise MissingDependencyError(
            "The browser front end is not installed here: trame-slicer is missing.",
            "Install it: pip install 'usema[web]'",
        )
    # A process of its own: the engine's command line never loads the scene. Ctrl+C is for this one, which passes it on.
    command = [sys.executable, "-m", "usema_web", "--host", host, "--port", str(port)]
    served = subprocess.Popen([*command, *([] if browser else ["--no-browser"]), *paths], start_new_session=True)
    try:
        code = served.wait()
    except KeyboardInterrupt:
        _end(served)
        raise
    click.get_current_context().exit(code)


def _end(served: subprocess.Popen) -> None:
    if os.name != "nt":  # there, it would be killed, and Ctrl+C has reached it
        served.terminate()
    try:
        served.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        served.kill()
