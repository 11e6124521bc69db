"""The result of a call: the visual tokens of all items, and a sequence with one `Embeddings` for each item."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from qwenvis.embeddings import convert, rules
from qwenvis.embeddings.file import load, save, split
from qwenvis.embeddings.join import Rows, joined, selected
from qwenvis.embeddings.keys import UNKNOWN, Key, checked, rounded_keys
from qwenvis.errors import InputError, QwenvisError, counted, shown
from qwenvis.geometry import item_bounds, patch_counts

if TYPE_CHECKING:
    import pyarrow
    import torch

SHOWN_SOURCES = 3  # in a repr


def _empty() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """The visual tokens of one call, which is also a sequence with one `Embeddings` for each image and video.

    ``len(out)`` is the number of items. Iteration, ``out[2]``, ``out[-1]`` and ``out[1:3]`` give `Embeddings` whose
    arrays are views; ``out[mask]`` and ``out[[2, 0]]`` copy, unless the items follow one another. ``np.asarray(out)``
    is ``embeddings``.

    - ``embeddings``: (tokens, out_hidden_size) float32, C-contiguous, owned by the caller; item after item. Results of
      `astype` and `load` may be float16 or bfloat16, the type of ml_dtypes.
    - ``grid_thw``: (items, 3) int64, the temporal steps, rows and columns of patches of each item.
    - ``merge_size``: an item of t x h x w patches has t * h * w / merge_size^2 tokens.
    - ``hidden_states``: with ``hidden_states=True``, depth + 1 arrays (patches, hidden_size) float32, the output of the
      patch embedding and of each block, in the order of ``pixel_values``; else empty.
    - ``provenance``: text by name: source (the checkpoint), family, format, isa, qwenvis_version, and pixel limits.
    - ``deepstack``: arrays in the shape and dtype of ``embeddings``, made of the hidden states of some blocks, in their
      order. A language model adds them to its own first layers. Empty in families without deepstack.
    - ``frame_indices``, ``timestamps``: in calls with videos, for each item the indices of its encoded frames, int64,
      and the time of each temporal step in seconds, (t,) float64; both empty for a still.
    - ``second_per_grid_ts``: in calls with videos, (items,) float64, seconds from one temporal step to the next, as
      transformers' Qwen2_5_VLProcessor; 0 for a still.
    - ``sources``: the name of each item: its path as text, else its position in the call, such as "image 3" or
      "video 0", or "item 2" if ``pixel_values`` were passed.
    - ``sizes``: (items, 2) int64, the (height, width) in pixels of each image or frame, upright, before resizing;
      (0, 0) if ``pixel_values`` were passed.
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
    second_per_grid_ts: np.ndarray = field(default_factory=_empty)
    sources: list[str] = field(default_factory=list)
    sizes: np.ndarray = field(default_factory=_empty)
    errors: tuple[QwenvisError, ...] = ()
    # `keys`, each as text or still to be computed. `dataclasses.replace` does not copy an InitVar: a result that was
    # changed by hand has no keys.
    _keys: InitVar[Sequence[Key]] = ()
    _known_keys: Sequence[Key] = field(init=False)

    def __post_init__(self, _keys: Sequence[Key]) -> None:
        """Name items without sources. Raises InputError unless each item has one source, one size and one key."""
        object.__setattr__(self, "_known_keys", _keys if len(_keys) else [UNKNOWN] * len(self))
        if not len(self.sources):
            object.__setattr__(self, "sources", [f"item {index}" for index in range(len(self))])
        if not len(self.sizes):
            object.__setattr__(self, "sizes", np.zeros((len(self), 2), np.int64))
        if len(self.sources) != len(self) or self.sizes.shape != (len(self), 2):
            got = f"{len(self.sources)} sources and sizes of shape {self.sizes.shape}"
            raise InputError(f"got {got}; expected {len(self)} sources and sizes of shape ({len(self)}, 2)")
        if len(self._known_keys) != len(self):
            raise InputError(f"got {len(self._known_keys)} keys; expected {len(self)}")

    @property
    def last_hidden_state(self) -> np.ndarray:
        """The hidden states before the merger, (patches, hidden_size) float32, in the order of ``pixel_values``.

        Raises InputError if the call did not keep hidden states.
        """
        if not self.hidden_states:
            raise InputError("hidden states were not kept; encode with hidden_states=True")
        return self.hidden_states[-1]

    @property
    def keys(self) -> list[str]:
        """The key of each item: the SHA-256, in hexadecimal, of everything that the bits of its tokens depend on.

        Hashed are the resized bytes of the item and the table that normalises them (the floats, if ``pixel_values``
        were passed), ``grid_thw``, ``frame_indices``, ``timestamps`` and ``second_per_grid_ts``; and the weights,
        config, family, format and instruction set of the encoder, with `qwenvis.version.NUMBERS`. Items with one key
        have the same tokens to the bit. A key does not depend on the file format of the item, on the other items of the
        call, or on threads. `astype` gives other keys, and `dataclasses.replace` none.

        The first key of an encoder hashes its weights, about a second for 2 GB; so do pickling and `save`, because they
        store keys. Raises InputError for items that were made by hand or loaded from a file without keys, and if the
        encoder is gone and its weights were never hashed.
        """
        return checked(self._known_keys)

    @property
    def counts(self) -> np.ndarray:
        """The number of tokens of each item, (items,) int64."""
        tokens: np.ndarray = patch_counts(self.grid_thw) // self.merge_size**2
        return tokens

    def split(self) -> list[np.ndarray]:
        """Return one array (tokens, out_hidden_size) for each item, in order: views of ``embeddings``."""
        return split(self.embeddings, self.counts)

    def items(self) -> list[Embeddings]:
        """Return ``list(out)``: one `Embeddings` for each item, whose arrays are views."""
        return list(self)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.grid_thw)

    def __iter__(self) -> Iterator[Embeddings]:
        """Yield one `Embeddings` for each item, whose arrays are views."""
        tokens, patches = self._bounds()
        for i in range(len(self)):
            yield self._select(slice(i, i + 1), slice(*tokens[i : i + 2]), slice(*patches[i : i + 2]))

    def __getitem__(self, key: SupportsIndex | slice | ArrayLike) -> Embeddings:
        """Return the items of an index, a slice, a mask or a list of indices. Raises IndexError, as a list does."""
        numbers: np.ndarray = np.arange(len(self))
        chosen = np.atleast_1d(numbers[cast(Any, key)])
        if chosen.ndim != 1:
            raise IndexError(f"items have one axis; got the index {key!r}")
        tokens, patches = self._bounds()
        if len(chosen) and (np.diff(chosen) == 1).all():
            first, stop = int(chosen[0]), int(chosen[-1]) + 1
            bounds = slice(tokens[first], tokens[stop]), slice(patches[first], patches[stop])
            return self._select(slice(first, stop), *bounds)
        return self._select(chosen, _ranges(tokens, chosen), _ranges(patches, chosen))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """Return ``embeddings`` for NumPy."""
        return np.array(self.embeddings, dtype=dtype, copy=copy)

    @classmethod
    def concatenate(cls, parts: Iterable[Embeddings]) -> Embeddings:
        """Join the items of all parts, in order, in new arrays.

        If the parts differ in their provenance (limits, version), the result lists all values. Raises InputError for no
        parts, and for parts of different checkpoints, families, formats, widths, dtypes or merge sizes, or with
        different deepstack or hidden states.
        """
        listed = list(parts)
        for index, part in enumerate(listed):
            if not isinstance(part, Embeddings):
                raise InputError(f"part {index} is a {type(part).__name__}; expected Embeddings")
        return cls(**joined([part._fields() for part in listed]))

    def check(self, width: int | None = None) -> None:
        """Raise InputError unless the tokens are what a language model may receive.

        The message names the first item that is wrong. Rows fit ``grid_thw``, whose entries are positive and whose rows
        and columns ``merge_size`` divides; the dtype is float32, float16 or bfloat16; ``deepstack`` has the dtype and
        shape of ``embeddings``; every entry of both is finite. With ``width``, `wide` has this number of columns. The
        arrays may be strided. `save`, `astype`, `to_torch`, `to_arrow` and `mean_pool` call ``check`` first.
        """
        rules.check_shapes(self.embeddings, self.deepstack, self.grid_thw, self.merge_size, "embeddings")
        if width is not None:
            rules.check_width(self.embeddings.shape[1], len(self.deepstack), width, "embeddings")
        rules.check_finite([self.embeddings, *self.deepstack], self.counts, self.sources, "embeddings")

    def wide(self) -> np.ndarray:
        """Return (tokens, W) with deepstack beside the tokens, W = out_hidden_size * (1 + len(deepstack)).

        Columns are ``[embeddings | deepstack 0 | deepstack 1 | ...]``, the layout of vLLM and llama.cpp. Without
        deepstack the result is ``embeddings`` itself, else a new array of the same dtype. Raises InputError unless
        deepstack has the dtype and shape of ``embeddings``.
        """
        rules.check_deepstack(self.embeddings, self.deepstack, "embeddings")
        return np.concatenate([self.embeddings, *self.deepstack], axis=1) if self.deepstack else self.embeddings

    def astype(self, dtype: object) -> Embeddings:
        """Return the tokens and deepstack in float32, float16 or bfloat16, rounded to nearest, ties to even.

        ``dtype`` is a name, or a type of NumPy, ml_dtypes or PyTorch. Hidden states keep their dtype. If the dtype is
        the same, the result is ``self``, else its tokens are new arrays. ``provenance["rounded_to"]`` lists the dtypes
        that the tokens were rounded to. Raises InputError for another dtype, for a value outside the range of the dtype
        (65,504 in float16), which the message names with its item, and where `check` does.
        """
        name = rules.dtype_named(dtype, rules.DTYPES)
        self.check()
        if self.embeddings.dtype.name == name:
            return self
        tokens, *deepstack = (
            convert.cast(array, name, self.counts, self.sources) for array in (self.embeddings, *self.deepstack)
        )
        provenance = self.provenance if name == "float32" else convert.rounded_provenance(self.provenance, name)
        keys = rounded_keys(self._known_keys, name)
        return self._with(embeddings=tokens, deepstack=deepstack, provenance=provenance, _keys=keys)

    def to_torch(self) -> torch.Tensor:
        """Return ``embeddings`` as a CPU tensor (tokens, out_hidden_size) of the same dtype, bfloat16 included.

        The tensor shares the memory of ``embeddings`` if that array is writable and C-contiguous, as the encoder makes
        it, else it is a copy. Raises InputError where `check` does, and PackageError without PyTorch.
        """
        self.check()
        return convert.to_torch(self.embeddings)

    def to_arrow(self, dtype: object = "float32") -> pyarrow.Array:
        """Return `wide` for Parquet, pandas and datasets: one list of tokens an item.

        The type is ``list<fixed_size_list<dtype>[W]>``. The array shares the memory of ``embeddings`` if there is no
        deepstack and the dtype is the same. Arrow has no bfloat16; its values are exact in float32. Needs the extra
        ``arrow``. Raises InputError for another dtype, for a value outside the range of float16, for more than
        2^31 - 1 tokens, and where `check` does; PackageError without pyarrow.
        """
        name = rules.dtype_named(dtype, convert.ARROW_DTYPES)
        return convert.to_arrow(self.astype(name).wide(), self.counts)

    def mean_pool(self, *, normalize: bool = False) -> np.ndarray:
        """Return the mean of the tokens of each item, (items, out_hidden_size) float32.

        Sums are float64. With ``normalize``, the L2 norm of each vector is 1. The vectors are a convenience, for
        example to find near duplicates or to train a classifier. They are not a retrieval embedding: no model was
        trained to make their distances meaningful, and texts have no such vectors. Raises InputError where `check`
        does.
        """
        self.check()
        return convert.mean_pool(self.embeddings, self.counts, normalize)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all fields but ``hidden_states`` and ``errors`` as a safetensors file, the whole file or none.

        The metadata hold the provenance, and ``sources`` as JSON; text that is not valid UTF-8, such as some paths, is
        escaped and loads unchanged. Raises InputError if the file cannot be written, if its suffix names another
        format, and where `check` does.
        """
        self.check()
        save(path, self._fields())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embeddings:
        """Read a file that `save` wrote. Raises InputError for any other file."""
        return cls(**load(path))

    def __repr__(self) -> str:
        """Items, tokens, width, family and format, and the first sources."""
        more = [f"and {len(self) - SHOWN_SOURCES} more"] if len(self) > SHOWN_SOURCES else []
        names = ", ".join([*map(repr, map(shown, self.sources[:SHOWN_SOURCES])), *more])
        return f"<Embeddings: {self.summary}{': ' if names else ''}{names}>"

    @property
    def summary(self) -> str:
        """One line of text: the numbers of items and tokens, the width, family and format."""
        tokens, width = self.embeddings.shape
        made = [self.provenance[key] for key in ("family", "format") if key in self.provenance]
        left_out = f", {len(self.errors)} left out" if self.errors else ""
        words = f"{counted(len(self), 'item')}{left_out}, {counted(tokens, 'token')} of {width} {self.embeddings.dtype}"
        return f"{words}, {' in '.join(map(shown, made))}" if made else words

    def _repr_html_(self) -> str:
        """Return a table of the first items, with their tokens drawn as images, for notebooks."""
        from qwenvis.embeddings import notebook

        return notebook.page(self.summary, self[: notebook.ROWS], len(self) - notebook.ROWS)

    def _bounds(self) -> tuple[list[int], list[int]]:
        """Return the cumulative numbers of tokens and of patches of the items, each starting with 0."""
        patches = item_bounds(self.grid_thw)
        return (patches // self.merge_size**2).tolist(), patches.tolist()

    def _select(self, items: Rows, tokens: Rows, patches: Rows) -> Embeddings:
        """Select items, whose tokens and patches are these rows."""
        return Embeddings(**selected(self._fields(), items, tokens, patches))

    def _with(self, **changes: Any) -> Embeddings:
        """Return the result with other fields, and with the same keys unless others are given."""
        return Embeddings(**{**self._fields(), **changes})

    def _fields(self) -> dict[str, Any]:
        """Return the arguments that make an equal result, by name."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return {**given, "_keys": self._known_keys}


def _ranges(bounds: Sequence[int], chosen: np.ndarray) -> np.ndarray:
    """Return the rows of the chosen items."""
    return np.concatenate([np.zeros(0, np.intp), *(np.arange(bounds[i], bounds[i + 1]) for i in chosen.tolist())])
