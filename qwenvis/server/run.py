"""The process of a service: its socket, its connections, and its end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from qwenvis.errors import InputError
from qwenvis.server.requests.limits import HEADERS, Limits


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, and does not listen yet. Raises InputError."""
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(kind, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, UnicodeError) as error:
        raise _taken(host, port, error) from error
    return made


def serve(app: Starlette, listening: socket.socket, limits: Limits, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; then accept nothing more, answer what was accepted, and return.

    A second signal ends the process without these answers. ``ready`` is called when the service accepts requests.
    Raises InputError if another process has begun to listen on the address since it was `bound`.
    """
    try:
        listening.listen()
    except OSError as error:
        host, port = listening.getsockname()[:2]
        raise _taken(host, port, error) from error
    config = uvicorn.Config(
        app,
        http=partial(_Connection, seconds=limits.read_seconds),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADERS,
    )
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings are about what clients send
    signal.signal(signal.SIGTERM, _end)  # uvicorn raises each signal again when it has ended
    _Server(config, ready).run(sockets=[listening])


def _taken(host: str, port: int, error: Exception) -> InputError:
    return InputError(f"{host} port {port} cannot be listened on: {getattr(error, 'strerror', error)}")


class _Server(uvicorn.Server):
    """A server that says when it accepts requests."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self._ready()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End the process: it was asked to, and has answered all requests, or has not begun to listen."""
    raise SystemExit(0)


class _Connection(H11Protocol):
    """A connection that is cut if its client is slow to send headers, or to read an answer.

    For the body of a request the application sets the time.
    """

    def __init__(self, *arguments: Any, seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._expect(self._cut_if_idle)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._expect(self._cut_if_idle)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; cut the connection if an answer has begun, which nothing can follow."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._expect(self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: the client has read."""
        super().resume_writing()
        self._expect(self._cut_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting: the client is gone."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _expect(self, otherwise: Callable[[], object]) -> None:
        """Set the time for what the client has to do next."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self._seconds, otherwise)

    def _cut_if_idle(self) -> None:
        """Cut the connection unless a request is being served."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
