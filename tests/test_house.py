"""The plan of the house, held against the source: who imports whom, how large things are, what they are called."""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass

import pytest
import sources
from sources import PACKAGE, ROOT, Import

LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 40
ARGUMENTS = 6


@dataclass(frozen=True)
class Room:
    """What a room may import: of ours, of others, and of ours inside of functions only."""

    ours: str = ""
    others: str = ""
    lazily: str = ""


# From the bottom of the house to its top: a room may name only rooms that stand before it.
ROOMS = {
    "version": Room(),
    "errors": Room(),
    "arrays": Room("errors", "numpy"),
    "sharing": Room(others="PIL"),
    "files": Room("sharing errors"),
    "streams": Room("sharing", "PIL"),
    "threads": Room("errors"),
    "tasks": Room(),
    "memo": Room(),
    "fields": Room("errors"),
    "dtypes": Room("errors", "numpy"),
    "weights": Room("errors", "numpy"),
    "kernels": Room(),
    "ops": Room("kernels errors", "numpy cython libc openmp typing_extensions"),  # the last in stubs alone
    "workspace": Room("ops errors", "numpy"),
    "layers": Room("workspace ops weights errors", "numpy"),
    "blocks": Room("layers workspace ops weights errors", "numpy"),
    "mergers": Room("layers workspace ops weights errors", "numpy"),
    "geometry": Room("errors", "numpy"),
    "models": Room("mergers blocks layers workspace ops geometry weights fields errors", "numpy"),
    "resizing": Room("errors"),
    "resampling": Room("ops.resample_rows ops.resample_columns", "numpy"),
    "limits": Room("fields errors", "numpy"),
    "normalisation": Room("memo fields errors", "numpy"),
    "processors": Room("resizing limits normalisation fields errors", "numpy"),
    "policies": Room("errors", "numpy PIL"),
    "signatures": Room(),
    "pictures": Room("policies signatures arrays files sharing errors", "numpy PIL"),
    "images": Room("pictures policies processors resampling ops.vol2col errors", "numpy PIL"),
    "samplers": Room("errors", "numpy"),
    "video_processors": Room("samplers processors limits normalisation fields errors", "numpy"),
    "video_families": Room("video_processors processors samplers limits normalisation resizing fields errors"),
    "films": Room("samplers pictures files errors", "numpy av"),
    "timelines": Room("", "numpy av"),
    "playback": Room("films timelines samplers errors", "numpy av"),
    "animations": Room("films samplers pictures errors", "numpy PIL"),
    "clips": Room("animations playback films samplers pictures arrays errors", "numpy PIL"),
    "videos": Room("clips samplers video_families video_processors resampling ops.vol2col errors", "numpy"),
    "directory": Room("files errors"),
    "layouts": Room("errors", "numpy ml_dtypes"),
    "shards": Room("layouts directory files errors", "numpy safetensors"),
    "checkpoint": Room("tasks shards layouts directory weights fields errors", "numpy"),
    "packed": Room(
        "checkpoint shards layouts directory fields weights ops.PackedWeight ops.cache_line errors", "numpy"
    ),
    "gguf": Room("layouts files errors", "numpy ml_dtypes gguf"),
    "projectors": Room(),
    "mmproj": Room("projectors gguf checkpoint layouts fields errors", "numpy"),
    "presets": Room("models errors"),
    "synthetic": Room(
        "presets models checkpoint shards layouts directory tasks weights errors", "numpy safetensors ml_dtypes"
    ),
    "hub": Room("checkpoint shards directory files errors", "huggingface_hub", lazily="synthetic presets"),
    "cost": Room("models geometry workspace ops weights errors", "numpy"),
    "outline": Room(
        "ops.rows_dtype dtypes cost hub packed checkpoint video_families video_processors processors models geometry "
        "memo errors",
        "numpy",
        lazily="mmproj synthetic",
    ),
    "door": Room("models arrays errors", "numpy"),
    "tokenfile": Room("directory files errors", "numpy safetensors ml_dtypes"),
    "mosaic": Room("", "numpy PIL"),
    "notebook": Room("mosaic errors", "numpy"),
    "embeddings": Room("tokenfile errors", "numpy", lazily="notebook"),
    "plan": Room("tasks door geometry ops.use_threads errors", "numpy"),
    "work": Room("models workspace geometry ops.all_finite errors", "numpy"),
    "intake": Room("plan outline videos clips samplers images pictures processors streams files memo errors", "numpy"),
    "passage": Room("intake work plan embeddings door geometry ops.use_threads errors", "numpy"),
    "stream": Room("passage intake plan embeddings errors"),
    # the front door knows everybody
    "encoder": Room(
        "stream passage intake work plan embeddings door outline packed cost hub synthetic checkpoint videos images "
        "pictures processors models geometry workspace weights ops threads errors version",
        "numpy PIL",
    ),
    "__init__": Room("encoder embeddings errors version"),
    "bulk": Room("__init__ encoder embeddings errors", "numpy safetensors"),
    "adapters": Room("__init__ encoder embeddings errors", "numpy safetensors torch transformers vllm"),
    # of ops, what `doctor` reports
    "cli": Room(
        "__init__ adapters bulk encoder embeddings tokenfile mosaic outline cost hub directory videos animations films "
        "images pictures signatures processors video_processors threads errors version ops.isa ops.isas ops.openmp "
        "ops.rows_dtype",
        "numpy PIL",
        lazily="synthetic.cache_root presets",
    ),
    "__main__": Room("cli"),
}

