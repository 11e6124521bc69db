"""llama.cpp itself, fed with `adapters.llama_cpp.batch`: the logits of transformers.

xllamacpp 2026.10.11549 contains the build b11549, which normalises Qwen2-VL and Qwen2.5-VL without the epsilon of the
file. So the logits are those of transformers with an epsilon of 0, and the likeliest words those of transformers.
"""

import copy
from importlib.util import find_spec

import numpy as np
import pytest

from adapters.llama_cpp.engine import opened
from adapters.llama_cpp.gguf_models import ARCHITECTURES, language_model
from adapters.llama_cpp.prompts import arguments, batch_of, pieces
from adapters.transformers.pixel_path import SCENARIOS, encoder, logits, tolerance
from oracle.transformers_models import full_model
from qwenvis.adapters.llama_cpp import batch

pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp has no wheel for this system")


def prefilled(context, family, scenario):
    """Decode a prompt; return the logits of all of its tokens, and the position of the word that follows."""
    found, position = [], 0
    for piece in pieces(family, scenario):
        if isinstance(piece, np.ndarray):
            for words in np.split(piece, range(context.n_batch, len(piece), context.n_batch)):
                places = np.arange(position, position + len(words), dtype=np.int32)
                found.append(context.decode(tokens=words, positions=places))
                position += len(words)
        else:
            whole = batch_of(family, piece, position)
            found += [context.decode(embd=part.embd, positions=part.positions) for part in whole.split(context.n_batch)]
            position = whole.next_position
    return np.concatenate(found), position


def without_epsilon(model):
    """Return the model with norms that add nothing to the mean of the squares."""
    other = copy.deepcopy(model)
    for module in other.model.language_model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.0
    return other


@pytest.mark.parametrize("sizes", [{}, {"n_batch": 7, "n_ubatch": 5}], ids=["whole", "in pieces"])
@pytest.mark.parametrize("name", ["images of different sizes", "an image and a video"])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_logits_and_greedy_tokens(family, name, sizes):
    """The tolerance is what the rounding of a tower in float32 may change: the language models differ by less."""
    full, given = full_model(family), arguments(family, SCENARIOS[name])
    with opened(language_model(family), **sizes) as context:
        found, position = prefilled(context, family, SCENARIOS[name])
        words = [found[-1].argmax()]
        while len(words) < 8:
            token, place = (np.array([number], np.int32) for number in (words[-1], position + len(words) - 1))
            words.append(context.decode(tokens=token, positions=place)[-1].argmax())
    assert np.array_equal(found.argmax(axis=1), logits(full.model, given).numpy().argmax(axis=1))
    model = full.model if family == "qwen3_vl" else without_epsilon(full.model)
    assert np.abs(found - logits(model, given).numpy()).max() <= tolerance(model, given)
    answer = model.generate(**given, max_new_tokens=8, do_sample=False)
    assert words == answer[0, -8:].tolist()


def test_text_after_a_long_video():
    """Text continues after the last step: where transformers lets it continue, llama.cpp refuses it."""
    video = np.random.default_rng(0).integers(0, 256, (12, 56, 56, 3), np.uint8)
    out = encoder("qwen2_vl").encode(videos=[video], num_frames=12, min_pixels=56 * 56)
    steps, rows, columns = out.grid_thw[0].tolist()
    assert steps > max(rows, columns) // 2
    embd, positions, following = batch(out, 3, width=96)
    assert following == 3 + steps
    word = np.array([5], np.int32)
    with opened(language_model("qwen2_vl")) as context:
        assert context.decode(embd=embd, positions=positions) is not None
        earlier = np.array([3 + max(rows, columns) // 2], np.int32)
        assert context.decode(tokens=word, positions=earlier) is None
        assert context.decode(tokens=word, positions=np.array([following], np.int32)) is not None
