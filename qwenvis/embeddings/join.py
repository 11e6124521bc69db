"""Results of one tower, joined, and items selected from a result: fields of `Embeddings` from those of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from qwenvis.errors import InputError

Fields = Mapping[str, Any]  # of an `Embeddings`, by name
Rows: TypeAlias = "slice | np.ndarray"  # rows of an array: a slice selects a view, indices a copy


def joined(parts: Sequence[Fields]) -> dict[str, Any]:
    """Return the fields of all items, in order, in new arrays. Raises InputError for parts that cannot be joined."""
    _check_alike(parts)
    if any(part["frame_indices"] for part in parts):
        parts = [_timed(part) for part in parts]
    layers = {
        name: [np.concatenate(arrays) for arrays in zip(*(part[name] for part in parts), strict=True)]
        for name in ("hidden_states", "deepstack")
    }
    arrays = {
        name: np.concatenate([part[name] for part in parts])
        for name in ("embeddings", "grid_thw", "sizes", "second_per_grid_ts")
    }
    lists = {
        name: list(chain.from_iterable(part[name] for part in parts))
        for name in ("sources", "frame_indices", "timestamps", "_keys")
    }
    return {
        **layers,
        **arrays,
        **lists,
        "merge_size": parts[0]["merge_size"],
        "provenance": _merged(part["provenance"] for part in parts),
        "errors": tuple(error for part in parts for error in part["errors"]),
    }


def selected(part: Fields, items: Rows, tokens: Rows, patches: Rows) -> dict[str, Any]:
    """Return the fields of some items, whose tokens and patches are these rows."""
    count = len(part["grid_thw"])
    numbers = range(count)[items] if isinstance(items, slice) else items.tolist()
    of_items = {name: part[name][items] for name in ("grid_thw", "sizes", "second_per_grid_ts") if len(part[name])}
    lists = {
        name: [part[name][number] for number in numbers]
        for name in ("sources", "frame_indices", "timestamps", "_keys")
        if len(part[name])
    }
    return {
        **part,
        **of_items,
        **lists,
        "embeddings": part["embeddings"][tokens],
        "hidden_states": [state[patches] for state in part["hidden_states"]],
        "deepstack": [layer[tokens] for layer in part["deepstack"]],
        "errors": (),
    }


def _timed(part: Fields) -> Fields:
    """Return a part with frames and times, which are empty for still images."""
    if part["frame_indices"]:
        return part
    items = len(part["sources"])
    indices, stamps = [np.zeros(0, np.int64)] * items, [np.zeros(0)] * items
    return {**part, "frame_indices": indices, "timestamps": stamps, "second_per_grid_ts": np.zeros(items)}


def _check_alike(parts: Sequence[Fields]) -> None:
    """Raise InputError for parts that cannot be joined."""
    if not parts:
        raise InputError("there is nothing to concatenate; expected at least one Embeddings")
    for index, part in enumerate(parts):
        for (what, got), first in zip(_kind(part).items(), _kind(parts[0]).values(), strict=True):
            if got != first:
                why = "convert one with astype" if what == "the dtype" else "tokens of different towers do not mix"
                raise InputError(f"part {index} has {what} {got}, part 0 {first}: {why}")


def _kind(part: Fields) -> dict[str, object]:
    """Return the properties in which parts must agree to be joined, by name."""
    told = {key: part["provenance"].get(key, "unknown") for key in ("family", "format")}
    return {
        **told,
        "the checkpoint": part["provenance"].get("source", "unknown"),
        "the width": part["embeddings"].shape[1],
        "the merge size": part["merge_size"],
        "deepstack arrays of the widths": [array.shape[1] for array in part["deepstack"]],
        "hidden states of the widths": [array.shape[1] for array in part["hidden_states"]],
        "the dtype": ", ".join({str(array.dtype): None for array in (part["embeddings"], *part["deepstack"])}),
    }


def _merged(provenances: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return all values of each key, each value once, in order."""
    values: dict[str, dict[str, None]] = {}
    for provenance in provenances:
        for key, value in provenance.items():
            values.setdefault(key, {})[value] = None
    return {key: ", ".join(found) for key, found in values.items()}
