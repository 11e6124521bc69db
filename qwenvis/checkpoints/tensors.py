"""How the tensors of a tower lie in files: behind which prefix, in which parts, with which axes, quantised or not.

What leaves this room has the names, shapes and axes that transformers gives the tower, whoever wrote the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from qwenvis.errors import CheckpointError, listed, shown
from qwenvis.models import FAMILIES

# Every tower has exactly one patch embedding, whatever stands in front of its names.
PATCH_EMBEDDINGS = tuple(dict.fromkeys(family.tensors.patch_embedding for family in FAMILIES.values()))

# Importing ml_dtypes is also what teaches safetensors' numpy reader the word bfloat16.
FLOATS = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
# What a reader makes of a stored type, and the bytes that one entry takes in the file. Q8_0 is ggml's: 32 bytes that
# share a float16.
ARRAYS = {**FLOATS, "Q8_0": FLOATS["F32"]}
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "Q8_0": 34 / 32}

Read = Callable[[str], np.ndarray]  # the array that a file stores under a name

# How libraries mark what they have quantised: the ends of names beside, or in place of, ".weight".
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
_UNUSABLE = "cannot be used; take the model that it was made from, or a quantised one that leaves the tower as it was"


@dataclass(frozen=True)
class TensorPart:
    """A stored tensor that fills ``out[index]`` of one of the tower's tensors, its axes permuted to ``axes``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    index: tuple[int | slice, ...] = ()
    axes: tuple[int, ...] = ()

    def place(self, out: np.ndarray) -> np.ndarray:
        """The view of ``out`` that has the shape of this part."""
        view = out[self.index]
        return view.transpose(self.axes) if self.axes else view


@dataclass(frozen=True)
class Tensor:
    """Where one tensor of the tower lies, how it is stored, and the shape that it has in the tower.

    ``dtype`` is safetensors' word (``BF16``), or ggml's (``Q8_0``). Without ``parts`` it is stored as it is, under its
    own name behind the prefix.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[TensorPart, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        stored = self.parts or (TensorPart("", self.dtype, self.shape),)
        return int(sum(math.prod(part.shape) * BYTES[part.dtype] for part in stored))


def tower_among(names: Collection[str], where: Path) -> tuple[str, re.Pattern[str]]:
    """What stands in front of the tower's names (``visual.``, ``model.visual.``, nothing ...), and how they begin.

    Raises CheckpointError unless the names are those of one tower, whose patch embedding is not quantised.
    """
    found = {name: end for name in names for end in PATCH_EMBEDDINGS if name == end or name.endswith("." + end)}
    if not found:
        stems = tuple(end.removesuffix("weight") for end in PATCH_EMBEDDINGS)
        packed = [name for name in names if any(stem in name for stem in stems) and _library([name])]
        if packed:
            raise CheckpointError(f"{where}: a tower that is quantised (by its names {_library(packed)}) {_UNUSABLE}")
        no_tower = f"{where} holds no tower: no name of a tensor ends in {' or '.join(PATCH_EMBEDDINGS)}"
        raise CheckpointError(f"{no_tower}; found {listed(sorted(names))}")
    if len(found) > 1:
        raise CheckpointError(f"{where} holds {len(found)} towers, expected one: {listed(sorted(found))}")
    ((name, end),) = found.items()
    prefix = name.removesuffix(end)
    return prefix, re.compile(re.escape(prefix) + _own(end, prefix))


def _own(patch_embedding: str, prefix: str) -> str:
    """How the names behind ``prefix`` begin that are a tower's: with a part of any family of this patch embedding."""
    found = [each.tensors for each in FAMILIES.values() if each.tensors.patch_embedding == patch_embedding]
    if prefix and not any(names.shares_prefix for names in found):
        return ""  # whatever stands there
    parts = dict.fromkeys(part for names in found for part in names.parts)
    return rf"(?:{'|'.join(parts)})\."


