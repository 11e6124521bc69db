"""Sizes at whose edges the ops are tested, read from the sources so that a new instruction set brings its own."""

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
    """The number that a source file of the package gives to a name."""
    text = (source_files.PACKAGE / file).read_text(encoding="utf-8")
    found = re.findall(rf"\b{name}\s*(?:=|\s)\s*(\d+)", text)
    assert len(found) == 1, f"{file} has {len(found)} values for {name}"
    return int(found[0])


def tile_of(isa: str) -> Tile:
    """MR and NR of an instruction set."""
    file = f"kernels/{isa}.c"
    return Tile(constant(file, "MR"), constant(file, "VL") * constant("kernels/isa.h", "NV"))


@contextmanager
def using_isa(name: str) -> Iterator[None]:
    """The ops use this instruction set inside the block."""
    before = ops.isa()
    ops.use_isa(name)
    try:
        yield
    finally:
        ops.use_isa(before)
