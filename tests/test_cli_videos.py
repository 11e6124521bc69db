"""Videos on the command line."""

import clips_made
import pytest
from towers import checkpoint, same_bits

import qwenvis
from qwenvis import cli


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line in a folder with a video: (exit code, lines on stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(clips_made.film(clips_made.frames(30)))
    (tmp_path / "bad.mp4").write_bytes(b"no video")

    def run(line):
        code = cli.main(line.split())
        out, err = capsys.readouterr()
        return code, [" ".join(each.split()) for each in out.splitlines()], err

    return run


def test_encode(run, tmp_path):
    code, lines, _ = run(f"encode clip.mp4 --model {checkpoint()} --num-frames 8 -o out.safetensors --threads 1")
    assert (code, lines) == (0, ["clip.mp4 96 x 64 grid_thw 4 4 6 24 tokens"])
    out = qwenvis.Embeddings.load(tmp_path / "out.safetensors")
    want = qwenvis.Encoder.from_pretrained(checkpoint(), threads=1).encode(videos=tmp_path / "clip.mp4", num_frames=8)
    assert same_bits(out.embeddings, want.embeddings)
    assert same_bits(out.timestamps[0], want.timestamps[0])


def test_info(run):
    code, lines, _ = run(f"info {checkpoint()} clip.mp4 --fps 4 --max-pixels 56x56 --threads 1")
    assert code == 0
    assert any(line.startswith("clip.mp4 96 x 64 56 x 28 6 2 4 12") for line in lines), lines


@pytest.mark.parametrize("command", ["encode bad.mp4 clip.mp4 --model {}", "info {} bad.mp4"])
def test_a_bad_video(run, command):
    code, _, err = run(command.format(checkpoint()))
    assert code == 1
    assert "video 0 ('bad.mp4') is no video, or is damaged" in err


@pytest.mark.parametrize("option", ["--fps 0", "--fps fast", "--num-frames 1.5"])
def test_numbers_that_cannot_be(run, option):
    code, _, err = run(f"info {checkpoint()} clip.mp4 {option}")
    assert code == 2
    assert "number above 0" in err
