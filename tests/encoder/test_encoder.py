"""The front door: whatever is encoded, however it is batched, the bits are those of one image alone."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from made.presets import SMALL, checkpoint, encoder, forward_passes, grouped, patches_of, picture, pixels, same_bits
from made.tile_sizes import ISAS
from oracle.families import KINDS, fraction
from qwenvis import Encoder
from qwenvis.errors import InputError, SourceError
from qwenvis.nn.formats import DTYPES

every_family = pytest.mark.parametrize("family", KINDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

# Sides that resizing changes, wider than a window of 8 x 8 patches, and a strip.
SIZES = [(280, 420), (61, 97), (56, 56), (30, 300), (150, 113)]


@pytest.fixture
def small_budget(monkeypatch):
    """Groups of few images, so that a short list is several forward passes."""
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", 130)


def pictures():
    return [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]


def alone(encoder, images, **options):
    return [encoder.encode(image, **options).embeddings for image in images]


def all_same(outs, want):
    return len(outs) == len(want) and all(map(same_bits, outs, want))


def test_what_an_encoder_says_of_itself(isa):
    found = encoder(threads=2)
    assert (found.family, found.isa, found.threads, found.format) == ("qwen2_vl", isa, 2, "f32")
    assert (found.config.depth, found.config.hidden_size, found.config.out_hidden_size) == (4, 64, 96)


@every_family
def test_every_kind_of_input(tmp_path, family):
    """The encoder hands every input on to the pixel rooms: the tokens are those of the array."""
    array, found = picture(61, 97), encoder(family)
    want = found.encode(array).embeddings
    image, path = Image.fromarray(array), tmp_path / "noise.png"
    image.save(path)
    content = path.read_bytes()
    inputs = [image, path, str(path), content, bytearray(content), memoryview(content), io.BytesIO(content)]
    assert all(same_bits(found.encode(given).embeddings, want) for given in inputs)
    together = found.encode(given for given in inputs)
    assert all_same(together.split(), [want] * len(inputs))
    grey = found.encode([array[..., 0], array[..., :1], Image.fromarray(array[..., 0])])
    assert all_same(grey.split(), [grey.split()[0]] * 3)


@every_family
def test_what_comes_out(family):
    found = encoder(family)
    out = found.encode(pictures())
    assert out.grid_thw.tolist() == [list(found.spec.processor.grid(*size)) for size in SIZES]
    assert out.grid_thw.dtype == np.int64
    assert out.embeddings.shape == (out.grid_thw.prod(axis=1).sum() // 4, found.config.out_hidden_size)
    assert out.embeddings.dtype == np.float32
    assert out.embeddings.flags.c_contiguous
    assert out.embeddings.base is None
    assert out.embeddings.flags.writeable
    assert out.hidden_states == []
    assert np.isfinite(out.embeddings).all()
    assert out.provenance["source"] == str(checkpoint(family))
    assert {
        "family": family,
        "format": "f32",
        "isa": found.isa,
        "max_pixels": str(found.spec.processor.max_pixels),
    }.items() <= out.provenance.items()


@pytest.mark.parametrize(
    ("isa", "family", "dtype", "threads"), fraction(3, ISAS, KINDS, DTYPES, [1, 2, 3]), indirect=["isa"]
)
def test_p05_alone_in_a_batch_and_in_any_order(isa, small_budget, family, dtype, threads):
    images = pictures()
    want = alone(encoder(family, dtype=dtype, **SMALL), images)
    found = encoder(family, dtype=dtype, threads=threads, **SMALL)
    assert all_same(alone(found, images), want)
    for order in [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 0, 3)]:
        out = found.encode([images[i] for i in order])
        assert all_same(out.split(), [want[i] for i in order])


@every_family
@pytest.mark.parametrize("budget", [1, 130, 10_000])
def test_budget_groups_the_images(monkeypatch, family, budget):
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", budget)
    images, found = pictures(), encoder(family)
    want = alone(found, images)
    passes = forward_passes(monkeypatch, found)
    assert all_same(found.encode(images).split(), want)
    assert passes == grouped(patches_of(found, SIZES), budget)
    assert family != "qwen2_vl" or passes == {1: [600, 24, 16, 44, 80], 130: [600, 84, 80], 10_000: [764]}[budget]


@every_family
@every_dtype
def test_preprocessed_images_are_the_images(small_budget, family, dtype):
    found = encoder(family, dtype=dtype, threads=2)
    batch = found.preprocess(pictures())
    out = found.encode(pictures())
    assert same_bits(found(*batch).embeddings, out.embeddings)
    assert same_bits(found(*batch).grid_thw, out.grid_thw)
    one = found.preprocess(pictures()[0])
    assert same_bits(found(one.pixel_values, one.grid_thw).embeddings, out.split()[0])


@every_family
@every_dtype
def test_p05_videos_in_any_batch(isa, small_budget, family, dtype):
    found = encoder(family, dtype=dtype, threads=2)
    values, grid_thw = pixels(found.config, [[3, 4, 6], [1, 10, 12], [2, 2, 4]])
    bounds = np.cumsum([0, *grid_thw.prod(axis=1)])
    each = [found(values[a:b], grid_thw[i : i + 1]) for i, (a, b) in enumerate(itertools.pairwise(bounds))]
    assert all_same(found(values, grid_thw).split(), [out.embeddings for out in each])


def test_other_floats_and_lists():
    found = encoder()
    values, grid_thw = pixels(found.config, [[1, 4, 6]])
    values = values.astype(np.float16)
    want = found(values.astype(np.float32), grid_thw).embeddings
    for given in (values, values.astype(np.float64), values.tolist(), np.asfortranarray(values)):
        assert same_bits(found(given, grid_thw.tolist()).embeddings, want)


def test_input_is_not_written_to():
    found = encoder("qwen2_5_vl")
    values, grid_thw = pixels(found.config, [[1, 10, 12]])
    image, before = picture(61, 97), (values.copy(), grid_thw.copy())
    values.flags.writeable = grid_thw.flags.writeable = image.flags.writeable = False
    out = found(values, grid_thw)
    found.encode(image)
    out.grid_thw[:] = 7
    assert all(map(same_bits, (values, grid_thw), before))


@every_family
def test_results_are_the_callers_own(family):
    """Later calls write into nothing that an earlier one gave out."""
    found = encoder(family)
    first = found.encode(pictures(), hidden_states=True)
    kept = [first.embeddings.copy(), first.grid_thw.copy(), *(state.copy() for state in first.hidden_states)]
    second = found.encode([picture(280, 420, seed=9)], hidden_states=True)
    second.embeddings[:] = np.nan
    arrays = [first.embeddings, first.grid_thw, *first.hidden_states]
    assert all(map(same_bits, arrays, kept))
    first.embeddings[:] = np.nan
    assert np.isfinite(found.encode(picture(56, 56)).embeddings).all()


@every_family
@every_dtype
def test_hidden_states_of_a_batch(small_budget, family, dtype):
    images, found = pictures(), encoder(family, dtype=dtype, threads=2)
    out = found.encode(images, hidden_states=True)
    assert [state.shape for state in out.hidden_states] == [(sum(patches_of(found, SIZES)), 64)] * 5
    assert out.last_hidden_state is out.hidden_states[-1]
    for image, item in zip(images, out.items(), strict=True):
        single = found.encode(image, hidden_states=True)
        assert all_same(item.hidden_states, single.hidden_states)
        assert same_bits(item.embeddings, single.embeddings)


def test_empty_list(small_budget):
    found, calls = encoder(), []
    out = found.encode([], progress=lambda *call: calls.append(call))
    assert (out.embeddings.shape, out.grid_thw.shape, out.split(), out.items()) == ((0, 96), (0, 3), [], [])
    assert found(*found.preprocess([])).embeddings.shape == (0, 96)
    assert list(found.encode_iter([])) == []
    assert found.encode([], hidden_states=True).last_hidden_state.shape == (0, 64)


def test_limits_of_the_call_and_of_the_encoder():
    image, whole = picture(280, 420), encoder()
    for limits in (
        {"max_pixels": 28 * 28 * 20},
        {"min_pixels": 28 * 28 * 200},
        {"min_pixels": 10**5, "max_pixels": 10**5},
    ):
        out, bound = whole.encode(image, **limits), encoder(**limits)
        assert out.grid_thw.tolist() != [[1, 20, 30]]
        for same in (
            bound.encode(image),
            whole(*whole.preprocess(image, **limits)),
            *whole.encode_iter([image], **limits),
        ):
            assert same_bits(same.embeddings, out.embeddings)
        assert limits.items() <= {name: int(out.provenance[name]) for name in ("min_pixels", "max_pixels")}.items()
    # The limits of a call replace those of the encoder, and only for that call.
    bound = encoder(max_pixels=28 * 28 * 20)
    assert bound.encode(image, max_pixels=10**6).grid_thw.tolist() == [[1, 20, 30]]
    assert bound.encode(image).grid_thw.prod() <= 80


def test_upright_by_a_late_exif_block():
    """The EXIF block of a PNG may follow its pixels: then the header alone shows the grid on its side."""
    file = io.BytesIO()
    Image.fromarray(picture(56, 140)).save(file, "png")
    exif = Image.Exif()
    exif[0x0112] = 6
    block = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(block) - 4) + block + struct.pack(">I", zlib.crc32(block))
    content = file.getvalue()
    end = content.rindex(b"IEND") - 4
    turned = content[:end] + chunk + content[end:]
    found = encoder()
    out = found.encode([picture(56, 56), turned, picture(30, 300)])
    assert out.grid_thw.tolist() == [[1, 4, 4], [1, 10, 4], [1, 2, 22]]
    assert same_bits(out.split()[1], found.encode(np.rot90(picture(56, 140), -1)).embeddings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int4"}, "dtype is 'int4' .* expected auto, float32"),
        ({"threads": 0}, "threads is 0; expected an integer from 1"),
        ({"threads": "2"}, "threads is '2'"),
        ({"min_pixels": 0}, "min_pixels is 0"),
        ({"min_pixels": 20, "max_pixels": 10}, "min_pixels 20 is larger than max_pixels 10"),
    ],
)
def test_arguments_are_checked_at_the_door(options, words):
    with pytest.raises(InputError, match=words):
        encoder(**options)


def test_a_source_that_is_not_here(tmp_path):
    with pytest.raises(SourceError, match="names no checkpoint"):
        Encoder.from_pretrained(tmp_path / "nowhere")


def test_loading_shows_progress():
    calls = []
    found = encoder(progress=lambda *call: calls.append(call))
    total = sum(tensor.nbytes for tensor in found.spec.checkpoint.tensors.values())
    assert calls == sorted(calls)
    assert len(calls) == len(found.spec.weights.requests)
    assert calls[-1] == (total, total)
