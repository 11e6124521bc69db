"""What is not finite on its way through a tower: the error names the item and the layer, whatever would hide it."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from made.presets import encoder, pixels, same_bits
from oracle.families import KINDS
from qwenvis import Encoder, NumericalError, ops
from qwenvis.checkpoints.packed import FILE
from qwenvis.encoding.inputs import InputItem
from qwenvis.nn.formats import DTYPES

GRIDS = [[1, 4, 6], [2, 4, 4], [1, 6, 4]]
BAD = [np.nan, np.inf, -np.inf]


def spoil(monkeypatch, module):
    """In the next forward pass, the last row of what a layer writes is NaN."""
    method, left = type(module).__call__, [np.nan]

    def spoilt(self, x, out, **options):
        method(self, x, out, **options)
        if self is module and left:
            out[-1, -1] = left.pop()
        return out

    monkeypatch.setattr(type(module), "__call__", spoilt)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_pixel_values_that_overflow(family, dtype, bad):
    """Finite they are, so they pass the door; the squares of the first norm overflow, or the patch embedding itself."""
    found = encoder(family, dtype=dtype)
    values, grid_thw = pixels(found.config, GRIDS)
    bounds = np.cumsum([0, *grid_thw.prod(axis=1)])
    values[bounds[bad] + 1] *= np.float32(1e37)
    with pytest.raises(
        NumericalError, match=rf"item {bad} is NaN or infinite after (the patch embedding|block 0)"
    ) as error:
        found(values, grid_thw)
    assert error.value.index == bad
    values[bounds[bad] + 1] = 0
    assert np.isfinite(found(values, grid_thw).embeddings).all()  # and the encoder is as it was


def test_items_are_counted_over_all_forward_passes(monkeypatch):
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", 24)
    found = encoder("qwen2_5_vl")
    values, grid_thw = pixels(found.config, GRIDS)
    values[-1] *= np.float32(1e37)
    with pytest.raises(NumericalError, match="item 2 is") as error:
        found(values, grid_thw)
    assert error.value.index == 2


def test_large_values_that_fit_are_encoded():
    found = encoder("qwen2_5_vl")
    values, grid_thw = pixels(found.config, GRIDS)
    assert np.isfinite(found(values * np.float32(1e15), grid_thw).embeddings).all()


def test_each_layer_has_its_name(monkeypatch):
    """Deepstack in particular, whose tokens are apart from the others."""
    found = encoder("qwen3_vl")
    tower, inputs = found.spec.tower, pixels(found.config, GRIDS)
    stages = {
        "block 2": tower.blocks[2].attention.proj,
        "the merger": tower.merger.fc2,
        "the deepstack merger after block 0": tower.deepstack[0].fc2,
        "the deepstack merger after block 2": tower.deepstack[1].fc2,
    }
    for name, linear in stages.items():
        with monkeypatch.context() as patch:
            spoil(patch, linear)
            with pytest.raises(NumericalError, match=rf"item 2 is NaN or infinite after {name}, in 1 of"):
                found(*inputs)
    assert np.isfinite(found(*inputs).deepstack).all()


def inputs_of(config):
    """A still and a video: each takes another kernel of the patch embedding."""
    values, grid_thw = pixels(config, GRIDS)
    channels, frames, height, width = config.kernel
    split = values.reshape(-1, channels, frames, height * width)
    split[: grid_thw[0].prod(), :, 1:] = split[: grid_thw[0].prod(), :, :1]
    return values, grid_thw


def entries(memory, dtype):
    """Views of single entries of what a tower keeps: one of a weight and one of its bias, or one of a vector."""
    if isinstance(memory, np.ndarray):
        return [memory.reshape(-1)[:1]]
    k, size = memory.shape[1], dtype.itemsize
    columns = memory.nbytes // (size * k + 4) // 4 * 4  # whole vectors; the rest is rounding up
    bias = -(-columns * k * size // ops.cache_line) * ops.cache_line
    return [memory.memory.view(dtype)[:1], memory.memory[bias:].view(np.float32)[:1]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", KINDS)
def test_whatever_weight_is_damaged(family, dtype):
    """As of a packed file since it was written. No norm, activation, clamp or softmax may hide it, of deepstack too."""
    found = encoder(family, dtype=dtype)
    values, grid_thw = inputs_of(found.config)
    for number, memory in enumerate(found.spec.weights.kept):
        for entry in entries(memory, np.dtype(getattr(ml_dtypes, dtype, dtype))):
            kept = entry.copy()
            for bad in BAD:
                entry[0] = bad
                with pytest.raises(NumericalError, match=r"item [012] is NaN or infinite after"):
                    pytest.fail(f"{bad} in what is kept as {number} was hidden: {found(values, grid_thw)}")
            entry[0] = kept[0]
    assert np.isfinite(found(values, grid_thw).embeddings).all()


def test_a_packed_file_that_was_damaged(tmp_path):
    encoder("qwen2_vl").save_packed(tmp_path / "packed")
    file = tmp_path / "packed" / FILE
    content = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    begin, _ = json.loads(content[8 : 8 + length])["5"]["data_offsets"]
    content[8 + length + begin : 12 + length + begin] = np.float32(np.inf).tobytes()
    file.write_bytes(content)
    found = Encoder.from_pretrained(tmp_path / "packed", dtype="auto", threads=1)
    with pytest.raises(NumericalError, match="item 0 is NaN or infinite after block 0"):
        found(*inputs_of(found.config))


@pytest.mark.parametrize(
    "norm",
    [lambda x, w, out: ops.layer_norm(x, w, w, 1e-6, out), lambda x, w, out: ops.rms_norm(x, w, 1e-6, out)],
    ids=["layer_norm", "rms_norm"],
)
@pytest.mark.parametrize("bad", [*BAD, 1e20])
def test_a_norm_hides_nothing(isa, norm, bad):
    """Not even squares that overflow, of which the inverse root would be 0."""
    x, ones = np.random.default_rng(0).standard_normal((5, 83), np.float32), np.ones(83, np.float32)
    x[3, 50] = bad
    out = norm(x, ones, np.empty_like(x))
    assert np.isnan(out[3]).all()
    assert np.isfinite(np.delete(out, 3, axis=0)).all()


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("bad", BAD)
def test_an_activation_hides_nothing(isa, activation, bad):
    gated = activation == "silu_gate"
    for nth in range(2 if gated else 1):
        weight = ops.PackedWeight(37, 1, gated=gated)
        for half in range(1 + gated):
            weight.pack(np.ones((37, 1), np.float32), half=half)
        x = np.ones((1, 74 if gated else 37), np.float32)
        x[0, 37 * nth + 20] = bad
        for limit in (np.inf, 2.0):
            out = ops.activate(x, np.empty((1, 37), np.float32), activation=activation, limit=limit)
            assert np.isfinite(out[0]).tolist() == [column != 20 for column in range(37)]
        out = ops.linear(np.full((1, 1), bad, np.float32), weight, np.empty((1, 37), np.float32), activation=activation)
        assert not np.isfinite(out).any()
        assert bad != np.inf or (out == np.inf).all()  # GELU too, as in torch


@pytest.fixture
def spoilt(monkeypatch):
    """Three images, of which the second has pixel values so large that the tower overflows."""
    fill = InputItem.fill

    def spoil(self, first, stop, out):
        grid = fill(self, first, stop, out)
        out *= np.float32(1e37 if self.place.source == "image 1" else 1)
        return grid

    monkeypatch.setattr(InputItem, "fill", spoil)
    return [np.random.default_rng(i).integers(0, 256, (56, 84, 3), np.uint8) for i in range(3)]


def test_an_item_that_overflows_costs_no_other(spoilt):
    """They share a forward pass, which is made again without it."""
    found = Encoder.from_pretrained("synthetic:tiny-qwen2.5-vl", threads=2)
    alone = [found.encode(spoilt[i]).embeddings for i in (0, 2)]
    with pytest.raises(NumericalError, match=r"^image 1 is NaN or infinite after") as raised:
        found.encode(spoilt)
    assert (raised.value.argument, raised.value.index, raised.value.source) == ("images", 1, "image 1")
    assert same_bits(raised.value.done.embeddings, alone[0])

    told = []
    out = found.encode(spoilt, on_error="skip", progress=lambda done, total: told.append((done, total)))
    assert same_bits(out.embeddings, np.concatenate(alone))
    assert [error.index for error in out.errors] == [1]
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]

    stream = found.encode_iter(spoilt)
    assert same_bits(next(stream).embeddings, alone[0])
    with pytest.raises(NumericalError, match=r"^image 1 is"):
        next(stream)
    assert same_bits(next(stream).embeddings, alone[1])
