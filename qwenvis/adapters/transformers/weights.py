"""The weights of a tower in the memory of transformers: as a checkpoint, and as a fingerprint that shows changes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch

from qwenvis.adapters.memory import InMemory
from qwenvis.checkpoints.tensors import Tensor
from qwenvis.errors import InputError, listed
from qwenvis.spec import ModelSpec

# The types of weights that an encoder takes -> their names in safetensors.
STORED = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
# Prefixes in checkpoints whose projector stands beside the tower: of the projector's tensors, and of the tower's.
PROJECTOR_PREFIX, TOWER_PREFIX = "mlp_AR.", "visual."
SAMPLED = 257  # entries of each tensor in a fingerprint

Tensors = dict[str, torch.Tensor]


def weights(tower: Any, projector: Any = None) -> Tensors:
    """Return the tensors of a tower, and of a projector beside it, by the names in checkpoints.

    Raises InputError for tensors that are quantised or not in memory.
    """
    parts = {"": tower} if projector is None else {TOWER_PREFIX: tower, PROJECTOR_PREFIX: projector}
    found = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}
    unusable = sorted({str(tensor.dtype) for tensor in found.values() if tensor.dtype not in STORED})
    if unusable:
        raise InputError(
            f"the model's tower has weights of {listed(unusable)}; expected {', '.join(map(str, STORED))}: load the "
            "model without quantisation of its tower"
        )
    if any(tensor.is_meta for tensor in found.values()):
        raise InputError("the weights of the model's tower are not in memory, but on the meta device")
    return found


def spec(found: Tensors, config: Any, tower_config: Any) -> ModelSpec:
    """Return the spec of a tower whose tensors are ``found``, in the format that "auto" takes for their types.

    ``config`` is that of the model which holds the tower. Raises ConfigError and CheckpointError for a tower that no
    family has.
    """
    checkpoint = InMemory(
        Path(config.name_or_path or config.model_type),
        config={},
        vision_config=tower_config.to_dict(),
        model_type=config.model_type,
        preprocessor={},
        video_preprocessor={},
        prefix="",
        tensors={name: Tensor(STORED[tensor.dtype], tuple(tensor.shape)) for name, tensor in found.items()},
        arrays={name: partial(_array, tensor) for name, tensor in found.items()},
    )
    return ModelSpec(checkpoint, dtype="auto")


def fingerprint(found: Tensors) -> bytes:
    """Return bytes that differ once the weights have been changed.

    They have PyTorch's count of the changes of each tensor, its address and its type. A change through ``.data`` is not
    counted; some entries of each tensor show it, if all entries change.
    """
    entries = [
        tensor.flatten()[:: max(1, tensor.numel() // SAMPLED | 1)].double().cpu()  # an odd stride visits all columns
        for tensor in found.values()
    ]
    states = [
        (0 if tensor.is_inference() else tensor._version, tensor.data_ptr(), tensor.dtype) for tensor in found.values()
    ]
    return torch.cat([torch.empty(0), *entries]).numpy().tobytes() + repr(states).encode()


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
