"""State that Python threads share, with the GIL and without: weights, a spec, a stream, values cached at first use."""

import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from made import mmproj_files
from made.presets import checkpoint, encoder, picture, same_bits
from made.resaved import tensors_of
from processes.programs import output
from qwenvis import Encoder, ops, sources
from qwenvis.spec import ModelSpec

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
THREADS = [2, 4, 8]


@pytest.fixture(autouse=True)
def often():
    """Where there is a GIL, threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*calls):
    """Make calls at the same time, each on a thread of its own; return their results in order."""
    gate = threading.Barrier(len(calls))

    def made(call):
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(made, calls))


EVERYTHING = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("error")
import av, gguf, qwenvis
from qwenvis.errors import PackageError
for module in pkgutil.walk_packages(qwenvis.__path__, "qwenvis."):
    try:
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    except PackageError:  # the adapters of libraries that are not installed
        assert module.name.startswith("qwenvis.adapters.")
print(sys._is_gil_enabled())
"""


@pytest.mark.skipif(not FREE_THREADED, reason="this Python cannot run without the GIL")
def test_importing_everything_leaves_the_gil_off():
    assert output(EVERYTHING, PYTHON_GIL="").split() == ["False"]


def aligned(nbytes, fill):
    """Memory for a weight, on a cache line."""
    raw = np.empty(nbytes + ops.cache_line, np.uint8)
    first = -raw.ctypes.data % ops.cache_line
    memory = raw[first : first + nbytes]
    memory[:] = fill
    return memory


def filled(value, n, k):
    """The memory of a weight (n, k) whose products with ones are ``k * value``, and whose bias is ``1000 * value``."""
    weight = ops.PackedWeight(n, k)
    weight.pack(np.full((n, k), value, np.float32))
    weight.pack_bias(np.full(n, 1000 * value, np.float32))
    return weight.memory


def mapped_anew(maps):
    """Multiply by a weight on two threads, while two threads map one of two weights in turn; return what came out."""
    n, k = 20, 30
    contents, weight, x = [filled(value, n, k) for value in (1, 2)], ops.PackedWeight(n, k), np.ones((4, k), np.float32)
    weight.map(aligned(weight.nbytes, contents[0]))
    done = threading.Event()

    def remap():
        for turn in range(maps):
            weight.map(aligned(weight.nbytes, contents[turn % 2]))
            assert weight.memory.nbytes == weight.nbytes
        done.set()
        return set()

    def multiply():
        found, out = set(), np.empty((4, n), np.float32)
        while not done.is_set():
            found |= set(np.unique(ops.linear(x, weight, out)).tolist())
        return found

    return set().union(*at_once(remap, remap, multiply, multiply))


def test_a_weight_mapped_anew_is_the_old_one_or_the_new_one():
    """Panels and bias come from one memory, which lives until the product is done."""
    assert mapped_anew(1000) <= {1030, 2060}


@pytest.mark.slow
def test_a_weight_mapped_anew_many_times():
    """Without critical sections, one product in some 100,000 has the panels of one weight and the bias of the other."""
    assert mapped_anew(200_000) <= {1030, 2060}


def test_the_first_tensors_of_a_weight_from_several_threads():
    """No tensor is lost: the first thread allocates the memory of all."""
    n, k, rng = 40, 24, np.random.default_rng(0)
    halves = rng.standard_normal((2, n, k), np.float32)
    biases = rng.standard_normal((2, n), np.float32)

    def packed(run):
        weight = ops.PackedWeight(n, k, gated=True)
        packs = [partial(weight.pack, halves[half], half) for half in range(2)]
        run(*packs, *(partial(weight.pack_bias, biases[half], half) for half in range(2)))
        return weight.memory

    want = packed(lambda *calls: [call() for call in calls])
    for _ in range(20):
        assert same_bits(packed(at_once), want)


