"""``qwenvis completion``: shells that are typed into, and the words that they complete."""

import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import termios
import time

import pytest

from house.source_files import ROOT
from qwenvis import cli
from qwenvis.cli import completion
from qwenvis.nn.formats import DTYPES

pytest.importorskip("argcomplete")

# An interactive shell without files of the user, and the lines that prepare it, to which the script is added.
INTERACTIVE = {
    "bash": (["--norc", "--noprofile", "-i"], "bind 'set enable-bracketed-paste off'; bind 'set bell-style none'"),
    "zsh": (["-f", "-i"], "unsetopt prompt_cr prompt_sp; autoload -U compinit; compinit -D -u"),
    "fish": (["--no-config", "-i"], "function fish_prompt; end"),
}
LINES = [
    ("enc", ["encode"]),
    ("encode --mo", ["encode", "--model"]),
    ("encode my", ["encode", "my cat.jpg"]),
    ("encode a.jpg --model synthetic:qwen2-vl-2", ["encode", "a.jpg", "--model", "synthetic:qwen2-vl-2b"]),
    ("info x --sampling tr", ["info", "x", "--sampling", "transformers"]),
    ("cache prune to", ["cache", "prune", "tokens/"]),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files, and a program ``qwenvis`` in the path."""
    program = tmp_path / "bin" / "qwenvis"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m qwenvis "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")
    work = tmp_path / "pictures"
    (work / "tokens").mkdir(parents=True)
    for name in ("my cat.jpg", "mmproj.gguf", ".hidden.jpg"):
        (work / name).touch()
    monkeypatch.chdir(work)
    return work


def control():
    """Make the standard input the terminal that controls this process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A shell in a terminal, whose command line is typed."""

    def __init__(self, shell):
        options, prepare = INTERACTIVE[shell]
        self.end, inside = pty.openpty()
        self.process = subprocess.Popen(
            [shell, *options], stdin=inside, stdout=inside, stderr=inside, start_new_session=True, preexec_fn=control
        )
        os.close(inside)
        self.type(f"{prepare}\n")

    def type(self, keys):
        os.write(self.end, keys.encode())

    def complete(self, line):
        """Return the words of a line after a tab: the shell prints them, since Ctrl-A puts another command before."""
        self.type(f"{line}\t .\x01printf '<%s>' \n")
        seen, deadline = "", time.monotonic() + 60
        while not (found := re.search(r"((<[^<>]*>)+)<\.>", seen)):
            assert time.monotonic() < deadline, seen
            if select.select([self.end], [], [], 0.1)[0]:
                seen += os.read(self.end, 4096).decode(errors="replace")
        return found[1][1:-1].split("><")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.end)


@pytest.mark.parametrize("shell", INTERACTIVE)
def test_shells_complete(folder, run, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    code, script, err = run(f"completion {shell}")
    assert (code, err) == (0, "")
    (folder.parent / "script").write_text("\n".join(script))
    terminal = Terminal(shell)
    try:
        terminal.type("source ../script\n" if shell != "zsh" else 'eval "$(cat ../script)"\n')
        for line, words in LINES:
            assert terminal.complete(f"qwenvis {line}") == ["qwenvis", *words]
    finally:
        terminal.close()


def test_every_value_has_a_completer():
    """Each argument that takes a value has choices, or a word in the help that says what it is."""
    taking = [action for action in completion.actions(cli.parser()) if action.nargs != 0 and action.choices is None]
    assert {completion.word(action) for action in taking} == completion.COMPLETERS.keys()


@pytest.mark.parametrize(
    ("word", "prefix", "found"),
    [
        ("FILE", "", ["mmproj.gguf", "my cat.jpg", "tokens/"]),
        ("FILE", ".", [".hidden.jpg"]),
        ("FILE", "../pictures/my", ["../pictures/my cat.jpg"]),
        ("FILE", "~/pictures/to", ["~/pictures/tokens/"]),
        ("FILE", "nowhere/", []),
        ("DIR", "", ["tokens/"]),
        ("SOURCE", "", ["mmproj.gguf", "org/a-model", "synthetic:", "tokens/"]),
        ("DTYPE", "", ["auto", *DTYPES]),
        ("N", "", []),
    ],
)
def test_completers(folder, monkeypatch, word, prefix, found):
    (folder.parent / "hub" / "models--org--a-model").mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(folder.parent / "hub"))
    assert sorted(completion.COMPLETERS[word](prefix=prefix)) == sorted(found)


def test_without_argcomplete(folder, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    code, lines, err = run("completion zsh")
    assert (code, lines) == (1, [])
    assert "pip install 'qwenvis[completion]'" in err
    monkeypatch.setenv(completion.VARIABLE, "1")
    assert run("")[0] == 1