# What C may include: libc without allocation, intrinsics.
HEADERS = {"float.h", "math.h", "stddef.h", "stdint.h", "string.h", "immintrin.h", "arm_neon.h"}
HEADERS |= {"sys/auxv.h", "sys/sysctl.h"}  # which ask for the CPU's features

MODULES = sources.files(".py", ".pyi", ".pyx", ".pxd")
C_FILES = sources.files(".c", ".h")


def ids(path):
    return path.relative_to(PACKAGE).as_posix()


def forbidden(room: str, found: Import) -> bool:
    """Whether a room may not import this."""
    if not found.ours:
        return found.target not in {*sys.stdlib_module_names, *ROOMS[room].others.split()}
    allowed = [room, *ROOMS[room].ours.split(), *(ROOMS[room].lazily.split() if found.lazy else ())]
    return not any(f"{found.target}.".startswith(f"{name}.") for name in allowed)


def test_table_points_only_downwards():
    order = list(ROOMS)
    for room, may in ROOMS.items():
        for below in [*may.ours.split(), *may.lazily.split()]:
            assert order.index(below.split(".")[0]) < order.index(room), f"{room} may import {below}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_point_only_downwards(path):
    room = sources.room_of(path)
    assert room in ROOMS, f"{path.name} is a new room: give it a line in ROOMS and in docs/house.md"
    upwards = [found.target for found in sources.imports_of(path) if forbidden(room, found)]
    assert not upwards, f"{room} may not import {upwards}"


@pytest.mark.parametrize("path", [p for p in C_FILES if sources.room_of(p) == "kernels"], ids=ids)
def test_kernels_include_libc_and_intrinsics_only(path):
    text = path.read_text(encoding="utf-8")
    outside = set(re.findall(r"^\s*#\s*include\s*<([^>]+)>", text, re.MULTILINE)) - HEADERS
    inside = set(re.findall(r'^\s*#\s*include\s*"([^"]+)"', text, re.MULTILINE))
    assert not outside
    assert all((path.parent / name).exists() for name in inside), inside


