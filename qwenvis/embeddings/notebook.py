"""The HTML of embeddings in a notebook: a table of the first items, with their tokens drawn as images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import Protocol

import numpy as np

from qwenvis.embeddings import picture as drawing
from qwenvis.errors import shown

ROWS = 8  # the items shown
SIDE = 128  # the longer side of an image in pixels, about
HEADINGS = ("tokens", "source", "height x width", "grid_thw", "count")


class ItemEmbeddings(Protocol):
    """An `Embeddings` of one item."""

    @property
    def embeddings(self) -> np.ndarray:
        """The tokens, (tokens, out_hidden_size)."""

    @property
    def grid_thw(self) -> np.ndarray:
        """The grid, (1, 3)."""

    @property
    def merge_size(self) -> int:
        """The number of patches along a side of a token."""

    @property
    def sources(self) -> list[str]:
        """The name of the item, a list of one."""

    @property
    def sizes(self) -> np.ndarray:
        """The (height, width) in pixels, (1, 2)."""


def page(summary: str, items: Iterable[ItemEmbeddings], left: int) -> str:
    """Return the table as self-contained HTML; ``left`` is the number of items that are not shown."""
    rows = [_row(item) for item in items]
    heading = "".join(f"<th>{each}</th>" for each in HEADINGS)
    more = f"<p>and {left:,} more</p>" if left > 0 else ""
    table = f"<table><thead><tr>{heading}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""
    return f"<div><p>{escape(summary)}</p>{table}{more}</div>"


def _row(item: ItemEmbeddings) -> str:
    height, width = item.sizes[0].tolist()
    size = f"{height} x {width}" if height else ""
    grid = " ".join(map(str, item.grid_thw[0].tolist()))
    cells = [_picture(item), *map(escape, (shown(item.sources[0]), size, grid, f"{len(item.embeddings):,}"))]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _picture(item: ItemEmbeddings) -> str:
    """Return an img element with the tokens of the first temporal step; empty if a token is NaN or infinite."""
    rows, columns = (item.grid_thw[0, 1:] // item.merge_size).tolist()
    tokens = item.embeddings[: rows * columns]
    if not np.isfinite(tokens).all():
        return ""
    colours, _ = drawing.colours(tokens)
    file = io.BytesIO()
    drawing.squares(colours, rows, SIDE).save(file, "PNG")
    return f'<img alt="tokens" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode("ascii")}">'
