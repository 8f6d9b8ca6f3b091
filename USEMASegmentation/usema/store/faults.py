"""Why an address gave no file, in plain words: what servers, proxies, networks and requests say, put together.

Standard library only at file scope.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import requests

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_PROXY_PASSWORD = "Set HTTPS_PROXY=http://user:password@host:port in the environment, then start again."


class Fault(Exception):
    """Why an address gave no data, or no more of it.

    Args:
        reason: the end of a sentence that begins with the address; without credentials.
        hint: what helps; may be empty.
        again: whether the same address may do better later.
        wait: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, hint: str = "", *, again: bool = False, wait: float | None = None):
        super().__init__(reason)
        self.reason, self.hint, self.again, self.wait = reason, hint, again, wait


def shown(url: str) -> str:
    """An address for messages: without user, password, and the query, where servers put signatures."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no address at all
        return url.rpartition("@")[2].partition("?")[0]
    if not parts.netloc:  # a path
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def status_fault(response: requests.Response) -> Fault:
    """What an answer means that brings no file."""
    status, host = response.status_code, urlsplit(response.url).hostname
    if status == 407:
        return Fault("could not be asked for: the proxy wants a user name and a password (407)", _PROXY_PASSWORD)
    if status in (401, 403):
        return Fault(
            f"may not be downloaded: {host} or a proxy on the way refuses it ({status})",
            f"Ask your IT to allow downloads from {host}.",
        )
    if status in (404, 410):
        return Fault(f"is not there ({status})", "Refresh the index, then try again; or check the address.")
    if status in _TRANSIENT:
        proxy = _proxy_of(response.url)
        what = "has too many requests" if status == 429 else "has a problem of its own"
        return Fault(
            f"cannot be had now: {host} or a proxy on the way {what} ({status})"
            if proxy
            else f"cannot be had now: {host} {what} ({status})",
            f"Try again later. {_network_hint(response.url, host)}" if proxy else "Try again later.",
            again=True,
            wait=_wait(response),
        )
    return Fault(f"was answered with the unexpected status {status}", "Tell whoever keeps the index.")


def _wait(response: requests.Response) -> float | None:
    """Seconds of Retry-After, which is a number or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time(), 0.0)
    except (TypeError, ValueError):
        return None


def fault_of(error: Exception, url: str) -> Fault:
    """What an exception of requests, urllib3 or the system means. Their own texts may carry passwords."""
    import requests
    import urllib3

    text, wrong = str(error), requests.exceptions
    request = getattr(error, "request", None)
    host = urlsplit(getattr(request, "url", None) or url).hostname  # of the redirect's target, if it came so far
    if isinstance(error, wrong.TooManyRedirects):
        return Fault("leads in circles: too many redirects", "Tell whoever keeps the index.")
    if isinstance(error, wrong.InvalidProxyURL):
        return Fault(
            "could not be asked for: the environment or the system names a proxy that is no address",
            "Set HTTPS_PROXY=http://user:password@host:port in the environment.",
        )
    if isinstance(error, wrong.ProxyError):
        refused = re.search(r"Tunnel connection failed: (\d+)", text)
        if refused and refused[1] == "407":
            return Fault("could not be asked for: the proxy wants a user name and a password (407)", _PROXY_PASSWORD)
        if refused and refused[1] in ("401", "403"):
            return Fault(
                f"may not be downloaded: the proxy refuses {host} ({refused[1]})",
                f"Ask your IT to allow downloads from {host}.",
            )
        return Fault(
            f"could not be asked for: the proxy {_proxy_of(url)} does not let the connection through",
            _network_hint(url, host),
            again=True,
        )
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSLCertVerificationError" in text:
        detail = re.search(r"certificate verify failed: ([^(\"']+)", text)
        return Fault(
            f"cannot be trusted: the certificate of {host} was not accepted"
            + (f" ({detail[1].strip()})" if detail else ""),
            "If your network inspects connections, ask your IT for the file of its certificate authority and name it "
            "in SSL_CERT_FILE (command line, once: usema models index add ADDRESS --ca-bundle FILE).",
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:  # so OpenSSL calls it, by its version
        return Fault(
            f"cannot be read: {host} does not speak https there",
            "Check the address: perhaps it begins with http://, or has another port.",
        )
    if isinstance(
        error, (wrong.InvalidURL, wrong.InvalidSchema, wrong.MissingSchema, urllib3.exceptions.LocationParseError)
    ):
        socks = "SOCKS" in text
        return Fault(
            "cannot be had: a SOCKS proxy needs PySocks" if socks else "is, or leads to, no address on the web",
            "Install it: pip install pysocks" if socks else "Tell whoever keeps the index.",
        )
    if "NameResolutionError" in text or "Failed to resolve" in text:
        reason = f"cannot be reached: {host} is not known here"
    elif isinstance(error, wrong.ConnectTimeout):
        reason = f"cannot be reached: {host} does not answer"
    elif isinstance(error, (wrong.ReadTimeout, urllib3.exceptions.ReadTimeoutError)):
        reason = f"stopped: nothing came from {host} for too long"
    elif isinstance(error, wrong.ConnectionError) and "NewConnectionError" in text:
        reason = f"cannot be reached: {host} " + ("refuses the connection" if "refused" in text else "is out of reach")
    elif isinstance(error, (wrong.ContentDecodingError, urllib3.exceptions.DecodeError)):
        return Fault("sent a body that cannot be decompressed", "Tell whoever keeps the index.")
    else:
        reason = f"stopped: the connection to {host} was cut"
    return Fault(reason, _network_hint(url, host), again=True)


def _proxy_of(url: str) -> str:
    """The proxy that an address is asked for through, by the environment or the system; empty: none."""
    import requests

    try:
        proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
        return shown(requests.utils.prepend_scheme_if_needed(proxy, "http")) if proxy else ""
    except (ValueError, OSError):  # what is no address
        return ""


def _network_hint(url: str, host: str | None) -> str:
    proxy = _proxy_of(url)
    if not proxy:
        return "Check the network. If yours needs a proxy, set HTTPS_PROXY=http://host:port in the environment."
    return (
        f"It is asked for through the proxy {proxy}: check HTTPS_PROXY and HTTP_PROXY in the environment, or the proxy "
        f"in the system's settings. If {host} is reached without a proxy, set NO_PROXY={host} in the environment."
    )
