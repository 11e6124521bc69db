"""What a command does with each file that it names: the file is planned once, and opened no more often than needed."""

from collections import Counter

import pytest

from made import images, video_files
from made.presets import checkpoint
from qwenvis import cli
from qwenvis.io import files
from qwenvis.processors.image import ImageProcessor
from qwenvis.videos.playback import PlaybackDecoder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A home directory, which is also the current one, with an image and a video."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "clip.mp4").write_bytes(video_files.encoded(video_files.frames(30)))
    (tmp_path / "cat.png").write_bytes(images.png(images.noise(61, 97)))
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """Count the times that a file is opened, a video is planned, and a size is computed."""
    counted = Counter()

    def count(owner, name, key):
        call = getattr(owner, name)

        def counting(*args, **options):
            counted[key(*args)] += 1
            return call(*args, **options)

        monkeypatch.setattr(owner, name, counting)

    count(files, "open_regular", lambda path: str(path))
    count(PlaybackDecoder, "_planned", lambda *_: "planned")
    count(ImageProcessor, "_size", lambda *_: "sized")
    return counted


@pytest.mark.parametrize("options", ["", " --num-frames 8"])
def test_encode_plans_a_file_once(folder, calls, capsys, options):
    """A video is opened to tell its kind (by its bytes, then as an animation), to plan it, and to decode it."""
    assert cli.main(f"encode cat.png clip.mp4 --model {checkpoint()} --threads 1{options}".split()) == 0
    assert calls["planned"] == calls["sized"] == 1
    assert calls["clip.mp4"] <= 4
    assert calls["cat.png"] <= 4 + bool(options)


def test_info_plans_a_file_once(folder, calls, capsys):
    assert cli.main(f"info {checkpoint()} cat.png clip.mp4".split()) == 0
    assert calls["planned"] == calls["sized"] == 1
    assert calls["clip.mp4"] <= 3
    assert calls["cat.png"] <= 2


def test_a_home_is_expanded(folder, capsys):
    assert cli.main(f"encode ~/cat.png ~/clip.mp4 --model {checkpoint()} -o ~/out.safetensors".split()) == 0
    assert (folder / "out.safetensors").is_file()
    assert capsys.readouterr().out.startswith("~/cat.png")


def test_options_for_videos_without_any_file(folder, capsys):
    assert cli.main(["info", "--fps", "2"]) == 1
    assert "--fps would choose the frames of videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "encode cat.png --model x --max-pixel 3",
            "unrecognized arguments: --max-pixel (did you mean --max-pixels?)",
        ),
        (
            "encode cat.png --model x --max_pixels=3",
            "unrecognized arguments: --max_pixels=3 (did you mean --max-pixels?)",
        ),
        ("info x --zzz", "qwenvis info: error: unrecognized arguments: --zzz\n"),
        ("encode --modle x", "qwenvis encode: error: unrecognized arguments: --modle (did you mean --model?)"),
        ("cache list --jsn", "qwenvis cache list: error: unrecognized arguments: --jsn (did you mean --json?)"),
        ("cache --zzz list", "qwenvis cache: error: unrecognized arguments: --zzz\n"),
        ("--versoin encode --zzz", "qwenvis: error: unrecognized arguments: --versoin (did you mean --version?)"),
        ("encode cat.png -z --model x", "qwenvis encode: error: unrecognized arguments: -z\n"),
    ],
)
def test_a_typo_gets_a_suggestion(folder, capsys, line, told):
    assert cli.main(line.split()) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.startswith(f"usage: {err.split(': error')[0].splitlines()[-1]} ")
