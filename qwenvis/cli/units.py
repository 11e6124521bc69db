"""Numbers with units, names that a terminal can show, and tables in columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction


def seconds(value: float) -> str:
    """Format a time: ``350 ms``, ``7.2 s``, ``12 min``, ``1 h 05 min``."""
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    if value < 59.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def clock(value: float) -> str:
    """Format a time as a clock does: ``0:07``, ``1:05:00``."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def nbytes(value: float) -> str:
    """Format a size: ``512 bytes``, ``96 kB``, ``352 MB``, ``1.33 GB``."""
    for power, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= 0.9995 * power:
            return f"{value / power:.3g} {unit}" if value < 999.5 * power else f"{value / power:,.0f} {unit}"
    return f"{value:.0f} bytes"


def parsed_nbytes(text: str) -> int:
    """Parse a size: ``5000000``, ``500 MB``, ``1.5GB``, ``2GiB``. Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) *(?:([KMGT]?)(I?)B(?:YTES)?)?", text.strip().upper())
    if not match or (match[3] and not match[2]):
        raise ValueError(text)
    unit: int = (1024 if match[3] else 1000) ** " KMGT".index(match[2] or " ")
    return round(Fraction(match[1]) * unit)


def count(value: int) -> str:
    """Format a large number: ``665 million``."""
    for power, unit in ((10**9, "billion"), (10**6, "million")):
        if value >= power:
            return f"{value / power:.3g} {unit}"
    return f"{value:,}"


def speed(rate: float, peak: float) -> str:
    """Format flops per second beside the measured peak: ``100 GFLOP/s, 80% of the peak``."""
    share = f"{rate / peak:.0%} of the peak" if rate <= peak else "above the measured peak: other programs were running"
    return f"{rate / 1e9:.0f} GFLOP/s, {share}"


def area(size: tuple[int, int]) -> str:
    """Format (height, width) as ``width x height``."""
    return f"{size[1]} x {size[0]}"


def name(text: str) -> str:
    """Escape the characters of a file name, or of a text around one, that a terminal cannot show in one line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def columns(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Format rows as lines with aligned columns; ``align`` holds ``<`` or ``>`` for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in cells]
