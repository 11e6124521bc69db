"""An encode worker of vLLM's disaggregated encoding: a proxy sends it the images and videos of a chat request.

The proxy is that of vLLM's examples (disagg_epd_proxy.py, read for vLLM 0.32). It asks as a client of the chat API
does, with images and videos alone. The worker writes their tokens into the directory of vLLM's encoder cache, which the
engine of the language model reads, and answers with their grids, which the proxy puts in their places.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse

from qwenvis.adapters.vllm import publish
from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError, quoted
from qwenvis.io.data_urls import decoded_url
from qwenvis.server.requests.body import Content, Upload, json_object
from qwenvis.server.requests.limits import Limits
from qwenvis.server.requests.options import Options
from qwenvis.server.requests.refusals import Refusal

KINDS = {"image_url": "image", "video_url": "video"}
# Fields of a request that change what the tokens are, or where the engine looks for them.
REFUSED = {
    "mm_processor_kwargs": "the engine would look for the tokens under another identifier; give the options of pixels "
    "to the worker, when it is started",
    "media_io_kwargs": "the engine would look for the tokens under another identifier",
    "ec_transfer_params": "this worker writes the files of an ECExampleConnector, and sends tokens to nobody",
}


@dataclass(frozen=True)
class ChatItems:
    """The images and videos of a chat request, and the identifier that the proxy gives to each, if it does."""

    content: Content
    identifiers: list[str | None]


def chat_items(body: bytearray, limits: Limits) -> ChatItems:
    """Return the items of a chat request, in order.

    Raises Refusal or InputError for a request of another form, and for what this worker cannot do.
    """
    asked = json_object(body)
    for name, why in REFUSED.items():
        if asked.get(name):
            raise InputError(f"the request has {name}: {why}")
    parts = [part for message in _dicts(asked, "messages") for part in _parts(message)]
    if not parts:
        raise Refusal(400, "the messages hold no images or videos")
    if len(parts) > limits.max_items:
        raise Refusal(413, f"the messages hold {len(parts)} items; at most {limits.max_items} are encoded")
    uploads = [_upload(part) for part in parts]
    return ChatItems(Content(uploads, Options.of({})), [_identifier(part) for part in parts])


def answer(out: Embeddings, items: ChatItems, directory: Path, model: str) -> JSONResponse:
    """Write the tokens into the directory; return the answer that the proxy waits for.

    Raises InputError for tokens that vLLM does not take, and for identifiers that cannot name a file.
    """
    params = publish(out, directory, items.identifiers)
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}
    usage = {"prompt_tokens": len(out.embeddings), "completion_tokens": 0, "total_tokens": len(out.embeddings)}
    return JSONResponse(
        {
            "id": f"chatcmpl-{out.keys[0][:32]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [choice],
            "usage": usage,
            "ec_transfer_params": params,
        }
    )


def _dicts(holder: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects in a JSON object. Raises InputError for anything else."""
    found = holder.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InputError(f"{name} is {quoted(found)}; expected a list of objects")
    return found


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a message that are not text. Raises InputError for parts that are not encoded here."""
    if isinstance(message.get("content"), str):
        return []
    parts = [part for part in _dicts(message, "content") if part.get("type") != "text"]
    if other := [part.get("type") for part in parts if part.get("type") not in KINDS]:
        raise InputError(f"a part of a message is {quoted(other[0])}; expected {' or '.join(KINDS)}")
    return parts


def _upload(part: dict[str, Any]) -> Upload:
    """Return the image or video of a part, whose URL is a ``data:`` URL."""
    name = part["type"]
    url = part[name].get("url") if isinstance(part.get(name), dict) else None
    if not isinstance(url, str):
        raise InputError(f'{name} is {quoted(part.get(name))}; expected {{"url": a data: URL}}')
    return Upload(decoded_url(url, KINDS[name]), KINDS[name])


def _identifier(part: dict[str, Any]) -> str | None:
    """Return the identifier that the proxy gives to a part."""
    name = part.get("uuid")
    if name is not None and not isinstance(name, str):
        raise InputError(f"uuid is {quoted(name)}; expected text")
    return name
