"""Tokens in the arrays of PyTorch and Arrow: the same values, in the same memory, or refused."""

import re
import sys
from dataclasses import replace

import ml_dtypes
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from made.embeddings import DTYPES, in_dtype, made
from made.presets import encoder, picture
from processes.programs import output
from qwenvis.embeddings import convert
from qwenvis.errors import InputError, PackageError

ARROW = {"float32": pyarrow.float32(), "float16": pyarrow.float16()}


def bits(tensor):
    return tensor.contiguous().view(torch.int16 if tensor.itemsize == 2 else torch.int32).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_share_memory(dtype):
    out = in_dtype(dtype)
    tensor = out.to_torch()
    assert (tensor.shape, str(tensor.dtype)) == ((11, 5), f"torch.{np.dtype(dtype).name}")
    assert bits(tensor) == out.embeddings.view(f"i{tensor.itemsize}").tolist()
    tensor[4, 2] = 1.5
    assert out.embeddings[4, 2] == 1.5
    out.embeddings[10, 4] = -3
    assert tensor[10, 4] == -3
    assert out[:0].to_torch().shape == (0, 5)
    assert out[1].to_torch().data_ptr() == out.embeddings[2:].ctypes.data


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_that_torch_cannot_share_are_copied(dtype):
    tokens = in_dtype(dtype, deepstack=[]).embeddings
    frozen = tokens.copy()
    frozen.flags.writeable = False
    for view in (frozen, tokens[::-1], np.asfortranarray(tokens)):
        tensor = made(embeddings=view, deepstack=[]).to_torch()
        assert tensor.tolist() == view.tolist()
        assert tensor.is_contiguous()
        tensor.zero_()
        assert frozen.tolist() == tokens.tolist() != tensor.tolist()


@pytest.mark.parametrize("name", ARROW)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("levels", [0, 3])
def test_arrow_holds_wide_tokens_by_item(tmp_path, dtype, levels, name):
    out = in_dtype(dtype)
    out = replace(out, deepstack=out.deepstack[:levels])
    for part in (out, out[1], out[[2, 0]], out[:0]):
        array = part.to_arrow(name)
        array.validate(full=True)
        assert array.type == pyarrow.list_(pyarrow.list_(ARROW[name], 5 * (1 + levels)))
        want = [item.wide().astype(name).tolist() for item in part]
        assert array.to_pylist() == want
        pyarrow.parquet.write_table(pyarrow.table({"tokens": array}), tmp_path / "t.parquet")
        read = pyarrow.parquet.read_table(tmp_path / "t.parquet")["tokens"]
        assert read.type.value_type.value_type == ARROW[name]
        assert read.to_pylist() == want


@pytest.mark.parametrize("name", ARROW)
def test_arrow_shares_memory(name):
    out = made(deepstack=[]).astype(name)
    array = out.to_arrow(name)
    assert array.values.values.buffers()[1].address == out.embeddings.ctypes.data
    strided = made(deepstack=[], embeddings=np.asfortranarray(out.embeddings)).to_arrow(name)
    assert strided.equals(array)
    address = out.embeddings.ctypes.data
    del out
    assert array.values.values.buffers()[1].address == address  # kept alive
    assert strided.equals(array)


def test_arrow_of_an_encoder():
    out = encoder().encode([picture(61, 97)], videos=[np.zeros((4, 56, 84, 3), np.uint8)])
    assert out.to_arrow().to_pylist() == [tokens.tolist() for tokens in out.split()]


def test_values_that_arrow_cannot_hold():
    out = in_dtype(ml_dtypes.bfloat16)
    out.deepstack[0][0, 0] = 1e6
    with pytest.raises(InputError, match=r"token 0, of item 0 \(a.jpg\), has the value .*outside the range of float16"):
        out.to_arrow("float16")
    assert out.to_arrow("float32").to_pylist()[0][0][5] == float(ml_dtypes.bfloat16(1e6))
    with pytest.raises(InputError, match=re.escape("dtype is 'bfloat16'; expected one of float32, float16")):
        out.to_arrow("bfloat16")


def test_offsets_that_exceed_int32():
    """Without the tokens, which would take 8 GB."""
    rows = np.zeros((1, 1), np.float32)
    with pytest.raises(InputError, match="at most 2,147,483,647 tokens; got 2,147,483,648"):
        convert.to_arrow(rows, np.array([1 << 30, 1 << 30]))


@pytest.mark.parametrize(
    ("call", "words"),
    [("to_torch", "PyTorch, which is not installed: pip install torch"), ("to_arrow", "pip install 'qwenvis[arrow]'")],
)
def test_libraries_that_are_not_installed(monkeypatch, call, words):
    monkeypatch.setitem(sys.modules, "torch" if call == "to_torch" else "pyarrow", None)
    with pytest.raises(PackageError, match=re.escape(words)):
        getattr(made(), call)()


def test_libraries_are_imported_when_they_are_needed():
    code = """
        import sys, numpy, qwenvis
        out = qwenvis.Embeddings(numpy.ones((1, 1), numpy.float32), numpy.array([[1, 1, 1]]), 1)
        out.astype("bfloat16").wide(), out.mean_pool(), out.check(), repr(out)
        print({"torch", "pyarrow"} & {*sys.modules})
        out.to_arrow()
        print({"torch", "pyarrow"} & {*sys.modules})
    """
    assert output(code).splitlines() == ["set()", "{'pyarrow'}"]
