"""``qwenvis completion``: a script with which a shell completes the arguments of qwenvis, through argcomplete."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from qwenvis.errors import PackageError

SUMMARY = "print a script that completes commands, options and names in bash, zsh or fish"
DESCRIPTION = """\
Print the script with which a shell completes commands, options, choices, files, presets, and the models in the Hugging
Face cache. The script asks this program for completions, through argcomplete: pip install 'qwenvis[completion]'.
"""
EXAMPLES = """\
  qwenvis completion bash > ~/.local/share/bash-completion/completions/qwenvis
  eval "$(qwenvis completion zsh)"    in ~/.zshrc, below compinit
  qwenvis completion fish > ~/.config/fish/completions/qwenvis.fish
"""
SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_ARGCOMPLETE"  # which the scripts set when they ask for completions


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read the script")


def run(args: argparse.Namespace) -> int:
    """Print the script; return the exit code."""
    print(_argcomplete().shellcode(["qwenvis"], use_defaults=False, shell=args.shell).strip())
    return 0


def answer(parser: argparse.ArgumentParser) -> None:
    """Write the completions of the command line that a shell has put into the environment, and end the process.

    Raises PackageError without argcomplete.
    """
    for action in actions(parser):
        if complete := COMPLETERS.get(word(action)):
            action.completer = complete  # type: ignore[attr-defined]
    _argcomplete().autocomplete(parser, always_complete_options=False)


def _argcomplete() -> ModuleType:
    try:
        import argcomplete
    except ImportError as error:
        text = "the completion of commands needs argcomplete, which is not installed"
        raise PackageError(f"{text}: pip install 'qwenvis[completion]' ({error})") from error
    return argcomplete


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)


def word(action: argparse.Action) -> str:
    """Return the word that stands for the value of an argument in the help."""
    return str(action.metavar or action.dest.upper())


def _files(prefix: str, suffix: str = "", **_: object) -> Iterator[str]:
    """Yield directories, and the files whose name has a suffix. Hidden ones are completed from their dot on."""
    place, slash, name = prefix.rpartition("/")
    with suppress(OSError), os.scandir(Path(f"{place}{slash}" or ".").expanduser()) as entries:
        for entry in entries:
            if entry.name.startswith(name) and entry.name.startswith(".") <= name.startswith("."):
                if entry.is_dir():
                    yield f"{place}{slash}{entry.name}/"
                elif entry.name.endswith(suffix):
                    yield f"{place}{slash}{entry.name}"


def _directories(prefix: str, **_: object) -> Iterator[str]:
    return _files(prefix, "/")


def _sources(prefix: str, **_: object) -> Iterator[str]:
    """Yield checkpoints: directories, mmproj files, presets, and the ids of models in the Hugging Face cache."""
    from qwenvis.sources.caches import hub_cache

    if prefix.startswith(PRESET):
        from qwenvis.sources.presets import PRESETS

        yield from (f"{PRESET}{name}" for name in PRESETS)
        return
    yield PRESET
    for model in hub_cache().glob("models--*--*"):
        yield model.name.removeprefix("models--").replace("--", "/", 1)
    yield from _files(prefix, ".gguf")


def _dtypes(**_: object) -> list[str]:
    from qwenvis.nn.formats import AUTO, DTYPES

    return [*DTYPES, AUTO]


def _references(**_: object) -> list[str]:
    from qwenvis.comparison.comparison import TRANSFORMERS

    return [*_dtypes(), TRANSFORMERS]


def _rules(**_: object) -> Iterable[str]:
    from qwenvis.processors.video import SAMPLINGS

    return SAMPLINGS


def _nothing(**_: object) -> Iterable[str]:
    return ()


PRESET = "synthetic:"
# The values of arguments, by the word that stands for them in the help.
COMPLETERS: dict[str, Callable[..., Iterable[str]]] = {
    "SOURCE": _sources,
    "IMAGE": _files,
    "INPUT": _files,
    "FILE": _files,
    "DIR": _directories,
    "DIRECTORY": _directories,
    "DTYPE": _dtypes,
    "REFERENCE": _references,
    "RULE": _rules,
    **dict.fromkeys(("N", "X", "SIZE", "REF", "GLOB", "NAME", "I/N", "ADDRESS", "SECONDS"), _nothing),
}
