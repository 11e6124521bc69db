"""The command line: one file per command, one line each in `COMMANDS`.

Commands import NumPy and everything above it only when they run, so that ``qwenvis --help`` takes no time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

from qwenvis.cli import demo, doctor, encode, info, pack, units
from qwenvis.errors import QwenvisError

OK, FAILED, INTERRUPTED, UNREAD = 0, 1, 130, 141  # argparse has 2


class Command(Protocol):
    """What a command's file holds: a line and a paragraph of help, its arguments, and what it does."""

    SUMMARY: str
    DESCRIPTION: str
    EXAMPLES: str

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; returns the exit code."""


COMMANDS: dict[str, Command] = {"encode": encode, "info": info, "pack": pack, "doctor": doctor, "demo": demo}

DESCRIPTION = "The vision encoder of Qwen-VL on a CPU: images in, visual tokens out."
EPILOG = """\
a SOURCE is one of
  DIRECTORY         a checkpoint in the Hub's layout: config.json and *.safetensors
  FILE.gguf         the mmproj of llama.cpp (needs pip install 'qwenvis[gguf]')
  ORG/NAME          a Hub id that is in the local Hugging Face cache, or ORG/NAME/FILE.gguf; nothing is downloaded
  synthetic:PRESET  random weights in a published shape, such as synthetic:qwen2-vl-2b

examples
  qwenvis demo                                    see it work: no model, no network
  qwenvis info Qwen/Qwen2-VL-2B-Instruct cat.jpg  what cat.jpg will cost here
  qwenvis encode *.jpg --model Qwen/Qwen2-VL-2B-Instruct -o tokens.safetensors

environment
  QWENVIS_NUM_THREADS  threads, where --threads is not given (then OMP_NUM_THREADS, then the CPUs that may be used)
  QWENVIS_ISA          force an instruction set; `qwenvis doctor` lists those that are here
  QWENVIS_CACHE        where synthetic checkpoints are kept (default ~/.cache/qwenvis)

exit codes
  0    done
  1    something could not be used or written; one message on stderr says what
  2    the command line is wrong
  130  interrupted by Ctrl-C
  141  nobody reads the output any more
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (default: the process's arguments) names; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # File names may hold what the terminal cannot show, or bytes that are no text at all.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # Pillow's, about files that it can read all the same
        return _flushed(_outcome(argv))


def _outcome(argv: Sequence[str] | None) -> int:
    """The exit code; what went wrong is said in one message."""
    try:
        args = _parser().parse_args(argv)
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
        return _fail("there is not enough memory; `qwenvis info SOURCE IMAGE` says how much an image takes")


def _parser() -> argparse.ArgumentParser:
    style: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser("qwenvis", None, DESCRIPTION, EPILOG, **style)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, command in COMMANDS.items():
        examples = f"examples\n{command.EXAMPLES}"
        added = commands.add_parser(
            name, help=command.SUMMARY, description=command.DESCRIPTION, epilog=examples, **style
        )
        command.add(added)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

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
    """The exit code once the output has left the process, or has been found to go nowhere."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer goes nowhere, or the interpreter would fail on it at its end.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return code or UNREAD
        return code or _fail(f"the output cannot be written: {error.strerror}")
    return code
