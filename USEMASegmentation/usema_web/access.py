"""Who may use the server: who has its token, from its own pages. Everyone else gets 403, and nothing of the scene."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web

COOKIE = "usema_token"
PARAMETER = "token"
SOCKET = "/ws"  # trame's

# trame's pages compile templates ('unsafe-eval') and carry styles inside. Nothing may be fetched from elsewhere.
_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; frame-ancestors 'none'"
)


def protect(application: web.Application, token: str, left: Callable[[int], None] = lambda _: None) -> None:
    """Let only those in who show the token: once in the address, from then on as a cookie.

    The cookie is one of this port, so that two servers on a computer do not take each other's.

    Args:
        left: called when a page is gone, however that came, with the number of those that are still there.
    """
    pages = 0

    @web.middleware
    async def guard(request: web.Request, handler):
        nonlocal pages
        name = f"{COOKIE}_{_port(request)}"
        given = request.query.get(PARAMETER, "")
        if given and _same(given, token):
            answer = web.HTTPFound(request.path)  # the token does not stay in the address bar
            answer.set_cookie(name, token, httponly=True, samesite="Strict", path="/")
            raise answer
        if not _same(request.cookies.get(name, ""), token) or not _own_page(request):
            raise web.HTTPForbidden(text="Open the address that `usema web` printed: it holds the token.")
        if request.path == SOCKET and not web.WebSocketResponse().can_prepare(request):
            raise web.HTTPBadRequest(text="Only the page opens this socket.")  # wslink would count it as a client
        if request.path == SOCKET:
            pages += 1
            try:
                return await handler(request)
            finally:
                pages -= 1
                left(pages)
        response = await handler(request)
        if not response.prepared:
            response.headers.setdefault("Content-Security-Policy", _POLICY)
            response.headers.setdefault("Referrer-Policy", "no-referrer")
            response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    application.middlewares.append(guard)


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _own_page(request: web.Request) -> bool:
    """Whether a request comes from a page of this server. Browsers say where a page that opens a socket is from."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def _port(request: web.Request) -> int:
    return request.url.port or 80
