"""Fail if a kernel is wrong on this CPU or on an emulated CPU, which runs only a C program and no Python.

Compiles kernels/ and tests/kernels/ with the flags of setup.py, and runs the program. The arguments are the instruction
sets that must be present.

    python tools/check_kernels.py avx2                             # with $CC, else cc
    CC="aarch64-linux-gnu-gcc -static" EMULATOR="qemu-aarch64 -cpu max" python tools/check_kernels.py neon neon_bf16
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from check_tiles import KERNELS, ROOT, compile_flags

CHECKS = ROOT / "tests" / "kernels"


def build(compiler: str, program: Path, kernels: Path = KERNELS, checks: Path = CHECKS) -> None:
    """Compile the kernels of a directory and their checks, in C or from `compile_checks`, into a program."""
    sources = [*sorted(kernels.glob("*.c")), *sorted(checks.glob("*.[co]"))]
    command = [*shlex.split(compiler), *compile_flags(), "-Wextra", f"-I{kernels}", *map(str, sources)]
    subprocess.run([*command, "-o", str(program), "-lm"], check=True)


def compile_checks(compiler: str, directory: Path) -> None:
    """Compile the checks into objects in a directory, for several builds."""
    sources = map(str, sorted(CHECKS.glob("*.c")))
    command = [*shlex.split(compiler), *compile_flags(), "-Wextra", f"-I{KERNELS}", "-c", *sources]
    subprocess.run(command, check=True, cwd=directory)


def main() -> int:
    """Run the checks; return their exit code."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "kernels")
        build(os.environ.get("CC", "cc"), program)
        emulator = shlex.split(os.environ.get("EMULATOR", ""))
        return subprocess.run([*emulator, str(program), *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
