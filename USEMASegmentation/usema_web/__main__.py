"""`usema web` starts this: ``python -m usema_web``."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from usema.cli.interrupt import Stopped, signals_raise
from usema.errors import UsemaError

NO_EXTRA = "The browser front end is not installed here"


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl+C, or until the process is asked to end in another way.

    Returns:
        the exit code.
    """
    options = _parser().parse_args(arguments)
    del sys.argv[1:]  # trame reads them too
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        # Without a display, VTK draws with EGL; it reads this when it makes its first window.
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    try:
        from .application import Application
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] not in ("trame", "trame_slicer", "slicer", "vtk", "vtkmodules"):
            raise
        print(f"Error: {NO_EXTRA}: {error.name} is missing.", file=sys.stderr)
        print("       Install it: pip install 'usema[web]'", file=sys.stderr)
        return 1
    token = secrets.token_urlsafe(24)
    try:
        with signals_raise():
            application = Application(token, [Path(path) for path in options.paths])
            application.serve(options.host, options.port, options.browser)
    except Stopped as stop:
        return stop.exit_code
    except UsemaError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"       {error.hint}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="usema web", description=sys.modules[__package__].__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="volumes or a DICOM folder to open")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer alone)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="only print the address")
    return parser


if __name__ == "__main__":
    sys.exit(main())
