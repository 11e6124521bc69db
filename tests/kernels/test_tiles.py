"""The compiler that is here keeps every tile in registers: the check of `make check-tiles`, and that it can fail."""

import functools
import importlib.util
import shutil

import pytest

from house.source_files import ROOT

COMPILERS = [compiler for compiler in ("gcc", "clang", "aarch64-linux-gnu-gcc") if shutil.which(compiler)]


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_tiles", ROOT / "tools" / "check_tiles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.assembly = functools.cache(module.assembly)  # each file takes a second or two
    return module


def test_there_is_a_compiler():
    assert COMPILERS


@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_tile_goes_to_the_stack(check, compiler):
    made = {path.stem: check.faults(path, compiler) for path in check.KERNELS.glob("*.c") if path.stem != "select"}
    assert [line for tiles in made.values() for line in tiles.spilt] == []
    compiled = {name for name, tiles in made.items() if tiles.compiled}
    assert compiled > {"generic"}
    for name, tiles in made.items():
        assert (tiles.loops >= 12) == (name in compiled)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_check_passes(check, compiler, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    assert check.main() == 0


def test_a_build_with_the_generic_set_alone_is_refused(check, monkeypatch, tmp_path, capsys):
    """As a compiler would leave it that knows no other."""
    for path in [check.KERNELS / "generic.c", *check.KERNELS.glob("*.h")]:
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(check, "KERNELS", tmp_path)
    monkeypatch.setenv("CC", COMPILERS[0])
    assert check.main() == 1
    assert "No instruction set was compiled but the generic one" in capsys.readouterr().out


def test_a_spill_is_found(check, tmp_path):
    """More sums than there are registers must go to the stack."""
    text = (check.KERNELS / "generic.c").read_text().replace("#define MR 6", "#define MR 16")
    assert "#define MR 16" in text
    for header in check.KERNELS.glob("*.h"):
        shutil.copy(header, tmp_path)
    (tmp_path / "generic.c").write_text(text)
    assert check.faults(tmp_path / "generic.c", COMPILERS[0]).spilt
