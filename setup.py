"""Builds the compiled rooms: one extension owns the C kernels and the threads, the others reach them through it."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = Path("qwenvis/kernels")
# With -std=c11 GCC would stop contracting a*b+c and halve the peak. The ISA of a file is a pragma in that file.
COMPILE = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-Wall", "-Wno-unused-function"]
OPENMP = [] if os.environ.get("QWENVIS_NO_OPENMP") == "1" or sys.platform == "darwin" else ["-fopenmp"]
BOUNDS = os.environ.get("QWENVIS_BOUNDSCHECK") == "1"


def extension(name: str, sources: tuple[Path, ...] = (), flags: tuple[str, ...] = ()) -> Extension:
    """One module of qwenvis.ops."""
    return Extension(
        f"qwenvis.ops.{name}",
        [f"qwenvis/ops/{name}.pyx", *map(str, sources)],
        include_dirs=[str(KERNELS), "qwenvis/ops"],
        depends=[str(path) for path in sorted([*KERNELS.glob("*.h"), *Path("qwenvis/ops").glob("*.h")])],
        extra_compile_args=[*COMPILE, *flags],
        extra_link_args=list(flags),
        define_macros=[("CYTHON_USE_SYS_MONITORING", "0")],
    )


setup(
    ext_modules=cythonize(
        [
            extension("runtime", tuple(sorted(KERNELS.glob("*.c"))), tuple(OPENMP)),
            extension("linear"),
            extension("pairs"),
            extension("attention"),
            extension("norm"),
            extension("activate"),
            extension("blend"),
            extension("gather"),
            extension("resample"),
            extension("vol2col"),
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": BOUNDS,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "embedsignature": True,
        },
    )
)
