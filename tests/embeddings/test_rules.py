"""What a result must be before its tokens leave: every rule is broken once, in every dtype."""

import re
import tracemalloc
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from made.embeddings import DTYPES, GRID, HALVES, in_dtype, made
from made.presets import encoder, picture
from qwenvis import Embeddings
from qwenvis.embeddings.rules import first_not_finite
from qwenvis.errors import InputError

TOKENS = made().embeddings


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_pass(dtype):
    out = in_dtype(dtype)
    for each in (out, out[1], out[[2, 0]], out[:0], in_dtype(dtype, deepstack=[])):
        each.check()
    out.check(width=20)
    in_dtype(dtype, deepstack=[], merge_size=np.int64(2)).check(width=5)
    replace(out, embeddings=out.embeddings[::-1], deepstack=[np.asfortranarray(x) for x in out.deepstack]).check()


def test_results_of_encoders_pass():
    for family, levels in (("qwen2_vl", 0), ("qwen3_vl", 2)):
        found = encoder(family)
        out = found.encode([picture(61, 97)], videos=[np.zeros((4, 56, 84, 3), np.uint8)])
        out.check(width=found.config.out_hidden_size * (1 + levels))
        found.encode([]).check()


WRONG = {
    "float64": (
        {"embeddings": TOKENS.astype(np.float64)},
        "the tokens are float64 (11, 5); expected (tokens, width) in",
    ),
    "integers": ({"embeddings": TOKENS.astype(np.int32)}, "the tokens are int32 (11, 5)"),
    "other byte order": ({"embeddings": TOKENS.astype(">f4")}, "the tokens are >f4 (11, 5)"),
    "one axis": ({"embeddings": TOKENS[:, 0]}, "the tokens are float32 (11,)"),
    "three axes": ({"embeddings": TOKENS[None]}, "the tokens are float32 (1, 11, 5)"),
    "no columns": ({"embeddings": TOKENS[:, :0]}, "the tokens are float32 (11, 0)"),
    "a row too few": ({"embeddings": TOKENS[:-1], "deepstack": []}, "10 tokens do not fit the grid, which has 11"),
    "a row too many": ({"embeddings": np.ones((12, 5), np.float32)}, "12 tokens do not fit the grid, which has 11"),
    "int32 grid": ({"grid_thw": GRID.astype(np.int32)}, "grid_thw is int32 (3, 3); expected (items, 3) in int64"),
    "grid of two columns": ({"grid_thw": GRID[:, 1:]}, "grid_thw is int64 (3, 2)"),
    "merge_size 0": ({"merge_size": 0}, "merge_size is 0; expected an integer of at least 1"),
    "merge_size 2.0": ({"merge_size": 2.0}, "merge_size is 2.0; expected an integer of at least 1"),
    "merge_size 1": ({"merge_size": 1}, "11 tokens do not fit the grid, which has 44"),
    "deepstack dtype": ({"deepstack": [TOKENS, TOKENS.astype(np.float16)]}, "deepstack 1 is float16 (11, 5); expected"),
    "deepstack width": ({"deepstack": [TOKENS[:, :4]]}, "deepstack 0 is float32 (11, 4); expected float32 (11, 5)"),
    "deepstack rows": ({"deepstack": [TOKENS[:10]]}, "deepstack 0 is float32 (10, 5); expected float32 (11, 5)"),
    "zero grid": (
        {"grid_thw": GRID * [[1], [0], [1]]},
        "grid_thw[1] is (0, 0, 0); expected t >= 1 and positive h and w",
    ),
    "negative grid": ({"grid_thw": GRID * [1, -1, -1]}, "grid_thw[0] is (1, -2, -4)"),
    "rows of half a token": ({"grid_thw": np.array([[1, 2, 4], [3, 1, 4], [1, 4, 6]])}, "grid_thw[1] is (3, 1, 4)"),
    "columns of half a token": ({"grid_thw": np.array([[1, 4, 2], [3, 4, 1], [1, 4, 6]])}, "grid_thw[1] is (3, 4, 1)"),
    "huge grid": ({"grid_thw": np.array([[2, 2**32, 2**32]] * 3)}, f"do not fit the grid, which has {3 * 2**63}"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_arrays_are_refused(name):
    changes, words = WRONG[name]
    with pytest.raises(InputError, match=f"^embeddings: .*{re.escape(words)}"):
        made(**changes).check()


def test_tokens_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"the tokens are 20 wide, 5 times 1 \+ 3 of deepstack; expected 5: is this"):
        made().check(width=5)
    with pytest.raises(InputError, match="the tokens are 5 wide; expected 20"):
        made(deepstack=[]).check(width=20)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(
    ("row", "item"), [(0, "item 0 (a.jpg)"), (1, "item 0"), (2, "item 1 (image 1)"), (10, "item 2")]
)
def test_the_first_item_that_is_not_finite_is_named(dtype, value, row, item):
    for wrong in ("embeddings", "deepstack"):
        out = in_dtype(dtype)
        array = out.embeddings if wrong == "embeddings" else out.deepstack[2]
        array[row:, 3] = value
        with pytest.raises(InputError, match=re.escape(f"token {row}, of {item}") + f".* has the value {value}"):
            out.check()


@pytest.mark.parametrize("bits", [0x7F81, 0xFFFF, 0x7FC0])
def test_every_kind_of_nan(bits):
    """A signalling one too, of which NumPy would warn."""
    out = in_dtype(ml_dtypes.bfloat16)
    out.embeddings.view(np.uint16)[5, 0] = bits
    with pytest.raises(InputError, match="token 5, of item 2"):
        out.check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_entry_is_looked_at(dtype):
    """The last entry of tokens that are more than a block, and rows wider than a block."""
    for shape in ((1000, 1000), (1, 1 << 18)):
        out = Embeddings(np.ones(shape, dtype), np.array([[shape[0], 1, 1]]), 1)
        out.check()
        out.embeddings[-1, -1] = np.inf
        with pytest.raises(InputError, match=f"token {shape[0] - 1}, of item 0"):
            out.check()


@pytest.mark.parametrize("dtype", HALVES)
def test_every_value_of_16_bits(dtype):
    """As NumPy judges it."""
    values = np.arange(1 << 16, dtype=np.uint16).view(dtype)[:, None]
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(values)[:, 0]
    assert [first_not_finite(row[None]) is None for row in values] == finite.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_of_a_check(dtype):
    out = Embeddings(np.ones((1 << 12, 1 << 10), dtype), np.array([[1, 64, 64]]), 1)
    tracemalloc.start()
    try:
        out.check()
        assert tracemalloc.get_traced_memory()[1] < out.embeddings.size / 4  # of the flags of all entries
    finally:
        tracemalloc.stop()


def test_saving_is_refused(tmp_path):
    """A file that `load` would refuse is not written."""
    with pytest.raises(InputError, match="the tokens are float64"):
        made(embeddings=TOKENS.astype(np.float64)).save(tmp_path / "tokens")
    assert not list(tmp_path.iterdir())