@pytest.mark.parametrize("path", [*MODULES, *C_FILES], ids=ids)
def test_small_enough_to_hold(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_OF_A_FILE, f"{lines} lines: which are its two subjects?"
    for function in sources.functions_of(path):
        assert function.lines <= LINES_OF_A_FUNCTION, function
        assert function.arguments <= ARGUMENTS, function


def test_c_symbols_carry_the_project_name():
    static = r"^\s*#\s*define\s+(\w+)\s+.*\bstatic\b"
    macros = frozenset(
        name for p in C_FILES for name in re.findall(static, p.read_text(encoding="utf-8"), re.MULTILINE)
    )
    for path in C_FILES:
        for symbol in sources.external_symbols(path.read_text(encoding="utf-8"), macros):
            assert symbol.lower().startswith("qv_"), f"{path.name}: {symbol} is neither static nor qv_"


def test_no_room_without_a_noun():
    nameless = {"utils", "util", "common", "base", "helpers", "misc"}
    assert not [p for p in PACKAGE.rglob("*") if p.stem in nameless]


def test_every_package_is_shipped():
    listed = project()["tool"]["setuptools"]["packages"]
    for path in PACKAGE.rglob("__init__.py"):
        assert ".".join(path.parent.relative_to(ROOT).parts) in listed


def test_every_room_is_in_the_docs():
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    rooms = {sources.room_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert not [room for room in rooms if f"`{room}`" not in text]


def test_changelog_tells_of_this_version():
    version = project()["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    releases = [heading for heading in headings if heading != "Unreleased"]
    assert headings, "no section"
    assert releases[:1] in ([], [version])


@pytest.mark.parametrize("command", ["pytest", "qwenvis demo"])
def test_readme_has_the_commands_that_ci_takes_from_it(command):
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if re.fullmatch(rf"pip install .+ && {command}", line.strip())]) == 1


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# The rest shows that the checks above can fail.


@pytest.mark.parametrize(
    ("room", "text", "found"),
    [
        ("geometry", "from .layers import Linear", ["layers.Linear"]),
        ("geometry", "import numpy as np\nfrom qwenvis import encoder", ["encoder"]),
        ("images", "from .ops import vol2col, linear", ["ops.linear"]),
        ("images", "from . import ops\nops.vol2col(1)\nops.gather(2)", ["ops.gather"]),
        ("images", "from . import ops", ["ops"]),
        ("images", "from .ops.vol2col import vol2col\nimport torch", ["torch"]),
        ("models", "from ..layers import Block\nfrom . import qwen2_vl\nfrom ..images import open", ["images.open"]),
        ("hub", "from .synthetic import PRESETS", ["synthetic.PRESETS"]),
        ("hub", "def find():\n    from .synthetic import PRESETS", []),
        ("cli", "import qwenvis", []),
        ("encoder", "from .cli import main", ["cli.main"]),
    ],
)
def test_a_wrong_import_is_seen(room, text, found):
    package = ("qwenvis", room) if room in ("models", "cli", "ops", "adapters") else ("qwenvis",)
    assert [i.target for i in sources.python_imports(text, package) if forbidden(room, i)] == found


def test_a_wrong_cimport_is_seen():
    text = '''"""Text.
import nothing
"""
from libc.stdint cimport (int64_t,
                          uint8_t)
from qwenvis.ops.kernels cimport qv_kernels
from qwenvis.layers cimport Linear
import os, torch
from .runtime cimport selected as chosen
'''
    found = sources.cython_imports(text, ("qwenvis", "ops"))
    assert [i.target for i in found if forbidden("ops", i)] == ["layers.Linear", "torch"]
    assert Import("ops.runtime.selected", ours=True, lazy=False) in found


def test_functions_are_measured():
    python = '''class A:
    def f(self, a, b=1, *c, d, **e):
        """Says.

        More.
        """
        return a
'''
    cython = '''cdef enum:
    N = 1

cdef inline void f(const float[:, ::1] x, int (*g)(int, int), int n,
                   int m) noexcept nogil:
    x

    y

def h(x, *, y=(1, 2)):
    """One.
    Two."""
    z
'''
    assert sources.python_functions(python) == [sources.Function("f", 2, 2)]
    assert sources.cython_functions(cython) == [sources.Function("f", 5, 4), sources.Function("h", 2, 1)]


def test_c_declarations_are_read():
    text = """
/* int comment(void) { */
#define MAKE(name) \\
    int name(void) { return 0; }
typedef struct { int x; } qv_t;
enum { A = 1, B };
INLINE int helper(int x)
{
    return x; /* ; */
}
MAKE(one) MAKE(two)
static const char *words[] = {"a;{", "b"};
__attribute__((noinline)) int open_(int x) { return x; }
const qv_t table = {.x = 1};
extern const qv_t qv_a, qv_b;
void later(const float *x);
"""
    assert sources.external_symbols(text, frozenset({"INLINE"})) == ["open_", "table", "qv_a", "qv_b", "later"]
    assert [(sources.name_of(h), n) for h, n in sources.c_declarations(text) if n] == [("helper", 4), ("open_", 1)]


@pytest.mark.parametrize("path", [*C_FILES, *sources.files(".pyx", ".pxd")], ids=ids)
def test_lines_are_short_enough(path):
    """Ruff looks at Python only."""
    long = [number for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 120]
    assert long == []
