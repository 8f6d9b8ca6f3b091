"""What the store needs of HTTP beyond requests: whom to trust, and how to go on in the middle of a file.

requests does the transport: redirects, TLS, proxies from the environment (HTTPS_PROXY, NO_PROXY) or, without those,
from the settings of Windows or macOS, passwords from ``.netrc``. What began encrypted never goes on in clear, and no
password is sent in clear but to where the user said ``http://``. Standard library only at file scope.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ..errors import MissingDependencyError, StoreError
from .faults import Fault, fault_of, shown, status_fault
from .pace import Pace

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a single byte; also the longest that cancelling waits for a dead connection
CHUNK = 2**18  # bytes; the most that is held in memory
_MAX_REDIRECTS = 10


def open_session(ca_bundle: str | os.PathLike | None = None, in_clear: Collection[str] = ()) -> requests.Session:
    """A session of requests that trusts what the operating system trusts: a hospital's IT puts its authority there.

    Args:
        ca_bundle: a PEM file (or a folder prepared by ``openssl rehash``) to trust instead; without it, what the
            environment variable ``SSL_CERT_FILE`` or ``REQUESTS_CA_BUNDLE`` names.
        in_clear: addresses that the user named. To their hosts, where they begin with ``http://``, passwords from
            ``.netrc`` are sent without encryption; to others they are not.

    Raises:
        MissingDependencyError: requests, urllib3 or truststore is missing or too old.
        StoreError: the certificates cannot be read.
    """
    try:
        import requests
        import truststore
        import urllib3
    except ImportError as error:
        raise MissingDependencyError(
            f"Downloading needs {error.name}.", f"Install it: pip install {error.name}"
        ) from error
    if not hasattr(urllib3.HTTPResponse, "read1"):
        raise MissingDependencyError(
            f"Downloading needs urllib3 2.2, this is {urllib3.__version__}.", 'Update it: pip install "urllib3>=2.2"'
        )
    place = ca_bundle or os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
    context = trusting(place) if place else truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *args, **options):
            super().init_poolmanager(*args, ssl_context=context, **options)

        def proxy_manager_for(self, proxy, **options):
            return super().proxy_manager_for(proxy, ssl_context=context, **options)

    hosts = {urlsplit(place).netloc for place in in_clear if place.startswith("http://")}

    class Session(requests.Session):
        def prepare_request(self, request):
            if not self._may_tell(request.url) and request.auth is None and "@" not in urlsplit(request.url).netloc:
                request.auth = lambda prepared: prepared  # in place of .netrc's
            return super().prepare_request(request)

        def rebuild_auth(self, prepared_request, response):
            if self._may_tell(prepared_request.url):
                super().rebuild_auth(prepared_request, response)
            else:
                prepared_request.headers.pop("Authorization", None)

        def get_redirect_target(self, response):
            target = super().get_redirect_target(response)
            whole = urljoin(response.url, target or "")
            if urlsplit(response.url).scheme == "https" and urlsplit(whole).scheme == "http":
                raise Fault(
                    f"leads from https to {shown(whole)}, where anybody on the way can read and change what comes",
                    "Tell whoever keeps the index.",
                )
            return target

        def _may_tell(self, url: str) -> bool:
            """Whether a password from .netrc may be sent there."""
            parts = urlsplit(url)
            return parts.scheme != "http" or parts.netloc in hosts

    session = Session()
    session.mount("https://", Adapter())
    session.max_redirects = _MAX_REDIRECTS
    return session


def trusting(ca_bundle: str | os.PathLike) -> ssl.SSLContext:
    """What trusts the certificates of a file or folder, and no others.

    Raises:
        StoreError: they cannot be read.
    """
    place = Path(ca_bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificates and host names
    try:
        context.load_verify_locations(**{"capath" if place.is_dir() else "cafile": place})
    except (OSError, ssl.SSLError) as error:
        reason = "holds no certificates (PEM)" if place.exists() else "does not exist"
        raise StoreError(
            f"The file of certificates {place} {reason}.",
            "Ask your IT for the file of its certificate authority; it was named by SSL_CERT_FILE, REQUESTS_CA_BUNDLE "
            "or `usema models index add ADDRESS --ca-bundle FILE` ('' for the system's certificates).",
        ) from error
    return context


def read_from(session: requests.Session, url: str, offset: int, size: int | None, pace: Pace) -> Iterator[bytes]:
    """The bytes of a file from ``offset`` on, in chunks as they come, decompressed where the server compressed them.

    A server that cannot begin in the middle is read from the beginning; what comes before ``offset`` is thrown away
    and yielded as empty chunks, so that the caller stays in control.

    Args:
        session: of ``open_session``.
        url: ``http://`` or ``https://``.
        offset: where to begin.
        size: bytes of the whole file; an answer that announces another size is refused before anything is read.
            None: any size.
        pace: told of all that comes, also of what is thrown away.

    Raises:
        Fault: while iterating: no answer, not this file, too slow, or the connection broke.
    """
    import requests
    import urllib3

    try:
        with _get(session, url, offset) as response:
            skip = offset - _start(response, size)
            while chunk := response.raw.read1(CHUNK, decode_content=True):
                pace.came(len(chunk))
                skipped, skip = min(skip, len(chunk)), max(skip - len(chunk), 0)
                yield chunk[skipped:]
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise fault_of(error, url) from error


def announced_size(session: requests.Session, url: str) -> int:
    """Bytes of a file, as its server announces them. Raises Fault: no answer, or none that tells it."""
    import requests
    import urllib3

    try:
        with _get(session, url, 0) as response:
            _start(response, None)
            length = response.headers.get("Content-Length", "")
            if not length.isdecimal() or _encoded(response):
                raise Fault("does not say how large the file is", "Download it with a browser, then import the file.")
            return int(length)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise fault_of(error, url) from error


def _get(session: requests.Session, url: str, offset: int) -> requests.Response:
    options = {"stream": True, "timeout": (CONNECT_TIMEOUT, READ_TIMEOUT)}
    plain = {"Accept-Encoding": "identity"}  # weights hardly shrink, and ranges of compressed bodies mean nothing
    if offset:
        response = session.get(url, headers={**plain, "Range": f"bytes={offset}-"}, **options)
        start, _ = _content_range(response)
        usable = start is not None and start <= offset and not _encoded(response)
        if response.status_code not in (206, 416) or usable:
            return response
        response.close()
    return session.get(url, headers=plain, **options)


def _start(response: requests.Response, size: int | None) -> int:
    """Where in the file the answer's body begins. Raises Fault if it is not this file."""
    if response.status_code not in (200, 206):
        raise status_fault(response)
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise Fault(
            "sent a web page instead of the file, perhaps the sign-in page of your network or proxy",
            "Open the address in a browser on this computer, follow what the page says, and try again.",
        )
    if response.status_code == 206:
        start, total = _content_range(response)
        start = start or 0
    else:
        length = response.headers.get("Content-Length", "")
        start, total = 0, int(length) if length.isdecimal() and not _encoded(response) else None
    if None not in (size, total) and total != size:
        raise Fault(
            f"has a file of {total} bytes, and the index says {size}: it was changed",
            "Refresh the index, then try again; if that does not help, tell whoever keeps the index.",
        )
    return start


def _encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """(first byte, size of the whole file) of a 206; None where the server does not say, or something else."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if response.status_code != 206 or not found:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])
