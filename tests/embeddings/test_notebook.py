"""What people see of results: a line, and in notebooks a table with the pictures of the tokens."""

import base64
import io
import re

import numpy as np
from PIL import Image

from made.embeddings import BYTES, made
from qwenvis import Embeddings
from qwenvis.embeddings import notebook
from qwenvis.embeddings import picture as drawing
from qwenvis.errors import ImageError


def test_repr():
    out = made(errors=(ImageError("bad"),))
    words = "3 items, 1 left out, 11 tokens of 5 float32, qwen2_vl in f32: 'a.jpg', 'image 1', 'b.jpg'"
    assert repr(out) == f"<Embeddings: {words}>"
    many = Embeddings.concatenate([made()] * 40)
    assert repr(many).endswith("'a.jpg', 'image 1', 'b.jpg', and 117 more>")
    assert repr(made()[0]).startswith("<Embeddings: 1 item, 2 tokens of 5 float32")
    assert repr(made(sources=[BYTES, "\n", "x" * 9999])).isprintable()
    assert len(repr(made(sources=["x" * 9999] * 3))) < 1000


def pictures_of(html):
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


def test_notebook_shows_the_tokens():
    html = made()._repr_html_()
    assert [image.size for image in pictures_of(html)] == [(128, 64), (128, 128), (126, 84)]
    assert "61 x 97" in html
    assert "0 x 0" not in html
    colours, _ = drawing.colours(made()[2].embeddings)
    squares = np.asarray(pictures_of(html)[2])[21::42, 21::42]
    assert np.array_equal(squares, colours.reshape(2, 3, 3))


def test_notebook_quotes_names():
    html = made(sources=["<script>", 'a"&b', BYTES])._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    html.encode()


def test_notebook_shows_a_few_of_many():
    many = Embeddings.concatenate([made()] * 40)
    html = many._repr_html_()
    assert len(pictures_of(html)) == notebook.ROWS
    assert "and 112 more" in html


def test_notebook_shows_large_pictures_small():
    """One item of 250,000 tokens, a strip of 4 x 3000, one token, tokens that are no numbers, and none."""
    for rows, columns in ((500, 500), (4, 3000), (1, 1)):
        tokens = np.random.default_rng(0).standard_normal((rows * columns, 8), np.float32)
        html = Embeddings(tokens, np.array([[1, rows, columns]]), 1)._repr_html_()
        assert len(html) < 100_000
        assert max(pictures_of(html)[0].size) <= notebook.SIDE
    assert not pictures_of(Embeddings(np.full((1, 8), np.nan, np.float32), np.array([[1, 1, 1]]), 1)._repr_html_())
    assert "0 items" in made()[:0]._repr_html_()
