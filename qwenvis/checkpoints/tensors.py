"""How the tensors of a tower lie in files: behind which prefix, in which parts, with which axes, quantised or not.

Tensors leave this room with the names, shapes and axes of transformers, whichever library wrote the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qwenvis.checkpoints.stored import FLOATS, TYPES, Read, StoredFile, StoredTensor
from qwenvis.errors import CheckpointError, listed, shown
from qwenvis.models import FAMILIES

# Every tower has exactly one patch embedding, behind any prefix.
PATCH_EMBEDDINGS = tuple(dict.fromkeys(family.tensors.patch_embedding for family in FAMILIES.values()))

# How libraries mark the tensors that they have quantised: the ends of names beside, or in place of, ".weight".
QUANTISED = {
    "bitsandbytes": (".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".SCB"),
    "GPTQ": (".g_idx",),
    "AWQ": (".qweight", ".qzeros"),
    "NVFP4": (".weight_scale_2", ".weight_global_scale"),
    "FP8": (".weight_scale_inv",),
    "compressed-tensors": (".weight_packed", ".weight_scale", ".weight_zero_point", ".input_scale"),
    "HQQ": (".W_q",),
    "MLX": (".scales",),
}
_UNUSABLE = "cannot be used; take the original model, or a quantised model whose tower is not quantised"


@dataclass(frozen=True)
class TensorPart:
    """A stored tensor that fills ``out[index]`` of a tensor of the tower, with its axes permuted to ``axes``."""

    stored: StoredTensor
    index: tuple[int | slice, ...] = ()
    axes: tuple[int, ...] = ()

    def place(self, out: np.ndarray) -> np.ndarray:
        """Return the view of ``out`` that has the shape of this part."""
        view = out[self.index]
        return view.transpose(self.axes) if self.axes else view


@dataclass(frozen=True)
class Tensor:
    """One tensor of the tower: its type and shape in the tower, and its parts, which are in one file.

    A tensor of a packed checkpoint has no parts: its bytes have become those of the packed weights.
    """

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[TensorPart, ...] = ()

    @classmethod
    def of(cls, stored: StoredTensor) -> Tensor:
        """Return a tensor that is stored whole."""
        return cls(stored.dtype, stored.shape, (TensorPart(stored),))

    @property
    def file(self) -> StoredFile:
        """The file that holds the parts."""
        return self.parts[0].stored.file

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return sum(part.stored.nbytes for part in self.parts)


def tower_among(names: Collection[str], where: Path) -> tuple[str, re.Pattern[str]]:
    """Find the prefix of the tower's names (``visual.``, ``model.visual.``, none ...), and the pattern of the names.

    Raises CheckpointError unless the names are those of one tower, whose patch embedding is not quantised.
    """
    found = {name: end for name in names for end in PATCH_EMBEDDINGS if name == end or name.endswith("." + end)}
    if not found:
        stems = tuple(end.removesuffix("weight") for end in PATCH_EMBEDDINGS)
        packed = [name for name in names if any(stem in name for stem in stems) and _library([name])]
        if packed:
            raise CheckpointError(f"{where}: a quantised tower ({_library(packed)}, by its tensor names) {_UNUSABLE}")
        no_tower = f"{where} holds no tower: no tensor name ends in {' or '.join(PATCH_EMBEDDINGS)}"
        raise CheckpointError(f"{no_tower}; found {listed(sorted(names))}")
    if len(found) > 1:
        raise CheckpointError(f"{where} holds {len(found)} towers, expected one: {listed(sorted(found))}")
    ((name, end),) = found.items()
    prefix = name.removesuffix(end)
    return prefix, re.compile(re.escape(prefix) + _own(end, prefix))


def _own(patch_embedding: str, prefix: str) -> str:
    """Return a pattern for the start of a tower's names behind ``prefix``, from the families with this embedding."""
    found = [each.tensors for each in FAMILIES.values() if each.tensors.patch_embedding == patch_embedding]
    if prefix and not any(names.shares_prefix for names in found):
        return ""  # all names behind the prefix
    parts = dict.fromkeys(part for names in found for part in names.parts)
    return rf"(?:{'|'.join(parts)})\."


