"""``qwenvis verify``: the tables, the JSON, the bound and the picture."""

import json
import math
import sys

import numpy as np
import pytest
from PIL import Image

from comparison.perturbing import perturb
from made import video_files
from made.presets import checkpoint, picture
from oracle.tolerance import TOWER
from qwenvis import Encoder, ModelSpec, geometry
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.cli import demo
from qwenvis.comparison import compare
from qwenvis.embeddings import page as pages
from qwenvis.embeddings import picture as drawing
from qwenvis.models import qwen2_vl

MEASURES = ["rows", "relative_rms", "largest_error", "mean_cosine", "smallest_cosine"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with two images and a video."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture(84, 140)).save("wide.png")
    Image.fromarray(picture(60, 90)).save("small.png")
    (tmp_path / "clip.mp4").write_bytes(video_files.encoded(video_files.frames(8)))
    return tmp_path


def double(monkeypatch, row):
    """Double one token of what is compared with the reference."""

    def change(tokens):
        tokens[row] *= 2

    perturb(monkeypatch, change)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_tables(run, family):
    code, lines, err = run(f"verify {checkpoint(family)} wide.png small.png clip.mp4 --num-frames 4 --threads 1")
    assert (code, err) == (0, "")
    found = compare(
        ModelSpec.open(checkpoint(family), dtype="bfloat16"),
        ["wide.png", "small.png"],
        videos=["clip.mp4"],
        num_frames=4,
        threads=1,
    )
    assert lines[0] == f"{checkpoint(family)}: bfloat16 against float32, 3 items"
    names = ["patch embedding", *(f"block {i}" for i in range(4)), "tokens"]
    names += ["deepstack 0", "deepstack 1"] * (family == "qwen3_vl")
    deviations = [*found.layers, found.tokens, *found.deepstack, *(item.tokens for item in found.items)]
    rows = [line.rsplit(None, 5) for line in lines[1:] if line and "cosine" not in line]
    assert [name for name, *_ in rows] == [*names, "wide.png", "small.png", "clip.mp4"]
    for (_, count, *measures), each in zip(rows, deviations, strict=True):
        assert int(count.replace(",", "")) == each.rows
        assert measures[0] == f"{each.relative_rms:.2e}"
        assert measures[1] == f"{each.largest_error:.2e}"
        assert measures[2:] == [f"{each.mean_cosine:.6f}", f"{each.smallest_cosine:.6f}"]


def test_json(run):
    code, lines, err = run(f"verify {checkpoint('qwen3_vl')} wide.png clip.mp4 --json --threads 1")
    assert (code, err) == (0, "")
    found = json.loads("\n".join(lines))
    parts = ["dtype", "against", "tokens", "deepstack", "layers", "items", "largest_relative_rms"]
    assert list(found) == parts
    assert (found["dtype"], found["against"]) == ("bfloat16", "float32")
    assert (len(found["deepstack"]), len(found["layers"]), len(found["items"])) == (2, 5, 2)
    assert [list(item) for item in found["items"]] == [["source", "grid_thw", "tokens", "deepstack"]] * 2
    assert [item["source"] for item in found["items"]] == ["wide.png", "clip.mp4"]
    outputs = [(item["tokens"], *item["deepstack"]) for item in found["items"]]
    deviations = [found["tokens"], *found["deepstack"], *found["layers"], *sum(outputs, ())]
    assert all(list(each) == MEASURES for each in deviations)
    assert found["largest_relative_rms"] == max(each["relative_rms"] for each in sum(outputs, ()))


def test_without_images_there_is_one(run):
    code, lines, _ = run(f"verify {checkpoint()} --max-pixels 56x56 --threads 1")
    assert code == 0
    assert lines[-1].split()[0].endswith(demo.PICTURE)


def test_bound(run):
    line = f"verify {checkpoint('qwen3_vl')} wide.png small.png --threads 1"
    largest = json.loads("\n".join(run(f"{line} --json")[1]))["largest_relative_rms"]
    assert run(f"{line} --bound {largest!r}")[::2] == (0, "")
    code, lines, err = run(f"{line} --bound {math.nextafter(largest, 0)!r}")
    assert code == 1
    assert lines[0].endswith("2 items")
    assert "1 of 2 items; the largest is " in err
    assert err.startswith("qwenvis: relative RMS above 0.00")


def test_bound_names_the_worst_item(run, monkeypatch):
    double(monkeypatch, -1)
    code, _, err = run(f"verify {checkpoint()} wide.png small.png --bound 0.05 --json --threads 1")
    assert code == 1
    assert err.endswith("tokens of small.png\n")


def test_plot_shows_the_token_that_differs(run, monkeypatch):
    double(monkeypatch, 2 * 5 + 3)
    code, _, err = run(f"verify {checkpoint()} wide.png --plot map.png --threads 1")
    assert (code, err) == (0, "wrote map.png: wide.png\n")
    page = np.asarray(Image.open("map.png"))
    side = round(pages.SIDE / 5)
    height, width = 3 * side, 5 * side
    assert page.shape[1] == 2 * width + 3 * pages.MARGIN
    assert page.shape[0] > height + 2 * pages.MARGIN
    left, top = width + 2 * pages.MARGIN, pages.MARGIN
    squares = page[top : top + height, left : left + width].reshape(3, side, 5, side, 3)
    assert (squares == squares[:, :1, :, :1]).all()
    brightness = squares[:, 0, :, 0].sum(axis=-1)
    assert np.unravel_index(brightness.argmax(), (3, 5)) == (2, 3)
    assert squares[2, 0, 3, 0].tolist() == list(drawing.HEAT[-1])
    assert np.sort(brightness, axis=None)[-2] < 200 < brightness.max()
    shown = Image.fromarray(page[top : top + height, pages.MARGIN : pages.MARGIN + width]).resize((140, 84))
    original = np.asarray(Image.open("wide.png").resize((140, 84)), np.float64)
    assert np.corrcoef(np.asarray(shown).ravel(), original.ravel())[0, 1] > 0.9


def test_plot_of_a_video_shows_the_worst_step(run, monkeypatch):
    double(monkeypatch, -1)
    code, _, err = run(f"verify {checkpoint()} small.png clip.mp4 --num-frames 8 --plot map.png --threads 1")
    assert (code, err) == (0, "wrote map.png: clip.mp4\n")
    page = np.asarray(Image.open("map.png"))
    frames = [np.asarray(Image.fromarray(each).resize((84, 56)), np.float64) for each in video_files.frames(8)]
    side = round(pages.SIDE / 3)
    panel = page[pages.MARGIN : pages.MARGIN + 2 * side, pages.MARGIN : pages.MARGIN + 3 * side]
    shown = np.asarray(Image.fromarray(panel).resize((84, 56)))
    assert np.argmax([np.corrcoef(shown.ravel(), frame.ravel())[0, 1] for frame in frames]) == 6  # of steps of two


def test_against_transformers(run):
    line = f"verify {checkpoint('qwen3_vl')} wide.png clip.mp4 --against transformers --bound {TOWER} --threads 1"
    code, lines, err = run(line)
    assert (code, err) == (0, "")
    assert lines[0].endswith(": float32 against transformers, 2 items")
    rows = [line.rsplit(None, 5)[0] for line in lines if line and "cosine" not in line]
    assert rows[1:] == ["tokens", "deepstack 0", "deepstack 1", "wide.png", "clip.mp4"]


def test_a_mistake_in_the_tower_is_seen_against_transformers(run, monkeypatch):
    monkeypatch.setattr(geometry, "rope", lambda coords, dim, theta, rope=geometry.rope: rope(coords, dim, theta / 2))
    line = f"verify {checkpoint()} wide.png --against transformers --bound {TOWER} --threads 1"
    code, _, err = run(line)
    assert code == 1
    assert "1 of 1 item; the largest is" in err


def test_bfloat16_against_transformers(run):
    code, lines, _ = run(f"verify {checkpoint()} wide.png --against transformers --dtype bf16 --threads 1")
    assert code == 0
    assert "bfloat16 against transformers" in lines[0]


def test_transformers_is_missing(run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("qwenvis.adapters.transformers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(Checkpoint, "fill", lambda *_: pytest.fail("weights were read"))
    code, _, err = run(f"verify {checkpoint()} wide.png --against transformers")
    assert code == 1
    assert "pip install torch 'transformers>=" in err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("wide.png --against float64", 1, "against is 'float64'; expected float32, bfloat16"),
        ("wide.png --dtype=", 1, "dtype is ''"),
        ("wide.png --dtype float32", 1, "dtype and against are both float32"),
        ("wide.png no.png", 1, "no such file"),
        ("wide.png --fps 2", 1, "--fps would choose the frames of videos, but there is no video"),
        ("wide.png --plot wide.png", 1, "is one of the images"),
        ("wide.png --plot map.txt", 1, "Pillow cannot write .txt; name a .png file"),
        ("wide.png --plot map.h5", 1, "Pillow cannot write .h5; name a .png file"),
        ("wide.png --plot map.wmf", 1, "Pillow cannot write .wmf; name a .png file"),
        ("wide.png --plot map.xbm", 1, "Pillow cannot write .xbm; name a .png file"),
        ("wide.png --bound -1", 2, "'-1' is not a number from 0 on"),
        ("wide.png --bound nan", 2, "'nan' is not a number from 0 on"),
        ("wide.png --bound x", 2, "'x' is not a number from 0 on"),
    ],
)
def test_refusals_come_before_weights_are_read(run, folder, monkeypatch, options, code, words):
    monkeypatch.setattr(Checkpoint, "fill", lambda *_: pytest.fail("weights were read"))
    found, lines, err = run(f"verify {checkpoint()} {options}")
    assert (found, lines) == (code, [])
    assert words in err


@pytest.mark.parametrize("dtype", ["", "--dtype auto", "--dtype int8", "--dtype float32"])
def test_packed_weights_are_compared_with_nothing(run, dtype):
    """Whatever the dtype, the advice leads to a checkpoint that can be verified."""
    Encoder.from_pretrained(checkpoint(), dtype="int8").save_packed("packed")
    code, lines, err = run(f"verify packed wide.png {dtype}")
    assert (code, lines) == (1, [])
    assert err.endswith("packed in i8, and no others to compare with: pass the checkpoint that was packed\n")


def test_results_that_are_not_finite(run, monkeypatch):
    forward = qwen2_vl.Tower.forward

    def broken(self, patches, grid_thw, ws, out, watch):
        forward(self, patches, grid_thw, ws, out, watch)
        out.tokens[0, 0] = np.inf

    monkeypatch.setattr(qwen2_vl.Tower, "forward", broken)
    code, lines, err = run(f"verify {checkpoint()} wide.png --threads 1")
    assert (code, lines) == (1, [])
    assert err.startswith("qwenvis: wide.png is NaN or infinite after the merger")
