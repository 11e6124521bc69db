"""The command line: one file for each command, and one line in `COMMANDS`.

Commands import NumPy and everything above it only when they run, so that ``qwenvis --help`` takes no time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NoReturn, Protocol

from qwenvis.cli import cache, completion, demo, doctor, encode, extract, info, pack, serve, show, units, verify
from qwenvis.errors import QwenvisError

OK, FAILED, INTERRUPTED, UNREAD = 0, 1, 130, 141  # argparse has 2


class Command(Protocol):
    """The contents of a command's file: a line and a paragraph of help, its arguments, and its action."""

    SUMMARY: str
    DESCRIPTION: str
    EXAMPLES: str

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command; return the exit code."""


COMMANDS: dict[str, Command] = {
    "encode": encode,
    "info": info,
    "extract": extract,
    "pack": pack,
    "verify": verify,
    "cache": cache,
    "doctor": doctor,
    "demo": demo,
    "show": show,
    "serve": serve,
    "completion": completion,
}

DESCRIPTION = "The vision encoder of Qwen-VL on a CPU: images in, visual tokens out."
EPILOG = """\
a SOURCE is one of
  DIRECTORY         a checkpoint in the Hub's layout: config.json and *.safetensors
  FILE.gguf         an mmproj file of llama.cpp (needs pip install 'qwenvis[gguf]')
  ORG/NAME          a Hub id, or ORG/NAME/FILE.gguf; unless a cache holds it, what the tower needs is downloaded
                    (needs pip install 'qwenvis[hub]')
  synthetic:PRESET  random weights in a published shape, such as synthetic:qwen2-vl-2b

examples
  qwenvis demo                                    try qwenvis, without a model or a network
  qwenvis info Qwen/Qwen2-VL-2B-Instruct cat.jpg  estimate the cost of cat.jpg on this machine
  qwenvis encode *.jpg --model Qwen/Qwen2-VL-2B-Instruct -o tokens.safetensors

environment
  QWENVIS_NUM_THREADS  number of threads without --threads (default: OMP_NUM_THREADS, else the available CPUs)
  QWENVIS_ISA          the instruction set to use; `qwenvis doctor` lists the available ones
  QWENVIS_CACHE        the directory of synthetic checkpoints and of downloaded towers (default: ~/.cache/qwenvis)
  HF_HUB_OFFLINE       1: send no request, as --local-files-only
  HF_TOKEN             the token for private and gated repos; it goes to the Hub's host only
  HF_HUB_CACHE, HF_ENDPOINT and others of huggingface_hub count too

exit codes
  0    success
  1    a file or an argument is unusable, a file could not be written, or what was checked is not as it should be; a
       message on stderr says why
  2    invalid command line
  3    a job has items that cannot be used; its manifest says why
  130  interrupted by Ctrl-C
  141  the reader of the output has closed the pipe
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (default: the process's arguments) names; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # File names may hold characters that the terminal cannot show, or bytes that are not text.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # Pillow warns about files that it reads nevertheless
        return _flushed(_outcome(argv))


def _outcome(argv: Sequence[str] | None) -> int:
    """Run the command; print what went wrong as one message, and return the exit code."""
    try:
        if completion.VARIABLE in os.environ:
            completion.answer(parser())
        args, unknown = parser().parse_known_args(argv)
        if unknown:
            args.parser.refuse(unknown)
        return COMMANDS[args.command].run(args)
    except SystemExit as done:  # argparse, after --help or a usage error
        return done.code if isinstance(done.code, int) else OK
    except QwenvisError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return UNREAD
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return _fail(f"{what}{error.strerror or error}")
    except MemoryError:
        return _fail("not enough memory; `qwenvis info SOURCE IMAGE` estimates the memory that an image needs")


def parser() -> _Parser:
    """Return the parser of the command line."""
    style: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    whole = _Parser("qwenvis", None, DESCRIPTION, EPILOG, **style)
    whole.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, command in COMMANDS.items():
        examples = f"examples\n{command.EXAMPLES}"
        added = commands.add_parser(
            name, help=command.SUMMARY, description=command.DESCRIPTION, epilog=examples, **style
        )
        command.add(added)
        added.set_defaults(parser=added)
    return whole


class _Parser(argparse.ArgumentParser):
    """A parser that names an unknown option before a missing argument, with the usage of the command that got it."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does. A usage error ends the process."""
        given = sys.argv[1:] if args is None else list(args)
        own = takewhile(lambda word: word != "--", given)
        if self._subparsers is not None:  # a word without a dash begins the command, whose options are not known here
            own = takewhile(lambda word: word.startswith("-"), own)
        options = (word for word in own if word.startswith("--"))
        if unknown := [word for word in options if word.partition("=")[0] not in self._option_string_actions]:
            self.refuse(unknown)
        return super().parse_known_args(given, namespace)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Print the usage and the unknown arguments, with the options that are close to them; end the process."""
        from difflib import get_close_matches

        names = (word.partition("=")[0] for word in unknown if word.startswith("--"))
        close = [match for name in names for match in get_close_matches(name, self._option_string_actions, 1, 0.8)]
        hint = f" (did you mean {' '.join(close)}?)" if close else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


class _Version(argparse.Action):
    """Print the version, which is looked up only now."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from qwenvis.version import __version__

        print(f"qwenvis {__version__}")
        parser.exit()


def _fail(message: str, code: int = FAILED) -> int:
    lines = map(units.name, message.split("\n"))
    with contextlib.suppress(OSError):
        print("qwenvis:", "\n".join(lines), file=sys.stderr, flush=True)
    return code


def _flushed(code: int) -> int:
    """Flush the output, and return the exit code: another one if the output cannot be written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Discard the rest of the buffer, or the interpreter would fail on it at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return code or UNREAD
        return code or _fail(f"the output cannot be written: {error.strerror}")
    return code
