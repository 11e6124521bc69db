"""The compiler that is here keeps every tile in registers: the check of `make check-tiles`, and that it can fail."""

import importlib.util
import platform
import shutil

import pytest
from sources import ROOT

COMPILERS = [compiler for compiler in ("gcc", "clang") if shutil.which(compiler)]


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_tiles", ROOT / "tools" / "check_tiles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_compiler():
    assert COMPILERS


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("isa", ["generic", "avx2", "avx512", "avx512_bf16"])
def test_no_tile_goes_to_the_stack(check, compiler, isa):
    loops, found = check.faults(check.KERNELS / f"{isa}.c", compiler)
    assert found == []
    assert loops >= 12 or (isa != "generic" and platform.machine() != "x86_64")


def test_a_spill_is_found(check, tmp_path):
    """More sums than there are registers must go to the stack."""
    text = (check.KERNELS / "generic.c").read_text().replace("#define MR 6", "#define MR 16")
    assert "#define MR 16" in text
    for header in check.KERNELS.glob("*.h"):
        shutil.copy(header, tmp_path)
    (tmp_path / "generic.c").write_text(text)
    _, found = check.faults(tmp_path / "generic.c", COMPILERS[0])
    assert found
