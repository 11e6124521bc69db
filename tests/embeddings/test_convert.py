"""Results in other dtypes, wide and pooled, against sums and roundings that are written out."""

import math
import pickle
import struct
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch

from made.embeddings import DTYPES, HALVES, equal, in_dtype, made
from made.presets import encoder, picture, same_bits
from qwenvis import Embeddings
from qwenvis.embeddings import picture as drawing
from qwenvis.errors import InputError

# Other dtypes.


def bits_of_bfloat16(x):
    """Round to nearest, ties to even: by the lower half of the bits of a float32."""
    bits = struct.unpack("I", struct.pack("f", x))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def bits_of_float16(x):
    return struct.unpack("H", struct.pack("e", x))[0]


@pytest.mark.parametrize(
    ("dtype", "bits", "dropped"), [("bfloat16", bits_of_bfloat16, 16), ("float16", bits_of_float16, 13)]
)
def test_rounding(dtype, bits, dropped):
    """Random values, some of which are subnormal in float16, ties, and the neighbours of ties."""
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(1000) * np.exp2(rng.uniform(-26, 13, 1000))).astype(np.float32)
    ties = x.view(np.uint32) >> dropped << dropped | 1 << (dropped - 1)
    near = [(ties + np.uint32(step)).view(np.float32) for step in (0, 1, 2**32 - 1)]
    x = np.concatenate([x, *near, np.array([0, -0.0, 65519.996], np.float32)])
    got = Embeddings(x[:, None], np.array([[1, len(x), 1]]), 1).astype(dtype).embeddings
    assert got.dtype.name == dtype
    assert got.view(np.uint16)[:, 0].tolist() == [bits(value) for value in x.tolist()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_narrow_tokens_are_exact_in_float32(dtype):
    out = in_dtype(dtype)
    wide = out.astype("float32")
    assert wide.embeddings.dtype == np.float32
    assert wide.embeddings.tolist() == out.embeddings.astype(np.float64).tolist()
    assert wide.astype(dtype).embeddings.tobytes() == out.embeddings.tobytes()
    assert wide.provenance == out.provenance


@pytest.mark.parametrize(
    "spelling", ["bfloat16", "bf16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16), torch.bfloat16]
)
def test_all_of_a_result_is_converted(spelling):
    out = made()
    got = out.astype(spelling)
    want = in_dtype(ml_dtypes.bfloat16)
    equal(got, replace(want, provenance={**out.provenance, "rounded_to": "bfloat16"}))
    assert all(a is b for a, b in zip(got.hidden_states, out.hidden_states, strict=True))
    assert out.embeddings.dtype == np.float32
    assert got.astype(spelling) is got
    assert got.astype(np.float16).astype("float32").provenance["rounded_to"] == "bfloat16, float16"


@pytest.mark.parametrize(
    "dtype", ["float64", "int8", "", None, float, np.float64, torch.int8, "float8_e4m3fn"], ids=str
)
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(InputError, match="expected one of float32, float16, bfloat16"):
        made().astype(dtype)
    with pytest.raises(InputError, match=r"expected one of float32, float16$"):
        made().to_arrow(dtype)


@pytest.mark.parametrize(
    ("start", "dtype", "fits", "exceeds", "remedy"),
    [
        (np.float32, "float16", 65519.996, 65520.0, "use bfloat16 or float32"),
        (np.float32, "bfloat16", 3.396e38, 3.3961776e38, "use float32"),
        (ml_dtypes.bfloat16, "float16", 65280.0, 65536.0, "use bfloat16 or float32"),
    ],
)
def test_values_out_of_range_are_refused_with_their_item(start, dtype, fits, exceeds, remedy):
    for name in ("embeddings", "deepstack"):
        for sign in (1, -1):
            out = in_dtype(start)
            array = out.embeddings if name == "embeddings" else out.deepstack[1]
            array[4, 2] = sign * fits
            assert np.isfinite(out.astype(dtype).embeddings).all()
            array[4, 2] = sign * exceeds
            words = (
                rf"token 4, of item 1 \(image 1\), has the value {array[4, 2]}, which is outside .* {dtype}; {remedy}"
            )
            with pytest.raises(InputError, match=words.replace("+", r"\+")):
                out.astype(dtype)


def test_tokens_that_are_not_finite_are_not_converted():
    out = made()
    out.embeddings[3, 0] = np.nan
    for convert in (
        lambda: out.astype("float16"),
        lambda: out.astype("float32"),
        out.to_torch,
        out.to_arrow,
        out.mean_pool,
    ):
        with pytest.raises(InputError, match="token 3, of item 1"):
            convert()


@pytest.mark.parametrize("dtype", HALVES)
def test_narrow_results_are_results(tmp_path, dtype):
    out = in_dtype(dtype)
    assert repr(out).startswith(f"<Embeddings: 3 items, 11 tokens of 5 {np.dtype(dtype).name}, qwen2_vl in f32")
    assert np.asarray(out) is out.embeddings
    assert np.asarray(out, np.float32).tolist() == out.astype("float32").embeddings.tolist()
    equal(Embeddings.concatenate(out), out)
    equal(Embeddings.concatenate([out[:1], out[1:]]), out)
    equal(pickle.loads(pickle.dumps(out)), out)
    assert [each.embeddings.dtype for each in out[[2, 0]]] == [dtype, dtype]
    out.save(tmp_path / "tokens")
    equal(Embeddings.load(tmp_path / "tokens"), replace(out, hidden_states=[]))
    out[:0].save(tmp_path / "none")
    assert Embeddings.load(tmp_path / "none").embeddings.dtype == dtype


@pytest.mark.parametrize("dtype", HALVES)
def test_pictures_are_those_of_the_same_values_in_float32(dtype):
    out = in_dtype(dtype)
    got, wanted = drawing.colours(out.embeddings), drawing.colours(out.astype("float32").embeddings)
    assert same_bits(got[0], wanted[0])
    assert got[1] == wanted[1]
    pictures = out._repr_html_().split("data:image")[1:]
    assert pictures == out.astype("float32")._repr_html_().split("data:image")[1:]
    assert len(pictures) == 3


def test_mixed_dtypes_are_not_joined():
    with pytest.raises(InputError, match="part 1 has the dtype float16, part 0 float32: convert one with astype"):
        Embeddings.concatenate([made(), made().astype("float16")])
    mixed = made(deepstack=in_dtype(np.float16).deepstack)
    with pytest.raises(InputError, match="part 1 has the dtype float32, float16, part 0 float32"):
        Embeddings.concatenate([made(), mixed])


# Wide tokens.


@pytest.mark.parametrize("dtype", DTYPES)
def test_wide(dtype):
    out = in_dtype(dtype)
    wide = out.wide()
    assert (wide.shape, wide.dtype, wide.flags.c_contiguous) == ((11, 20), dtype, True)
    for row, tokens in enumerate(wide.tolist()):
        assert tokens == [x for array in (out.embeddings, *out.deepstack) for x in array[row].tolist()]
    assert in_dtype(dtype, deepstack=[]).wide().shape == (11, 5)
    plain = made(deepstack=[])
    assert plain.wide() is plain.embeddings
    assert out[:0].wide().shape == (0, 20)


def test_wide_does_not_mix_dtypes():
    """NumPy would convert."""
    with pytest.raises(InputError, match="deepstack 0 is float16"):
        made(deepstack=in_dtype(np.float16).deepstack).wide()


def test_deepstack_of_an_encoder():
    out = encoder("qwen3_vl").encode([picture(61, 97), picture(150, 113)], videos=[np.zeros((4, 56, 84, 3), np.uint8)])
    width, levels = out.embeddings.shape[1], len(out.deepstack)
    assert levels > 0
    for item in out:
        parts = np.split(item.wide(), 1 + levels, axis=1)
        assert all(map(same_bits, parts, (item.embeddings, *item.deepstack)))
    out.check(width=width * (1 + levels))
    assert [len(x) for x in out.to_arrow()] == out.counts.tolist()


# Pooled vectors.


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_pool(dtype):
    out = in_dtype(dtype)
    pooled = out.mean_pool()
    assert (pooled.shape, pooled.dtype) == ((3, 5), np.float32)
    for vector, item in zip(pooled, out, strict=True):
        columns = item.embeddings.astype(np.float64).T.tolist()
        want = [math.fsum(column) / len(column) for column in columns]
        np.testing.assert_allclose(vector, want, rtol=2**-24 + 2**-50, atol=2**-50)  # float64, rounded once
    assert out[:0].mean_pool().shape == (0, 5)
    assert same_bits(out[1:2].mean_pool(), pooled[1:2])
    assert same_bits(in_dtype(dtype, deepstack=[]).mean_pool(), pooled)


def test_mean_pool_sums_in_float64():
    """In float32 the ones would be lost beside 2^24, in bfloat16 beside 256."""
    for dtype, large in ((np.float32, 2.0**24), (ml_dtypes.bfloat16, 256.0)):
        tokens = np.ones((1024, 1), dtype)
        tokens[0] = large
        out = Embeddings(tokens, np.array([[1, 32, 32]]), 1)
        assert out.mean_pool().item() == np.float32((large + 1023) / 1024)


def test_normalized_vectors():
    tokens = np.array([[3, 4], [3, 4], [0, 0]], np.float32)
    out = Embeddings(tokens, np.array([[1, 2, 1], [1, 1, 1]]), 1)
    np.testing.assert_array_equal(out.mean_pool(normalize=True), np.array([[0.6, 0.8], [0, 0]], np.float32))
    huge = Embeddings(np.full((1, 4), 3e38, np.float32), np.array([[1, 1, 1]]), 1)
    assert huge.mean_pool(normalize=True).tolist() == [[0.5] * 4]
