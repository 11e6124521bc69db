"""The encoder of a Dynamo worker: its batches equal encode to the bit, and bad images are errors of their request."""

import base64
import dataclasses
import importlib
import inspect
import io
import sys
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from adapters import dynamo_contract as contract
from made.presets import checkpoint, encoder, picture, same_bits
from qwenvis import ImageError, PackageError
from qwenvis.geometry import PATCH_BUDGET

NAMES = ("Preprocessed", "Qwen3VLImageEncoding", "VisionEncoderBackend")
NAME = "qwenvis.adapters.dynamo"
PICTURES = [picture(64, 96), picture(160, 64), picture(30, 40)]


@pytest.fixture
def adapter(monkeypatch):
    """The module, with the contract in place of Dynamo."""
    recorded = ModuleType(contract.MODULE)
    vars(recorded).update({name: getattr(contract, name) for name in NAMES})
    parts = contract.MODULE.split(".")
    for name in (".".join(parts[:end]) for end in range(1, len(parts))):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, contract.MODULE, recorded)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME)


def built(kind, family="qwen3_vl"):
    backend = kind()
    backend.build(str(checkpoint(family)))
    return backend


def url(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])  # with deepstack and without
def test_a_batch_equals_encode(adapter, family):
    backend = built(adapter.VisionEncoder, family)
    prepared = [backend.preprocess(url(each)) for each in PICTURES]
    found = backend.forward_batch([each.item for each in prepared])
    expected = encoder(family).encode(PICTURES)
    for each, encoding, item in zip(prepared, found, expected, strict=True):
        assert isinstance(encoding, contract.Qwen3VLImageEncoding)
        assert same_bits(encoding.embeddings.numpy(), np.ascontiguousarray(item.wide()))
        assert encoding.embeddings.device == torch.device("cpu")
        assert encoding.grid_thw == tuple(item.grid_thw[0].tolist())
        assert {type(number) for number in encoding.grid_thw} == {int}  # Dynamo refuses those of NumPy
        assert each.cost == np.prod(encoding.grid_thw)
    backend.close()


def test_an_image_above_the_budget_fills_a_batch(adapter):
    backend = built(adapter.VisionEncoder)
    found = backend.preprocess(url(picture(1200, 1200)))  # Dynamo refuses a cost above max_batch_cost
    assert len(found.item.pixel_values) > found.cost == backend.max_batch_cost == PATCH_BUDGET


def test_images_are_prepared_in_another_thread(adapter):
    assert adapter.VisionEncoder.preprocess_concurrency > 0  # with 0, Dynamo refuses a class that has preprocess


def test_options_of_a_subclass(adapter, tmp_path):
    class Cached(adapter.VisionEncoder):
        options: ClassVar = {"cache": tmp_path, "threads": 1}

    backend = built(Cached)
    first, again = (backend.forward_batch([backend.preprocess(url(PICTURES[0])).item]) for _ in range(2))
    assert list(tmp_path.rglob("*.safetensors"))
    assert torch.equal(first[0].embeddings, again[0].embeddings)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("https://example.com/cat.png", "not a data:image/"),
        ("file:///cat.png", "not a data:image/"),
        ("data:text/plain;base64,aGVsbG8=", "not a data:image/"),
        ("data:image/png,abc", "not a data:image/"),
        ("data:image/png;base64,!!!!", "not valid base64"),
        ("data:image/png;base64,aGVsbG8", "not valid base64"),
        ("data:image/png;base64,aGVsbG8=", "not an image that Pillow can read"),
    ],
)
def test_bad_images(adapter, raw, message):
    backend = built(adapter.VisionEncoder)
    with pytest.raises(ImageError, match=message):  # a ValueError, which Dynamo answers with HTTP 400
        backend.preprocess(raw)


def test_without_dynamo(monkeypatch):
    monkeypatch.setitem(sys.modules, contract.MODULE, None)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    with pytest.raises(PackageError, match="pip install 'ai-dynamo"):
        importlib.import_module(NAME)


def test_the_contract_is_that_of_dynamo():
    real = pytest.importorskip(contract.MODULE)
    for name in NAMES[:2]:
        fields = [[each.name for each in dataclasses.fields(getattr(kind, name))] for kind in (contract, real)]
        assert fields[0] == fields[1]
    recorded, base = contract.VisionEncoderBackend, real.VisionEncoderBackend
    assert recorded.__abstractmethods__ == base.__abstractmethods__
    for name, value in vars(recorded).items():
        if inspect.isfunction(value):
            assert list(inspect.signature(value).parameters) == list(inspect.signature(getattr(base, name)).parameters)
        elif not name.startswith("_"):
            assert value == getattr(base, name)
