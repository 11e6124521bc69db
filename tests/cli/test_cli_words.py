"""The small parts of the command line: numbers in words, columns, the bar, the colours of tokens."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from qwenvis.cli import bar, job, units
from qwenvis.embeddings import page as pages
from qwenvis.embeddings import picture as drawing


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0213, "21 ms"),
        (7.24, "7.2 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (754, "13 min"),
        (3590, "1 h 00 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_seconds(value, said):
    assert units.seconds(value) == said


@pytest.mark.parametrize(("value", "said"), [(0, "0:00"), (67.4, "1:07"), (3599.6, "1:00:00"), (4000, "1:06:40")])
def test_clock(value, said):
    assert units.clock(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (96_400, "96.4 kB"),
        (999_600, "1 MB"),
        (352e6, "352 MB"),
        (1.333e9, "1.33 GB"),
        (123e9, "123 GB"),
        (12345e9, "12,345 GB"),
    ],
)
def test_nbytes(value, said):
    assert units.nbytes(value) == said


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("5000000", 5_000_000),
        ("12 bytes", 12),
        ("96.4kB", 96_400),
        ("500 MB", 500_000_000),
        ("1.5gb", 1_500_000_000),
        ("2TB", 2 * 10**12),
        ("1KiB", 1024),
        ("1.5 GiB", 3 * 2**29),
    ],
)
def test_parsed_nbytes(text, value):
    assert units.parsed_nbytes(text) == value


@pytest.mark.parametrize("text", ["", "GB", "-5", "1e9", "5iB", "5 XB", "1,5GB", "5G", "٣", "nan", "1_000", "9" * 30])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match=r".*"):
        units.parsed_nbytes(text)


def test_names_stay_on_their_line():
    assert units.name("a\n\x1b[1m\udcff é.png") == "a\\n\\x1b[1m\\udcff é.png"


def test_columns():
    assert units.columns([("a", "10", "x"), ("bcd", "9", "")], "<><") == ["a    10  x", "bcd   9"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal in place of stderr."""
    stream = Terminal()
    monkeypatch.setattr(bar, "sys", SimpleNamespace(stderr=stream))
    monkeypatch.setattr(bar, "DELAY", 0)
    monkeypatch.setattr(bar, "PAUSE", 0)
    return stream


def shown(stream):
    """The lines as they replaced one another, and what is left on the screen."""
    lines = stream.getvalue().split("\r")
    return [line.rstrip() for line in lines if line.strip()], lines[-1]


def test_the_bar_wipes_its_line(terminal):
    with bar.Bar("loading", lambda rate: "rate") as progress:
        for done in range(5):
            progress(done, 4)
    lines, left = shown(terminal)
    assert [line[: line.index("]") + 6] for line in lines] == [
        f"loading  [{'#' * n + '.' * (24 - n)}] {percent:3d}%"
        for n, percent in ((6, 25), (12, 50), (18, 75), (24, 100))
    ]
    assert all(len(line) < 80 and "rate, 0:00 left" in line for line in lines)
    assert left == ""


def test_the_bar_is_wiped_when_the_work_fails(terminal):
    def work():
        with bar.Bar("loading", str) as progress:
            progress(1, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert shown(terminal)[1] == ""


def test_the_bar_says_what_is_expected(terminal):
    progress = bar.Bar("encoding", str)
    progress.expected = 70
    with progress:
        pass
    assert shown(terminal)[0] == [f"encoding  [{'.' * 24}]   0%  about 1 min"]


def test_the_rate_of_a_job_counts_no_time_of_verification(terminal, monkeypatch):
    clock = iter([0, 0, 50, 50, 52])
    monkeypatch.setattr(bar, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    report = job._Report(SimpleNamespace(json=False, output="tokens/", quiet=False))
    with report.verifying, report.encoding:
        report.verified(256, 256)
        report.told({"tokens": 8, "error": None}, 1, 1)
    verifying, encoding = shown(terminal)[0]
    assert verifying.startswith("verifying")
    assert "100%  0.5 images/s, 4 tokens/s, 0 failed" in encoding
    assert shown(terminal)[1] == ""


def test_no_bar_where_nobody_looks(capsys):
    with bar.Bar("loading", str) as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""


def test_colours_are_principal_components():
    """Tokens that lie on three axes, of falling length, are told apart by one channel each."""
    axes = np.zeros((8, 20), np.float32)
    steps = np.array([-1, 1], np.float32)
    corners = np.stack(np.meshgrid(steps * 4, steps * 2, steps, indexing="ij"), axis=-1).reshape(8, 3)
    axes[:, [3, 7, 11]] = corners
    colours, share = drawing.colours(axes)
    ends = np.where(np.array([drawing.DARK, drawing.BRIGHT]) == colours[..., None], 1, 0)
    assert ends.any(axis=2).all()
    assert share == pytest.approx(1)
    for channel in range(3):
        assert abs(np.corrcoef(colours[:, channel], corners[:, channel])[0, 1]) == pytest.approx(1)


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_few_tokens_have_colours(tokens):
    colours, _ = drawing.colours(np.ones((tokens, 8), np.float32))
    assert colours.shape == (tokens, 3)
    assert colours.dtype == np.uint8


@pytest.mark.parametrize("grid", [(14, 18), (1, 60), (60, 1), (1, 1), (900, 3)])
def test_a_page_of_any_shape(grid):
    squares = np.random.default_rng(0).integers(0, 256, (*grid, 3), np.uint8)
    page = pages.compose(Image.new("RGB", (50, 40)), squares, ("left title " * 9, "right"), ["a note " * 60])
    side = max(1, round(pages.SIDE / max(grid)))
    column = max(pages.NARROWEST, grid[1] * side)
    left = column + 2 * pages.MARGIN
    assert page.width == 2 * column + 3 * pages.MARGIN
    for row, col in ((0, 0), (grid[0] - 1, grid[1] - 1)):
        place = left + col * side + side // 2, pages.MARGIN + row * side + side // 2
        assert page.getpixel(place) == tuple(squares[row, col])
