"""The recipe that leaves the tower out of vLLM, with ``limit_mm_per_prompt`` of 0, and what it frees."""

import json
import shutil
from pathlib import Path

import pytest
from vllm.v1.engine.exceptions import EngineDeadError

from engines.vllm.answers import SCENARIOS, answers, difference, generated, items, text
from engines.vllm.models import engine, tiny_model
from qwenvis.adapters.vllm import offline

NONE = {"limit_mm_per_prompt": {"image": 0, "video": 0}}
DEEP = {"depth": 8, "embed_dim": 1280, "num_heads": 16}  # a quarter of the tower of Qwen2-VL-2B


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("scenario", ["both"])
def test_answers_without_the_tower(family, scenario):
    prompt = SCENARIOS[scenario]
    given, expected = items(family, prompt), answers(family)
    want, moved = expected["pixels", scenario], expected["moved", scenario]
    with engine(tiny_model(family).directory, **NONE) as llm:
        got = generated(llm, {"prompt": text(family, prompt), **offline(given.out)})
    assert (got.prompt, got.tokens) == (want.prompt, want.tokens)
    assert difference(got, want) <= difference(moved, want)


def test_deepstack_is_lost_with_the_tower():
    """VLLM 0.32 turns deepstack off without the tower, and tokens of the full width fail. Once it does not, say so."""
    prompt = SCENARIOS["two images"]
    given = items("qwen3_vl", prompt)
    with engine(tiny_model("qwen3_vl").directory, **NONE) as llm, pytest.raises(EngineDeadError):
        generated(llm, {"prompt": text("qwen3_vl", prompt), **offline(given.out)})


def resident(llm):
    """Return the resident bytes of the process of an engine."""
    (pid,) = {process.pid for process in llm.llm_engine.engine_core.resources.engine_manager.processes}
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def test_memory_of_the_tower(tmp_path):
    """What is freed is at least nine tenths of the weights of the tower."""
    model = shutil.copytree(tiny_model("qwen2_vl").directory, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["vision_config"] |= DEEP
    (model / "config.json").write_text(json.dumps(config))
    (model / "model.safetensors").unlink()
    used = {}
    for name, options in {"whole": {"skip_mm_profiling": True}, "without": NONE}.items():
        with engine(model, load_format="dummy", **options) as llm:
            used[name] = resident(llm)
    weights = 4 * DEEP["depth"] * 12 * DEEP["embed_dim"] ** 2  # of qkv, projection, and an MLP of four times the width
    print(f"resident: {used['whole'] / 1e6:.0f} MB, without the tower {used['without'] / 1e6:.0f} MB")
    assert used["whole"] - used["without"] >= 0.9 * weights
