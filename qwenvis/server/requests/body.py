"""The body of a request: counted and timed while it is read, then taken apart into images, videos and options."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from qwenvis.errors import InputError, counted, quoted
from qwenvis.io.data_urls import decoded, decoded_url
from qwenvis.server.requests.forms import form_parts
from qwenvis.server.requests.limits import Account, Limits
from qwenvis.server.requests.options import Options, parsed
from qwenvis.server.requests.refusals import Refusal

FORM, JSON = "multipart/form-data", "application/json"
# Types of a body that is one image or video. The last is what curl sends unless it is told another type.
RAW = ("image/", "video/", "application/octet-stream", "application/x-www-form-urlencoded")
# How many times the bytes of a body are in memory while it is taken apart: of JSON as bytes, as text, as the strings
# in it, and as what their base64 holds.
COPIES = {FORM: 2, JSON: 4}
KINDS = ("image", "video")


@dataclass(frozen=True)
class Upload:
    """The file of an image or a video; a ``kind`` of "" is found out by its first bytes."""

    content: bytes | bytearray
    kind: str = ""


@dataclass(frozen=True)
class Content:
    """What a request sends: items in order, and options."""

    uploads: list[Upload]
    options: Options


async def read(request: Request, limits: Limits, account: Account) -> bytearray:
    """Read the body of a request.

    Raises Refusal for a body that is too large, too slow or compressed, whatever its headers say, and where the memory
    of the service is full; ClientDisconnect if the client is gone.
    """
    coding = ", ".join(request.headers.getlist("content-encoding")).lower()
    if coding not in ("", "identity"):
        raise Refusal(415, f"the body is encoded as {quoted(coding)}; send it as it is")
    declared = request.headers.get("content-length", "0")
    if len(declared) > 18 or int(declared) > limits.max_body:
        raise _too_large(limits)
    copies, body = COPIES.get(media_type(request)[0], 1), bytearray()
    try:
        async with asyncio.timeout(limits.read_seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limits.max_body:
                    raise _too_large(limits)
                account.add(copies * len(chunk))
                body += chunk
    except TimeoutError:
        seconds = counted(limits.read_seconds, "second")
        raise Refusal(408, f"{len(body):,} bytes of the body came in {seconds}, and not the rest") from None
    return body


def media_type(request: Request) -> tuple[str, dict[str, str]]:
    """Return the media type of a body in lower case, and its parameters."""
    name, parameters = parse_options_header(request.headers.get("content-type", ""))
    return name.decode("latin-1").lower(), {
        key.decode("latin-1"): value.decode("latin-1") for key, value in parameters.items()
    }


def content(request: Request, body: bytearray, limits: Limits) -> Content:
    """Take a body apart: a form, JSON, or the file of one item.

    Raises Refusal for another media type, and for a body that is not of its type or holds too many items; InputError
    for wrong options and for JSON of another form.
    """
    kind, parameters = media_type(request)
    given = parsed(request.query_params.multi_items())
    if kind == FORM:
        uploads, texts = _form(body, parameters, limits)
        given = parsed([*request.query_params.multi_items(), *texts])
    elif kind == JSON:
        uploads, fields = _json(body)
        if twice := given.keys() & fields.keys():
            raise InputError(f"{quoted(min(twice))} is given twice, in the query and in the body")
        given |= fields
    elif not kind or kind.startswith(RAW):
        uploads = [Upload(body)]
    else:
        raise Refusal(415, f"the body is {quoted(kind)}; expected {FORM}, {JSON}, an image or a video")
    if not uploads:
        raise Refusal(400, "the request holds no images or videos")
    if len(uploads) > limits.max_items:
        raise Refusal(413, f"the request holds {len(uploads)} items; at most {limits.max_items} are encoded")
    options = Options.of(given)
    if options.format == "npy" and len(uploads) > 1:
        raise InputError(f"a .npy file holds the tokens of one item, not of {len(uploads)}: ask for safetensors")
    return Content(uploads, options)


def json_object(body: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object that a body is. Raises Refusal for any other body, and for a name that is given twice."""
    try:
        found = json.loads(body, object_pairs_hook=_named_once)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {quoted(str(error))}") from None
    if not isinstance(found, dict):
        raise Refusal(400, f"the body is a JSON {type(found).__name__}; expected an object")
    return found


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, of which the parser would keep the last of equal names only."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Refusal(400, f"{quoted(name)} is given twice in the body")
        found[name] = value
    return found


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"the body is larger than {limits.max_body:,} bytes, the limit of this service")


def _form(body: bytearray, parameters: Mapping[str, str], limits: Limits) -> tuple[list[Upload], list[tuple[str, str]]]:
    """Return the files of a form, and its other fields, which are options.

    A field named image or video says what its file is; other names leave that to its first bytes.
    """
    uploads, texts = [], []
    for part in form_parts(body, parameters.get("boundary", ""), limits.max_items):
        if part.is_file:
            name = part.name.removesuffix("s")
            uploads.append(Upload(part.content, name if name in KINDS else ""))
        else:
            texts.append((part.name, part.content.decode("utf-8", "replace")))
    return uploads, texts


def _json(body: bytearray) -> tuple[list[Upload], dict[str, Any]]:
    """Return the items of a JSON object, images first, and its other fields, which are options."""
    fields = json_object(body)
    uploads = []
    for kind in KINDS:
        items = fields.pop(f"{kind}s", [])
        if not isinstance(items, list):
            raise InputError(f"{kind}s is {quoted(items)}; expected a list")
        uploads += [Upload(_data(item, kind, index), kind) for index, item in enumerate(items)]
    return uploads, fields


def _data(item: object, kind: str, index: int) -> bytes:
    """Return the bytes of an item of a JSON object: base64, or a ``data:`` URL."""
    text = item.get("data") if isinstance(item, dict) and item.keys() == {"data"} else None
    if not isinstance(text, str):
        raise InputError(f'{kind} {index} is {quoted(item)}; expected {{"data": base64 or a data: URL}}')
    return decoded_url(text, kind) if ":" in text else decoded(text, kind)
