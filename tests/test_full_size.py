"""The published towers at their full size, with random weights: numbers, and memory."""

import pytest
import truth
from families import tower
from tolerance import TOWER, relative_error
from towers import output

from qwenvis import Encoder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PUBLISHED = {
    "qwen2_vl": {"depth": 32, "hidden_size": 1280, "num_heads": 16, "out_hidden_size": 1536},  # 2B
    "qwen2_5_vl": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },  # 3B
    "qwen3_vl": {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2048,
        "deepstack_visual_indexes": [5, 11, 17],
    },  # 2B
    "glm_ocr": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 1536},
}
GRIDS = [[1, 16, 20], [2, 12, 18]]


@pytest.mark.parametrize("family", list(PUBLISHED))
def test_tokens_are_those_of_transformers(tmp_path, family):
    """In float32; how far each of the two is from float64 is printed."""
    model, config, weights = truth.make(family, **PUBLISHED[family])
    truth.save(tmp_path, family, model, shards=2)
    given = truth.inputs(config, GRIDS)
    encoder = Encoder.from_pretrained(tmp_path, threads=2)
    for shard in tmp_path.glob("*.safetensors"):
        shard.unlink()  # pytest would keep its 2.7 GB
    out, theirs = encoder(*given, hidden_states=True), truth.run(model, *given)
    exact = tower(family, config, weights, *given)
    triples = [
        ("tokens", out.embeddings, theirs.tokens, exact.tokens),
        ("last_hidden_state", out.last_hidden_state, theirs.last_hidden_state, exact.last_hidden_state),
        *(("deepstack", *each) for each in zip(out.deepstack, theirs.deepstack, exact.deepstack, strict=True)),
    ]
    for name, ours, judge, right in triples:
        errors = relative_error(ours, judge), relative_error(ours, right), relative_error(judge, right)
        print(
            f"{family} {name}: {errors[0]:.1e} from transformers; from float64 {errors[1]:.1e}, theirs {errors[2]:.1e}"
        )
        assert errors[0] <= TOWER
        assert errors[1] <= TOWER


PROGRAM = """
import re
from pathlib import Path
import numpy as np
import qwenvis
encoder = qwenvis.Encoder.from_pretrained("synthetic:qwen2-vl-2b", threads=2)
picture = np.random.default_rng(0).integers(0, 256, (896, 1344, 3), np.uint8)
out = encoder.encode(picture)
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(int(peak) * 1024, 4 * encoder.outline.parameters, *out.embeddings.shape, bool(np.isfinite(out.embeddings).all()))
"""


def test_p10_memory_of_a_large_image():
    """1344 x 896 is 6144 patches: attention scores alone would take 150 MB a head if they were ever held."""
    peak, weights, *result = output(PROGRAM, timeout=1000).split()
    over = (int(peak) - int(weights)) / 1e6
    print(f"peak {int(peak) / 1e6:.0f} MB, {over:.0f} MB over the weights")
    assert result == ["1536", "1536", "True"]
    assert over < 500