def channels_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the convolutions of MLX, which keeps channels last, the axes of transformers, which has them second.

    The sides of a kernel are equal, so MLX's order is known by two equal sizes before the last.
    """
    return {name: _channels_second(tensor) for name, tensor in tensors.items()}


def _channels_second(tensor: Tensor) -> Tensor:
    shape = tensor.shape
    if len(shape) < 4 or shape[-1] == shape[-2] or shape[-2] != shape[-3]:
        return tensor
    axes = (0, *range(2, len(shape)), 1)
    parts = tuple(replace(part, axes=axes) for part in tensor.parts)
    return Tensor(tensor.dtype, (shape[0], shape[-1], *shape[1:-1]), parts)


def assembled(tensor: Tensor, read: Read) -> np.ndarray:
    """Read one tensor of the tower, contiguous; at most the result and one part are in memory."""
    first = tensor.parts[0]
    if len(tensor.parts) == 1 and not first.index and not first.axes:
        return read(first.stored)
    dtypes = {TYPES[part.stored.dtype].dtype for part in tensor.parts}
    out = np.empty(tensor.shape, dtypes.pop() if len(dtypes) == 1 else np.float32)
    for part in tensor.parts:
        part.place(out)[...] = read(part.stored)
    return out


def not_finite(tensor: Tensor, array: np.ndarray) -> CheckpointError:
    """Make the error for ``array``, a tensor of the tower that is not finite, or is not once it is packed.

    The message names the stored tensor, and the place in it of its first NaN or infinity; else of its largest entry.
    """
    for part in tensor.parts:
        values = part.place(array)
        if (flags := ~np.isfinite(values)).any():
            place = tuple(map(int, np.unravel_index(flags.argmax(), values.shape)))
            return CheckpointError(
                f"{tensor.file.path}: {shown(part.stored.name)} is not finite: {values[place]} at {list(place)} is the "
                f"first of {flags.sum()} such entries; is the file damaged?"
            )
    largest, name = max((float(np.abs(part.place(array)).max()), part.stored.name) for part in tensor.parts)
    return CheckpointError(
        f"{tensor.file.path}: {shown(name)} is not finite once it is packed: its largest magnitude is {largest:.6g}"
    )


def refuse_quantised(where: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Raise CheckpointError, in words, for a tower that is stored as anything but floats."""
    found = [name for name, tensor in tensors.items() if tensor.dtype not in FLOATS or _library([name])]
    if not found:
        return
    dtypes = sorted({tensors[name].dtype for name in found})
    got = f"{where}: tensors of the tower are stored as {', '.join(dtypes)}; expected {', '.join(FLOATS)}"
    if dtypes == ["F64"]:
        raise CheckpointError(f"{got}: {listed(found)}")
    method = _method(config) or (
        f"{_library(found)}, by its tensor names" if _library(found) else "quant_method: none named"
    )
    raise CheckpointError(f"{got}; a quantised tower ({method}) {_UNUSABLE}: {listed(found)}")


def _library(names: Collection[str]) -> str:
    """Name the library that gives such names to quantised tensors; empty for names that look like floats."""
    return next((library for library, ends in QUANTISED.items() if any(name.endswith(ends) for name in names)), "")


def _method(config: Mapping[str, Any]) -> str:
    """Quote the config's description of the quantisation; empty where there is none."""
    quantisation = config.get("quantization_config")
    keys = ("quant_method", "quant_algo", "format")
    said = [str(quantisation[key]) for key in keys if quantisation.get(key)] if isinstance(quantisation, dict) else []
    return f"quant_method: {shown(', '.join(said))}" if said else ""