def test_the_halves_of_a_weight_that_two_threads_pack_in_turn():
    """In a format that needs both halves, each thread packs the weight with its own two, and leaves nothing behind."""
    old, new = np.random.default_rng(0).standard_normal((2, 2, 40, 24), np.float32)
    shared, alone = (ops.PackedWeight(40, 24, "i8", gated=True) for _ in range(2))
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        for half in range(2):
            alone.pack(new[half], half)
            for pool, halves in ((one, old), (other, new)):
                pool.submit(shared.pack, halves[half], half).result()
        assert same_bits(shared.memory, alone.memory)
        for half in range(2):
            one.submit(shared.pack, new[half], half).result()
        assert same_bits(shared.memory, alone.memory)


@pytest.mark.parametrize("threads", THREADS)
def test_encoders_of_one_spec_filled_at_once(threads):
    """Each encoder can encode as soon as it is loaded, while other threads still load the same weights."""
    image = picture(84, 112)
    want = encoder().encode(image).embeddings
    spec = ModelSpec.open(checkpoint())
    for out in at_once(*[lambda: Encoder.from_spec(spec, threads=1).encode([image] * 3)] * threads):
        assert same_bits(out.embeddings, np.concatenate([want] * 3))


def stored(path, kind):
    """Save the same tower in one of the kinds of checkpoint."""
    if kind == "packed":
        encoder().save_packed(path)
    elif kind == "gguf":
        config = sources.open(checkpoint()).vision_config
        mmproj_files.write_tower(path, "qwen2_vl", tensors_of("qwen2_vl"), config)
    return checkpoint() if kind == "safetensors" else path


def everything(found, image, batch):
    """Yield the tokens of one image from each method that encodes."""
    yield found.encode(image).embeddings
    yield from (out.embeddings for out in found.encode_iter(iter([image, image]), patch_budget=1))
    yield found(*batch).embeddings
    yield found(*found.preprocess([image])).embeddings
    yield found.encode(videos=[[image, image]]).embeddings


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("shared", [True, False], ids=["one encoder", "several encoders"])
@pytest.mark.parametrize("kind", ["safetensors", "packed", "gguf"])
def test_every_method_at_once(kind, shared, threads, tmp_path):
    """The caches of the encoders are still empty, and all encoders open the same checkpoint."""
    source = stored(tmp_path / "tower.gguf", kind)
    image = picture(84, 112, seed=threads)
    alone = Encoder.from_pretrained(source, threads=1)
    batch = alone.preprocess([image])
    want = [tokens.copy() for tokens in everything(alone, image, batch)]
    one = Encoder.from_pretrained(source, threads=2)

    def work():
        found = one if shared else Encoder.from_pretrained(source, threads=1)
        return list(everything(found, image, batch))

    for got in at_once(*[work] * threads):
        assert all(map(same_bits, got, want))


@pytest.mark.parametrize("threads", THREADS)
def test_a_stream_has_one_reader_at_a_time(threads):
    """A second reader gets an error, and no item is lost or comes twice."""
    images = [picture(56, 56, seed=seed) for seed in range(20)]
    want = {out.embeddings.tobytes() for out in encoder().encode(images)}
    stream = encoder(threads=2).encode_iter(images, patch_budget=32)
    got, refusals = [], set()

    def read():
        while True:
            try:
                for out in stream:
                    got.append(out.embeddings.tobytes())
            except ValueError as error:
                refusals.add(str(error))
            else:
                return

    at_once(*[read] * threads)
    assert len(got) == len(images)
    assert set(got) == want
    assert refusals <= {"another thread is reading this stream; give each thread its own stream"}


def test_an_iterable_that_reads_the_stream_it_feeds():
    def images():
        yield picture(56, 56)
        for read in (stream.__next__, stream.close):
            with pytest.raises(ValueError, match="another thread is reading this stream"):
                read()

    stream = encoder().encode_iter(images())
    assert len(list(stream)) == 1
    stream.close()


def test_a_preset_written_by_several_threads(tmp_path):
    """The first thread publishes its directory, and the others use that one."""
    load = partial(Encoder.from_pretrained, "synthetic:tiny-qwen2-vl", cache_dir=tmp_path, threads=1)
    image = picture(56, 56)
    want = encoder().encode(image).embeddings
    assert all(same_bits(found.encode(image).embeddings, want) for found in at_once(*[load] * 4))
    assert len(list(tmp_path.iterdir())) == 1
