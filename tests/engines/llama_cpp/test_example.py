"""The blocks of docs/language_models.md that need llama-cpp-python, with a tiny model: `make test-llama-cpp`."""

import shutil

import pytest

from adapters.llama_cpp.gguf_models import language_model
from docs.code_blocks import run_blocks
from house.source_files import ROOT
from oracle.transformers_models import full_model
from qwenvis.adapters.transformers import inputs

pytest.importorskip("llama_cpp", reason="llama-cpp-python must be compiled: make test-llama-cpp")


def test_example(tmp_path, monkeypatch):
    """The answer is that of transformers."""
    full = full_model("qwen2_vl")
    shutil.copy(language_model("qwen2_vl"), tmp_path / "Qwen2-VL-2B-Instruct-Q4_K_M.gguf")
    page = (ROOT / "docs" / "language_models.md").read_text(encoding="utf-8")
    names = run_blocks(page, tmp_path, monkeypatch, engine="llama_cpp")
    given = inputs(names["prompt"], names["out"], full.processor, full.model)
    answer = full.model.generate(**given, max_new_tokens=50, do_sample=False)[0, -50:].tolist()
    end = full.processor.tokenizer.eos_token_id
    assert names["answer"] == answer[: answer.index(end)]
    assert names["answer"]
