"""The result of a call: the visual tokens of all items, as a sequence of one `Embeddings` an item, saved and loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, SupportsIndex, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from qwenvis.embeddings.file import load, save, split
from qwenvis.errors import InputError, QwenvisError, shown

NAMED = 3  # sources that a repr spells out

Rows: TypeAlias = "slice | np.ndarray"  # of an array: a view, or a copy of some


def _nothing() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """The visual tokens of one call: a sequence of one `Embeddings` for each image and video.

    ``len(out)`` is the number of items. Iteration, ``out[2]``, ``out[-1]`` and ``out[1:3]`` yield `Embeddings` of
    views; ``out[mask]`` and ``out[[2, 0]]`` copy, unless the items follow one another. ``np.asarray(out)`` is
    ``embeddings``.

    - ``embeddings``: (tokens, out_hidden_size) float32, C-contiguous, the caller's own; items one after the other.
    - ``grid_thw``: (items, 3) int64, the (frames / 2, rows, columns) of patches of each item.
    - ``merge_size``: an item of t x h x w patches has t * h * w / merge_size^2 tokens.
    - ``hidden_states``: if asked for, depth + 1 arrays (patches, hidden_size) in the order of ``pixel_values``.
    - ``provenance``: source (the checkpoint), family, format, ISA, version, pixel limits.
    - ``deepstack``: arrays like ``embeddings`` made of the hidden states of some blocks, in the order of the blocks,
      which a language model adds to its own first layers; empty in families that have none.
    - ``frame_indices``, ``timestamps``: of calls with videos, for each item the frames of the video that were looked at
      (frames,) int64, and the seconds of each temporal step (t,) float64, both empty of a still.
    - ``second_per_grid_ts``: of calls with videos, (items,) float64, seconds from one temporal step to the next; 0 of a
      still.
    - ``sources``: the name of each item: its path as text, else its position in the call, such as "image 3" or
      "video 0", or "item 2" where ``pixel_values`` were passed.
    - ``sizes``: (items, 2) int64, the (height, width) in pixels of each image or frame, upright, before resizing;
      (0, 0) where ``pixel_values`` were passed.
    - ``errors``: the exceptions of the items that ``on_error="skip"`` left out, in the order of the call.
    """

    embeddings: np.ndarray
    grid_thw: np.ndarray
    merge_size: int
    hidden_states: list[np.ndarray] = field(default_factory=list)
    provenance: Mapping[str, str] = field(default_factory=dict)
    deepstack: list[np.ndarray] = field(default_factory=list)
    frame_indices: list[np.ndarray] = field(default_factory=list)
    timestamps: list[np.ndarray] = field(default_factory=list)
    second_per_grid_ts: np.ndarray = field(default_factory=_nothing)
    sources: list[str] = field(default_factory=list)
    sizes: np.ndarray = field(default_factory=_nothing)
    errors: tuple[QwenvisError, ...] = ()

    def __post_init__(self) -> None:
        """Name items that have no sources. Raises InputError for more or fewer sources, or sizes, than items."""
        if not len(self.sources):
            object.__setattr__(self, "sources", [f"item {index}" for index in range(len(self))])
        if not len(self.sizes):
            object.__setattr__(self, "sizes", np.zeros((len(self), 2), np.int64))
        if len(self.sources) != len(self) or self.sizes.shape != (len(self), 2):
            got = f"{len(self.sources)} sources and sizes of shape {self.sizes.shape}"
            raise InputError(f"got {got}; expected {len(self)} sources and sizes of shape ({len(self)}, 2)")

    @property
    def last_hidden_state(self) -> np.ndarray:
        """(patches, hidden_size): the tower before its merger, in the order of ``pixel_values``.

        Raises InputError where hidden states were not asked for.
        """
        if not self.hidden_states:
            raise InputError("hidden states were not kept; ask for them with hidden_states=True")
        return self.hidden_states[-1]

    @property
    def counts(self) -> np.ndarray:
        """Tokens of each item, (items,) int64."""
        tokens: np.ndarray = self.grid_thw.prod(axis=1) // self.merge_size**2
        return tokens

    def split(self) -> list[np.ndarray]:
        """One array (tokens, out_hidden_size) per item: views of ``embeddings``, in order."""
        return split(self.embeddings, self.counts)

    def items(self) -> list[Embeddings]:
        """One `Embeddings` per item, of views of this one: ``list(out)``."""
        return list(self)

    def __len__(self) -> int:
        """The number of items."""
        return len(self.grid_thw)

    def __iter__(self) -> Iterator[Embeddings]:
        """One `Embeddings` per item, of views of this one."""
        tokens, patches = self._bounds()
        for i in range(len(self)):
            yield self._taken(slice(i, i + 1), slice(*tokens[i : i + 2]), slice(*patches[i : i + 2]))

    def __getitem__(self, key: SupportsIndex | slice | ArrayLike) -> Embeddings:
        """The items of an index, a slice, a mask or a list of indices. Raises IndexError, as a list does."""
        numbers: np.ndarray = np.arange(len(self))
        chosen = np.atleast_1d(numbers[cast(Any, key)])
        if chosen.ndim != 1:
            raise IndexError(f"items are chosen along one axis, got {key!r}")
        tokens, patches = self._bounds()
        if len(chosen) and (np.diff(chosen) == 1).all():
            first, stop = int(chosen[0]), int(chosen[-1]) + 1
            bounds = slice(tokens[first], tokens[stop]), slice(patches[first], patches[stop])
            return self._taken(slice(first, stop), *bounds)
        return self._taken(chosen, _ranges(tokens, chosen), _ranges(patches, chosen))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """The tokens, ``embeddings``."""
        return np.array(self.embeddings, dtype=dtype, copy=copy)

    @classmethod
    def concatenate(cls, parts: Iterable[Embeddings]) -> Embeddings:
        """Join the items of all parts, in order, in new arrays.

        Where the parts differ in their provenance (limits, version), the result's lists the values of all. Raises
        InputError for parts of different checkpoints, families, formats, widths or merge sizes, or with different
        deepstack or hidden states.
        """
        listed = list(parts)
        _check_alike(listed)
        timed = any(part.frame_indices for part in listed)
        joined: dict[str, Any] = {
            name: [np.concatenate(arrays) for arrays in zip(*(getattr(part, name) for part in listed), strict=True)]
            for name in ("hidden_states", "deepstack")
        }
        joined |= {
            name: np.concatenate([getattr(part, name) for part in listed])
            for name in ("embeddings", "grid_thw", "sizes")
        }
        if timed:
            for name in ("frame_indices", "timestamps"):
                joined[name] = [array for part in listed for array in getattr(part._timed(), name)]
            joined["second_per_grid_ts"] = np.concatenate([part._timed().second_per_grid_ts for part in listed])
        joined["sources"] = [source for part in listed for source in part.sources]
        joined["errors"] = tuple(error for part in listed for error in part.errors)
        return cls(merge_size=listed[0].merge_size, provenance=_merged(part.provenance for part in listed), **joined)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything except hidden states and errors as safetensors; the file appears whole or not at all.

        The metadata hold the provenance, and ``sources`` as JSON; text that is not valid UTF-8, such as some paths, is
        escaped and loads unchanged. Raises InputError for a file that cannot be written, or whose suffix names another
        format.
        """
        save(path, {each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embeddings:
        """Read a file that `save` wrote. Raises InputError for any other file."""
        return cls(**load(path))

    def __repr__(self) -> str:
        """Items, tokens, their width, family and format, and the first sources."""
        more = [f"and {len(self) - NAMED} more"] if len(self) > NAMED else []
        names = ", ".join([*map(repr, map(shown, self.sources[:NAMED])), *more])
        return f"<Embeddings: {self.summary}{': ' if names else ''}{names}>"

    @property
    def summary(self) -> str:
        """Items, tokens, their width, family and format, in words."""
        tokens, width = self.embeddings.shape
        made = [self.provenance[key] for key in ("family", "format") if key in self.provenance]
        left_out = f", {len(self.errors)} left out" if self.errors else ""
        words = f"{_count(len(self), 'item')}{left_out}, {_count(tokens, 'token')} of {width} float32"
        return f"{words}, {' in '.join(map(shown, made))}" if made else words

    def _repr_html_(self) -> str:
        """A table of the first items with the pictures of their tokens, for notebooks."""
        from qwenvis.embeddings import notebook

        return notebook.page(self.summary, self[: notebook.ROWS], len(self) - notebook.ROWS)

    def _bounds(self) -> tuple[list[int], list[int]]:
        """Where the tokens and the patches of each item begin, and the last ones end."""
        patches = np.concatenate([[0], np.cumsum(self.grid_thw.prod(axis=1))])
        return (patches // self.merge_size**2).tolist(), patches.tolist()

    def _taken(self, items: Rows, tokens: Rows, patches: Rows) -> Embeddings:
        """Some of the items."""
        numbers = range(len(self))[items] if isinstance(items, slice) else items.tolist()
        timed = self if self.frame_indices else None
        return replace(
            self,
            embeddings=self.embeddings[tokens],
            grid_thw=self.grid_thw[items],
            hidden_states=[state[patches] for state in self.hidden_states],
            deepstack=[layer[tokens] for layer in self.deepstack],
            frame_indices=[timed.frame_indices[i] for i in numbers] if timed else [],
            timestamps=[timed.timestamps[i] for i in numbers] if timed else [],
            second_per_grid_ts=timed.second_per_grid_ts[items] if timed else _nothing(),
            sources=[self.sources[i] for i in numbers],
            sizes=self.sizes[items],
            errors=(),
        )

    def _timed(self) -> Embeddings:
        """The same with frames and times; without any, all items are stills."""
        if self.frame_indices:
            return self
        indices, stamps = [np.zeros(0, np.int64) for _ in self.sources], [_nothing() for _ in self.sources]
        return replace(self, frame_indices=indices, timestamps=stamps, second_per_grid_ts=np.zeros(len(self)))


def _ranges(bounds: Sequence[int], chosen: np.ndarray) -> np.ndarray:
    """The rows of some items."""
    return np.concatenate([np.zeros(0, np.intp), *(np.arange(bounds[i], bounds[i + 1]) for i in chosen.tolist())])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _check_alike(parts: Sequence[Embeddings]) -> None:
    """Raise InputError for parts that do not go together."""
    if not parts:
        raise InputError("there is nothing to concatenate; expected at least one Embeddings")
    for index, part in enumerate(parts):
        if not isinstance(part, Embeddings):
            raise InputError(f"part {index} is a {type(part).__name__}; expected Embeddings")
        for (what, got), first in zip(_kind(part).items(), _kind(parts[0]).values(), strict=True):
            if got != first:
                raise InputError(
                    f"part {index} has {what} {got}, part 0 {first}: tokens of different towers do not mix"
                )


def _kind(part: Embeddings) -> dict[str, object]:
    """The properties in which parts to concatenate must agree, by name."""
    told = {key: part.provenance.get(key, "unknown") for key in ("family", "format")}
    return {
        **told,
        "the checkpoint": part.provenance.get("source", "unknown"),
        "the width": part.embeddings.shape[1],
        "the merge size": part.merge_size,
        "deepstack arrays of the widths": [array.shape[1] for array in part.deepstack],
        "hidden states of the widths": [array.shape[1] for array in part.hidden_states],
    }


def _merged(provenances: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """All values of each key, each once, in order."""
    values: dict[str, dict[str, None]] = {}
    for provenance in provenances:
        for key, value in provenance.items():
            values.setdefault(key, {})[value] = None
    return {key: ", ".join(found) for key, found in values.items()}
