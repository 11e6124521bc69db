"""What CI makes wheels of: the checks of a wheel can fail, and the workflows run nothing that could change unseen."""

import importlib.util
import re
import tomllib
import zipfile

import pytest

from house.source_files import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MODULE = "qwenvis/ops/linear.cpython-313-x86_64-linux-gnu.so"


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / "tools" / "check_wheel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheel(check, tmp_path):
    """A function that makes a wheel of what it needs, plus and minus some files."""

    def made(more=(), without=()):
        path = tmp_path / "qwenvis-0-py3-none-any.whl"
        needed = [f"qwenvis-0{name}" if name.startswith(".") else name for name in check.NEEDED]
        with zipfile.ZipFile(path, "w") as file:
            for name in {*needed, MODULE, "qwenvis/ops/linear.pyi", *more} - {*without}:
                file.writestr(name, b"")
        return path

    return made


def test_a_whole_wheel_passes(check, wheel, capsys):
    assert check.main([wheel()]) == 0
    assert "0 faults" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "without", "fault"),
    [
        ((), ["qwenvis/py.typed"], "has no qwenvis/py.typed"),
        ((), ["qwenvis-0.dist-info/sboms/qwenvis.cdx.json"], "has no .dist-info/sboms/qwenvis.cdx.json"),
        (["qwenvis/kernels/avx2.c"], [], "has the source qwenvis/kernels/avx2.c"),
        (["qwenvis/ops/norm.pyi"], [], "has no compiled qwenvis.ops.norm"),
        ((), [MODULE, "qwenvis/ops/linear.pyi"], "has nothing compiled"),
    ],
)
def test_a_fault_is_found(check, wheel, more, without, fault):
    path = wheel(more, without)
    assert check.faults(path) == [fault]
    assert check.main([path]) == 1


def test_a_large_wheel_and_no_wheel_fail(check, wheel, monkeypatch):
    assert check.main([]) == 1
    monkeypatch.setattr(check, "LARGEST", 10)
    assert "at most 10 are allowed" in check.faults(wheel())[0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash(path):
    used = re.findall(r"uses: (\S+@.*)", path.read_text(encoding="utf-8"))
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used), used


def test_programs_of_the_wheel_build_exist():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cibuildwheel"]
    for command in (settings["before-build"], settings["test-command"]):
        assert (ROOT / re.fullmatch(r"python \{project\}/(\S+)", command)[1]).is_file()
