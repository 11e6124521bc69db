"""The section of the docs about vLLM, run with vLLM."""

import engines.vllm.models  # noqa: F401, which has heads for vLLM
from docs.code_blocks import run_blocks
from house.source_files import ROOT

PAGE = (ROOT / "docs/language_models.md").read_text(encoding="utf-8")


def test_code_runs(tmp_path, monkeypatch):
    section = PAGE.split("\n## vLLM\n")[1].split("\n## ")[0]
    names = run_blocks(section, tmp_path, monkeypatch, engine="vllm")
    assert [each.outputs[0].token_ids for each in names["answer"]]
    names.pop("llm").llm_engine.engine_core.shutdown()
