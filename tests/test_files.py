"""Files that are opened by name: regular ones at once, anything else never."""

import os
import socket
import threading
from pathlib import Path

import pytest

from qwenvis import files


def opened(path):
    with files.open_regular(path) as file:
        return file.read()


def refused(path):
    """The words for a path, which come at once: a thread that waits is not waited for."""
    words = []

    def work():
        try:
            opened(path)
        except (OSError, ValueError) as error:
            words.append(files.reason(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    return words[0]


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_regular_files_and_links_to_them(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\r\nbytes")
    (tmp_path / "link").symlink_to(path)
    assert opened(path) == opened(str(tmp_path / "link")) == b"\r\nbytes"
    with files.open_regular(path) as file:
        assert not os.get_inheritable(file.fileno())


def test_everything_else_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(os.path.relpath(tmp_path / "socket"))
        assert refused(tmp_path / "socket") == "not a regular file but a socket"
    assert refused(tmp_path / "pipe") == refused(tmp_path / "link") == "not a regular file but a named pipe"
    assert refused("/dev/null") == "not a regular file but a device"
    assert refused(tmp_path) == "Is a directory"
    assert refused(tmp_path / "none") == "there is no such file"
    assert "symbolic links" in refused(tmp_path / "loop")
    assert "null" in refused("a\0b")
    assert refused("x" * 5000) == "File name too long"


def test_a_pipe_that_takes_the_place_of_a_file(tmp_path, monkeypatch):
    """Between the look at it and the opening."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"bytes")
    seen = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(files.Path, "stat", lambda _: seen)
    before = descriptors()
    assert refused(path) == "not a regular file but a named pipe"
    assert descriptors() == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"bytes")
    path.chmod(0)
    assert refused(path) == "Permission denied"
