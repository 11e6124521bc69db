"""The plan of the house, held against the source: how large things are, what they are called."""

from __future__ import annotations

import re
import tomllib

import pytest

from house import source_files
from house.rooms import ROOMS
from house.source_files import PACKAGE, ROOT
from qwenvis import ops

LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 40
ARGUMENTS = 6

# How much a listing may hold before nobody reads it.
ENTRIES_OF_THE_PACKAGE = 30
FILES_OF_A_FOLDER = 12
LONG_LISTS = {"models", "ops", "kernels", "cli"}  # one file for each family, operation, instruction set, command

# What C may include: libc without allocation, intrinsics.
HEADERS = {"float.h", "math.h", "stddef.h", "stdint.h", "string.h", "immintrin.h", "arm_neon.h", "cpuid.h"}
HEADERS |= {"sys/auxv.h", "sys/sysctl.h"}  # which ask for the CPU's features

MODULES = source_files.files(".py", ".pyi", ".pyx", ".pxd")
C_FILES = source_files.files(".c", ".h")
PAGE_FILES = source_files.files(".html", ".css", ".js")


@pytest.mark.parametrize("path", [p for p in C_FILES if p.parent.name == "kernels"], ids=source_files.name_in_package)
def test_kernels_include_libc_and_intrinsics_only(path):
    text = path.read_text(encoding="utf-8")
    outside = set(re.findall(r"^\s*#\s*include\s*<([^>]+)>", text, re.MULTILINE)) - HEADERS
    inside = set(re.findall(r'^\s*#\s*include\s*"([^"]+)"', text, re.MULTILINE))
    assert not outside
    assert all((path.parent / name).exists() for name in inside), inside


@pytest.mark.parametrize("path", [*MODULES, *C_FILES, *PAGE_FILES], ids=source_files.name_in_package)
def test_small_enough_to_hold(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_OF_A_FILE, f"{lines} lines: which are its two subjects?"
    for function in source_files.functions_of(path):
        assert function.lines <= LINES_OF_A_FUNCTION, function
        assert function.arguments <= ARGUMENTS, function


def entries(folder):
    """What is ours in a folder: source files and the folders that hold some."""
    return [
        path
        for path in folder.iterdir()
        if not path.name.startswith((".", "__pycache__"))
        and path.suffix not in {".so", ".pyd"}
        and path not in source_files.GENERATED
    ]


def test_listings_are_short_enough_to_read():
    assert len(entries(PACKAGE)) <= ENTRIES_OF_THE_PACKAGE
    inside = [*PACKAGE.rglob("*"), *(ROOT / "tests").glob("*")]
    folders = [path for path in inside if path.is_dir() and "__pycache__" not in path.parts]
    long = {path.name: len(entries(path)) for path in folders if len(entries(path)) > FILES_OF_A_FOLDER}
    assert set(long) <= LONG_LISTS, long


def test_tests_are_small_enough_to_hold():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "tests").rglob("*.py")}
    assert not {name: count for name, count in lines.items() if count > LINES_OF_A_FILE}


def test_c_symbols_carry_the_project_name():
    static = r"^\s*#\s*define\s+(\w+)\s+.*\bstatic\b"
    macros = frozenset(
        name for p in C_FILES for name in re.findall(static, p.read_text(encoding="utf-8"), re.MULTILINE)
    )
    for path in C_FILES:
        for symbol in source_files.external_symbols(path.read_text(encoding="utf-8"), macros):
            assert symbol.lower().startswith("qv_"), f"{path.name}: {symbol} is neither static nor qv_"


@pytest.mark.parametrize("path", source_files.files(".pyx"), ids=source_files.name_in_package)
def test_no_op_has_a_branch_for_a_format(path):
    """Ops ask a format for its facts. Only `runtime` looks one up; elsewhere names are default arguments at most."""
    code = re.sub(r'"""[\s\S]*?"""|#.*|str format="\w+"', "", path.read_text(encoding="utf-8"))
    assert not re.findall(rf"\b(?:{'|'.join(ops.formats())})\b|\b(?:itemsize|mr|nr|kr) *[!=]=", code)
    assert path.stem == "runtime" or not re.findall(r"\.formats\b|\bformat\.name\b", code)


def test_no_room_without_a_noun():
    nameless = {"utils", "util", "common", "base", "helpers", "misc"}
    assert not [p for p in PACKAGE.rglob("*") if p.stem in nameless]


def test_every_package_is_shipped():
    listed = project()["tool"]["setuptools"]["packages"]
    for path in PACKAGE.rglob("__init__.py"):
        assert ".".join(path.parent.relative_to(ROOT).parts) in listed


def test_every_data_file_is_shipped():
    data = project()["tool"]["setuptools"]["package-data"]
    folders = {ROOT / package.replace(".", "/"): patterns for package, patterns in data.items()}
    shipped = {path for folder, patterns in folders.items() for pattern in patterns for path in folder.glob(pattern)}
    code = {".py", ".pyx", ".pxd", ".c", ".h", ".so", ".pyd", ".pyc"}
    assert {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in code} == shipped


def test_every_room_is_in_the_docs():
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    rooms = set(ROOMS) - {"__init__", "__main__"}
    assert not [room for room in rooms if f"`{room}`" not in text]


def test_every_adapter_is_in_the_diagram():
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    branch = text.partition("    adapters/ ")[2].partition("    jobs/ ")[0]
    drawn = set(re.findall(r"\w+", " ".join(re.findall(r"[|']-- (.+?)  ", branch))))
    assert drawn == {name.split(".")[1] for name in ROOMS if name.startswith("adapters.")}


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


@pytest.mark.parametrize(
    "path", [*C_FILES, *PAGE_FILES, *source_files.files(".pyx", ".pxd")], ids=source_files.name_in_package
)
def test_lines_are_short_enough(path):
    """Ruff looks at Python only."""
    long = [number for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 120]
    assert long == []
