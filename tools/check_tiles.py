"""Fail if a compiler keeps the accumulators of a tile on the stack: the same results at a fraction of the speed.

Compiles the kernels of each instruction set of the compiler's CPU family to assembly, with the flags of setup.py, and
looks for vector instructions that touch the stack in the inner loops of the tiles. Also fails if the compiler leaves
out every instruction set except the generic set.

    python tools/check_tiles.py                               # with $CC, else cc
    CC=aarch64-linux-gnu-gcc python tools/check_tiles.py      # for another CPU
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "qwenvis" / "kernels"
TILE = re.compile(r"^(\w*(?:tile|chunk|words)[\w.]*):", re.M)  # i8_words.constprop.0
PRODUCT = re.compile(r"\b(v?f?n?madd\w+ps|vdpbf16ps|vpdpbusd|v?mulps|fmla|bfdot|sdot)\b")
STACK = re.compile(r"\(%rsp|\[sp\b")
FRAME = re.compile(r"\((?:%rsp|%rbp)|\[(?:sp|x29)\b")  # if the frame pointer is kept
VECTOR = re.compile(r"%[xyz]mm|\b[vq]\d+")


class Tiles(NamedTuple):
    """The code of one file: nothing, or the loops of products and the lines that keep vectors on the stack."""

    compiled: bool
    loops: int
    spilt: list[str]


def compile_flags() -> list[str]:
    """Return the flags that setup.py uses for the kernels."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    assigned = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    flags: list[str] = ast.literal_eval(assigned["COMPILE"])
    return flags


def assembly(source: Path, compiler: str) -> str:
    """Compile a C file to assembly."""
    shared = [] if sys.platform == "win32" else ["-fPIC"]
    command = [*shlex.split(compiler), *compile_flags(), "-S", *shared, "-o", "-", str(source)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def functions(text: str) -> dict[str, list[str]]:
    """Yield the lines of each tile function."""
    parts = re.split(r"^(\w[\w.]*):(?:\s*[#@/].*)?$", text, flags=re.M)
    named = zip(parts[1::2], parts[2::2], strict=True)
    return {name: body.splitlines() for name, body in named if TILE.match(f"{name}:")}


def inner_loops(lines: list[str]) -> list[list[str]]:
    """Yield the lines of each innermost loop: from a label to the line that jumps back to it."""
    labels = {match[1]: i for i, line in enumerate(lines) if (match := re.match(r"^(\.?L\w+):", line))}
    loops = []
    for end, line in enumerate(lines):
        jump = re.match(r"\s+(?:j\w+|b\.?\w*|cbn?z|tbn?z)\s+(?:\w+, )*(\.?L\w+)", line)
        if jump and labels.get(jump[1], end) < end:
            loops.append((labels[jump[1]], end))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [lines[start : end + 1] for start, end in inner]


def faults(source: Path, compiler: str) -> Tiles:
    """Return the loops of products in a file, and their lines that move vectors to or from the stack."""
    count, found, text = 0, [], assembly(source, compiler)
    for name, lines in functions(text).items():
        stack = FRAME if any(re.search(r"movq\s+%rsp, %rbp|mov\s+x29, sp", line) for line in lines) else STACK
        for loop in inner_loops(lines):
            if sum(bool(PRODUCT.search(line)) for line in loop) < 2:
                continue
            count += 1
            spilt = [line.strip() for line in loop if stack.search(line) and VECTOR.search(line)]
            found += [f"{source.name}: {name}: {line}" for line in spilt]
    named = re.search(rf'\.(?:string|asciz)\s+"{source.stem}"', text)  # the name in its table
    return Tiles(bool(named), count, found)


def main() -> int:
    """Print one line per ISA; return 1 if a tile spills, no tile is found, or only the generic ISA is compiled."""
    compiler = os.environ.get("CC", "cc")
    checked, sound = 0, True
    for source in sorted(KERNELS.glob("*.c")):
        if "isa.h" not in source.read_text():
            continue
        compiled, loops, spilt = faults(source, compiler)
        if not compiled:
            print(f"{source.name}: left out by this compiler, or of another CPU family")
            continue
        print(f"{source.name}: {loops} inner loops of products, {len(spilt)} vector accesses to the stack")
        for line in spilt[:10]:
            print(f"  {line}")
        checked += 1
        sound &= loops > 0 and not spilt
    if checked < 2:
        print("No instruction set was compiled but the generic one.")
    return int(not sound or checked < 2)


if __name__ == "__main__":
    sys.exit(main())
