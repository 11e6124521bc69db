"""What `benchmarks.peers` has measured, as its JSON holds it, in the words of people."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.encoder import TITLES

FORMATS = {"f32": "float32", "bf16": "bfloat16", "int8": "int8"}


def read(path: Path) -> dict[str, Any]:
    """A file: its machine, its command, its rows."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def with_fractions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one case, each with its fraction of the peak: the median of all that were measured of its format."""
    for row in rows:
        peaks = [peak for other in rows if other["format"] == row["format"] for peak in other["peaks"]]
        row["fraction"] = row["flops"] / row["median"] / median(peaks) if peaks else None
    return rows


def cases(paths: list[Path]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The rows of files by model and input."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in itertools.chain(*(read(path)["rows"] for path in paths)):
        found.setdefault((row["model"].removeprefix("synthetic:"), TITLES[row["case"]]), []).append(row)
    return found


def engine(row: dict[str, Any]) -> str:
    """The name of an engine, without its format."""
    return str(row["engine"]).removesuffix(f"-{row['format']}")
