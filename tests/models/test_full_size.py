"""The published towers at their full size, with random weights: numbers, and memory."""

import pytest

from oracle import transformers_towers
from oracle.families import tower
from oracle.tolerance import TOWER, relative_error, relative_rms
from processes.programs import output
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


every_family = pytest.mark.parametrize("family", list(PUBLISHED))


def loaded(directory, family, model, dtype):
    """An encoder of the tower, through a checkpoint that is not kept."""
    transformers_towers.save(directory, family, model, dtype=dtype, shards=2)
    encoder = Encoder.from_pretrained(directory, dtype=dtype, threads=2)
    for shard in directory.glob("*.safetensors"):
        shard.unlink()  # pytest would keep its 2.7 GB
    return encoder


@every_family
def test_tokens_are_those_of_transformers(tmp_path, family):
    """In float32; how far each of the two is from float64 is printed."""
    model, config, weights = transformers_towers.make(family, **PUBLISHED[family])
    given = transformers_towers.inputs(config, GRIDS)
    encoder = loaded(tmp_path, family, model, "float32")
    out, theirs = encoder(*given, hidden_states=True), transformers_towers.run(model, *given)
    exact = tower(family, config, weights, *given)
    triples = [
        ("tokens", out.embeddings, theirs.tokens, exact.tokens),
        ("last_hidden_state", out.last_hidden_state, theirs.last_hidden_state, exact.last_hidden_state),
        *(("deepstack", *each) for each in zip(out.deepstack, theirs.deepstack, exact.deepstack, strict=True)),
    ]
    for name, ours, want, exact in triples:
        errors = relative_error(ours, want), relative_error(ours, exact), relative_error(want, exact)
        print(
            f"{family} {name}: {errors[0]:.1e} from transformers; from float64 {errors[1]:.1e}, theirs {errors[2]:.1e}"
        )
        assert errors[0] <= TOWER
        assert errors[1] <= TOWER


@every_family
def test_bfloat16_is_nearer_to_the_truth_than_transformers(tmp_path, family):
    """By the relative RMS of the tokens of stills, each against float64 of the weights that it multiplies."""
    model = transformers_towers.narrowed(transformers_towers.make(family, **PUBLISHED[family])[0])
    config = model.config.to_dict()
    weights = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    pixel_values, grid_thw = transformers_towers.inputs(config, GRIDS)
    given = transformers_towers.still(config, pixel_values), grid_thw
    theirs = relative_rms(transformers_towers.run(model, *given).tokens, tower(family, config, weights, *given).tokens)
    encoder = loaded(tmp_path, family, model, "bfloat16")
    want = tower(family, config, transformers_towers.folded(weights), *given).tokens
    ours = relative_rms(encoder(*given).embeddings, want)
    print(f"{family} {encoder.isa}: {ours:.1e} from float64, transformers {theirs:.1e}")
    assert ours < theirs


PROGRAM = """
import re
from pathlib import Path
import sys
import numpy as np
import qwenvis
encoder = qwenvis.Encoder.from_pretrained("synthetic:qwen2-vl-2b", threads=2, dtype=sys.argv[1])
picture = np.random.default_rng(0).integers(0, 256, (896, 1344, 3), np.uint8)
out = encoder.encode(picture)
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(int(peak) * 1024, encoder.spec.parameters, *out.embeddings.shape, bool(np.isfinite(out.embeddings).all()))
"""


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_p10_memory_of_a_large_image(dtype, size):
    """1344 x 896 is 6144 patches: attention scores alone would take 150 MB a head if they were ever held."""
    peak, parameters, *result = output(PROGRAM, dtype, timeout=1000).split()
    over = (int(peak) - size * int(parameters)) / 1e6
    print(f"peak {int(peak) / 1e6:.0f} MB, {over:.0f} MB over the weights")
    assert result == ["1536", "1536", "True"]
    assert over < 500
