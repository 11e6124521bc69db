"""The answers of the service: tokens in the format that the request asks for, and errors in words."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping

import numpy as np
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from qwenvis.adapters import vllm
from qwenvis.embeddings import picture
from qwenvis.embeddings.file import to_bytes
from qwenvis.server.requests.options import Options
from qwenvis.server.requests.refusals import RETRIED, refusal
from qwenvis.server.service import Result

CHUNK = 1 << 18  # bytes of a body that are handed to the connection at a time
GRID = "Qwenvis-Grid-Thw"  # the header that has the grids of the items of an answer
Body = bytes | bytearray | memoryview


class Answer(Response):
    """A large body, sent in chunks: when the last one is taken, little is left in the memory of the connection."""

    def __init__(self, content: Body, media_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(b"", media_type=media_type, headers={**headers, "Content-Length": str(len(content))})
        self._content = memoryview(content)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for first in range(0, len(self._content), CHUNK):
            chunk = bytes(self._content[first : first + CHUNK])
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def tokens(result: Result, options: Options) -> Answer:
    """Return the answer that holds the tokens of a request. Raises InputError for tokens that vLLM does not take."""
    body, media_type = _FORMATS[options.format](result, options)
    grid = ", ".join(" ".join(map(str, row)) for row in result.out.grid_thw.tolist())
    times = {"queue": result.queue_seconds, "encode": result.encode_seconds}
    timing = ", ".join(f"{name};dur={1e3 * seconds:.1f}" for name, seconds in times.items())
    return Answer(body, media_type, {GRID: grid, "Server-Timing": timing})


def failure(error: Exception, retry_seconds: int) -> JSONResponse:
    """Return the answer to an error; ``retry_seconds`` is when the request may be sent again, if it may."""
    status, kind, message, item = refusal(error)
    headers = {"Retry-After": str(retry_seconds)} if status in RETRIED else {}
    headers |= {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"error": {"type": kind, "message": message, "item": item}}, status, headers)


def _safetensors(result: Result, options: Options) -> tuple[Body, str]:
    """Return the file of `Embeddings.save`; with ``colors`` also the tensors ``colors`` (tokens, 3) and ``content``."""
    more: dict[str, np.ndarray] = {}
    if options.colors:
        more["colors"] = np.concatenate([picture.colours(item)[0] for item in result.out.split()])
        more["content"] = result.shown
    return to_bytes(result.out._fields(), more), "application/octet-stream"


def _npy(result: Result, options: Options) -> tuple[Body, str]:
    """Return the only item as a ``.npy`` file of `Embeddings.wide`, (tokens, W)."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(result.out.wide()), allow_pickle=False)
    return file.getbuffer(), "application/octet-stream"


def _vllm(result: Result, options: Options) -> tuple[Body, str]:
    """Return the content parts of a message to vLLM, as a JSON array."""
    return json.dumps(vllm.parts(result.out)).encode(), "application/json"


_FORMATS: dict[str, Callable[[Result, Options], tuple[Body, str]]] = {
    "safetensors": _safetensors,
    "npy": _npy,
    "vllm": _vllm,
}
