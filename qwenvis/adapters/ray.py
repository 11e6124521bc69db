"""Visual tokens as columns of Ray Data, in which Ray Data LLM takes them to vLLM. Ray itself is not imported."""

from __future__ import annotations

import os
from itertools import chain, islice
from typing import Any

import numpy as np

from qwenvis.adapters.vllm import offline
from qwenvis.embeddings import Embeddings
from qwenvis.encoder import Encoder
from qwenvis.errors import InputError, listed

__all__ = ["Encode"]

# The columns of Ray Data LLM -> the names in vLLM's prompts.
COLUMNS = {"multimodal_data": "multi_modal_data", "multimodal_uuids": "multi_modal_uuids"}


class Encode:
    """An actor that encodes the images and videos of rows: ``ds.map_batches(Encode, fn_constructor_args=(source,))``.

    It adds the columns that Ray Data LLM passes to vLLM: ``multimodal_data``, which holds tensors, and
    ``multimodal_uuids``, the keys of the items. Both are None in a row without items.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        images: str | None = "image",
        videos: str | None = None,
        width: int | None = None,
        **options: Any,
    ) -> None:
        """Load the encoder.

        - ``source``, ``options``: the arguments of `Encoder.from_pretrained`. Ray sets ``OMP_NUM_THREADS`` to the
          ``num_cpus`` of the actor, and the encoder uses as many threads.
        - ``images``, ``videos``: the names of the columns with images and with videos, None if there are none. An entry
          is a path, bytes or an array; or a list of these, for a prompt with several; or None.
        - ``width``: the number of columns that the language model takes, to be checked.

        Raises the errors of `Encoder.from_pretrained`.
        """
        self.encoder = Encoder.from_pretrained(source, **options)
        self.columns, self.width = {"images": images, "videos": videos}, width

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch, a dict of columns, with the columns of the tokens.

        Raises InputError for a batch without a column, and where `Encoder.encode` and `vllm.offline` do.
        """
        names = {argument: column for argument, column in self.columns.items() if column is not None}
        if missing := set(names.values()) - set(batch):
            raise InputError(f"the batch has no column {listed(sorted(missing))}; it has {listed(sorted(batch))}")
        rows = {argument: [_items(entry) for entry in batch[column]] for argument, column in names.items()}
        lists = {argument: list(chain(*items)) for argument, items in rows.items()}
        out = self.encoder.encode(lists.get("images"), videos=lists.get("videos"))
        supply = iter(range(len(out)))  # images first, as in the call
        numbers = [[list(islice(supply, len(each))) for each in items] for items in rows.values()]
        prompts = [_prompt(out[list(chain(*row))], self.width) for row in zip(*numbers, strict=True)]
        columns = {column: _column([prompt.get(name) for prompt in prompts]) for column, name in COLUMNS.items()}
        return {**batch, **columns}


def _items(entry: Any) -> list[Any]:
    """Return the images or videos of a row; Ray makes an array of objects of a list of paths or bytes."""
    if entry is None:
        return []
    several = isinstance(entry, list | tuple) or (isinstance(entry, np.ndarray) and entry.dtype.kind in "OU")
    return list(entry) if several else [entry]


def _prompt(out: Embeddings, width: int | None) -> dict[str, Any]:
    """Return what a row has for vLLM beside its prompt."""
    return offline(out, width=width) if len(out) else {}


def _column(values: list[Any]) -> np.ndarray:
    """Return a column of objects. Ray pickles them; of arrays in place of tensors it would make lists."""
    column = np.empty(len(values), object)
    column[:] = values
    return column
