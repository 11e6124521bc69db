"""Visual tokens for vLLM, which takes them in place of pixels: in a prompt, in the chat API, from its encoder cache.

A tensor that does not fit ruins a vLLM for all who use it, so everything is checked here, and nothing leaves before.
vLLM returns an earlier result for an identifier (``uuid``) that it has seen, whatever the tokens are now: identifiers
are the keys of the items. Neither vLLM nor, except in `offline`, PyTorch is imported.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from qwenvis.adapters.modalities import check_times, checked, items_of
from qwenvis.embeddings import Embeddings
from qwenvis.embeddings.convert import to_torch
from qwenvis.errors import InputError, quoted, shown
from qwenvis.io.drafts import flush, flush_names, whole_file
from qwenvis.io.files import expanded, given_path

__all__ = ["offline", "parts", "publish", "request", "write_cache"]

Part: TypeAlias = dict[str, Any]

# The families whose tokens and grids vLLM takes -> the times of videos that vLLM reads beside them; None: vLLM takes
# only images, and those in requests only. `make test-vllm` compares the table with the installed vLLM.
TIMES = {
    "qwen2_vl": "",
    "qwen2_5_vl": "second_per_grid_ts",
    "qwen2_5_omni": "second_per_grid_ts",
    "exaone4_5": "",
    "qwen3_vl": "timestamps",
    "qwen3_vl_moe": "timestamps",
    "qwen3_5": "timestamps",
    "qwen3_5_moe": "timestamps",
    "qwen4_exp": "timestamps",
    "cohere_compass": None,
}
_IDENTIFIER = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:-]{0,127}")
FILE, TENSOR = "encoder_cache.safetensors", "ec_cache"  # of vLLM's ECExampleConnector


def offline(out: Embeddings, *, width: int | None = None) -> dict[str, Any]:
    """Return what a prompt of ``vllm.LLM.generate`` has beside its text: ``{"prompt": text, **offline(out)}``.

    The text has one placeholder for each item: images fill those of images in the order of ``out``, and videos those of
    videos. The engine needs ``enable_mm_embeds=True``.

    - ``width``: the width of the tokens that the model takes, its hidden size times 1 + levels of deepstack. vLLM does
      not check it.

    The result has "multi_modal_data", with "image" and "video" as far as ``out`` has items of either, and
    "multi_modal_uuids", the keys of the items. For images, ``image_embeds`` is `Embeddings.wide` of all of them, a
    copy, and ``image_grid_thw`` (items, 3) int64; videos also have the times that the family's model reads.

    Raises InputError where `Embeddings.check` and `Embeddings.keys` do, for another family, for items that were left
    out, for videos without times, and for videos of a family of which vLLM takes images only. Raises PackageError
    without PyTorch.
    """
    items = _checked(out, width)
    data, uuids = {}, {}
    for name in items_of(out):
        chosen = [item for modality, item in items if modality == name]
        given = [_fields(name, item) for item in chosen]
        data[name] = {field: _joined(field, [each[field] for each in given]) for field in given[0]}
        uuids[name] = [item.keys[0] for item in chosen]
    return {"multi_modal_data": data, "multi_modal_uuids": uuids}


def parts(out: Embeddings, *, width: int | None = None) -> list[Part]:
    """Return one content part of a chat message for each item, in the order of ``out``.

    Parts go between those of text, to ``LLM.chat`` or to ``/v1/chat/completions`` of a server that was started with
    ``--enable-mm-embeds``. Arrays are base64 of ``.npy`` files, which have no bfloat16: its values go as float32.

    ``width`` and the errors are those of `offline`, except PackageError.
    """
    return [_part(name, item, _fields(name, item)) for name, item in _checked(out, width)]


def write_cache(out: Embeddings, directory: str | os.PathLike[str], *, width: int | None = None) -> list[Path]:
    """Write one file for each item into the directory of vLLM's encoder cache; return their paths.

    The directory is the ``shared_storage_path`` of an ``ECExampleConnector``; it is made where there is none. A file
    has its name once it is on the disk; then `request` may be sent. The file has the dtype of ``out``.

    ``width`` is that of `offline`. Raises InputError where `request` does, and for files that cannot be written.
    """
    items = _requested(out, width)
    place = expanded(str(given_path(directory, "directory")))
    return [_write(place / item.keys[0] / FILE, item) for _, item in items]


def publish(
    out: Embeddings, directory: str | os.PathLike[str], identifiers: Sequence[str | None], *, width: int | None = None
) -> dict[str, dict[str, Any]]:
    """Write the files of `write_cache` under other identifiers; return the ``ec_transfer_params`` of an encode worker.

    A proxy of vLLM's disaggregated encoding chooses an identifier for each item; None stands for the key of the item.
    By identifier, the result has the ``item_indices`` of its items, and as ``metadata`` what `request` has of them, as
    JSON.

    Raises InputError where `write_cache` does, for another number of identifiers than of items, for an identifier of
    different items, and for identifiers that are not names of up to 128 letters, digits, ``.``, ``_``, ``:`` and ``-``,
    of which the first is a letter or a digit.
    """
    items = _requested(out, width)
    names = _identified(items, identifiers)
    place = expanded(str(given_path(directory, "directory")))
    params: dict[str, dict[str, Any]] = {}
    for index, (name, (modality, item)) in enumerate(zip(names, items, strict=True)):
        entry = params.setdefault(name, {"item_indices": []})
        entry["item_indices"].append(index)
        entry["metadata"] = {field: np.atleast_1d(value).tolist() for field, value in _sizes(modality, item).items()}
        _write(place / name / FILE, item)
    return params


def request(out: Embeddings) -> list[Part]:
    """Return the content parts of `parts` without the tokens, which vLLM reads in the files of `write_cache`.

    The engine needs an ``ec_transfer_config`` whose ``ec_role`` is "ec_consumer". Without the file of an item, the
    whole engine fails: send the request after `write_cache` has returned, where vLLM sees the same directory.

    Raises the errors of `parts`, and InputError for a family whose tokens vLLM takes in requests only.
    """
    return [_part(name, item, _sizes(name, item)) for name, item in _requested(out, None)]


def _checked(out: Embeddings, width: int | None) -> list[tuple[str, Embeddings]]:
    """Return the modality of each item and the item. Raises InputError unless vLLM can take all of them."""
    family = checked(out, "vLLM", TIMES, width).provenance["family"]
    numbers = items_of(out)
    if videos := numbers.get("video"):
        if TIMES[family] is None:
            raise InputError(f"{quoted(out.sources[videos[0]])} is a video; vLLM takes only images of {family}")
        if TIMES[family]:
            check_times(out[videos])
    out.keys  # noqa: B018
    names = {number: name for name, chosen in numbers.items() for number in chosen}
    return [(names[number], item) for number, item in enumerate(out)]


def _requested(out: Embeddings, width: int | None) -> list[tuple[str, Embeddings]]:
    """Return the items as `_checked` does. Raises InputError for a family that is not in vLLM's encoder cache."""
    items = _checked(out, width)
    family = out.provenance["family"]
    if TIMES[family] is None:
        raise InputError(f"vLLM takes the tokens of {family} in the request only: use parts or offline")
    return items


