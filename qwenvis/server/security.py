"""Who may use the service: those with its token, or else programs of this machine and the page of the service."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwenvis.errors import InputError
from qwenvis.server.answers import failure
from qwenvis.server.requests.limits import HEADERS
from qwenvis.server.requests.refusals import Refusal

LOOPBACK = ("127.0.0.1", "localhost", "::1")

# What a browser may do with what the service sends: the page uses its own files and the service, nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SENT = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def checked_token(text: str) -> bytes:
    """Return a token as bytes. Raises InputError unless it consists of visible ASCII characters."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise InputError("the token is empty or holds other characters than visible ASCII; make one with openssl rand")
    return text.encode("ascii")


class Guard:
    """Middleware that refuses requests from strangers, and sends the headers `SENT` with every answer.

    With a ``token``, every path but the ``public`` ones needs it. Without a token the service listens on a loopback
    address, and the danger is a page of another site in a browser of this machine: its requests name its origin, or, if
    its name was made to resolve to this machine (DNS rebinding), another host.
    """

    def __init__(self, app: ASGIApp, token: bytes | None, public: Collection[str]) -> None:
        self._app, self._token, self._public = app, token, frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401, 403 or 431."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SENT)
            await send(message)

        if error := _excess(scope) or self._refusal(scope["path"], Headers(scope=scope)):
            await failure(error, 0)(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _refusal(self, path: str, headers: Headers) -> Refusal | None:
        if self._token is not None:
            kind, _, sent = headers.get("authorization", "").partition(" ")
            known = hmac.compare_digest(sent.encode("latin-1"), self._token) and kind.lower() == "bearer"
            if known or path in self._public:
                return None
            return Refusal(401, "this service needs its token: send the header Authorization: Bearer TOKEN")
        host = headers.get("host", "")
        if _hostname(f"//{host}") not in LOOPBACK:
            return Refusal(403, "the Host header does not name a loopback address, which is where this service is")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return Refusal(403, "the request comes from a page of another origin")
        return None


def _excess(scope: Scope) -> Refusal | None:
    """Refuse long headers. The parser bounds those that come in pieces only."""
    size = (
        len(scope["raw_path"])
        + len(scope["query_string"])
        + sum(len(name) + len(text) for name, text in scope["headers"])
    )
    return Refusal(431, f"the headers have {size:,} bytes; expected at most {HEADERS:,}") if size > HEADERS else None


def _hostname(url: str) -> str | None:
    """Return the host in a URL, or None."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
