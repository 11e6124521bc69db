"""``qwenvis show``: which tokens and pixels it draws, where, and what it refuses to draw beside each other."""

import shutil

import numpy as np
import pytest
from PIL import Image

from made import video_files
from made.presets import checkpoint, encoder, picture
from qwenvis import Embeddings
from qwenvis.cli import show
from qwenvis.embeddings import page as pages
from qwenvis.embeddings import picture as drawing

MODEL = f"--model {checkpoint()} --threads 1"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two images, a video, and their tokens in a file."""
    monkeypatch.chdir(tmp_path)
    for name, size in (("wide.png", (84, 140)), ("small.png", (56, 84))):
        Image.fromarray(np.kron(picture(*(side // 14 for side in size)), np.ones((14, 14, 1), np.uint8))).save(name)
    for name, length in (("clip.mp4", 40), ("long.mp4", 60)):
        (tmp_path / name).write_bytes(video_files.encoded(video_files.frames(length), fps=10))
    encoder().encode(["wide.png", "small.png"], videos=["clip.mp4"], num_frames=20).save("t.safetensors")
    return tmp_path


def panels(path, count, grid, side=pages.SIDE):
    """The panels in the first row of a page, (count, height, width, 3), and the pixels of a token."""
    square = max(1, round(side / max(grid)))
    height, width = grid[0] * square, grid[1] * square
    sheet = np.asarray(Image.open(path))
    lefts = [pages.MARGIN + number * (width + pages.MARGIN) for number in range(count)]
    return np.stack([sheet[pages.MARGIN : pages.MARGIN + height, left : left + width] for left in lefts]), square


def centres(panel, square):
    """The colour in the middle of each token of a panel."""
    return panel[square // 2 :: square, square // 2 :: square]


def test_an_image_beside_its_tokens(run, folder):
    code, lines, err = run(f"show wide.png {MODEL} -o out.png")
    assert (code, err, lines) == (0, "", ["wrote out.png: 15 tokens of 96 numbers of wide.png"])
    (image, tokens), square = panels("out.png", 2, (3, 5))
    want = drawing.colours(encoder().encode(["wide.png"]).embeddings)[0].reshape(3, 5, 3)
    assert np.array_equal(centres(tokens, square), want)
    shown = np.asarray(Image.fromarray(image).resize((140, 84)), np.float64)
    assert np.corrcoef(shown.ravel(), np.asarray(Image.open("wide.png")).ravel())[0, 1] > 0.9
    for panel in (image, tokens):  # the lines of the grid, which are brighter than what they cover
        brighter = panel[:, square].mean() - panel[:, [square - 2, square + 2]].mean()
        assert brighter > 10


def test_stored_tokens(run, folder):
    want = drawing.colours(Embeddings.load("t.safetensors")[1].embeddings)[0].reshape(2, 3, 3)
    for word in ("t.safetensors#small.png", "t.safetensors#1"):
        assert run(f"show {word} -o out.png")[0] == 0
        (tokens,), square = panels("out.png", 1, (2, 3))
        assert np.array_equal(centres(tokens, square), want)
    code, _, err = run("show t.safetensors#small.png --image small.png -o both.png")
    assert (code, err) == (0, "")
    (_, tokens), square = panels("both.png", 2, (2, 3))
    assert np.array_equal(centres(tokens, square), want)
    Embeddings.load("t.safetensors")[1].save("one")
    assert run("show one -o one.png")[0] == 0
    assert (folder / "one.png").read_bytes() == (folder / "out.png").read_bytes()


def test_stored_options_count(run, folder):
    """The image is drawn as it was encoded: with its own limits, and without its transparency, not on white."""
    image = Image.open("wide.png")
    image.putalpha(0)
    image.save("clear.png")
    encoder(pixels="transformers").encode(["clear.png"], max_pixels=3136).save("clear.safetensors")
    code, _, err = run("show clear.safetensors --image clear.png -o out.png")
    assert (code, err) == (0, "")
    shown = panels("out.png", 2, (1, 2))[0][0]
    likeness = [np.asarray(each.resize((10, 6))).ravel() for each in (Image.fromarray(shown), Image.open("wide.png"))]
    assert np.corrcoef(likeness)[0, 1] > 0.8


def test_a_strip(run, folder):
    """Steps at equal distances, whose colours are those of the whole video; frames of the step above its tokens."""
    code, _, err = run("show t.safetensors#clip.mp4 --image clip.mp4 --num-frames 20 -o out.png")
    assert (code, err) == (0, "")
    grid = 2, 3
    frames, square = panels("out.png", show.STRIP, grid, 2 * pages.SIDE // show.STRIP)
    height = grid[0] * square
    sheet = Image.open("out.png")
    sheet.crop((0, height + pages.MARGIN, *sheet.size)).save("below.png")
    below, _ = panels("below.png", show.STRIP, grid, 2 * pages.SIDE // show.STRIP)
    out = Embeddings.load("t.safetensors")[2]
    colours = drawing.colours(out.embeddings)[0].reshape(10, *grid, 3)
    chosen = [0, 1, 3, 4, 5, 6, 8, 9]
    assert np.array_equal([centres(panel, square) for panel in below], colours[chosen])
    sources = [np.asarray(Image.fromarray(frame).resize((84, 56)), np.float64) for frame in video_files.frames(40)]
    for step, frame in zip(chosen, frames, strict=True):
        shown = np.asarray(Image.fromarray(frame).resize((84, 56))).ravel()
        likeness = [np.corrcoef(shown, source.ravel())[0, 1] for source in sources]
        assert likeness[out.frame_indices[0][2 * step]] > max(likeness) - 0.02


def test_an_item_of_a_job(run, folder):
    assert run(f"encode wide.png small.png {MODEL} -o job/")[0] == 0
    assert run("show job/#1 -o alone.png")[2].startswith("qwenvis: drawn without its image: the tokens do not name")
    code, _, err = run(f"show job/#small.png {MODEL} -o both.png")
    assert (code, err) == (0, "")
    assert run("show t.safetensors#1 --image small.png -o want.png")[0] == 0
    assert np.array_equal(panels("both.png", 2, (2, 3))[0], panels("want.png", 2, (2, 3))[0])
    shutil.copy("wide.png", "small.png")
    assert run(f"show job/#small.png {MODEL} -o changed.png")[2] == ""
    assert (folder / "changed.png").read_bytes() == (folder / "alone.png").read_bytes()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("nowhere.png", 1, "there is no file or job nowhere.png"),
        ("nowhere.safetensors#1", 1, "there is no file or job nowhere.safetensors#1"),
        ("wide.png", 2, "wide.png holds no tokens: pass --model SOURCE"),
        (f"wide.png {MODEL} --image wide.png", 2, "--image is for stored tokens, and wide.png holds none"),
        (f"wide.png#0 {MODEL}", 1, "wide.png holds no tokens, so it has no item 0"),
        ("t.safetensors", 1, "holds 3 items; name one as t.safetensors#NAME, or by its number from 0 to 2"),
        ("t.safetensors#3", 1, "holds no item 3; name one as"),
        ("t.safetensors#0 --image small.png", 1, "its size is (56, 84), and that of the tokens is (84, 140)"),
        ("t.safetensors#0 --image wide.png --max-pixels 3136", 1, "its grid_thw is (1, 2, 4), and that of the tokens"),
        ("t.safetensors#2 --image long.mp4 --num-frames 20", 1, "its list of frames is [0, 3, 6, "),
        ("t.safetensors#0 -o out.xyz", 1, "name a .png file"),
        ("t.safetensors#0 --image wide.png -o wide.png", 1, "is one of the images"),
        ("job", 1, "job is a job of 1 item; name one as job#NAME"),
        ("job#x", 1, "job holds no item x"),
        (".#x", 1, "holds no job"),
    ],
)
def test_what_is_refused(run, folder, line, code, said):
    if "job" in line:
        run(f"encode small.png {MODEL} -o job/")
    got, lines, err = run(f"show {line}")
    assert (got, lines) == (code, [])
    assert said in err
    assert not (folder / "qwenvis-show.png").exists()


def test_names_that_are_ambiguous_or_have_marks(run, folder):
    out = encoder().encode(["wide.png", "small.png", "wide.png"])
    out.save("a#b.safetensors")
    assert "2 items of a#b.safetensors are called wide.png" in run("show a#b.safetensors#wide.png")[2]
    assert run("show a#b.safetensors#2")[0] == 0
    out[1].save("a")
    assert run("show a#b.safetensors#2")[1] == ["wrote qwenvis-show.png: 15 tokens of 96 numbers of wide.png"]


def test_numbers_of_rows_and_columns_do_not_touch():
    """Every line and every number of a grid keeps its distance, whatever the side of a token."""
    for side in range(1, 60):
        for least in (pages.LINES, pages.NUMBERS):
            assert pages.distance(side, least) % side == 0
            assert pages.distance(side, least) >= least
    assert pages.distance(40, pages.LINES) == 40
