"""What the worker can be asked for with ``--store``: to download and keep models. Needs no torch.

    hello     -> hello: protocol, pid, usema, python
    download  name, version, sha256 (those of an index's entry, as the user saw them; without the last it is not
              compared), consent (the question that the user said yes to, or null)
              -> progress: done, total (bytes), bytes_per_second, seconds_left (null: not known yet), message; ...
              -> result: name, title, version
    look      file: path of a file or folder with models -> result: models, each key and summary
    import    file: path of a file or folder; wanted: which of its models, by key, may be absent for a single one;
              consent
              -> progress; ... -> result: name, title, version, warnings
    refresh   -> result: problems, what went wrong for each of the user's indexes that could not be fetched
    remove    name, version -> result
    verify    path of a bundle -> result: verified, what it was compared with

Where the user has to be asked first, download and import answer with an error of the code "consent" and a "question":
``store.consent.Question`` as a dictionary, to be sent back as consent.

The rest of the protocol is that of ``worker.py``. A download that is cancelled, or whose worker ends, keeps what it
has: the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InputError
from ..models.bundle import Bundle, read_bundle
from ..store import cache, importing, indexes, install, library, verification
from ..store.consent import ConsentNeeded, Question
from . import protocol
from .protocol import Send, field

if TYPE_CHECKING:
    from ..store.index import Entry
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
        entry = library.find_entry(field(request, "name", str))
        if (entry.version, entry.file.sha256) != (
            field(request, "version", str),
            field(request, "sha256", str, entry.file.sha256),
        ):
            # the user agreed to another file
            raise InputError(
                f"{entry.title} {request['version']} is no longer offered as you saw it: now it is {entry.version}, "
                f"the file with the SHA-256 {entry.file.sha256}.",
                "Choose it again.",
            )
        warnings: list[str] = []
        how = partial(install.install, report=warnings.append)
        return {**_install(how, entry, request, send, should_stop), "warnings": warnings}

    def _look(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        models = importing.look(field(request, "file", str))
        return {"event": "result", "models": [{"key": model.key, "summary": model.summary} for model in models]}

    def _import(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        warnings: list[str] = []
        how = partial(importing.import_model, wanted=field(request, "wanted", list, []), report=warnings.append)
        return {**_install(how, field(request, "file", str), request, send, should_stop), "warnings": warnings}

    def _refresh(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        return {"event": "result", "problems": indexes.refresh()}

    def _remove(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        for model in cache.installed():
            if (model.name, model.version) == (field(request, "name", str), field(request, "version", str)):
                cache.remove(model)
                return {"event": "result"}
        raise InputError(f"{request['name']} {request['version']} is not on this computer.")

    def _verify(self, request: dict, send: Send, should_stop: Callable[[], bool]) -> dict:
        return {"event": "result", "verified": verification.verify(read_bundle(field(request, "path", str)))}


def _reporting(send: Send) -> Callable[[Progress], None]:
    return lambda progress: send(event="progress", **asdict(progress))


def _install(how: Callable[..., Bundle], what: Entry | str, request: dict, send: Send, should_stop) -> dict:
    consent = field(request, "consent", dict, {})
    consent = Question.from_dict(consent) if consent else None
    try:
        metadata = how(what, consent=consent, progress=_reporting(send), should_stop=should_stop).metadata
    except ConsentNeeded as needed:
        question = asdict(needed.question)
        return {
            "event": "error", "code": needed.code, "message": needed.message, "hint": needed.hint, "detail": "",
            "question": question,
        }  # fmt: skip
    return {"event": "result", "name": metadata.name, "title": metadata.title, "version": metadata.version}
