"""The description of the API as OpenAPI 3.1, written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qwenvis.server.requests.options import FORMATS, OPTIONS
from qwenvis.version import __version__

JSON, BINARY, TEXT = "application/json", {"type": "string", "format": "binary"}, {"type": "string"}
SCHEMAS = {str: "string", bool: "boolean", int: "integer", float: "number"}


def description(paths: Iterable[str]) -> dict[str, Any]:
    """Return the description of an API that has these paths."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "qwenvis", "version": __version__, "description": "Images and videos in, visual tokens out."},
        "paths": {path: _PATHS[path] for path in paths},
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _answer(text: str, **content: Any) -> dict[str, Any]:
    """Return the description of an answer by its words, and its content by media type."""
    return {"description": text, "content": {kind: {"schema": schema} for kind, schema in content.items()}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_ERROR = _object(error=_object(type=TEXT, message=TEXT, item={"type": ["integer", "null"]}))
_FAILURES = {
    "4XX": _answer("The request cannot be served; of 429, Retry-After says when it may be.", **{JSON: _ERROR}),
    "5XX": _answer("The service failed; of 503, Retry-After says when to try again.", **{JSON: _ERROR}),
}
_STATE = {"get": {"responses": {code: _answer(code, **{JSON: _object(status=TEXT)}) for code in ("200", "503")}}}
_DATA = _list(_object(data={"type": "string", "description": "base64, or a data: URL"}))
_FIELDS: dict[str, dict[str, Any]] = {name: {"type": SCHEMAS[kind]} for name, kind in OPTIONS.items()}
_FIELDS["format"]["enum"] = list(FORMATS)
_ITEMS = {"type": "object", "properties": {"images": _DATA, "videos": _DATA, **_FIELDS}}

_PATHS: dict[str, dict[str, Any]] = {
    "/v1/encode": {
        "post": {
            "summary": "Encode images and videos",
            "parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in _FIELDS.items()],
            "requestBody": {
                "required": True,
                "content": {
                    "application/octet-stream": {"schema": BINARY},
                    "image/*": {"schema": BINARY},
                    "video/*": {"schema": BINARY},
                    "multipart/form-data": {"schema": {"type": "object", "additionalProperties": BINARY}},
                    JSON: {"schema": _ITEMS},
                },
            },
            "responses": {
                "200": _answer(
                    "The tokens, in the format that was asked for. Qwenvis-Grid-Thw has the grid of each item.",
                    **{"application/octet-stream": BINARY, JSON: _list({"type": "object"})},
                ),
                **_FAILURES,
            },
        }
    },
    "/v1/model": {
        "get": {"summary": "The model and the limits", "responses": {"200": _answer("Facts", **{JSON: _object()})}}
    },
    "/v1/chat/completions": {
        "post": {
            "summary": "Encode the items of a chat request for vLLM, into its encoder cache",
            "requestBody": {"required": True, "content": {JSON: {"schema": _object(messages=_list(_object()))}}},
            "responses": {
                "200": _answer("Grids by identifier", **{JSON: _object(ec_transfer_params=_object())}),
                **_FAILURES,
            },
        }
    },
    "/health": _STATE,
    "/ready": _STATE,
    "/metrics": {"get": {"responses": {"200": _answer("Metrics for Prometheus", **{"text/plain": TEXT})}}},
}
