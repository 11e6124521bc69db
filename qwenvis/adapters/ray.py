"""Visual tokens as columns of Ray Data, for the language models of Ray Data LLM."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from qwenvis.adapters.vllm import offline
from qwenvis.encoder import Encoder
from qwenvis.errors import InputError, listed

COLUMNS = {"multimodal_data": "multi_modal_data", "multimodal_uuids": "multi_modal_uuids"}  # Ray's names, vLLM's


class Encode:
    """An actor that encodes the images and videos of rows: ``ds.map_batches(Encode, fn_constructor_args=(source,))``.

    It adds the columns that Ray Data LLM passes to vLLM: ``multimodal_data``, a dict of tensors, and
    ``multimodal_uuids``, the keys of the items; both None in a row without items.
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

        - ``source``, ``options``: the arguments of `Encoder.from_pretrained`, whose errors are raised. Ray sets
          ``OMP_NUM_THREADS`` to the ``num_cpus`` of the actor, and the encoder uses so many threads.
        - ``images``, ``videos``: the names of the columns that hold them, each a path, bytes or an array, or a list of
          these for several in one prompt, or None; no column if the name is None.
        - ``width``: the number of columns that the language model takes, to be checked.
        """
        self.encoder = Encoder.from_pretrained(source, **options)
        self.columns, self.width = {"images": images, "videos": videos}, width

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the batch with the columns.

        Raises InputError without a column of images or videos, and where `Encoder.encode` and `vllm.offline` do.
        """
        return {}
