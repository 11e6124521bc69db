"""The tokens of a result in the place of a tower's output: ``mm_encoder_outputs``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qwenvis.adapters.transformers.receiver import Receiver
from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.convert import to_torch


@dataclass
class TowerOutput(BaseModelOutputWithPooling):
    """What language models read of a tower's output, for images or for videos.

    - ``pooler_output``: tensors (tokens, hidden_size), in the order of the placeholders.
    - ``deepstack_features``: for each level, tensors in the shapes of ``pooler_output``; None without deepstack.
    """

    deepstack_features: list[list[torch.Tensor]] | None = None


def tower_output(items: Embeddings, lengths: Sequence[int], receiver: Receiver) -> TowerOutput:
    """Return the tokens in tensors of these lengths, in the dtype and on the device of the model's embeddings.

    Raises InputError for a value outside the range of the dtype, and for embeddings that are quantised.
    """
    like = receiver.embedding
    if like.dtype != torch.float64:  # which holds every token
        items = items.astype(like.dtype)

    def tensors(rows: np.ndarray) -> list[torch.Tensor]:
        return list(torch.split(to_torch(rows).to(like.device, like.dtype), list(lengths)))

    tokens: Any = tensors(items.embeddings)  # a list, where the annotation in transformers has a tensor
    deepstack = [tensors(layer) for layer in items.deepstack]
    return TowerOutput(pooler_output=tokens, deepstack_features=deepstack or None)
