"""Visual tokens for llama.cpp, as a batch of its C interface, without an mmproj file (docs/language_models.md).

The positions are those of llama.cpp's M-RoPE, as transformers' ``get_rope_index`` computes them.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

import numpy as np

from qwenvis.adapters.modalities import checked
from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError, checked_integer, counted, quoted

__all__ = ["Batch", "batch", "steps"]

LARGEST = 2**31 - 1  # the positions are int32


class Numbering(NamedTuple):
    """How a language model numbers visual tokens.

    With ``mrope``, a token has a time, a row and a column; without, it has the next number, like a word. ``time`` is
    that of the temporal steps of a video: their number ("counted"), or their seconds times a rate, rounded down
    ("seconds") or not ("fractions"). With "text", each step is a picture of its own, beside its time in words.
    """

    mrope: bool
    time: str


# The families whose language models llama.cpp has.
NUMBERINGS = {
    "qwen2_vl": Numbering(True, "counted"),
    "qwen2_5_vl": Numbering(True, "seconds"),
    "qwen2_5_omni": Numbering(True, "seconds"),
    "qwen3_vl": Numbering(True, "text"),
    "qwen3_vl_moe": Numbering(True, "text"),
    "qwen3_omni_moe": Numbering(True, "fractions"),
    "qwen3_5": Numbering(True, "text"),
    "qwen3_5_moe": Numbering(True, "text"),
    "qwen4_exp": Numbering(True, "text"),
    "glm4v": Numbering(True, "text"),
    "glm46v": Numbering(True, "text"),
    "glm4v_moe": Numbering(True, "text"),
    "glm_ocr": Numbering(True, "text"),
    "glm5_next": Numbering(False, "text"),
    "exaone4_5": Numbering(False, "counted"),
    "paddleocr_vl": Numbering(True, "counted"),
}


class Batch(NamedTuple):
    """The tokens of one picture or video, for a ``llama_batch`` whose other pointers are null.

    - ``embd``: (tokens, W) float32, C-contiguous, with deepstack beside the tokens, as in `Embeddings.wide`.
    - ``positions``: (4, tokens) int32, C-contiguous: for each token its time, row and column, and 0. A language model
      without M-RoPE reads the first row only.
    - ``next_position``: the position of the text that follows.
    """

    embd: np.ndarray
    positions: np.ndarray
    next_position: int

    def split(self, n_batch: int) -> list[Batch]:
        """Return batches of at most ``n_batch`` tokens, in order: ``llama_decode`` takes no more than the context's.

        The attention is causal, so the results do not depend on ``n_batch``. Raises InputError unless ``n_batch`` is a
        positive integer.
        """
        size = checked_integer(n_batch, "n_batch", 1)
        bounds = range(0, len(self.embd), size)
        pieces = [(self.embd[i : i + size], self.positions[:, i : i + size]) for i in bounds]
        return [Batch(embd, np.ascontiguousarray(planes), self.next_position) for embd, planes in pieces]


def batch(out: Embeddings, start: int, *, width: int, tokens_per_second: float | None = None) -> Batch:
    """Return the tokens of one item, and their positions in a prompt.

    ``start`` is the first free position: 0, or the ``next_position`` of the item before, plus the number of tokens of
    text since then. ``width`` is ``llama_model_n_embd_inp(model)``, which llama.cpp itself does not compare with the
    tokens. ``tokens_per_second``, in some config.json ``position_id_per_seconds``, is read for videos of Qwen2.5-VL and
    Qwen2.5-Omni only.

    Positions are those of ``get_rope_index`` in transformers. The text continues one after the largest of them, as in
    section 2.1 of the Qwen2-VL paper (arXiv:2409.12191); after a video of Qwen2-VL or Qwen2.5-VL with more time than
    rows and columns, transformers 5.23 continues earlier, which llama.cpp refuses.

    Raises InputError for several items, for a result from which items were left out, for a family whose language model
    llama.cpp does not have, for an argument that is not such a number, for a video whose temporal steps are pictures of
    their own (`steps` returns them) or have no integer times, and where `Embeddings.check` does.
    """
    checked(out, "llama.cpp", NUMBERINGS, checked_integer(width, "width", 1))
    if len(out) != 1:
        raise InputError(f"out has {counted(len(out), 'item')}; expected one, as out[0]: text stands between the items")
    first = checked_integer(start, "start", 0)
    offsets = _offsets(out, tokens_per_second)
    largest = first + int(offsets.max())
    if largest >= LARGEST:
        raise InputError(f"start is {quoted(start)}, the last position {quoted(largest)}; expected less than {LARGEST}")
    positions = np.zeros((4, len(out.embeddings)), np.int32)
    np.add(offsets, first, out=positions[:3], casting="unsafe")
    return Batch(np.ascontiguousarray(out.wide(), np.float32), positions, largest + 1)


def steps(out: Embeddings) -> Embeddings:
    """Return each temporal step as an item of its own, whose tokens are views, with its frames and its time.

    Qwen3-VL and later models, and the GLM line, take videos in this form: the time of a step is text before its tokens,
    in the GLM line after them. Hidden states are left out. Raises InputError where `Embeddings.check` does.
    """
    out.check()
    counts = out.grid_thw[:, 0]
    grid = np.repeat(out.grid_thw, counts, axis=0)
    grid[:, 0] = 1
    names = np.repeat(np.arange(len(out)), counts)
    return Embeddings(
        out.embeddings,
        grid,
        out.merge_size,
        provenance=out.provenance,
        deepstack=out.deepstack,
        frame_indices=_cut(out.frame_indices, counts),
        timestamps=_cut(out.timestamps, counts),
        second_per_grid_ts=out.second_per_grid_ts[names] if len(out.second_per_grid_ts) else out.second_per_grid_ts,
        sources=[out.sources[index] for index in names],
        sizes=out.sizes[names],
    )


def _cut(arrays: list[np.ndarray], counts: np.ndarray) -> list[np.ndarray]:
    """Return the frames or times of each temporal step, from those of each item; the last step may have fewer."""
    pieces = []
    for array, count in zip(arrays, counts.tolist() if arrays else [], strict=True):
        size = -(-len(array) // count)
        pieces += [array[step * size : (step + 1) * size] for step in range(count)]
    return pieces


def _offsets(out: Embeddings, tokens_per_second: object) -> np.ndarray:
    """Return the time, row and column of each token, (3, tokens) int64, from 0."""
    numbering = NUMBERINGS[out.provenance["family"]]
    grid = (out.grid_thw[0] // [1, out.merge_size, out.merge_size]).tolist()
    if grid[0] > 1 and numbering.time == "text":
        video = f"a video of {grid[0]} temporal steps, which the model takes as pictures, each beside its time as text"
        raise InputError(f"the item is {video}; call batch for each item of steps(out)")
    if grid[0] > 1 and numbering.time == "fractions":
        raise InputError("the item is a video, whose times are fractions in the model; llama.cpp takes integers")
    if not numbering.mrope:
        return np.broadcast_to(np.arange(math.prod(grid)), (3, math.prod(grid)))
    offsets = np.indices(grid).reshape(3, -1)
    if grid[0] > 1 and numbering.time != "counted":
        offsets[0] = _times(out, tokens_per_second)[offsets[0]]
    return offsets


def _times(out: Embeddings, tokens_per_second: object) -> np.ndarray:
    """Return the time of each temporal step, (t,) int64, rounded as in transformers. Raises InputError without it."""
    seconds = out.second_per_grid_ts[0] if len(out.second_per_grid_ts) else 0.0
    if not 0 < seconds <= LARGEST:
        raise InputError(f"the item is a video with second_per_grid_ts {seconds}; expected that of encode(videos=...)")
    valid = isinstance(tokens_per_second, Real) and not isinstance(tokens_per_second, bool)
    try:
        rate = float(tokens_per_second) if valid else 0.0  # type: ignore[arg-type]
    except OverflowError:
        rate = math.inf
    if not 0 < rate * seconds * out.grid_thw[0, 0] <= LARGEST:
        expected = "that of the model's config.json, tokens_per_second or position_id_per_seconds"
        raise InputError(f"tokens_per_second is {quoted(tokens_per_second)}; expected, for a video, {expected}")
    numbers = np.arange(out.grid_thw[0, 0], dtype=np.float32)
    return (numbers * np.float32(seconds) * np.float32(rate)).astype(np.int64)
