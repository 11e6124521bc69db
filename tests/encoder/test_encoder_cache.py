"""An encoder with a cache: the same results, and no forward pass for what the cache has."""

import io
import os
import tracemalloc
import warnings
import weakref

import numpy as np
import pytest
from PIL import Image

from made import video_files
from made.embeddings import equal
from made.presets import encoder, forward_passes, picture, pixels, same_bits
from oracle.families import KINDS
from qwenvis import Cache, CacheWarning, Embeddings, ImageError, VideoWarning
from qwenvis.errors import NumericalError

CLIP = video_files.frames(9, 70, 100)
VIDEOS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"]
BUDGETS = [1, 130, 10_000]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Do not wait for the disk, which may be slow."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(params=BUDGETS)
def budget(request, monkeypatch):
    """Several forward passes, or one."""
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", request.param)
    return request.param


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "tokens")


def images(*seeds):
    return [picture(56 + 28 * seed, 84, seed) for seed in seeds]


def patches(*seeds):
    """How many patches these images have."""
    return sum(encoder().encode(images(*seeds)).grid_thw.prod(axis=1))


def damaged():
    """A file whose header is whole."""
    file = io.BytesIO()
    Image.fromarray(picture(56, 84)).save(file, "PNG")
    return file.getvalue()[: len(file.getvalue()) // 2]


def stored(cache):
    return {item.key for item in cache}


# The same results.


@pytest.mark.parametrize(("family", "threads"), [("qwen2_vl", 1), *((family, 2) for family in KINDS)])
def test_hits_have_the_same_bits_and_run_no_tower(family, threads, budget, cache, monkeypatch):
    videos = [CLIP, picture(61, 97, 7), video_files.encoded(CLIP)] if family in VIDEOS else None
    want = encoder(family).encode(images(0, 1), videos=videos)
    found = encoder(family, threads=threads, cache=cache)
    first = found.encode(images(0, 1), videos=videos)
    passes = forward_passes(monkeypatch, found)
    again = found.encode(images(0, 1), videos=videos)
    assert passes == []
    for out in (first, again):
        equal(out, want)
    assert stored(cache) == {*first.keys}


def test_hits_are_not_stored_again(cache, monkeypatch):
    found = encoder(cache=cache)
    want = found.encode(images(0), videos=[CLIP])
    monkeypatch.setattr(Cache, "put", None)
    equal(found.encode(images(0), videos=[CLIP]), want)


def test_only_what_is_missing_is_encoded(budget, cache, monkeypatch):
    found = encoder(threads=2, cache=cache)
    found.encode(images(1, 3))
    passes = forward_passes(monkeypatch, found)
    out = found.encode(images(0, 1, 2, 3, 1))
    assert sum(passes) == patches(0, 2)
    equal(out, encoder().encode(images(0, 1, 2, 3, 1)))
    assert len(cache) == 4


def test_a_long_video_among_images(cache, monkeypatch):
    """It spans several micro-batches, in which images come before and after it."""
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", 60)
    call = {"images": images(0, 1), "videos": [CLIP, picture(56, 56)]}
    plain, found = encoder(), encoder(threads=2, cache=cache)
    want = plain.encode(**call)
    assert want.grid_thw[2].tolist() == [5, 4, 8]
    for known in ([], [2], [0, 2], [1, 3], [0, 1, 3], [0, 1, 2, 3]):
        cache.prune(0)
        for number in known:
            cache.put(want.keys[number], want[number])
        with monkeypatch.context() as patch:
            passes = forward_passes(patch, found)
            equal(found.encode(**call), want)
        assert sum(passes) == want.grid_thw.prod(axis=1)[[i for i in range(4) if i not in known]].sum()
        assert len(cache) == 4


def test_memory_of_hits(cache, monkeypatch):
    """Tokens are copied into the result, and those that were read are freed."""
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", 1)
    found, read, get = encoder(cache=cache), [], Cache.get

    def counted(self, key):
        item = get(self, key)
        read.append(weakref.ref(item.embeddings))
        assert sum(each() is not None for each in read) <= 3  # of this micro-batch, and those before and after it
        return item

    want = found.encode(images(*range(6)))
    monkeypatch.setattr(Cache, "get", counted)
    equal(found.encode(images(*range(6))), want)
    assert len(read) == 6


def test_memory_of_a_long_video(cache):
    """It is read as a whole before its first step is encoded, frame by frame."""
    found, frame = encoder(cache=cache), picture(280, 420)
    inputs = found._runner.inputs({"sampling": "all"}, None, None, found._runner.keying())
    item = inputs.video(np.broadcast_to(frame, (64, *frame.shape)), 0)
    out = np.empty((20 * 30, inputs.columns), np.float32)
    tracemalloc.start()
    try:
        assert item.fill(0, 1, out) == (1, 20, 30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for step in range(1, 32):
        item.fill(step, step + 1, out)
    assert (item.found, str(item.key)) == (None, *found.encode(videos=[np.stack([frame] * 64)], sampling="all").keys)
    assert peak < 8 * frame.nbytes  # two steps of two frames each, twice on the way


def test_a_long_video_that_changes_after_it_was_looked_up(cache, monkeypatch):
    """Its tokens are stored under the key of the frames that were encoded."""
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", 1)
    frames, get, plain = CLIP.copy(), Cache.get, encoder()

    def changed(self, key):
        frames[:] = 7
        return get(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(Cache, "get", changed)
        out = encoder(cache=cache).encode(videos=[frames])
    want = plain.encode(videos=[frames])
    assert stored(cache) == {*out.keys} == {*want.keys}
    equal(cache.get(out.keys[0]), want)


def test_a_stream(cache, monkeypatch):
    found = encoder(threads=2, cache=cache)
    call = {"images": images(0, 1, 2), "videos": [CLIP, picture(56, 56)], "patch_budget": 60}
    want = list(encoder().encode_iter(**call))
    for got, single in zip(found.encode_iter(**call), want, strict=True):
        equal(got, single)
    assert len(cache) == 5
    passes = forward_passes(monkeypatch, found)
    for got, single in zip(found.encode_iter(**call), want, strict=True):
        equal(got, single)
        assert got.embeddings.base is None
    assert passes == []


def test_a_stream_that_is_closed(cache):
    stream = encoder(cache=cache).encode_iter(images(0, 1, 2), patch_budget=1)
    first = next(stream)
    stream.close()
    assert {*first.keys} <= stored(cache)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_patches(family, budget, cache, monkeypatch):
    found = encoder(family, cache=cache)
    values, grid_thw = pixels(found.config, [[1, 4, 6], [3, 4, 4], [1, 6, 4]])
    want = encoder(family)(values, grid_thw)
    equal(found(values, grid_thw), want)
    passes = forward_passes(monkeypatch, found)
    equal(found(values, grid_thw), want)
    equal(found(values[24:72], grid_thw[1:2]), encoder(family)(values[24:72], grid_thw[1:2]))
    assert passes == []


def test_a_result_says_where_its_own_items_come_from(tmp_path, cache):
    found = encoder(cache=cache)
    image = Image.fromarray(picture(56, 84))
    image.save(tmp_path / "a.png")
    first = found.encode(image, max_pixels=10**6)
    again = found.encode([tmp_path / "a.png"], max_pixels=10**5)
    assert (first.sources, again.sources) == (["image 0"], [str(tmp_path / "a.png")])
    assert again.provenance["max_pixels"] == "100000"
    assert again.keys == first.keys
    (item,) = cache
    assert (item.source, item.tokens) == ("image 0", len(first.embeddings))
    equal(cache.get(item.key), first)


def test_hidden_states_are_computed(cache, monkeypatch):
    found = encoder(cache=cache)
    out = found.encode(images(0), hidden_states=True)
    assert len(cache) == 0
    found.encode(images(0))
    again = found.encode(images(0), hidden_states=True)
    assert all(map(same_bits, again.hidden_states, out.hidden_states))
    assert again.keys == out.keys


def test_preprocessing_looks_nothing_up(cache, monkeypatch):
    found = encoder(cache=cache)
    monkeypatch.setattr(Cache, "get", None)
    monkeypatch.setattr("qwenvis.encoding.items.hashlib", None)
    assert same_bits(found.preprocess(images(0)).pixel_values, encoder().preprocess(images(0)).pixel_values)


def test_a_damaged_video_is_told_once_in_each_call(cache, budget, monkeypatch):
    found = encoder(cache=cache)
    whole = video_files.encoded(video_files.frames(30, 56, 56), codec="mpeg4", fps=30, keys=1)
    video, told = video_files.damaged(whole, 11), []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            told.append(found.encode(videos=[video], sampling="all"))
        assert [each.category for each in caught] == [VideoWarning]
        monkeypatch.setattr(found.spec.tower, "forward", None)
    equal(*told)
    assert told[1].provenance["damaged_frames"] == "1"


# What cannot be used.


@pytest.mark.parametrize("known", [False, True])
def test_unusable_items(budget, cache, known):
    found, bad = encoder(threads=2, cache=cache), damaged()
    call = [bad, *images(0), bad, *images(1, 2)]
    if known:
        found.encode(images(0, 2))
    out = found.encode(call, on_error="skip")
    equal(out, encoder().encode(call, on_error="skip"))
    assert [error.index for error in out.errors] == [0, 2]
    assert stored(cache) == {*out.keys}
    with pytest.raises(ImageError) as caught:
        found.encode([*images(0, 1), bad, *images(3)])
    equal(caught.value.done, encoder().encode(images(0, 1)))
    assert len(cache) == 3


def test_items_are_stored_as_they_are_encoded(cache, monkeypatch):
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", 1)
    with pytest.raises(ImageError):
        encoder(cache=cache).encode([*images(0, 1), damaged()])
    assert len(cache) == 2


def test_items_that_overflow_are_not_stored(cache):
    found = encoder(cache=cache)
    values, grid_thw = pixels(found.config, [[1, 4, 6], [1, 4, 6]])
    values[30] *= np.float32(1e37)
    with pytest.raises(NumericalError, match="item 1 is NaN or infinite") as caught:
        found(values, grid_thw)
    assert (caught.value.argument, caught.value.index, caught.value.source) == ("pixel_values", 1, "item 1")
    assert stored(cache) == {*caught.value.done.keys}


def test_other_tokens_under_the_key_are_replaced(cache):
    found = encoder("qwen3_vl", cache=cache)
    out = found.encode(images(0))
    other = encoder("qwen3_vl").encode(images(1))
    shorter = Embeddings(out.embeddings, out.grid_thw, 2)
    wide = Embeddings(np.zeros((len(out.embeddings), 7), np.float32), out.grid_thw, 2)
    for wrong in (other, shorter, wide, out.astype("float16")):
        cache.put(out.keys[0], wrong)
        equal(found.encode(images(0)), out)
        equal(cache.get(out.keys[0]), out)


def test_a_cache_that_cannot_be_written(cache, monkeypatch):
    def full(path, key, item):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qwenvis.cache.cache.write", full)
    with pytest.warns(CacheWarning, match="No space left"):
        out = encoder(threads=2, cache=cache).encode(images(0, 1))
    equal(out, encoder().encode(images(0, 1)))
