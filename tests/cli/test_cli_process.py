"""The command line as a process: how fast it starts, how it stops, and what becomes of it when nobody listens."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from house.source_files import ROOT
from qwenvis.cli import INTERRUPTED, UNREAD

TINY = "synthetic:tiny-qwen2-vl"
PYTHON = [sys.executable, "-m", "qwenvis"]


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A folder to work in, with its own cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWENVIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_starts_at_once(environment, option):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([*PYTHON, option], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    print(f"qwenvis {option}: {min(seconds) * 1e3:.0f} ms")
    assert min(seconds) < 1


def test_help_imports_nothing_heavy(environment):
    code = (
        "import sys; from qwenvis.cli import main; main(['--help']); print(sorted({'numpy', 'PIL'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_stops_an_encode_at_once_and_leaves_nothing(environment):
    Image.new("RGB", (4000, 3000), (200, 100, 50)).save("large.png")
    terminal, inside = pty.openpty()
    command = [*PYTHON, "encode", "large.png", "--model", TINY, "-o", "out.safetensors", "--threads", "1"]
    process = subprocess.Popen(command, stderr=inside, stdout=subprocess.PIPE, preexec_fn=hear_interrupts)
    os.close(inside)
    try:
        read_until(terminal, b"encoding  [", process)
        process.send_signal(signal.SIGINT)
        screen = read_until(terminal, b"qwenvis: interrupted\r\n", process)
        assert process.wait(timeout=60) == INTERRUPTED
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
        os.close(terminal)
    assert b"Traceback" not in screen
    assert sorted(path.name for path in environment.iterdir()) == ["cache", "large.png"]


def hear_interrupts():
    """What a shell starts in its background inherits that they are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read_until(terminal, words, process):
    """What the process shows on its terminal, up to some words."""
    seen, deadline = b"", time.monotonic() + 60
    while words not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 4096)
        else:
            assert process.poll() is None, seen
    return seen


@pytest.mark.parametrize("command", [["info", TINY], ["doctor"]])
def test_a_closed_pipe_is_no_traceback(environment, command):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PYTHON, *command], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (UNREAD, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_behind_stdout_is_said(environment):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*PYTHON, "info", TINY], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert re.fullmatch("qwenvis: (.*: )?No space left on device\n", done.stderr)


def test_a_terminal_without_unicode(environment):
    code = f"import sys; from qwenvis.cli import main; sys.exit(main(['info', {TINY!r}, '\\u2603\\udcff.png']))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert b"no such file" in done.stderr
    assert done.stderr.isascii()


def test_an_unknown_isa_is_one_line(environment):
    done = subprocess.run(
        [*PYTHON, "info", TINY], capture_output=True, text=True, env={**os.environ, "QWENVIS_ISA": "abacus"}
    )
    assert done.returncode == 1
    assert done.stderr.startswith("qwenvis: ISA 'abacus' is not in this build")
    assert done.stderr.count("\n") == 1
