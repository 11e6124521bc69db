"""Whole towers in bfloat16: nearer to the truth than transformers in that type, at the depth of published ones."""

import functools

import pytest

from made.tile_sizes import ISAS
from oracle import transformers_towers
from oracle.families import FAMILIES, KINDS, fraction, tower
from oracle.tolerance import ROUNDED, TOWER, assert_close, relative_rms
from qwenvis import Encoder, ops

GRIDS = ((1, 6, 10), (2, 12, 18))
# Their depth, and the blocks of Qwen2.5-VL that see a whole frame.
REAL = {"depth": 32, "fullatt_block_indexes": (7, 15, 23, 31)}


@functools.cache
def made(family, deep=False):
    """A tower whose weights bfloat16 holds exactly: (torch model, its config, weights in float32)."""
    sizes = {name: size for name, size in REAL.items() if name in {"depth", *FAMILIES[family].tiny}} if deep else {}
    model = transformers_towers.narrowed(transformers_towers.make(family, **sizes)[0])
    return model, model.config.to_dict(), {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}


@functools.cache
def inputs(family, moving):
    """Patches of videos, or of stills."""
    config = made(family)[1]
    pixel_values, grid_thw = transformers_towers.inputs(config, GRIDS)
    return (pixel_values if moving else transformers_towers.still(config, pixel_values)), grid_thw


@functools.cache
def exact(family, moving, deep=False):
    """What the reference makes of the numbers that are multiplied."""
    _, config, weights = made(family, deep)
    return tower(family, config, weights if moving else transformers_towers.folded(weights), *inputs(family, moving))


@functools.cache
def error_of_transformers(family, moving):
    """Of its tokens, against the same weights as they are: it folds nothing."""
    model, config, weights = made(family, deep=True)
    given = inputs(family, moving)
    return relative_rms(transformers_towers.run(model, *given).tokens, tower(family, config, weights, *given).tokens)


@functools.cache
def stored(family, deep):
    """The directory of a checkpoint of `made`."""
    return transformers_towers.kept(family, made(family, deep)[0], dtype="bfloat16")


def loaded(family, deep=False):
    return Encoder.from_pretrained(stored(family, deep), dtype="bfloat16", threads=1)


@pytest.mark.parametrize(("isa", "family", "moving"), fraction(2, ISAS, KINDS, [False, True]), indirect=["isa"])
def test_nearer_to_the_truth_than_transformers(isa, family, moving):
    """By the relative RMS of the tokens, at the depth of the published towers."""
    encoder = loaded(family, deep=True)
    error = relative_rms(encoder(*inputs(family, moving)).embeddings, exact(family, moving, deep=True).tokens)
    print(f"{family} {isa}: {error:.1e}, transformers {error_of_transformers(family, moving):.1e}")
    assert error < error_of_transformers(family, moving)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_only_the_inputs_of_products_are_rounded(isa, family):
    """Where they are float32 too, which is on CPUs without such products, nothing but the weights is."""
    native = not ops.formats()["bf16"].expanded
    out, want = loaded(family)(*inputs(family, True), hidden_states=True), exact(family, True)
    pairs = [(out.embeddings, want.tokens), *zip(out.deepstack, want.deepstack, strict=True)]
    for got, right in [*pairs, *zip(out.hidden_states, want.hidden_states, strict=True)]:
        assert_close(got, right, ROUNDED if native else TOWER)
