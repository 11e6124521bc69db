"""Videos on the command line."""

import io

import pytest
from PIL import Image

import qwenvis
from made import video_files
from made.presets import checkpoint, same_bits


@pytest.fixture
def run(run, tmp_path, monkeypatch):
    """Run a command line in a folder with a video: (exit code, lines on stdout without padding, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(video_files.encoded(video_files.frames(30)))
    (tmp_path / "bad.mp4").write_bytes(b"no video")

    def run_here(line):
        code, lines, err = run(line)
        return code, [" ".join(each.split()) for each in lines], err

    return run_here


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
    assert "video 0 ('bad.mp4') is not a video, or is damaged" in err


@pytest.mark.parametrize("option", ["--fps 0", "--fps fast", "--num-frames 1.5"])
def test_numbers_that_cannot_be(run, option):
    code, _, err = run(f"info {checkpoint()} clip.mp4 {option}")
    assert code == 2
    assert "number above 0" in err


# One rule for what is a video, by the bytes.


def animation(form):
    file = io.BytesIO()
    first, *others = [Image.fromarray(frame) for frame in video_files.frames(6)]
    first.save(file, form, save_all=True, append_images=others, duration=100)
    return file.getvalue()


NAMED = [
    ("a.wmv", "asf", "wmv2"),
    ("b.m2ts", "mpegts", "libx264"),
    ("c", "mp4", "mpeg4"),
    ("d.mpeg4", "m4v", "mpeg4"),
    ("e.jpg", "avi", "mpeg4"),
]


@pytest.mark.parametrize(("name", "form", "codec"), NAMED)
def test_a_video_by_any_name(run, tmp_path, name, form, codec):
    (tmp_path / name).write_bytes(video_files.encoded(video_files.frames(30), form=form, codec=codec, fps=25))
    code, lines, err = run(f"info {checkpoint()} {name} --num-frames 4 --threads 1")
    assert (code, err) == (0, "")
    assert any(line.startswith(f"{name} 96 x 64 ") and " 2 4 6 12 " in line for line in lines), lines


def test_a_picture_by_the_name_of_a_video(run, tmp_path):
    Image.fromarray(video_files.frames(1)[0]).save(tmp_path / "photo.mp4", "PNG")
    code, lines, _ = run(f"encode photo.mp4 --model {checkpoint()} -o out.safetensors --threads 1")
    assert (code, lines) == (0, ["photo.mp4 96 x 64 grid_thw 1 4 6 6 tokens"])


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("beside", ["", " clip.mp4"])
def test_an_animated_image(run, tmp_path, form, beside):
    """A still, as encode("a.gif") has it, whatever is beside it; a video where frames are asked for."""
    (tmp_path / "a.gif").write_bytes(animation(form))
    line = f"encode a.gif{beside} --model {checkpoint()} -o out.safetensors --threads 1"
    code, lines, _ = run(line)
    assert (code, lines[0].split("grid_thw")[1].split()[0]) == (0, "1")
    out = qwenvis.Embeddings.load(tmp_path / "out.safetensors").items()[0]
    want = qwenvis.Encoder.from_pretrained(checkpoint(), threads=1).encode(tmp_path / "a.gif")
    assert same_bits(out.embeddings, want.embeddings)
    assert out.sources == ["a.gif"]
    for option in ("--num-frames 4", "--sampling all", "--sampling natural", "--fps 4"):
        code, lines, _ = run(f"{line} {option}")
        assert (code, lines[0].split("grid_thw")[1].split()[0]) == (0, "3" if "all" in option else "2")


def test_the_order_of_what_is_named(run, tmp_path):
    """Stills, animations and videos in any order: each line and item is that of its file."""
    (tmp_path / "a.gif").write_bytes(animation("GIF"))
    Image.fromarray(video_files.frames(1)[0]).save(tmp_path / "a.png")
    named = ["clip.mp4", "a.png", "a.gif", "clip.mp4", "a.png"]
    code, lines, _ = run(f"encode {' '.join(named)} --model {checkpoint()} -o out.safetensors --threads 1")
    assert (code, [line.split()[0] for line in lines]) == (0, named)
    out = qwenvis.Embeddings.load(tmp_path / "out.safetensors")
    assert out.sources == named
    model = qwenvis.Encoder.from_pretrained(checkpoint(), threads=1)
    for name, item in zip(named, out, strict=True):
        want = model.encode(videos=[name]) if name == "clip.mp4" else model.encode(name)
        assert same_bits(item.embeddings, want.embeddings)


def test_counts_that_are_too_large(run):
    code, _, err = run("info synthetic:tiny-qwen3-vl clip.mp4 --num-frames 2000000000")
    assert code == 1
    assert "2,000,000,000 frames would be examined" in err
