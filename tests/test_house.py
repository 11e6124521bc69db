"""The plan of the house, held against the source: who imports whom, how large things are, what they are called."""

from __future__ import annotations

import re
import sys
import tomllib

import pytest
import sources
from rooms import ROOMS
from sources import PACKAGE, ROOT, Import

LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 40
ARGUMENTS = 6

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


def test_tests_are_small_enough_to_hold():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.glob("tests/*.py")}
    assert not {name: count for name, count in lines.items() if count > LINES_OF_A_FILE}


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


@pytest.mark.parametrize("path", [*C_FILES, *sources.files(".pyx", ".pxd")], ids=ids)
def test_lines_are_short_enough(path):
    """Ruff looks at Python only."""
    long = [number for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 120]
    assert long == []


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