def channels_first(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with the convolutions of MLX turned back: it keeps channels last, transformers second.

    The sides of a kernel are equal, so two equal sizes that do not stand last give the layout away.
    """
    return {name: _turned(prefix + name, tensor) for name, tensor in tensors.items()}


def _turned(stored: str, tensor: Tensor) -> Tensor:
    shape = tensor.shape
    if len(shape) < 4 or shape[-1] == shape[-2] or shape[-2] != shape[-3]:
        return tensor
    axes = (0, *range(2, len(shape)), 1)
    part = TensorPart(stored, tensor.dtype, shape, axes=axes)
    return Tensor(tensor.file, tensor.dtype, (shape[0], shape[-1], *shape[1:-1]), (part,))


def assembled(prefix: str, name: str, tensor: Tensor, read: Read) -> np.ndarray:
    """One tensor of the tower, contiguous, of its parts; no more than the result and one part are in memory.

    Raises CheckpointError where the file no longer holds what its header said.
    """
    parts = _parts(prefix, name, tensor)
    if len(parts) == 1 and not parts[0].index and not parts[0].axes:
        return _checked(parts[0], tensor.file, read)
    dtypes = {ARRAYS[part.dtype] for part in parts}
    out = np.empty(tensor.shape, dtypes.pop() if len(dtypes) == 1 else np.float32)
    for part in parts:
        part.place(out)[...] = _checked(part, tensor.file, read)
    return out


def _parts(prefix: str, name: str, tensor: Tensor) -> tuple[TensorPart, ...]:
    """The stored tensors that make up one of the tower."""
    return tensor.parts or (TensorPart(prefix + name, tensor.dtype, tensor.shape),)


def not_finite(prefix: str, name: str, tensor: Tensor, array: np.ndarray) -> CheckpointError:
    """The error for ``array``, a tensor of the tower that is not finite, or is not once it is packed.

    It names the stored tensor, and the place in it of its first NaN or infinity; else of its largest entry.
    """
    for part in _parts(prefix, name, tensor):
        values = part.place(array)
        if (flags := ~np.isfinite(values)).any():
            place = tuple(map(int, np.unravel_index(flags.argmax(), values.shape)))
            return CheckpointError(
                f"{tensor.file}: {shown(part.name)} is not finite: {values[place]} at {list(place)} is the first of "
                f"{flags.sum()} such entries; is the file damaged?"
            )
    largest = float(np.abs(array).max())
    return CheckpointError(
        f"{tensor.file}: {shown(part.name)} is not finite once it is packed: its largest magnitude is {largest:.6g}"
    )


def _checked(part: TensorPart, file: Path, read: Read) -> np.ndarray:
    array, dtype = read(part.name), ARRAYS[part.dtype]
    if array.shape != part.shape or array.dtype != dtype:
        got = f"{array.dtype} {array.shape}, expected {dtype} {part.shape}"
        raise CheckpointError(f"{file}: {shown(part.name)} is {got}: the file was replaced while in use")
    return array


def refuse_quantised(where: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Raise CheckpointError, in words, for a tower that is stored as anything but floats."""
    found = [name for name, tensor in tensors.items() if tensor.dtype not in FLOATS or _library([name])]
    if not found:
        return
    dtypes = sorted({tensors[name].dtype for name in found})
    got = f"{where}: tensors of the tower are stored as {', '.join(dtypes)}; expected {', '.join(FLOATS)}"
    if dtypes == ["F64"]:
        raise CheckpointError(f"{got}: {listed(found)}")
    method = _method(config) or (f"by its names {_library(found)}" if _library(found) else "quant_method: none named")
    raise CheckpointError(f"{got}; a tower that is quantised ({method}) {_UNUSABLE}: {listed(found)}")


def _library(names: Collection[str]) -> str:
    """The library that has quantised tensors of these names; empty for names that look like floats."""
    return next((library for library, ends in QUANTISED.items() if any(name.endswith(ends) for name in names)), "")


def _method(config: Mapping[str, Any]) -> str:
    """What the config says of the quantisation; empty where it says nothing."""
    quantisation = config.get("quantization_config")
    keys = ("quant_method", "quant_algo", "format")
    said = [str(quantisation[key]) for key in keys if quantisation.get(key)] if isinstance(quantisation, dict) else []
    return f"quant_method: {shown(', '.join(said))}" if said else ""
