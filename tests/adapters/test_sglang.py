"""The arguments of SGLang's engine: names, shapes and dtypes, as sglang 0.5.23 reads them, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.transformers.pixel_path import SCENARIOS, encoded
from qwenvis import InputError
from qwenvis.adapters import sglang
from qwenvis.adapters.modalities import items_of

BOTH = SCENARIOS["an image and a video"]
OUT = encoded("qwen2_5_vl", BOTH)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"])
@pytest.mark.parametrize("name", ["images of different sizes", "an image and a video", "a video"])
def test_arguments(family, name):
    out = encoded(family, SCENARIOS[name])
    found = sglang.arguments(out, width=96 * (1 + len(out.deepstack)))
    assert list(found) == [f"{modality}_data" for modality in items_of(out)]
    for modality, numbers in items_of(out).items():
        (data,) = found[f"{modality}_data"]  # SGLang takes exactly one dict
        timed = family == "qwen2_5_vl" and "video_data" in found
        assert data.pop("second_per_grid_ts", None) == (
            out[items_of(out)["video"]].second_per_grid_ts.tolist() if timed else None
        )
        assert list(data) == ["format", "modality", "precomputed_embeddings", f"{modality}_grid_thw"]
        assert (data["format"], data["modality"]) == ("processor_output", modality)
        tokens, grid = data["precomputed_embeddings"], data[f"{modality}_grid_thw"]
        assert torch.equal(tokens, torch.from_numpy(out[numbers].wide()))
        assert torch.equal(grid, torch.from_numpy(out.grid_thw[numbers]))
        assert (tokens.dtype, grid.dtype, tokens.dim()) == (torch.float32, torch.int64, 2)


def test_bfloat16():
    (data,) = sglang.arguments(OUT.astype("bfloat16"))["image_data"]
    assert data["precomputed_embeddings"].dtype == torch.bfloat16


def test_no_items():
    assert sglang.arguments(OUT[:0]) == {}


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (OUT.embeddings, "out is a ndarray; expected the Embeddings"),
        (replace(OUT, provenance={"family": "glm4v"}), "of the family 'glm4v'; SGLang takes those of qwen2_vl"),
        (replace(OUT, provenance={}), "without a family in their provenance; SGLang takes"),
        (replace(OUT, embeddings=OUT.embeddings[1:]), "do not fit the grid"),
        (replace(OUT, embeddings=np.full_like(OUT.embeddings, np.inf)), "has the value inf"),
        (replace(OUT, embeddings=OUT.embeddings[:, :48]), "48 wide; expected 96"),
        (replace(OUT, deepstack=[OUT.embeddings]), "192 wide, 96 times 1 . 1 of deepstack; expected 96"),
        (replace(OUT, timestamps=[]), "3 temporal steps and no times"),
        (replace(OUT, frame_indices=OUT.frame_indices[:1]), f"frame_indices of 1 item; expected {len(OUT)}"),
        (replace(OUT, second_per_grid_ts=np.zeros(1)), f"second_per_grid_ts of 1 item; expected {len(OUT)}"),
        (replace(OUT, second_per_grid_ts=np.zeros(0)), r"second_per_grid_ts 0\.0; encode it again"),
        (replace(OUT, second_per_grid_ts=OUT.second_per_grid_ts * np.nan), "second_per_grid_ts nan"),
    ],
)
def test_refusals(out, message):
    with pytest.raises(InputError, match=message):
        sglang.arguments(out, width=96)
