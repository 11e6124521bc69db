"""What callers hand to the tower: refused in their words before anything is computed, or taken as float32 and int64."""

import ml_dtypes
import numpy as np
import pytest
import torch

from made.presets import encoder, forward_passes, pixels, same_bits
from qwenvis import Encoder
from qwenvis.encoding.arguments import checked_grid, checked_pixel_values
from qwenvis.errors import InputError
from qwenvis.models import FAMILIES, qwen2_vl

CONFIG = qwen2_vl.config({}, {})  # 3 x 2 x 14 x 14 columns
GRID = np.array([[1, 2, 4], [2, 2, 2]])


def values(dtype=np.float32):
    return np.random.default_rng(0).standard_normal((16, 1176)).astype(dtype)


# grid_thw


@pytest.mark.parametrize(
    "grid_thw",
    [
        GRID,
        GRID.tolist(),
        [tuple(item) for item in GRID],
        GRID.astype(np.int32),
        GRID.astype(np.uint64),
        np.asfortranarray(GRID),
        np.repeat(GRID, 2, axis=1)[:, ::2],
        torch.tensor(GRID),
        GRID.astype(">i4"),
    ],
    ids=lambda grid: type(grid).__name__,
)
def test_grids_that_are_taken(grid_thw):
    taken = checked_grid(grid_thw, CONFIG)
    assert same_bits(taken, GRID)
    assert taken.dtype.isnative
    assert taken.flags.c_contiguous


def test_no_items():
    assert checked_grid(np.empty((0, 3), np.int64), CONFIG).shape == (0, 3)
    assert checked_pixel_values(np.empty((0, 1176)), np.empty((0, 3), np.int64), CONFIG).shape == (0, 1176)


SHAPES = "expected integers (items, 3): temporal steps, rows, columns"


@pytest.mark.parametrize(
    ("grid_thw", "words"),
    [
        (None, SHAPES),
        ("1 2 2", SHAPES),
        ([1, 2, 2], "(3,)"),
        ([[1, 2]], "(1, 2)"),
        ([[[1, 2, 2]]], "(1, 1, 3)"),
        ([[1.0, 2.0, 2.0]], "float64 (1, 3)"),
        ([[True, True, True]], "bool (1, 3)"),
        ([["1", "2", "2"]], SHAPES),
        ([[1, 2, 2], [1, 2]], "grid_thw is not an array"),
        ([[2**70, 2, 2]], SHAPES),
        ([[1, 2, 2], [0, 2, 2]], "grid_thw[1] is (0, 2, 2)"),
        ([[1, 0, 2]], "grid_thw[0] is (1, 0, 2)"),
        ([[1, 2, -2]], "grid_thw[0] is (1, 2, -2)"),
        ([[1, 2, 3]], "expected t >= 1 and positive h and w that 2 divides"),
        ([[1, 5, 2]], "grid_thw[0] is (1, 5, 2)"),
        ([[1, 2**16, 2**15]], "more than 2,147,483,647 patches"),
        ([[2, 2**15, 2**15], [1, 2**10, 2**10]], "more than 2,147,483,647 patches"),
        ([[2**62, 2**62, 2**62]], "more than 2,147,483,647 patches"),
        (np.array([[2**63, 2, 2]], np.uint64), "more than 2,147,483,647 patches"),
    ],
    ids=str,
)
def test_grids_that_are_refused(grid_thw, words):
    with pytest.raises(InputError) as caught:
        checked_grid(grid_thw, CONFIG)
    assert words in str(caught.value)
    assert "grid_thw" in str(caught.value)


def test_merge_size_of_the_model_divides():
    three = qwen2_vl.config({"spatial_merge_size": 3}, {})
    assert checked_grid([[1, 9, 3]], three).tolist() == [[1, 9, 3]]
    with pytest.raises(InputError, match="that 3 divides"):
        checked_grid([[1, 8, 3]], three)


# pixel_values


def test_right_values_are_not_copied():
    right = values()
    assert np.shares_memory(checked_pixel_values(right, GRID, CONFIG), right)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16, ">f4"], ids=str)
def test_other_floats_are_rounded_to_float32(dtype):
    given = values(dtype)
    taken = checked_pixel_values(given, GRID, CONFIG)
    assert same_bits(taken, given.astype(np.float32))


@pytest.mark.parametrize("given", [values().tolist(), torch.tensor(values()), np.asfortranarray(values())], ids=type)
def test_other_arrays_are_taken(given):
    taken = checked_pixel_values(given, GRID, CONFIG)
    assert same_bits(taken, values())
    assert taken.flags.c_contiguous