def _identified(items: list[tuple[str, Embeddings]], identifiers: Sequence[str | None]) -> list[str]:
    """Return the identifier of each item: the given one, else its key. Raises InputError as `publish`."""
    if len(identifiers) != len(items):
        raise InputError(f"got {len(identifiers)} identifiers; expected {len(items)}, one for each item")
    keys = [item.keys[0] for _, item in items]
    names = [key if name is None else name for key, name in zip(keys, identifiers, strict=True)]
    known: dict[str, str] = {}
    for name, key in zip(names, keys, strict=True):
        if not _IDENTIFIER.fullmatch(name):
            allowed = "up to 128 letters, digits, '.', '_', ':' and '-', the first a letter or a digit"
            raise InputError(f"the identifier {quoted(name)} cannot name a file; expected {allowed}")
        if known.setdefault(name, key) != key:
            raise InputError(f"the identifier {quoted(name)} names different items, whose tokens would be mixed up")
    return names


def _fields(name: str, item: Embeddings) -> dict[str, np.ndarray]:
    """Return what vLLM reads of an image or a video, by the name of each field."""
    fields = {f"{name}_embeds": item.wide(), f"{name}_grid_thw": item.grid_thw[0]}
    times = TIMES[item.provenance["family"]] if name == "video" else None
    if times == "timestamps":
        fields[times] = item.timestamps[0]
    elif times:
        fields[times] = item.second_per_grid_ts[0].astype(np.float32)  # the dtype in vLLM
    return fields


def _sizes(name: str, item: Embeddings) -> dict[str, np.ndarray]:
    """Return the fields of `_fields` without the tokens: the grid, and the times of a video."""
    return {field: value for field, value in _fields(name, item).items() if field != f"{name}_embeds"}


def _joined(field: str, arrays: list[np.ndarray]) -> Any:
    """Return a field of several items as a prompt has it: tokens in one tensor, timestamps in lists. It is a copy."""
    if field == "timestamps":
        return [each.tolist() for each in arrays]
    return to_torch(np.concatenate(arrays) if field.endswith("_embeds") else np.stack(arrays))


def _part(name: str, item: Embeddings, fields: dict[str, np.ndarray]) -> Part:
    kind = f"{name}_embeds"
    return {"type": kind, kind: {field: _npy(array) for field, array in fields.items()}, "uuid": item.keys[0]}


def _npy(array: np.ndarray) -> str:
    """Return the base64 of a ``.npy`` file."""
    plain = array.astype(np.float32) if array.dtype.name == "bfloat16" else array  # exactly
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(plain), allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _write(file: Path, item: Embeddings) -> Path:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as draft:
            save_file({TENSOR: np.ascontiguousarray(item.wide())}, draft)
            flush(draft)
        flush_names(file.parent)
        flush_names(file.parent.parent)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{shown(str(file))} cannot be written: {shown(str(error))}") from error
    return file
