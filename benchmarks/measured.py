"""The results of `benchmarks.peers`, read from its JSON, with readable names."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.encoder import TITLES

FORMATS = {"f32": "float32", "bf16": "bfloat16", "i8": "int8"}


def read(path: Path) -> dict[str, Any]:
    """Read a file: its machine, its command, its rows."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def with_fractions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a case with their fractions of the peak: the median of all measured peaks of the format."""
    for row in rows:
        peaks = [peak for other in rows if other["format"] == row["format"] for peak in other["peaks"]]
        row["fraction"] = row["flops"] / row["median"] / median(peaks) if peaks else None
    return rows


def cases(paths: list[Path]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group the rows of the files by model and input."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in itertools.chain(*(read(path)["rows"] for path in paths)):
        found.setdefault((row["model"].removeprefix("synthetic:"), TITLES[row["case"]]), []).append(row)
    return found


def engine(row: dict[str, Any]) -> str:
    """Return the name of an engine, without its format."""
    return str(row["engine"]).removesuffix(f"-{row['format']}")
