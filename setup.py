"""Build the compiled modules: `runtime` contains the C kernels and the threads, which the other modules use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

KERNELS = Path("qwenvis/kernels")
# With -std=c11 GCC would stop contracting a*b+c and halve the peak. The ISA of a file is a pragma in that file.
COMPILE = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-Wall", "-Wno-unused-function"]
# Without OpenMP, the pool starts its threads itself: ops/parallel.h has the reason for macOS and Windows.
OPENMP = sys.platform not in ("darwin", "win32") and os.environ.get("QWENVIS_NO_OPENMP") != "1"
THREADS = [] if sys.platform == "win32" else ["-fopenmp" if OPENMP else "-pthread"]
BOUNDS = os.environ.get("QWENVIS_BOUNDSCHECK") == "1"


class ClangOnWindows(build_ext):
    """A build with clang-cl instead of MSVC on Windows, because MSVC has no vector extensions."""

    def build_extensions(self):
        """Build with the same flags; link Clang's library, which detects the features of the CPU."""
        if self.compiler.compiler_type == "msvc":
            self.compiler.initialize()
            self.compiler.cc = "clang-cl"
            asked = ["clang", "--rtlib=compiler-rt", "--print-libgcc-file-name"]
            library = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
            for module in self.extensions:
                module.extra_compile_args = [f"/clang:{flag}" for flag in module.extra_compile_args]
                module.extra_link_args = [library]
        super().build_extensions()


class WheelWithSbom(bdist_wheel):
    """A wheel with a bill of materials (PEP 770): this package, and Cython, whose code is in the modules."""

    def write_wheelfile(self, wheelfile_base, *args, **kwargs):
        """Write the bill of materials beside the metadata. auditwheel adds a bill of the libraries that it copies."""
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        metadata = self.distribution.metadata
        bill = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": component(metadata.get_name(), metadata.get_version())},
            "components": [component("cython", Cython.__version__)],
        }
        path = Path(wheelfile_base, "sboms", "qwenvis.cdx.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")


def component(name: str, version: str) -> dict[str, object]:
    """Describe a package of PyPI under this licence as a CycloneDX component."""
    url = f"pkg:pypi/{name}@{version}"
    licence = [{"license": {"id": "Apache-2.0"}}]
    return {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url, "licenses": licence}


def extension(name: str, sources: tuple[Path, ...] = (), flags: tuple[str, ...] = ()) -> Extension:
    """Return the extension of one module of qwenvis.ops."""
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
    cmdclass={"build_ext": ClangOnWindows, "bdist_wheel": WheelWithSbom},
    ext_modules=cythonize(
        [
            extension("runtime", tuple(sorted(KERNELS.glob("*.c"))), tuple(THREADS)),
            extension("finite"),
            extension("packed_weight"),
            extension("quantize"),
            extension("linear"),
            extension("attention_head"),
            extension("attention"),
            extension("norm"),
            extension("activate"),
            extension("interpolate"),
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
            "freethreading_compatible": True,
        },
    ),
)
