"""Checkpoints in memory: the bits of the same tensors in files, and errors by name."""

import numpy as np
import pytest

from oracle.transformers_towers import cached, inputs, save
from qwenvis import CheckpointError, Encoder, ModelSpec
from qwenvis.adapters.memory import InMemory
from qwenvis.checkpoints.tensors import Tensor


def checkpoint(tmp_path, change=dict):
    """The weights of a tiny tower as ``change`` returns them, with the config of its directory."""
    model, config, weights = cached("qwen2_vl")[0], *cached("qwen2_vl")[2:]
    save(tmp_path / "model", "qwen2_vl", model)
    arrays = change(weights)
    return InMemory(
        tmp_path,
        config={},
        vision_config=config,
        model_type="qwen2_vl",
        preprocessor={},
        video_preprocessor={},
        prefix="",
        tensors={name: Tensor("F32", array.shape) for name, array in arrays.items()},
        arrays={name: lambda array=array: array for name, array in arrays.items()},
    )


def test_same_bits_as_from_files(tmp_path):
    calls = []
    spec = ModelSpec(checkpoint(tmp_path))
    encoder = Encoder.from_spec(spec, threads=1, progress=lambda *call: calls.append(call))
    given = inputs(cached("qwen2_vl")[2], [[1, 4, 6]])
    want = Encoder.from_pretrained(tmp_path / "model", threads=1)(*given)
    np.testing.assert_array_equal(encoder(*given).embeddings, want.embeddings)
    assert calls == [(done, len(spec.checkpoint.tensors)) for done in range(1, len(calls) + 1)]
    assert calls[-1][0] == calls[-1][1]


def test_errors(tmp_path):
    def damaged(weights):
        return {
            name: array * np.float32(np.nan) if name == "merger.ln_q.bias" else array for name, array in weights.items()
        }

    with pytest.raises(CheckpointError, match=r"merger\.ln_q\.bias is not finite"):
        Encoder.from_spec(ModelSpec(checkpoint(tmp_path, damaged)))
    with pytest.raises(CheckpointError, match=r"left over \(1\): more"):
        Encoder.from_spec(ModelSpec(checkpoint(tmp_path, lambda weights: {**weights, "more": np.zeros(1)})))
