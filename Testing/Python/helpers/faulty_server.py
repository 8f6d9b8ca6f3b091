"""A real web server on this computer that misbehaves on purpose, and a proxy that asks for a password."""

from __future__ import annotations

import gzip
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the server's next fault, or as it should."""

    protocol_version = "HTTP/1.1"
    client_is_gone = False

    def do_GET(self):
        server = self.server
        self.content, self.end = server.content, len(server.content)
        with server.lock:
            server.requests.append((self.path, self.headers.get("Range")))
            server.passwords.append(self.headers.get("Authorization"))
            fault = server.faults.pop(0) if server.faults else server.always
        fault(self)

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        headers = {"Content_Type": "application/octet-stream", **headers}
        if length is None:
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(length)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError:
            self.client_is_gone = self.close_connection = True

    def send_file(self, first: int) -> None:
        """From a byte on, to where the connection is to be cut."""
        for start in range(first, self.end, 2**16):
            piece = self.content[start : min(start + 2**16, self.end)]
            with self.server.lock:
                self.server.sent += len(piece)
            self.send(piece)
            if self.client_is_gone:
                break
            if self.server.pause:
                time.sleep(self.server.pause)

    def log_message(self, *args):
        pass

    @property
    def first(self) -> int:
        """The first byte that was asked for."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        return int(found[1]) if found else 0


class FaultyServer(ThreadingHTTPServer):
    """Serves ``content`` under every path.

    Attributes:
        content: the file.
        faults: one for each of the next requests.
        always: what answers when there are no more.
        pause: seconds between two pieces of 64 KiB.
        requests: (path, Range) of each request.
        passwords: what each request told in Authorization; None: nothing.
        sent: bytes of the file that were sent in all.
    """

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.faults, self.always, self.pause = content, [], serve, 0.0
        self.requests: list[tuple[str, str | None]] = []
        self.passwords: list[str | None] = []
        self.sent = 0
        self.lock = threading.Lock()
        self.released = threading.Event()  # ends stalls when the test is over
        self.secure = False

    def url(self, name: str = "model.usema") -> str:
        return f"http{'s' if self.secure else ''}://localhost:{self.server_address[1]}/{name}"

    def handle_error(self, request, address):
        pass  # clients that go away are what is tested


@contextmanager
def running(server: ThreadingHTTPServer, tls: ssl.SSLContext | None = None) -> Iterator:
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.secure = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        if isinstance(server, FaultyServer):
            server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


# As it should be


def serve(handler: Handler) -> None:
    content, first = handler.content, handler.first
    if not first:
        handler.head(200, len(content))
    elif first < len(content):
        handler.head(206, len(content) - first, Content_Range=f"bytes {first}-{len(content) - 1}/{len(content)}")
    else:
        handler.head(416, 0, Content_Range=f"bytes */{len(content)}")
        return
    handler.send_file(first)


# Faults


def cut_at(tenth: int, then: Fault = serve) -> Fault:
    """Announces the whole and closes the connection at that tenth of the file."""

    def fault(handler: Handler) -> None:
        handler.end = len(handler.content) * tenth // 10
        then(handler)
        handler.close_connection = True

    return fault


def without_range(handler: Handler) -> None:
    handler.head(200, len(handler.content))
    handler.send_file(0)


def wrong_length(by: int) -> Fault:
    def fault(handler: Handler) -> None:
        handler.head(200, len(handler.content) + by)
        handler.send(handler.content[: len(handler.content) + by])
        handler.close_connection = True

    return fault


def without_length(handler: Handler) -> None:
    handler.head(200, None)
    handler.send_file(0)
    handler.close_connection = True


def chunked(cut: bool) -> Fault:
    def fault(handler: Handler) -> None:
        content = handler.content[: len(handler.content) // (2 if cut else 1)]
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(content), 50_000):
            piece = content[start : start + 50_000]
            handler.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        if cut:
            handler.close_connection = True
        else:
            handler.send(b"0\r\n\r\n")

    return fault


def wrong_range(kind: str) -> Fault:
    """206 with a Content-Range that is missing, begins later than asked, or speaks of a longer file."""

    def fault(handler: Handler) -> None:
        size, first = len(handler.content), handler.first
        if not first:
            serve(handler)
            return
        headers = {
            "missing": {},
            "later": {"Content_Range": f"bytes {first + 10}-{size - 1}/{size}"},
            "longer": {"Content_Range": f"bytes {first}-{size + 99}/{size + 100}"},
            "earlier": {"Content_Range": f"bytes {first - 10}-{size - 1}/{size}"},
        }[kind]
        body = handler.content[first + {"later": 10, "earlier": -10}.get(kind, 0) :]
        handler.head(206, len(body), **headers)
        handler.send(body)

    return fault


def range_not_satisfiable(handler: Handler) -> None:
    if handler.first:
        handler.head(416, 0, Content_Range=f"bytes */{len(handler.content)}")
    else:
        serve(handler)


def status(code: int, **headers: str) -> Fault:
    def fault(handler: Handler) -> None:
        body = b"<html>No.</html>"
        handler.head(code, len(body), Content_Type="text/html", **headers)
        handler.send(body)

    return fault


def redirect(target: str) -> Fault:
    return lambda handler: handler.head(302, 0, Location=target)


def redirect_in_circles(handler: Handler) -> None:
    handler.head(302, 0, Location="/b" if handler.path == "/a" else "/a")


def stall(handler: Handler) -> None:
    """Sends half and then nothing, without closing."""
    content, first = handler.content, handler.first
    handler.head(200, len(content)) if not first else handler.head(
        206, len(content) - first, Content_Range=f"bytes {first}-{len(content) - 1}/{len(content)}"
    )
    handler.send(content[first : first + (len(content) - first) // 2])
    handler.server.released.wait(20)
    handler.close_connection = True


def silent(handler: Handler) -> None:
    """Takes the request and never answers."""
    handler.server.released.wait(20)
    handler.close_connection = True


def drip(handler: Handler) -> None:
    """A few bytes at a time, from the beginning; for ever as far as a client can tell, but a test is not to hang."""
    handler.head(200, len(handler.content))
    end = time.monotonic() + 3
    for start in range(0, len(handler.content), 10):
        if handler.client_is_gone or handler.server.released.wait(0.01) or time.monotonic() > end:
            break
        handler.send(handler.content[start : start + 10])
    handler.close_connection = True


def web_page(length: bool) -> Fault:
    """What the sign-in page of a hotel or hospital network answers to everything."""

    def fault(handler: Handler) -> None:
        body = b"<html>Please sign in.</html>" * 10_000
        handler.head(200, len(body) if length else None, Content_Type="text/html; charset=utf-8")
        handler.send(body)
        handler.close_connection = not length

    return fault


def other_content(handler: Handler) -> None:
    """Another file of the same size."""
    handler.content = bytes(len(handler.content))
    serve(handler)


def gzipped(handler: Handler) -> None:
    """Compresses although nobody asked, and takes ranges of the compressed bytes."""
    body = gzip.compress(handler.content, 1)
    first = handler.first
    if first:
        span = f"bytes {first}-{len(body) - 1}/{len(body)}"
        handler.head(206, len(body) - first, Content_Encoding="gzip", Content_Range=span)
    else:
        handler.head(200, len(body), Content_Encoding="gzip")
    handler.send(body[first : len(body) * handler.end // len(handler.content)])


def broken_gzip(handler: Handler) -> None:
    handler.head(200, 1000, Content_Encoding="gzip")
    handler.send(b"x" * 1000)


def endless(handler: Handler) -> None:
    """Never stops sending."""
    handler.head(200, None)
    while not handler.client_is_gone and not handler.server.released.is_set():
        handler.send(bytes(2**16))


def no_http(handler: Handler) -> None:
    """Speaks something else."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    handler.close_connection = True


class Proxy(ThreadingHTTPServer):
    """A proxy for plain addresses and for tunnels (CONNECT) that refuses whoever has no password."""

    daemon_threads = True

    def __init__(self, refusal: int = 407):
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.refusal = refusal
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _ProxyHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(self.server.refusal)
        self.send_header("Proxy-Authenticate", 'Basic realm="hospital"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_CONNECT = do_GET

    def log_message(self, *args):
        pass
