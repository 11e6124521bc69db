"""Long work: streams, progress, bad images, interruptions, a lack of memory; after each the encoder is as before."""

import gc
import itertools
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from made.presets import SMALL, encoder, forward_passes, grouped, patches_of, picture, pixels, same_bits
from oracle.families import KINDS, fraction
from qwenvis.errors import ImageError, InputError, LimitError
from qwenvis.nn import workspace
from qwenvis.nn.formats import DTYPES

every_family = pytest.mark.parametrize("family", KINDS)

BUDGET = 130
SIZES = [(61, 97), (56, 56), (280, 420), (30, 300), (150, 113), (61, 97), (56, 140)]


@pytest.fixture(autouse=True)
def small_budget(monkeypatch):
    """Groups of few images, so that a short list is several forward passes."""
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", BUDGET)


def pictures():
    return [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]


class Counted:
    """An iterator that knows how many images were taken from it."""

    def __init__(self, images):
        self.images, self.taken = iter(images), 0

    def __iter__(self):
        return self

    def __next__(self):
        image = next(self.images)
        self.taken += 1
        return image


# Streams.


@every_family
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("budget", [1, BUDGET, 10_000])
def test_stream_is_one_image_after_the_other(monkeypatch, family, dtype, budget):
    found = encoder(family, dtype=dtype, threads=2)
    want = [found.encode(image, hidden_states=True) for image in pictures()]
    passes = forward_passes(monkeypatch, found)
    outs = list(found.encode_iter(iter(pictures()), hidden_states=True, patch_budget=budget))
    for out, single in zip(outs, want, strict=True):
        assert same_bits(out.embeddings, single.embeddings)
        assert same_bits(out.grid_thw, single.grid_thw)
        assert all(map(same_bits, out.hidden_states, single.hidden_states))
        assert out.embeddings.flags.c_contiguous
        assert out.provenance.keys() <= single.provenance.keys()
    assert passes == grouped(patches_of(found, SIZES), budget)
    assert family != "qwen2_vl" or budget != BUDGET or passes == [40, 600, 124, 64]


def test_stream_is_lazy():
    patches = patches_of(encoder(), SIZES)
    """Nothing is taken before it is asked for; no more is held than two runs, and the image that ended the second."""
    images, found = Counted(pictures()), encoder()
    stream = found.encode_iter(images, patch_budget=BUDGET)
    assert images.taken == 0
    for given, _ in enumerate(stream):
        held = patches[given : images.taken]
        assert sum(held[:-1]) <= max(BUDGET, held[0]) + max(BUDGET, *held)
    assert images.taken == len(patches)


