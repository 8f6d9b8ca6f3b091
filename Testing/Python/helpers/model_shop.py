"""A folder of models on a real web server on loopback, which can hold a file back in the middle."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bundles import write_tiny_bundle
from usema.serving.client import WorkerClient
from usema.store import settings
from usema.store.publish import publish

LICENCE = {
    "name": "CC-BY-NC-4.0",
    "url": "https://creativecommons.org/licenses/by-nc/4.0/",
    "commercial_use": False,
    "attribution": "Nobody",
}


class Shop:
    """An index and its files.

    Attributes:
        address: of the index.
        requests: (path, Range header) of each request so far.
        held: bytes of a model file after which the server waits for ``release``; None: it does not.
        speed: bytes a second of a model file; None: as fast as it goes.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.requests: list[tuple[str, str | None]] = []
        self.held: int | None = None
        self.speed: int | None = None
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}/models.json"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def offer(self, name: str, version: str = "1.0.0", **metadata) -> None:
        """Puts a small model on the shelf."""
        folder = self.folder.parent / f"{self.folder.name}-{name}-{version}"
        bundle = write_tiny_bundle(folder, name=name, version=version, orientation="LPS", **metadata)
        publish(bundle, self.folder, title="The shop", minimum_engine="0.1.0")

    def release(self) -> None:
        self.held = None
        self._released.set()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def damage(self, name: str) -> None:
        """The index describes another file than the server has."""
        path = self.folder / "models.json"
        index = json.loads(path.read_text("utf-8"))
        for model in index["models"]:
            if model["name"] == name:
                model["file"]["sha256"] = "0" * 64
        path.write_text(json.dumps(index), "utf-8")

    def _handler(shop):
        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=str(shop.folder))

            def do_GET(self):
                shop.requests.append((self.path, self.headers.get("Range")))
                path = Path(self.translate_path(self.path))
                if path.suffix not in (".usema", ".pth") or not path.is_file():
                    super().do_GET()
                    return
                data = path.read_bytes()
                found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(found[1]) if found else 0
                self.send_response(206 if found else 200)
                if found:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                first = len(data) if shop.held is None else max(shop.held, start)
                with suppress(OSError):  # the other side may have gone
                    step = shop.speed // 10 if shop.speed else first
                    for offset in range(start, first, step):
                        self.wfile.write(data[offset : min(offset + step, first)])
                        time.sleep(0.1 if shop.speed else 0)
                    if first < len(data):
                        self.wfile.flush()
                        shop._released.wait(60)
                        self.wfile.write(data[first:])

            def log_message(self, *arguments): ...

        return Handler


@contextmanager
def open_shop(folder: Path):
    """A shop whose index is one of the user's."""
    shop = Shop(folder)
    settings.add_index(shop.address)
    yield shop
    shop.close()


def impatient_worker() -> WorkerClient:
    """The real worker of the store; it gives up at once where it would try again for a quarter of a minute."""
    program = (
        "from usema.store import download; download.FIRST_WAIT = 0.01\n"
        "from usema.serving.worker import main; main(['--store'])\n"
    )
    return WorkerClient([sys.executable, "-c", program])


def worker_at(place: str, instead: str, any_size: bool = False) -> WorkerClient:
    """The real worker of the store; the files of public models that lie at ``instead`` it gets from ``place``.

    Args:
        any_size: small stand-ins take the place of the publisher's weights.
    """
    program = (
        "from dataclasses import replace\n"
        "from usema.converters import public\n"
        "def moved(model):\n"
        f"    urls = [file.url.replace({instead!r}, {place!r}) for file in model.files]\n"
        "    files = [replace(file, url=url) for file, url in zip(model.files, urls)]\n"
        f"    files = [replace(file, size=None, sha256=None) if {any_size} else file for file in files]\n"
        "    return replace(model, files=tuple(files))\n"
        "models = tuple(map(moved, public.public_models()))\n"
        "public.public_models = lambda: models\n"
        "from usema.serving.worker import main; main(['--store'])\n"
    )
    return WorkerClient([sys.executable, "-c", program])
