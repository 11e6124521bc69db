"""Every slot of every instruction set, by the C program in tests/kernels: here, under an emulator, and broken."""

import functools
import importlib
import platform
import shutil
import subprocess

import pytest

from house.source_files import PACKAGE, ROOT
from made.tile_sizes import ISAS
from qwenvis import ops

COMPILERS = [compiler for compiler in ("gcc", "clang") if shutil.which(compiler)]
SANITIZED = "gcc -g -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=undefined -DFENCE=0"
EMULATED = f"gcc -Wno-psabi -include {ROOT / 'tests' / 'kernels' / 'emulated.h'}"
OF_X86 = ["generic", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16"]
CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"


@pytest.fixture(scope="module")
def tool():
    """tools/check_kernels.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        yield importlib.import_module("check_kernels")


@pytest.fixture(scope="module")
def built(tool, tmp_path_factory):
    """Builds the program, once with each compiler."""

    @functools.cache
    def built(compiler):
        program = tmp_path_factory.mktemp("kernels") / "program"
        tool.build(compiler, program)
        return program

    return built


@pytest.fixture(scope="module")
def checks(tool, tmp_path_factory):
    """The compiled checks, which kernels with mistakes are linked to."""
    directory = tmp_path_factory.mktemp("checks")
    tool.compile_checks(COMPILERS[0], directory)
    return directory


@pytest.fixture
def broken(tmp_path):
    """Makes a copy of the kernels with one mistake, and without most instruction sets, which take long to compile."""

    def copied(file, right, wrong, kept=()):
        kernels = tmp_path / "kernels"
        shutil.copytree(PACKAGE / "kernels", kernels, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        text = (kernels / file).read_text(encoding="utf-8")
        assert right in text
        (kernels / file).write_text(text.replace(right, wrong), encoding="utf-8")
        for isa in [path for path in kernels.glob("*.c") if path.stem not in ("generic", "select", *kept)]:
            isa.write_text(f'#include "kernels.h"\nconst qv_kernels qv_{isa.stem} = {{0}};\n', encoding="utf-8")
        return kernels

    return copied


def checked(program, *isas, emulator=()):
    return subprocess.run([*emulator, program, *isas], capture_output=True, text=True, timeout=200, check=False)


def names_of(output, word):
    return [line.split()[0] for line in output.splitlines() if line.endswith(word)]


@pytest.mark.parametrize("compiler", [*COMPILERS, pytest.param(SANITIZED, marks=pytest.mark.slow)])
def test_every_slot(built, compiler):
    if not shutil.which(compiler.split()[0]):
        pytest.skip(f"no {compiler.split()[0]}")
    done = checked(built(compiler), *(ISAS if compiler in COMPILERS[:1] else ()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert names_of(done.stdout, ", 0 failed")[0] == "generic"


@pytest.mark.skipif(not (shutil.which(CROSS) and shutil.which(EMULATOR)), reason=f"no {CROSS}, or no {EMULATOR}")
def test_every_slot_on_arm(built):
    """With the BF16 extension, and on a CPU without it, which has to be noticed."""
    program = built(f"{CROSS} -static")
    done = checked(program, "neon", "neon_dotprod", "neon_bf16", emulator=[EMULATOR, "-cpu", "max"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert names_of(done.stdout, ", 0 failed") == ["generic", "neon", "neon_dotprod", "neon_bf16"]
    older = checked(program, "neon", emulator=[EMULATOR, "-cpu", "cortex-a72"])
    assert older.returncode == 0, older.stdout + older.stderr
    assert names_of(older.stdout, "not on this CPU") == ["neon_dotprod", "neon_bf16"]


x86 = pytest.mark.skipif(
    not (platform.machine() in ("x86_64", "AMD64") and shutil.which("gcc")), reason="not x86-64, or no gcc"
)


@x86
@pytest.mark.parametrize("target", ["", pytest.param("-mavx2 -mfma", marks=pytest.mark.slow)])
def test_every_slot_of_x86_on_any_cpu(built, target):
    """With instructions in C where this CPU may lack them; emulated.h says how."""
    if "avx2" in target and "avx2" not in ISAS:
        pytest.skip("this CPU has no AVX2")
    done = checked(built(f"{EMULATED} {target}"), *OF_X86)
    assert done.returncode == 0, done.stdout + done.stderr
    assert names_of(done.stdout, ", 0 failed") == OF_X86


@x86
@pytest.mark.parametrize(
    ("file", "right", "wrong", "found"),
    [
        ("avx512_bf16.c", "#define QV_NARROW(x) ((vh)_mm512_cvtneps_pbh(x))", "", "row of 31: the bits differ"),
        pytest.param(
            "format_bf16_dot.h",
            "from[r * pitch + k - 1]",
            "from[r * pitch + k - 2]",
            "bf16 product of",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_mistake_in_bfloat16_is_found_on_any_cpu(tool, broken, file, right, wrong, found):
    """The first rounds subnormal numbers in software, where the instruction would flush them."""
    kernels = broken(file, right, wrong, ["avx512_bf16"])
    tool.build(EMULATED, kernels / "program", kernels)
    done = checked(kernels / "program")
    assert done.returncode == 1
    assert f"FAILED avx512_bf16 {found}" in done.stdout


@x86
@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("format_i8_dot.h", "load(header + width + c) * end.zero", "load(header + width + c) * (end.zero + 1)"),
        pytest.param("format_i8_dot.h", "vf) * load(header + c)", "vf) * load(header)", marks=pytest.mark.slow),
        pytest.param("format_i8_dot.h", "* end.scale", "", marks=pytest.mark.slow),
        pytest.param("format_i8_dot.h", "zero += block[i] * 0.0f;", "zero += 0.0f;", marks=pytest.mark.slow),
        pytest.param("format_i8_dot.h", "i % TAIL_VECTORS == 0", "i == 0", marks=pytest.mark.slow),
        pytest.param("format_i8.h", "total += entry;", "total = entry;", marks=pytest.mark.slow),
        pytest.param("format_i8.h", "sign * 2 / PRODUCT", "sign / PRODUCT", marks=pytest.mark.slow),
        pytest.param("hadamard.h", "= first - second", "= second - first", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_in_int8_is_found_on_any_cpu(tool, broken, file, right, wrong):
    """In sums of columns, zero points, scales, factors and rotations, and where NaN would be lost."""
    kernels = broken(file, right, wrong, ["avx_vnni"])
    tool.build(EMULATED, kernels / "program", kernels)
    done = checked(kernels / "program")
    assert done.returncode == 1
    assert " i8 of " in done.stdout


def test_an_instruction_set_that_is_missing_fails(built):
    absent = [name for name, present in ops.isas().items() if not present]
    assert checked(built(COMPILERS[0]), *absent, "mmx").returncode == 1


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("gemm_tile.h", "+ r % GROUP * pitch + p", "+ p"),
        ("format_f32.h", "add || p", "add"),
        ("transpose.h", "c < columns; c++", "c + 1 < columns; c++"),
        ("activations.h", "0.044715f", "0.0447f"),
        ("epilogue.h", "if (add)", "if (0)"),
        ("rows.h", "b * c + a * s", "b * c - a * s"),
        ("rows.h", "l[r] * factors[r]", "l[r]"),
        ("vector.h", "0x7FFF + ((bits >> 16) & 1)", "0x8000"),
    ],
)
def test_a_mistake_is_found(tool, broken, checks, file, right, wrong):
    kernels = broken(file, right, wrong)
    tool.build(COMPILERS[0], kernels / "program", kernels, checks)
    done = checked(kernels / "program")
    assert done.returncode == 1
    assert "FAILED generic" in done.stdout
