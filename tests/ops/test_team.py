"""Threads that the operating system refuses, and stacks that are small: fewer threads, and the same bits."""

import shutil
import subprocess
import sys

import pytest

from house.source_files import ROOT
from made.tile_sizes import ISAS
from processes.programs import output
from qwenvis import ops

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="knows the limits of Linux")

PRODUCTS = """
    import os, resource, threading
    import numpy as np
    from qwenvis import ops

    x, w = np.random.default_rng(0).standard_normal((2, 200, 600), np.float32)
    weights = [ops.PackedWeight(200, 600, format=name) for name in ops.formats()]
    for weight in weights:
        weight.pack(w)

    halves = (x.view(np.uint32) >> 16).astype(np.uint16)  # as bfloat16, for the formats whose rows those are
    rows = [x if weight.rows_dtype == "float32" else halves for weight in weights]

    def products(threads):
        with ops.use_threads(threads):
            made = [ops.linear(r, weight, np.empty((200, 200), np.float32)) for r, weight in zip(rows, weights)]
        return b"".join(out.tobytes() for out in made)

    def tasks():
        return len(os.listdir("/proc/self/task"))

    want, before = products(1), tasks()
"""


def test_granted_threads():
    assert [ops.granted_threads(count) for count in (1, 2, 3)] == [1, 2, 3]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """The library that refuses threads."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc")
    library = tmp_path_factory.mktemp("refused") / "refused.so"
    command = ["gcc", "-shared", "-fPIC", "-o", library, ROOT / "tests" / "processes" / "refused_threads.c", "-ldl"]
    subprocess.run(command, check=True)
    return str(library)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_refused_threads_are_done_without(refused, most):
    """Also later, for fewer threads and for more."""
    code = f"""
    os.environ["MOST_THREADS"] = "{most}"
    for threads in (4, 2, 4, 8, 3):
        assert products(threads) == want
    print(ops.granted_threads(8), tasks() - before)
    """
    assert output(PRODUCTS + code, LD_PRELOAD=refused, OPENBLAS_NUM_THREADS="1") == f"{most + 1} {most}"


def test_refused_threads_of_several_callers(refused):
    """Two callers that want more threads at the same time must not count on the same ones."""
    code = """
    callers, ready = 4, threading.Barrier(5)
    got = [b""] * callers

    def work(i):
        ready.wait()
        ready.wait()
        for threads in (2, 4, 8):
            got[i] = products(threads)

    started = [threading.Thread(target=work, args=(i,)) for i in range(callers)]
    for thread in started:
        thread.start()
    ready.wait()
    os.environ["MOST_THREADS"] = str(callers + 6)
    ready.wait()
    for thread in started:
        thread.join()
    print(got == [want] * callers)
    """
    assert output(PRODUCTS + code, LD_PRELOAD=refused, OPENBLAS_NUM_THREADS="1") == "True"


def test_address_space_for_few_stacks():
    """Each thread wants a stack of 64 MB, and there is room for two or three."""
    code = """
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (160 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    assert products(8) == want
    print(1 <= ops.granted_threads(8) < 5)
    """
    assert output(PRODUCTS + code, OMP_STACKSIZE="64M") == str(ops.openmp > 0)


ENCODED = """
    import numpy as np
    from qwenvis import Encoder

    def tokens(threads, dtype):
        encoder = Encoder.from_pretrained("synthetic:tiny-qwen2.5-vl", dtype=dtype, threads=threads)
        return encoder.encode(np.arange(3 * 224 * 336, dtype=np.uint8).reshape(224, 336, 3)).embeddings.tobytes()

    print([tokens(3, dtype) == tokens(1, dtype) for dtype in ("float32", "bfloat16")])
"""


@pytest.mark.parametrize(
    ("size", "isa"),
    [
        *(("16K", isa) for isa in sorted({ISAS[-1], "avx2"} & set(ISAS))),
        ("64", "avx2"),
        (" 100000 b ", "generic"),
        ("-1", "generic"),
        ("1", "generic"),  # less than the system's least: libgomp keeps its own
        ("large", "generic"),
        ("9000000G", "generic"),  # of addresses, which no system has: no thread but the caller's
    ],
)
def test_any_size_of_stacks(size, isa):
    if isa not in ISAS:
        pytest.skip(f"this CPU has no {isa}")
    assert output(ENCODED, OMP_STACKSIZE=size, QWENVIS_ISA=isa) == "[True, True]"


def test_variable_of_gnu():
    assert output(ENCODED, GOMP_STACKSIZE="9000000G", QWENVIS_ISA="generic") == "[True, True]"


def test_small_stack_of_a_python_thread():
    """The caller takes tasks too, on a stack that Python chose."""
    code = """
    got = []
    threading.stack_size(64 << 10)
    caller = threading.Thread(target=lambda: got.append(products(2)))
    caller.start()
    caller.join()
    print(got == [want])
    """
    assert output(PRODUCTS + code, QWENVIS_ISA="avx2" if "avx2" in ISAS else "generic") == "True"