REFUSED = [
    (None, "pixel_values is (); expected (patches, 1176)"),
    (np.zeros(1176), "pixel_values is (1176,); expected (patches, 1176)"),
    (np.zeros((2, 8, 1176)), "pixel_values is (2, 8, 1176); expected (patches, 1176)"),
    (np.zeros((16, 1170)), "pixel_values has 1170 columns; this model needs 1176 (3 x 2 x 14 x 14)"),
    (np.zeros((15, 1176)), "pixel_values has 15 rows; grid_thw [[1, 2, 4], [2, 2, 2]] adds up to 16"),
    (np.zeros((17, 1176)), "pixel_values has 17 rows; grid_thw [[1, 2, 4], [2, 2, 2]] adds up to 16"),
    (np.zeros((16, 1176), np.uint8), "pixel_values is uint8; expected floats, normalised"),
    (np.zeros((16, 1176), bool), "pixel_values is bool; expected floats"),
    (np.zeros((16, 1176), complex), "pixel_values is complex128; expected floats"),
    (np.zeros((16, 1176), object), "pixel_values is object; expected floats"),
    ([[1.0], [1.0, 2.0]], "pixel_values is not an array that NumPy can read"),
    (torch.zeros(16, 1176, requires_grad=True), "pixel_values is not an array that NumPy can read"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_values_that_are_refused(given, words):
    with pytest.raises(InputError) as caught:
        checked_pixel_values(given, GRID, CONFIG)
    assert words in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize(("row", "item"), [(0, 0), (7, 0), (8, 1), (15, 1)])
def test_values_that_are_not_finite(value, dtype, row, item):
    given = values(dtype)
    given[row, 1175] = value
    with pytest.raises(InputError, match=f"NaN or infinity in row {row}, of item {item}$"):
        checked_pixel_values(given, GRID, CONFIG)


def test_values_beyond_float32():
    """They would become infinite on the way."""
    given = values(np.float64)
    given[9, 3] = 1e300
    with pytest.raises(InputError, match="row 9, of item 1"):
        checked_pixel_values(given, GRID, CONFIG)


def test_last_row_of_many_is_looked_at(monkeypatch):
    monkeypatch.setattr("qwenvis.encoding.arguments.CHECKED_ROWS", 5)
    given = values()
    given[15, 0] = np.nan
    with pytest.raises(InputError, match="row 15, of item 1"):
        checked_pixel_values(given, GRID, CONFIG)


@pytest.mark.parametrize("change", ["columns", "rows", "nan", "grid", "dtype"])
def test_nothing_is_computed_for_what_is_refused(monkeypatch, change):
    found = encoder()
    given, grid_thw = pixels(found.config, GRID)
    passes, calls = forward_passes(monkeypatch, found), []
    wrong = {
        "columns": (given[:, :-1], grid_thw),
        "rows": (given[:-1], grid_thw),
        "nan": (np.where(np.arange(1176) == 5, np.nan, given), grid_thw),
        "grid": (given, grid_thw + 1),
        "dtype": (given.astype(np.int32), grid_thw),
    }
    with pytest.raises(InputError):
        found(*wrong[change], progress=lambda *call: calls.append(call))
    assert not passes
    assert not calls


def test_patches_of_one_frame_may_keep_their_axes():
    """As transformers' processor of PaddleOCR-VL returns them."""
    config = FAMILIES["paddleocr_vl"].config({}, {})
    flat = np.random.default_rng(0).standard_normal((16, 588), np.float32)
    assert same_bits(checked_pixel_values(flat.reshape(16, 3, 14, 14), GRID, config), flat)
    for wrong in (flat.reshape(16, 14, 14, 3), flat.reshape(1, 16, 588)):
        with pytest.raises(InputError, match="expected"):
            checked_pixel_values(wrong, GRID, config)
    with pytest.raises(InputError, match="expected"):
        checked_pixel_values(flat.reshape(16, 3, 14, 14), GRID, CONFIG)


METHODS = [Encoder.encode, Encoder.preprocess, lambda *args, **options: list(Encoder.encode_iter(*args, **options))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("argument", ["images", "videos"])
def test_a_dict_is_refused_by_its_name(method, argument):
    """Not by its keys, which are names of files that do not exist."""
    with pytest.raises(
        InputError, match=rf"^{argument} is a dict; expected a list: pass list\({argument}\.values\(\)\)$"
    ):
        method(encoder(), **{argument: {"a.jpg": np.zeros((28, 28, 3), np.uint8)}})


@pytest.mark.parametrize("method", METHODS)
def test_images_as_several_arguments(method):
    image = np.zeros((28, 28, 3), np.uint8)
    with pytest.raises(TypeError, match=r"takes all images as one argument, got 2: pass a list, \w+\(\[a, b\]\)"):
        method(encoder(), image, image)
