"""One encoder in many threads, after a fork, under every instruction set, and under Ctrl-C."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from made.presets import encoder, picture, pixels, same_bits
from oracle.families import KINDS
from oracle.tolerance import QUANTIZED, ROUNDED, TOWER, assert_close
from processes.encoder_programs import ONE_PICTURE
from processes.programs import launch, output
from qwenvis import ops
from qwenvis.nn.formats import DTYPES

every_family = pytest.mark.parametrize("family", KINDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
SIZES = [(280, 420), (61, 97), (56, 56), (30, 300), (150, 113), (200, 200)]


@every_family
@every_dtype
@pytest.mark.parametrize(("workers", "threads"), [(2, 1), (6, 1), (2, 2), (6, 2)])
def test_python_threads_share_an_encoder(family, dtype, workers, threads):
    """Each gets the bits that it would get alone, though they all start at once."""
    found, start = encoder(family, dtype=dtype, threads=threads), threading.Barrier(workers)
    images = [picture(*size, seed=seed) for seed, size in enumerate(SIZES[:workers])]
    want = [found.encode(image, hidden_states=True) for image in images]

    def work(index):
        start.wait()
        return [found.encode(images[(index + i) % workers], hidden_states=True) for i in range(3)]

    with ThreadPoolExecutor(workers) as pool:
        for index, outs in enumerate(pool.map(work, range(workers))):
            for i, out in enumerate(outs):
                alone = want[(index + i) % workers]
                assert same_bits(out.embeddings, alone.embeddings)
                assert all(map(same_bits, out.hidden_states, alone.hidden_states))


@every_dtype
def test_streams_of_two_threads_are_their_own(dtype):
    found = encoder(dtype=dtype)
    images = [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]
    want = [found.encode(image).embeddings for image in images]
    streams = [found.encode_iter(images, patch_budget=100), found.encode_iter(images[::-1], patch_budget=1000)]
    for forth, (one, other) in enumerate(zip(*streams, strict=True)):
        assert same_bits(one.embeddings, want[forth])
        assert same_bits(other.embeddings, want[-1 - forth])


@every_dtype
def test_number_of_threads_belongs_to_the_encoder(dtype):
    """Two encoders with different numbers of threads take turns, in one Python thread and in two."""
    one, two = encoder(threads=1, dtype=dtype), encoder(threads=2, dtype=dtype)
    values, grid_thw = pixels(one.config, [[2, 10, 12], [1, 4, 4]])
    want = one(values, grid_thw).embeddings
    nested = []
    two(values, grid_thw, progress=lambda *call: nested.append(one(values, grid_thw).embeddings))
    assert len(nested) == 5
    assert all(same_bits(tokens, want) for tokens in nested)
    assert same_bits(two(values, grid_thw).embeddings, want)


def test_weight_that_two_threads_pack_keeps_its_memory(monkeypatch):
    """Threads may load one spec: the second to allocate must not drop what the first one is still writing to."""
    weight, array, empty, placed = ops.PackedWeight(8, 6), np.ones((8, 6), np.float32), np.empty, []

    def interrupted(*size):
        monkeypatch.undo()
        weight.pack(array)
        placed.append(weight.memory)
        return empty(*size)

    monkeypatch.setattr(np, "empty", interrupted)
    weight.pack(array)
    assert weight.memory is placed[0]


FORK = """
import os
want = encoder.encode(picture).embeddings.tobytes()
child = os.fork()
if child == 0:
    code = 1
    try:
        same = [each.encode(picture).embeddings.tobytes() == want for each in (encoder, load())]
        code = 0 if all(same) else 2
    finally:
        os._exit(code)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
again = encoder.encode(picture).embeddings.tobytes() == want
print(status, again)
"""


@every_dtype
def test_child_of_a_fork_works(dtype):
    """Threads do not survive a fork: whoever asks for them in the child would wait for ever."""
    assert output(ONE_PICTURE + FORK, DTYPE=dtype).split() == ["0", "True"]


POOL = """
import multiprocessing
def work(index):
    return encoder.encode(picture).embeddings.tobytes()
if __name__ == "__main__":
    want = work(0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(all(got == want for got in pool.map(work, range(4))))
"""


def test_pool_of_forked_workers_works():
    assert output(ONE_PICTURE + POOL).split() == ["True"]


@pytest.mark.parametrize("forced", [*(name for name, present in ops.isas().items() if present), None])
@every_dtype
def test_p06_isa_is_forced_by_the_environment(tmp_path, forced, dtype):
    """And gives the bits that it gives in this process."""
    code = "np.save(sys.argv[1], encoder.encode(picture).embeddings); print(ops.isa(), encoder.isa)"
    environment = {"QWENVIS_ISA": forced or "", "DTYPE": dtype}
    names = output(ONE_PICTURE + code, tmp_path / "tokens.npy", **environment).split()
    assert len(set(names)) == 1
    assert names[0] == (forced or [name for name, present in ops.isas().items() if present][-1])
    found = encoder("qwen2_5_vl", dtype=dtype)
    want = found.encode(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)).embeddings
    got = np.load(tmp_path / "tokens.npy")
    assert_close(got, want, {"float32": TOWER, "bfloat16": ROUNDED, "int8": QUANTIZED}[dtype])
    assert same_bits(got, want) or names[0] != found.isa


def test_unknown_isa_is_an_error():
    code = """
try:
    from qwenvis import Encoder
except Exception as error:
    import qwenvis
    print(isinstance(error, qwenvis.IsaError), error)
"""
    said = output(code, QWENVIS_ISA="sse9")
    assert said.startswith("True ISA 'sse9' is not in this build, which has generic")


LONG = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
calls = []
def progress(done, total):
    calls.append(done)
    if len(calls) == 3:
        print("running", flush=True)
encoder.encode([picture] * 5000, progress=progress)
"""


def test_ctrl_c_ends_a_long_encode():
    with launch(ONE_PICTURE + LONG) as process:
        try:
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            start = time.monotonic()
            _, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert time.monotonic() - start < 5
    assert process.returncode == -signal.SIGINT
    assert error.strip().endswith("KeyboardInterrupt")


def test_exit_during_a_call():
    """A daemon thread that is in the middle of an encode neither holds the exit up nor crashes it."""
    code = """
import threading
running = threading.Event()
work = lambda: encoder.encode([picture] * 5000, progress=lambda *call: running.set())
threading.Thread(target=work, daemon=True).start()
running.wait()
print("done")
"""
    assert output(ONE_PICTURE + code, timeout=30).split() == ["done"]
