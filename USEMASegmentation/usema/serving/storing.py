"""What the worker can be asked for with ``--store``: to download and keep models. Needs no torch.

    hello     -> hello: protocol, pid, usema, python
    download  name, version (those of an index's entry, as the user saw them)
              -> progress: done, total (bytes), bytes_per_second, seconds_left (null: not known yet), message; ...
              -> result: name, title, version
    look      file: path of a file or folder with models -> result: models, each key and summary
    import    file: path of a file or folder; wanted: which of its models, by key, may be absent for a single one
              -> progress; ... -> result: name, title, version, warnings
    refresh   -> result: problems, what went wrong for each of the user's indexes that could not be fetched
    remove    name, version -> result
    verify    path of a bundle -> result

The rest of the protocol is that of ``worker.py``. A download that is cancelled, or whose worker ends, keeps what it
has: the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import InputError
from ..models.bundle import Bundle, read_bundle
from ..store import cache, importing, indexes, install, library
from . import protocol
from .protocol import Send

if TYPE_CHECKING:
    from ..store.meter import Progress


class Commands:
    """``by_name[command](request, send, should_stop)`` returns the last answer; ``send`` takes those before it.

    Raises:
        UsemaError: of any kind.
    """

    def __init__(self):
        self.by_name = {
            "hello": self._hello,
            "download": self._download,
            "look": self._look,
            "import": self._import,
            "refresh": self._refresh,
            "remove": self._remove,
            "verify": self._verify,
        }

    def _hello(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        return protocol.hello()

    def _download(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        entry = library.find_entry(request["name"])
        if entry.version != request["version"]:  # the user agreed to another file
            raise InputError(
                f"Version {request['version']} of {entry.title} is no longer offered, but {entry.version}.",
                "Choose it again.",
            )
        return _installed(install.install(entry, progress=_reporting(send), should_stop=should_stop))

    def _look(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        models = importing.look(request["file"])
        return {"event": "result", "models": [{"key": model.key, "summary": model.summary} for model in models]}

    def _import(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        warnings: list[str] = []
        bundle = importing.import_model(
            request["file"],
            wanted=request.get("wanted", ()),
            report=warnings.append,
            progress=_reporting(send),
            should_stop=should_stop,
        )
        return {**_installed(bundle), "warnings": warnings}

    def _refresh(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        return {"event": "result", "problems": indexes.refresh()}

    def _remove(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        for model in cache.installed():
            if (model.name, model.version) == (request["name"], request["version"]):
                cache.remove(model)
                return {"event": "result"}
        raise InputError(f"{request['name']} {request['version']} is not on this computer.")

    def _verify(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        read_bundle(request["path"]).verify()
        return {"event": "result"}


def _reporting(send: Send) -> Callable[[Progress], None]:
    return lambda progress: send(event="progress", **asdict(progress))


def _installed(bundle: Bundle) -> dict:
    metadata = bundle.metadata
    return {"event": "result", "name": metadata.name, "title": metadata.title, "version": metadata.version}