def test_endless_stream():
    images, found = Counted(picture(61, 97, seed) for seed in itertools.count()), encoder()
    stream = found.encode_iter(images, patch_budget=BUDGET)
    outs = list(itertools.islice(stream, 11))
    stream.close()
    assert same_bits(outs[10].embeddings, found.encode(picture(61, 97, 10)).embeddings)
    assert images.taken <= 11 + 2 * (BUDGET // 24) + 1


@pytest.mark.parametrize("budget", [1, BUDGET, 10_000])
def test_error_in_a_stream_comes_in_its_turn(tmp_path, budget):
    images = [*pictures()[:2], tmp_path / "nowhere.jpg", pictures()[3]]
    given = []
    with pytest.raises(ImageError, match=r"image 2 .*nowhere.jpg.* no such file"):
        given.extend(encoder().encode_iter(images, patch_budget=budget))
    assert len(given) == 2


def test_results_of_a_stream_do_not_share_their_numbers():
    first, *others = encoder().encode_iter(pictures(), patch_budget=10_000)
    kept = [out.embeddings.copy() for out in others]
    first.embeddings[:] = np.nan
    assert all(same_bits(out.embeddings, before) for out, before in zip(others, kept, strict=True))


def test_items_of_a_stream_keep_nothing_else_alive():
    for out in encoder().encode_iter(pictures(), hidden_states=True, patch_budget=10_000):
        assert all(array.base is None for array in (out.embeddings, *out.hidden_states))


@pytest.mark.parametrize("budget", [BUDGET, 10_000])
def test_error_of_the_work_gives_nothing_out_twice(monkeypatch, budget):
    """One that looks like an image's is the work's all the same: the stream ends, and no image is encoded again."""
    found, passes = encoder(), []

    def forward(patches, *args):
        passes.append(len(patches))
        raise ImageError("of the work")

    monkeypatch.setattr(found.spec.tower, "forward", forward)
    with pytest.raises(ImageError, match="of the work"):
        next(found.encode_iter(pictures(), patch_budget=budget))
    assert len(passes) == 1


def test_limits_of_a_stream_are_checked():
    with pytest.raises(InputError, match="min_pixels"):
        next(encoder().encode_iter(pictures(), min_pixels=2, max_pixels=1))


# Progress.


@every_family
def test_progress_of_images(family):
    calls, found = [], encoder(family)
    out = found.encode(pictures(), progress=lambda *call: calls.append(call))
    total = int(out.grid_thw.prod(axis=1).sum()) * 5  # patch embedding and four blocks
    assert calls == sorted(set(calls))
    assert {call[1] for call in calls} == {total}
    assert calls[-1] == (total, total)
    assert len(calls) == 5 * len(grouped(patches_of(found, SIZES), BUDGET))


@every_family
def test_progress_of_pixel_values(family):
    calls, found = [], encoder(family)
    values, grid_thw = pixels(found.config, [[2, 10, 10], [1, 4, 4], [3, 2, 2]])
    found(values, grid_thw, progress=lambda *call: calls.append(call))
    passes = [100, 100 + 16 + 3 * 4]  # steps within the budget: a video may take several
    assert [done for done, _ in calls] == np.cumsum(np.repeat(passes, 5)).tolist()
    assert calls[-1] == (1140, 1140)


# Bad images.


def test_all_bad_images_are_told_before_any_is_encoded(monkeypatch, tmp_path):
    found, passes = encoder(), []
    monkeypatch.setattr(found.spec.tower, "forward", lambda *args: passes.append(args))
    bad = [tmp_path / "nowhere.jpg", b"no image", picture(1, 300), picture(8, 8).astype(np.float32), None, b""]
    with pytest.raises(ImageError) as caught:
        found.encode([*pictures(), *bad])
    message = str(caught.value)
    assert "6 of 13 images cannot be used" in message
    assert all(f"image {index} (" in message for index in range(7, 13))
    assert "ratio must be smaller than 200, got 300" in message
    assert not passes


def test_images_that_are_too_large_are_told_before_any_is_encoded(monkeypatch):
    found, passes = encoder(), []
    monkeypatch.setattr(found.spec.tower, "forward", lambda *args: passes.append(args))
    with pytest.raises(LimitError, match="image 1 "):
        found.encode([picture(56, 56), np.broadcast_to(np.uint8(0), (100_000, 1000, 3))])
    with pytest.raises(LimitError, match="lower max_pixels"):
        found.encode(picture(56, 56), min_pixels=2**27, max_pixels=2**28)
    assert not passes


def test_damage_that_shows_late_is_told_by_index(tmp_path):
    """The header of the last image is whole: it comes to light in the last group."""
    from PIL import Image

    path = tmp_path / "cut.png"
    Image.fromarray(picture(150, 113)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    found = encoder()
    with pytest.raises(ImageError, match=r"image 7 .*cut.png.* truncated or damaged"):
        found.encode([*pictures(), path])
    found.encode(pictures())


# Interruptions.


@pytest.mark.parametrize(
    ("family", "error", "moment"), fraction(3, KINDS, [KeyboardInterrupt, ZeroDivisionError, MemoryError], [1, 3, 5, 6])
)
def test_encoder_survives_an_interruption(family, error, moment):
    found, calls = encoder(family, threads=2, **SMALL), []
    want = found.encode(pictures()).embeddings

    def interrupt(done, total):
        calls.append(done)
        if len(calls) == moment:
            raise error

    with pytest.raises(error):
        found.encode(pictures(), progress=interrupt)
    assert len(calls) == moment
    assert same_bits(found.encode(pictures()).embeddings, want)


@every_family
@pytest.mark.parametrize("allocation", [1, 2, 4, 7])
def test_encoder_survives_a_lack_of_memory(monkeypatch, family, allocation):
    """The first image left a small workspace; the second one needs a larger, which fails half way."""
    found, allocations = encoder(family, **SMALL), itertools.count(1)
    want, small = (encoder(family, **SMALL).encode(images).embeddings for images in (pictures(), picture(56, 56)))
    found.encode(picture(56, 56))

    def empty(*args):
        if next(allocations) == allocation:
            raise MemoryError
        return np.empty(*args)

    with monkeypatch.context() as patch:
        patch.setattr(workspace, "np", SimpleNamespace(empty=empty, uint8=np.uint8, dtype=np.dtype))
        with pytest.raises(MemoryError):
            found.encode(pictures()[2])
    assert same_bits(found.encode(picture(56, 56)).embeddings, small)
    assert same_bits(found.encode(pictures()).embeddings, want)


@every_family
def test_memory_does_not_grow(family):
    """Sizes that come back need no more memory than the first time, but for what Python keeps to hand out again."""
    found, images = encoder(family, **SMALL), pictures()
    tracemalloc.start()
    try:
        found.encode(images)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            for image in images:
                found.encode(image)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < before + 150_000
    finally:
        tracemalloc.stop()
