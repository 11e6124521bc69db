"""Files that are opened by name: regular ones at once, anything else never."""

import os
import socket
import threading
from pathlib import Path

import pytest

from made.presets import encoder
from qwenvis.errors import ImageError, VideoError
from qwenvis.io import files as io_files


def opened(path):
    with io_files.open_regular(path) as file:
        return file.read()


def refused(path):
    """The words for a path, which come at once: a thread that waits is not waited for."""
    words = []

    def work():
        try:
            opened(path)
        except (OSError, ValueError) as error:
            words.append(io_files.reason(error))

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
    with io_files.open_regular(path) as file:
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
    monkeypatch.setattr(io_files.Path, "stat", lambda _: seen)
    before = descriptors()
    assert refused(path) == "not a regular file but a named pipe"
    assert descriptors() == before


@pytest.mark.parametrize(("noun", "error"), [("images", ImageError), ("videos", VideoError)])
def test_p23_neither_an_image_nor_a_video_is_waited_for(noun, error, tmp_path):
    """A URL is named as such, also where a `Path` has taken a slash away."""
    os.mkfifo(tmp_path / "pipe.mp4")
    refused = {
        tmp_path / "pipe.mp4": "cannot be read: not a regular file but a named pipe",
        "/dev/zero": "cannot be read: not a regular file but a device",
        tmp_path: "is a directory",
        "https://example.org/a.mp4": "is a URL, and nothing is downloaded",
        Path("https://example.org/a.mp4"): "is a URL, and nothing is downloaded",
        "file:///a.mp4": "is a URL, and nothing is downloaded",
        "s3://bucket/a.mp4": "is a URL, and nothing is downloaded",
        "data:video/mp4;base64,AAAA": "is a URL, and nothing is downloaded",
    }
    for source, words in refused.items():
        with pytest.raises(error, match=words):
            encoder().encode(**{noun: source})


def test_file_objects_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"bytes")
    with path.open("rb") as closed:
        pass
    with path.open("wb") as written, path.open("r", encoding="utf-8") as text:
        refused = {closed: "is closed", written: "is not open for reading", text: "is open as text"}
        for source, words in refused.items():
            with pytest.raises(ImageError, match=words):
                encoder().encode(source)
            with pytest.raises(VideoError, match=words):
                encoder().encode(videos=[source])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"bytes")
    path.chmod(0)
    assert refused(path) == "Permission denied"
