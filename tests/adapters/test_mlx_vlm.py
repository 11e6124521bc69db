"""The arguments of MLX-VLM, what is refused, and, where MLX-VLM is installed, its logits."""

import json
import shutil
import sys
from dataclasses import replace
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

from adapters.transformers.pixel_path import SCENARIOS, encoded, logits, text, tolerance
from docs import code_blocks
from house.source_files import ROOT
from made.presets import same_bits
from oracle.transformers_models import full_model
from qwenvis import InputError, PackageError
from qwenvis.adapters import mlx_vlm
from qwenvis.adapters.transformers import inputs

PAGE = ROOT / "docs" / "language_models.md"
IMAGES = SCENARIOS["images of different sizes"]
OUT = encoded("qwen2_vl", IMAGES)


@pytest.fixture
def numpy_as_mlx(monkeypatch):
    """NumPy's functions under the names that the adapter uses."""
    core = ModuleType("mlx.core")
    vars(core).update(array=np.array, zeros=np.zeros)
    package = ModuleType("mlx")
    package.core = core
    monkeypatch.setitem(sys.modules, "mlx", package)
    monkeypatch.setitem(sys.modules, "mlx.core", core)


@pytest.mark.usefixtures("numpy_as_mlx")
def test_arguments():
    found = mlx_vlm.arguments(OUT, width=96)
    assert list(found) == ["pixel_values", "cached_image_features", "image_grid_thw"]
    assert found["pixel_values"].shape == (1,)
    assert same_bits(found["cached_image_features"], OUT.embeddings)
    assert same_bits(found["image_grid_thw"], OUT.grid_thw)
    assert mlx_vlm.arguments(OUT.astype("bfloat16"))["cached_image_features"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (OUT.embeddings, "out is a ndarray; expected the Embeddings"),
        (encoded("qwen3_vl", IMAGES), "2 levels of deepstack, which MLX-VLM would leave out without an error"),
        (encoded("glm4v", IMAGES), "of the family 'glm4v'; MLX-VLM takes those of qwen2_vl"),
        (encoded("qwen2_vl", SCENARIOS["an image and a video"]), "'video 0' is a video; MLX-VLM takes .* images only"),
        (replace(OUT, embeddings=OUT.embeddings[1:]), "do not fit the grid"),
        (replace(OUT, embeddings=np.full_like(OUT.embeddings, np.nan)), "has the value nan"),
        (replace(OUT, embeddings=OUT.embeddings[:, :48]), "48 wide; expected 96"),
    ],
)
@pytest.mark.usefixtures("numpy_as_mlx")
def test_refusals(out, message):
    with pytest.raises(InputError, match=message):
        mlx_vlm.arguments(out, width=96)


def test_without_mlx(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(PackageError, match="pip install mlx-vlm"):
        mlx_vlm.arguments(OUT)


def published(family, directory):
    """Copy the checkpoint of a family with a config as published ones have, without what transformers 5 writes."""
    shutil.copytree(full_model(family).directory, directory, dirs_exist_ok=True)
    config = json.loads((directory / "config.json").read_text())
    config["vision_config"].pop("model_type")
    text_config = config["text_config"]
    if family == "qwen3_5":
        config["vision_config"]["model_type"], text_config["full_attention_interval"] = family, 2
    else:
        rope = text_config["rope_parameters"]
        text_config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        config = {**text_config, **config, "rope_theta": rope["rope_theta"]}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("family", mlx_vlm.FAMILIES)
def test_logits_equal_those_of_transformers(family, tmp_path):
    mx, loading = pytest.importorskip("mlx.core"), pytest.importorskip("mlx_vlm.utils")
    full, out = full_model(family), encoded(family, IMAGES)
    fed = inputs(text(full, IMAGES), out, full.processor, full.model)
    model = loading.load_model(published(family, tmp_path))
    ids = mx.array(fed["input_ids"].numpy())
    embedded = {
        name: value
        for name, value in model.get_input_embeddings(ids, **mlx_vlm.arguments(out)).to_dict().items()
        if value is not None
    }
    found = np.array(model.language_model(ids, **embedded).logits)[0]
    assert np.abs(found - logits(full.model, fed).numpy()).max() <= tolerance(full.model, fed)


def test_the_code_of_the_docs(tmp_path, monkeypatch):
    pytest.importorskip("mlx_vlm")
    checkpoint = published("qwen2_vl", tmp_path / "checkpoint")
    monkeypatch.setattr(code_blocks, "full_model", lambda family: full_model(family)._replace(directory=checkpoint))
    names = code_blocks.run_blocks(PAGE.read_text(encoding="utf-8"), tmp_path, monkeypatch, engine="mlx_vlm")
    assert names["answer"]


def test_answers_equal_those_of_transformers(tmp_path):
    mx, loading = pytest.importorskip("mlx.core"), pytest.importorskip("mlx_vlm.utils")
    generating = pytest.importorskip("mlx_vlm.generate")
    full = full_model("qwen2_vl")
    fed = inputs(text(full, IMAGES), OUT, full.processor, full.model)
    model, ids = loading.load_model(published("qwen2_vl", tmp_path)), mx.array(fed["input_ids"].numpy())
    steps = generating.generate_step(ids, model, mask=None, max_tokens=8, temperature=0.0, **mlx_vlm.arguments(OUT))
    expected = full.model.generate(**fed, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert [token for token, _ in steps] == expected.tolist()
