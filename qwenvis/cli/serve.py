"""``qwenvis serve``: answer images and videos with their tokens, over HTTP."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenvis.cli import arguments, steps, units
from qwenvis.errors import InputError, PackageError, shown

if TYPE_CHECKING:
    from qwenvis.server.requests.limits import Limits

SUMMARY = "answer images and videos with their visual tokens, over HTTP"
DESCRIPTION = """\
Load a tower, and serve it: POST /v1/encode takes an image, a form of several files, or JSON, and answers with their
visual tokens as safetensors, .npy or parts of a message to vLLM. Requests that wait together share a forward pass.
GET / is a page to try it, /metrics is for Prometheus, /openapi.json describes the API (docs/serve.md).

The service listens on this machine only. Another --host needs a token, from --token-file or the variable QWENVIS_TOKEN,
which clients send as "Authorization: Bearer TOKEN". What a request may ask for is limited; each limit has an option.
SIGTERM ends the service once every request that was accepted has its answer.
"""
EXAMPLES = """\
  qwenvis serve --model Qwen/Qwen2-VL-2B-Instruct
  curl --data-binary @cat.jpg http://127.0.0.1:8000/v1/encode -o cat.safetensors
  qwenvis serve --model ./my-checkpoint --host 0.0.0.0 --token-file token.txt --memory 8GB
  qwenvis serve --model ./my-checkpoint --vllm-cache /dev/shm/tokens
"""
VARIABLE = "QWENVIS_TOKEN"
INSTALL = "pip install 'qwenvis[serve]'"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--model", required=True, metavar="SOURCE", help=f"the checkpoint: {arguments.SOURCE}")
    text = "the address to listen on (default: %(default)s, this machine only)"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    text = "the port to listen on; 0 chooses a free one (default: %(default)s)"
    parser.add_argument("--port", type=_port, default=8000, metavar="N", help=text)
    parser.add_argument("--token-file", metavar="FILE", help="a file with the token that clients have to send")
    text = "be an encode worker of vLLM too: write tokens into this directory of its encoder cache"
    parser.add_argument("--vllm-cache", metavar="DIR", help=text)
    arguments.add_dtype(parser)
    arguments.add_threads(parser)
    arguments.add_limits(parser)
    arguments.add_cache(parser)
    arguments.add_hub(parser)
    _add_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until the process is asked to end; return the exit code."""
    try:
        from qwenvis.server.app import application
        from qwenvis.server.run import bound, serve
        from qwenvis.server.security import LOOPBACK, checked_token
        from qwenvis.server.service import Service
    except ImportError as error:
        if isinstance(error, PackageError):
            raise
        raise PackageError(f"qwenvis serve needs {error.name}: {INSTALL} ({error})") from error
    from qwenvis.concurrency import malloc
    from qwenvis.concurrency.threads import resolve
    from qwenvis.spec import ModelSpec

    malloc.keep_little()  # before threads read the weights
    token = None if (text := _token(args.token_file)) is None else checked_token(text)
    if token is None and args.host not in LOOPBACK:
        raise InputError(f"--host {args.host} is not this machine alone: pass --token-file FILE, or set {VARIABLE}")
    limits, cache = _limits(args), arguments.cache(args)
    listening = bound(args.host, args.port)
    pixels = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    spec = ModelSpec.open(args.model, dtype=args.dtype, **arguments.hub(args), **pixels)
    encoder = steps.load(spec, resolve(args.threads), cache)
    service = Service(encoder, _name(args.model), limits)
    app = application(service, token=token, vllm_cache=args.vllm_cache and Path(args.vllm_cache).expanduser())

    def ready() -> None:
        host, port = listening.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"{encoder.family} in {encoder.format} on {encoder.isa}: serving on {url}", file=sys.stderr, flush=True)

    serve(app, listening, limits, ready)
    return 0


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Add an option for each limit."""
    from qwenvis.server.requests.limits import Limits

    group = parser.add_argument_group("limits")
    for each in fields(Limits):
        unit = each.metadata["unit"]
        kind, metavar = _UNITS[unit]
        value: int = each.default  # type: ignore[assignment]
        default = units.nbytes(value) if unit == "bytes" else f"{value:,} {unit}".strip()
        text = f"{each.metadata['text']} (default: {default})"
        group.add_argument(_option(each.name), type=kind, default=value, metavar=metavar, help=text)


_UNITS: dict[str, tuple[Callable[[str], int], str]] = {
    "": (arguments.positive, "N"),
    "bytes": (arguments.bound, "SIZE"),
    "pixels": (arguments.pixels, "N"),
    "seconds": (arguments.positive, "SECONDS"),
}


def _limits(args: argparse.Namespace) -> Limits:
    """Return the limits that the options give."""
    from qwenvis.server.requests.limits import Limits

    given: dict[str, Any] = {each.name: getattr(args, each.name) for each in fields(Limits)}
    return Limits(**given)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _port(text: str) -> int:
    """Parse a port, from 0 to 65535."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, from 0 to 65535")
    return int(text)


def _token(file: str | None) -> str | None:
    """Return the token of a file, or else that of the environment, or None."""
    if file is None:
        return os.environ.get(VARIABLE)
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(file)} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _name(model: str) -> str:
    """Return the name of a checkpoint as clients see it: of a path, only its last part."""
    path = Path(model).expanduser()
    return path.resolve().name if path.exists() else model
