"""The application: its routes, and what each of them answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwenvis.errors import QwenvisError
from qwenvis.server import answers, vllm_worker
from qwenvis.server.metrics import Metrics
from qwenvis.server.openapi import description
from qwenvis.server.requests import body
from qwenvis.server.requests.limits import Account
from qwenvis.server.requests.refusals import Refusal
from qwenvis.server.security import Guard
from qwenvis.server.service import Service
from qwenvis.version import __version__

PAGE = Path(__file__).parent / "page"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
OPEN = ("/health", "/ready")  # paths that need no token, besides the page, which holds no secret
GONE = 499  # the status under which requests are counted whose clients went away, as nginx does

T = TypeVar("T")
Handler = Callable[[Request, Account], Awaitable[Response]]


def application(service: Service, *, token: bytes | None = None, vllm_cache: Path | None = None) -> Starlette:
    """Return the ASGI application of a service; its lifespan starts and ends the encoding.

    - ``token``: what clients must send; None for a service that listens on a loopback address.
    - ``vllm_cache``: the directory of vLLM's encoder cache, for an encode worker.
    """
    endpoints = Endpoints(service, vllm_cache)
    api, page = endpoints.routes(), _page()
    paths = [route.path for route in api]
    api.append(Route("/openapi.json", _constant(JSONResponse(description(paths)))))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.close)

    lingering = Middleware(Lingering, seconds=service.limits.read_seconds)
    counted = Middleware(Counted, metrics=service.metrics, paths=paths)
    guard = Middleware(Guard, token=token, public=[*OPEN, *(route.path for route in page)])
    app = Starlette(
        routes=[*api, *page],
        lifespan=lifespan,
        middleware=[lingering, counted, guard],
        exception_handlers=dict.fromkeys(
            (QwenvisError, Refusal, HTTPException, ClientDisconnect, Exception), endpoints.failed
        ),
    )
    app.router.redirect_slashes = False  # behind a proxy with TLS, redirects would lead to the same address without it
    return app


class Endpoints:
    """What the paths of the API answer."""

    def __init__(self, service: Service, vllm_cache: Path | None) -> None:
        self._service, self._vllm_cache = service, vllm_cache

    def routes(self) -> list[Route]:
        """Return the routes of the API."""
        routes = [
            Route("/v1/encode", Accounted(self._service, self.encode), methods=["POST"]),
            Route("/v1/model", _constant(JSONResponse(_model(self._service)))),
            Route("/health", self.health),
            Route("/ready", self.ready),
            Route("/metrics", self.metrics),
        ]
        if self._vllm_cache is not None:
            chat = Accounted(self._service, partial(self.chat, self._vllm_cache))
            routes.append(Route("/v1/chat/completions", chat, methods=["POST"]))
        return routes

    async def encode(self, request: Request, account: Account) -> Response:
        """Answer images and videos with their tokens."""
        service = self._service
        sent = await body.read(request, service.limits, account)

        async def answered() -> Response:
            content = await asyncio.to_thread(body.content, request, sent, service.limits)
            result = await service.encode(content, account)
            return await asyncio.to_thread(answers.tokens, result, content.options)

        return await unless_gone(request, answered())

    async def chat(self, directory: Path, request: Request, account: Account) -> Response:
        """Write the tokens of a chat request into a directory of vLLM's encoder cache, and answer with their grids."""
        service = self._service
        sent = await body.read(request, service.limits, account)

        async def answered() -> Response:
            items = await asyncio.to_thread(vllm_worker.chat_items, sent, service.limits)
            result = await service.encode(items.content, account)
            return await asyncio.to_thread(vllm_worker.answer, result.out, items, directory, service.name)

        return await unless_gone(request, answered())

    async def health(self, request: Request) -> Response:
        """Answer 200 as long as items that are sent will be encoded, else 503: the process has to be started again."""
        return _state(self._service.batcher.running)

    async def ready(self, request: Request) -> Response:
        """Answer 200 if a request would be accepted now, else 503."""
        return _state(self._service.ready)

    async def metrics(self, request: Request) -> Response:
        """Answer with the metrics."""
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer an error. Nobody reads the answer to a client that has gone."""
        if isinstance(error, ClientDisconnect):
            return Response(status_code=GONE)
        if not isinstance(error, HTTPException):
            return answers.failure(error, self._service.retry_seconds)
        refused = Refusal(error.status_code, f"{error.detail.lower()}; /openapi.json has the paths and their methods")
        answer = answers.failure(refused, self._service.retry_seconds)
        answer.headers.update(error.headers or {})
        return answer


class Accounted:
    """The endpoint of a request that holds memory until its answer has been sent."""

    def __init__(self, service: Service, handler: Handler) -> None:
        self._memory, self._handler = service.memory, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        with self._memory.account() as account:
            response = await self._handler(Request(scope, receive), account)
            await response(scope, receive, send)


class Lingering:
    """Middleware that ends an answer once the body of the request has come, or the time for bodies is over.

    What refuses a request answers before that. A connection that is closed while its client still sends is reset, and
    the client may lose the answer (RFC 9112, section 9.6).
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        coming = scope["type"] == "http"

        async def received() -> Message:
            nonlocal coming
            message = await receive()
            coming = message.get("more_body", False)
            return message

        async def lingering(message: Message) -> None:
            nonlocal coming
            if message.get("status") == 408:
                coming = False  # the time is over
            if not coming or message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            await send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    while coming:
                        await received()
            await send({"type": "http.response.body", "body": b""})

        await self._app(scope, received, lingering)


class Counted:
    """Middleware that counts requests by path and status; paths that are not of the API count as one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Sequence[str]) -> None:
        self._app, self._requests, self._paths = app, metrics.requests, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._requests.labels(path, status).inc()


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of some work on a request whose body has been read; cancel it when the client goes away.

    Raises ClientDisconnect then.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait(tasks)


def _model(service: Service) -> dict[str, object]:
    """Return what clients may know of the model and of the limits."""
    encoder, config = service.encoder, service.encoder.config
    return {
        "source": service.name,
        "family": encoder.family,
        "dtype": encoder.spec.dtype,
        "isa": encoder.isa,
        "width": config.out_hidden_size,
        "deepstack": len(config.deepstack),
        "patch_size": config.patch_size,
        "merge_size": config.spatial_merge_size,
        "version": __version__,
        "limits": asdict(service.limits),
    }


def _page() -> list[Route]:
    """Return a route for each file of the page, which is in memory: no path of a request becomes the name of a file."""
    files = {"/" if path.name == "index.html" else f"/{path.name}": path for path in sorted(PAGE.glob("*.*"))}
    return [
        Route(path, _constant(Response(file.read_bytes(), media_type=MEDIA_TYPES[file.suffix])))
        for path, file in files.items()
    ]


def _constant(answer: Response) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint whose answer is always the same."""

    async def endpoint(request: Request) -> Response:
        return answer

    return endpoint


def _state(good: bool) -> Response:
    return JSONResponse({"status": "ok" if good else "unavailable"}, 200 if good else 503)
