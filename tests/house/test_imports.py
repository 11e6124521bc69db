"""Who imports whom: the table of rooms, held against every import of the package."""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from house import source_files
from house.rooms import ROOMS, Room, room_of, within
from house.source_files import PACKAGE, Import

MODULES = source_files.files(".py", ".pyi", ".pyx", ".pxd")


def forbidden(room: str, found: Import) -> bool:
    """Whether a room may not import this."""
    if not found.ours:
        return found.target not in {*sys.stdlib_module_names, *ROOMS[room].others.split()}
    allowed = [*ROOMS[room].ours.split(), *(ROOMS[room].lazily.split() if found.lazy else ())]
    return room_of(found.target) != room and not any(within(found.target, name) for name in allowed)


def unused(room: str, imports: list[Import]) -> list[str]:
    """Grants of a room that none of its imports needs."""
    may = ROOMS[room]
    ours = [
        name for name in [*may.ours.split(), *may.lazily.split()] if not any(within(i.target, name) for i in imports)
    ]
    return ours + [name for name in may.others.split() if not any(not i.ours and i.target == name for i in imports)]


def upward(rooms: dict[str, Room]) -> list[tuple[str, str]]:
    """Grants of rooms that do not stand before: of a room, or of a folder of which one room does not."""
    order = list(rooms)
    found = []
    for room, may in rooms.items():
        for below in [*may.ours.split(), *may.lazily.split()]:
            granted = [name for name in order if within(name, below)] or [room_of(below)]
            if not all(name in order[: order.index(room)] for name in granted):
                found.append((room, below))
    return found


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """One circle of arrows, empty where there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def arrows() -> dict[str, set[str]]:
    """Each file of the package, by its dotted name, and the files that it imports."""
    modules = {source_files.module_of(path) for path in MODULES}
    found: dict[str, set[str]] = {module: set() for module in modules}
    for path in MODULES:
        for each in source_files.imports_of(path):
            if each.ours:
                target = max((m for m in modules if within(each.target, m)), key=len, default=None)
                found[source_files.module_of(path)] |= {target} - {source_files.module_of(path), None}
    return found


def test_table_points_only_downwards():
    assert upward(ROOMS) == []


@pytest.mark.parametrize("path", MODULES, ids=source_files.name_in_package)
def test_imports_point_only_downwards(path):
    module, imports = source_files.module_of(path), source_files.imports_of(path)
    room = room_of(module)
    if not room and path.name == "__init__.py":
        assert not imports, f"{module} is a folder without a line in ROOMS: it may say what it is, and import nothing"
        return
    assert room, f"{module} is a new room: give it a line in ROOMS and in docs/house.md"
    upwards = [found.target for found in imports if forbidden(room, found)]
    assert not upwards, f"{room} may not import {upwards}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_grant_is_used(room):
    inside = [path for path in MODULES if room_of(source_files.module_of(path)) == room]
    imports = [found for path in inside for found in source_files.imports_of(path)]
    assert inside or (PACKAGE / room).is_dir(), f"{room} is no room"
    assert not unused(room, imports), f"{room} may import what it does not"


def test_no_files_import_in_a_circle():
    assert circle(arrows()) == []


def test_no_folders_import_in_a_circle():
    folders: dict[str, set[str]] = {}
    for module, imported in arrows().items():
        folder = module.split(".")[0]
        folders.setdefault(folder, set()).update({name.split(".")[0] for name in imported} - {folder})
    assert circle(folders) == []


# The rest shows that the checks above can fail.


@pytest.mark.parametrize(
    ("room", "text", "found"),
    [
        ("geometry", "from .nn.layers import Linear", ["nn.layers.Linear"]),
        ("geometry", "import numpy as np\nfrom qwenvis import encoder", ["encoder"]),
        ("images.step", "from ..ops import vol2col, linear", ["ops.linear"]),
        ("images.step", "from .. import ops\nops.vol2col(1)\nops.gather(2)", ["ops.gather"]),
        ("images.step", "from .. import ops", ["ops"]),
        ("images.step", "from ..ops.vol2col import vol2col\nimport torch", ["torch"]),
        ("images.image", "from .decode import probe\nfrom . import unknown", ["images.unknown"]),
        ("models", "from ..nn.layers import Block\nfrom . import qwen2_vl\nfrom ..images import open", ["images.open"]),
        ("embeddings.embeddings", "from .notebook import page", ["embeddings.notebook.page"]),
        ("embeddings.embeddings", "def page():\n    from .notebook import page", []),
        ("cli", "import qwenvis", []),
        ("encoder", "from .cli import main", ["cli.main"]),
    ],
)
def test_a_wrong_import_is_seen(room, text, found):
    folder = room if (PACKAGE / room).is_dir() else room.rpartition(".")[0]
    package = ("qwenvis", folder) if folder else ("qwenvis",)
    assert [i.target for i in source_files.python_imports(text, package) if forbidden(room, i)] == found


def test_a_grant_too_many_is_seen():
    found = source_files.python_imports("from .decode import probe\nimport numpy", ("qwenvis", "images"))
    may = {*ROOMS["images.image"].ours.split(), *ROOMS["images.image"].others.split()}
    assert set(unused("images.image", found)) == may - {"images.decode", "numpy"}


def test_a_grant_that_points_upward_is_seen():
    rooms = {
        "errors": Room(),
        "geometry": Room("errors nn"),
        "nn.layers": Room("errors geometry"),
        "nn.blocks": Room("nn"),
    }
    assert upward(rooms) == [("geometry", "nn"), ("nn.blocks", "nn")]


def test_a_circle_is_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_a_wrong_cimport_is_seen():
    text = '''"""Text.
import nothing
"""
from libc.stdint cimport (int64_t,
                          uint8_t)
from qwenvis.ops.kernels cimport qv_kernels
from qwenvis.nn.layers cimport Linear
import os, torch
from .runtime cimport selected as chosen
'''
    found = source_files.cython_imports(text, ("qwenvis", "ops"))
    assert [i.target for i in found if forbidden("ops", i)] == ["nn.layers.Linear", "torch"]
    assert Import("ops.runtime.selected", ours=True, lazy=False) in found
