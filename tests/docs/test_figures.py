"""The figures of the docs: drawn by tools/draw_figures.py, or by a browser; shown, small, complete in themselves."""

import base64
import importlib.util
import io
import re

import numpy as np
import pytest
from PIL import Image

from house.source_files import ROOT
from made.presets import cache

FIGURES = {path.stem: path for path in (ROOT / "docs/figures").glob("*.svg")}
SCREENSHOTS = {path.name: path for path in (ROOT / "docs/figures").iterdir() if path.stem not in FIGURES}
PAGES = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
EMBEDDED = re.compile(r"data:image/\w+;base64,([^\"]+)")


@pytest.fixture(scope="module")
def drawn():
    """The figures, drawn anew."""
    spec = importlib.util.spec_from_file_location("draw_figures", ROOT / "tools/draw_figures.py")
    draw = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        patch.setenv("QWENVIS_CACHE", str(cache()))
        spec.loader.exec_module(draw)
        return draw.figures()


def test_every_figure_is_drawn_and_shown(drawn):
    assert sorted(drawn) == sorted(FIGURES) == sorted(re.findall(r"\]\(figures/(\w+)\.svg\)", PAGES))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_by_the_tool(name, drawn):
    stored = FIGURES[name].read_text(encoding="utf-8")
    assert EMBEDDED.sub("", stored) == EMBEDDED.sub("", drawn[name])
    for old, new in zip(EMBEDDED.findall(stored), EMBEDDED.findall(drawn[name]), strict=True):
        old, new = (np.asarray(Image.open(io.BytesIO(base64.b64decode(each))), np.int16) for each in (old, new))
        assert np.abs(old - new).max() <= 2  # tokens differ by their rounding between instruction sets


@pytest.mark.parametrize("path", FIGURES.values(), ids=FIGURES)
def test_figures_are_small_and_request_nothing(path):
    figure = path.read_text(encoding="utf-8")
    assert len(figure) < 30_000
    assert set(re.findall(r"https?://[^\s\"]+", figure)) == {"http://www.w3.org/2000/svg"}
    assert all(link.startswith(("#", "data:image/")) for link in re.findall(r'href="([^"]+)"', figure))


def test_screenshots_are_small_and_shown():
    """`make test-page` draws them."""
    assert sorted(SCREENSHOTS) == sorted(re.findall(r"\]\(figures/([\w-]+\.png)(?:#only-\w+)?\)", PAGES))
    for path in SCREENSHOTS.values():
        assert path.stat().st_size < 250_000
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width >= 1280
