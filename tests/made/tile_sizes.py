"""The instruction sets of this machine and the sizes of their tiles, read from the C sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from house import source_files
from qwenvis import ops

ISAS = [name for name, present in ops.isas().items() if present]


class Tile(NamedTuple):
    """Rows and columns of the f32 tile of an instruction set."""

    mr: int
    nr: int


def constant(file: str, name: str) -> int:
    """Return the value of a constant in a source file of the package, or in the registers that it includes."""
    path = source_files.PACKAGE / file
    text = path.read_text(encoding="utf-8")
    for registers in re.findall(r'#include "(registers_\w+\.h)"', text):
        text += (path.parent / registers).read_text(encoding="utf-8")
    found = re.findall(rf"\b{name}\s*(?:=|\s)\s*(\d+)", text)
    assert len(found) == 1, f"{file} has {len(found)} values for {name}"
    return int(found[0])


def tile_of(isa: str) -> Tile:
    """Return MR and NR of an instruction set."""
    file = f"kernels/{isa}.c"
    return Tile(constant(file, "MR"), constant(file, "VL") * constant("kernels/isa.h", "NV"))


@contextmanager
def using_isa(name: str) -> Iterator[None]:
    """Select an instruction set inside the block."""
    before = ops.isa()
    ops.use_isa(name)
    try:
        yield
    finally:
        ops.use_isa(before)
