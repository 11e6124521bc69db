"""What cannot be used: told by index and source, left out if that is wanted, and nothing else is lost with it."""

import io
import itertools
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from made.presets import encoder, forward_passes, picture, same_bits
from oracle.families import KINDS
from qwenvis.errors import MAX_ERRORS, ImageError, ImageLimitError, InputError, QwenvisError, VideoError

BUDGETS = [1, 130, 10_000]
SIZES = [(61, 97), (56, 56), (280, 420), (30, 300), (150, 113)]


@pytest.fixture(params=BUDGETS)
def budget(request, monkeypatch):
    """Several forward passes, or one."""
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", request.param)
    return request.param


def good():
    return [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]


def cut(seed=0, size=(150, 113)):
    """A file whose header is whole."""
    file = io.BytesIO()
    Image.fromarray(picture(*size, seed)).save(file, "PNG")
    return file.getvalue()[: len(file.getvalue()) // 2]


def mixed(tmp_path):
    """Good images among those that cannot be used, which their headers tell or do not; and where the good ones are."""
    (tmp_path / "cut.png").write_bytes(cut())
    a, b, c, d, e = good()
    images = [cut(1), a, tmp_path / "cut.png", tmp_path / "nowhere.jpg", b, c, b"no image", cut(2), d, e, cut(3)]
    return images, [1, 4, 5, 8, 9]


def bad(images, places):
    return [index for index in range(len(images)) if index not in places]


def alone(found, images, **options):
    return [found.encode(image, **options) for image in images]


def same_items(out, want):
    assert len(out) == len(want)
    for got, single in zip(out, want, strict=True):
        assert same_bits(got.embeddings, single.embeddings)
        assert same_bits(got.grid_thw, single.grid_thw)
        assert same_bits(got.sizes, single.sizes)
        assert all(map(same_bits, got.hidden_states, single.hidden_states))
        assert all(map(same_bits, got.deepstack, single.deepstack))


# encode.


@pytest.mark.parametrize(("family", "threads"), [("qwen2_vl", 1), *((family, 2) for family in KINDS)])
def test_skip_leaves_out_what_cannot_be_used(tmp_path, budget, family, threads):
    found, calls = encoder(family, threads=threads), []
    images, places = mixed(tmp_path)
    out = found.encode(images, on_error="skip", hidden_states=True, progress=lambda *call: calls.append(call))
    same_items(out, alone(found, good(), hidden_states=True))
    assert out.sources == [f"image {index}" for index in places]
    assert [error.index for error in out.errors] == bad(images, places)
    assert {error.argument for error in out.errors} == {"images"}
    assert all(isinstance(error, ImageError) and error.__traceback__ is None for error in out.errors)
    assert [error.source for error in out.errors[:3]] == [
        "image 0",
        str(tmp_path / "cut.png"),
        str(tmp_path / "nowhere.jpg"),
    ]
    assert calls == sorted(set(calls))
    assert calls[-1][0] == calls[-1][1]


def test_nothing_of_what_is_left_out_is_encoded(tmp_path, monkeypatch):
    found = encoder()
    passes = forward_passes(monkeypatch, found)
    images, _ = mixed(tmp_path)
    out = found.encode(images, on_error="skip")
    assert sum(passes) == out.grid_thw.prod(axis=1).sum()


def test_raise_keeps_what_was_encoded_before(budget):
    found = encoder(threads=2)
    images = [*good()[:3], cut(), *good()[3:]]
    with pytest.raises(ImageError, match=r"image 3 .* truncated or damaged") as caught:
        found.encode(images, hidden_states=True)
    error = caught.value
    assert (error.argument, error.index, error.source, error.errors) == ("images", 3, "image 3", ())
    same_items(error.done, alone(found, good()[:3], hidden_states=True))
    assert error.done.errors == ()
    rest = found.encode(images[error.index + 1 :])  # and go on after it
    same_items(rest, alone(found, good()[3:]))


def test_nothing_after_the_error_is_encoded(monkeypatch):
    found = encoder()
    passes = forward_passes(monkeypatch, found)
    with pytest.raises(ImageError) as caught:
        found.encode([good()[0], cut(), good()[2]])
    assert sum(passes) == caught.value.done.grid_thw.prod()


def test_the_first_one_is_damaged(budget):
    with pytest.raises(ImageError) as caught:
        encoder().encode([cut(), *good()])
    assert len(caught.value.done) == 0
    assert encoder().encode([cut(), cut()], on_error="skip").embeddings.shape == (0, 96)


def test_what_headers_tell_is_told_before_anything_is_encoded(tmp_path, monkeypatch):
    found = encoder()
    passes = forward_passes(monkeypatch, found)
    images, _ = mixed(tmp_path)
    with pytest.raises(ImageError, match="2 of 11 images cannot be used") as caught:
        found.encode(images)
    assert [(error.index, error.source) for error in caught.value.errors] == [
        (3, str(tmp_path / "nowhere.jpg")),
        (6, "image 6"),
    ]
    assert (caught.value.index, caught.value.done, passes) == (None, None, [])


def frames(damaged=None):
    """The frames of a video as files; one of them may be damaged behind its header."""
    size = (56, 84)
    whole = [io.BytesIO() for _ in range(8)]
    for seed, file in enumerate(whole):
        Image.fromarray(picture(*size, seed)).save(file, "PNG")
    return [cut(0, size) if index == damaged else file.getvalue() for index, file in enumerate(whole)]


@pytest.mark.parametrize("damaged", [0, 3, 7])
def test_video_that_is_damaged_on_the_way(budget, damaged):
    """Some of its steps are encoded already, in forward passes of their own."""
    found, image = encoder(threads=2), good()[0]
    videos = [frames(), frames(damaged), image, frames()]
    out = found.encode(image, videos=videos, on_error="skip")
    whole = found.encode(videos=[frames()])
    same_items(out, [found.encode(image), whole, found.encode(image), whole])
    assert out.sources == ["image 0", "video 0", "video 2", "video 3"]
    assert [array.tolist() for array in out.frame_indices] == [[], [*range(8)], [], [*range(8)]]
    assert [(error.argument, error.index, type(error)) for error in out.errors] == [("videos", 1, VideoError)]
    with pytest.raises(VideoError, match=r"video 1 .*frame") as caught:
        found.encode(image, videos=videos)
    same_items(caught.value.done, [found.encode(image), whole])


def test_errors_stand_in_the_order_of_the_call():
    out = encoder().encode([cut(), b"", good()[0]], videos=[b"none", frames(3)], on_error="skip")
    assert [(error.argument, error.index) for error in out.errors] == [
        ("images", 0), ("images", 1), ("videos", 0), ("videos", 1),
    ]  # fmt: skip


def test_limits_are_errors_of_images():
    huge = np.broadcast_to(np.uint8(0), (100_000, 1000, 3))
    with pytest.raises(ImageError) as caught:
        encoder().encode([good()[0], huge])
    assert type(caught.value) is ImageLimitError
    assert caught.value.index == 1


@pytest.mark.parametrize("word", ["ignore", ["skip"], np.array(["raise", "skip"]), None], ids=repr)
def test_other_words_are_refused(word):
    for call in (encoder().encode, encoder().encode_iter):
        with pytest.raises(InputError, match=r"on_error is .*; expected raise or skip"):
            call(good(), on_error=word)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("images", [range(10**6), itertools.repeat(None)], ids=["range", "endless"])
def test_what_is_no_list_of_images_is_refused_soon(on_error, images):
    found = encoder()
    tracemalloc.start()
    try:
        start = time.perf_counter()
        with pytest.raises(ImageError, match="image 0") as caught:
            found.encode(images, on_error=on_error)
        assert time.perf_counter() - start < 5
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert len(caught.value.errors) <= MAX_ERRORS


def test_preprocess_tells_all_that_are_damaged():
    with pytest.raises(ImageError, match="2 of 3 items cannot be used") as caught:
        encoder(threads=2).preprocess([cut(0), good()[0], cut(1)])
    assert [error.index for error in caught.value.errors] == [0, 2]


# encode_iter.


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("threads", [1, 2])
def test_stream_goes_on_after_an_error(tmp_path, budget, threads):
    found = encoder(threads=threads)
    images, places = mixed(tmp_path)
    stream = found.encode_iter(iter(images), patch_budget=budget)
    given, failed, order = [], [], []
    while True:
        try:
            given.append(next(stream))
            order.append(True)
        except StopIteration:
            break
        except ImageError as error:
            failed.append(error.index)
            order.append(False)
    same_items(given, alone(found, good()))
    assert failed == bad(images, places)
    assert order == [index in places for index in range(len(images))]


@pytest.mark.parametrize("budget", BUDGETS)
def test_stream_skips(tmp_path, budget):
    found = encoder(threads=2)
    images, places = mixed(tmp_path)
    stream = found.encode_iter(iter(images), patch_budget=budget, on_error="skip")
    given = list(stream)
    same_items(given, alone(found, good()))
    assert [out.sources for out in given] == [[f"image {index}"] for index in places]
    assert [error.index for error in stream.errors] == bad(images, places)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("error", [ZeroDivisionError("theirs"), ImageError("theirs"), MemoryError("theirs")])
def test_error_of_the_iterable_comes_after_the_items_before_it(on_error, budget, error):
    def images():
        yield from good()[:2]
        raise error

    found, given = encoder(), []
    stream = found.encode_iter(images(), patch_budget=budget, on_error=on_error)
    with pytest.raises(type(error)) as caught:
        given.extend(stream)
    assert caught.value is error
    same_items(given, alone(found, good()[:2]))
    assert list(stream) == []


def test_endless_stream_of_what_cannot_be_used():
    """Each error comes at once, and little more is looked at."""
    taken = itertools.count()
    stream = encoder().encode_iter(b"none" for _ in taken)
    for index in range(3):
        with pytest.raises(ImageError) as caught:
            next(stream)
        assert caught.value.index == index
    stream.close()
    assert next(taken) < 10
    with pytest.raises(StopIteration):
        next(stream)


def test_errors_of_a_stream_may_be_forgotten():
    stream = encoder().encode_iter([b"none", good()[0], b"none"], on_error="skip")
    next(stream)
    assert len(stream.errors) == 1
    stream.errors.clear()
    assert list(stream) == []
    assert [error.index for error in stream.errors] == [2]


def test_every_error_of_an_item_is_ours():
    assert all(isinstance(error, QwenvisError) for error in encoder().encode([None, "", b""], on_error="skip").errors)
