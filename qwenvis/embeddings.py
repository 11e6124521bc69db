"""What comes out: the visual tokens of all items, how they are split per item, saved and loaded."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from qwenvis.errors import InputError

TOKENS, GRID, DEEPSTACK = "embeddings", "grid_thw", "deepstack"
# Of videos, all items joined; as many frames of each item as the last says.
FRAMES, STAMPS, SECONDS, COUNTS = "frame_indices", "timestamps", "second_per_grid_ts", "frame_counts"
MERGE_SIZES = {str(size): size for size in range(1, 17)}  # as a file writes them


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The visual tokens of one call.

    - ``embeddings``: (tokens, out_hidden_size) float32, C-contiguous, the caller's own; items one after the other.
    - ``grid_thw``: (items, 3) int64, the (frames / 2, rows, columns) of patches of each item.
    - ``merge_size``: an item of t x h x w patches has t * h * w / merge_size^2 tokens.
    - ``hidden_states``: if asked for, depth + 1 arrays (patches, hidden_size) in the order of ``pixel_values``.
    - ``provenance``: what made them: source, family, format, ISA, version, pixel limits.
    - ``deepstack``: arrays like ``embeddings`` made of the hidden states of some blocks, in the order of the blocks,
      which a language model adds to its own first layers; empty in families that have none.
    - ``frame_indices``, ``timestamps``: of calls with videos, for each item the frames of the video that were looked at
      (frames,) int64, and the seconds of each temporal step (t,) float64, both empty of a still.
    - ``second_per_grid_ts``: of calls with videos, (items,) float64, seconds from one temporal step to the next; 0 of a
      still.
    """

    embeddings: np.ndarray
    grid_thw: np.ndarray
    merge_size: int
    hidden_states: list[np.ndarray] = field(default_factory=list, repr=False)
    provenance: Mapping[str, str] = field(default_factory=dict, repr=False)
    deepstack: list[np.ndarray] = field(default_factory=list, repr=False)
    frame_indices: list[np.ndarray] = field(default_factory=list, repr=False)
    timestamps: list[np.ndarray] = field(default_factory=list, repr=False)
    second_per_grid_ts: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)

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
        return _split(self.embeddings, self.counts)

    def items(self) -> list[Embeddings]:
        """One `Embeddings` per item, of views of this one."""
        states = [_split(state, self.grid_thw.prod(axis=1)) for state in self.hidden_states]
        deepstack = [_split(tokens, self.counts) for tokens in self.deepstack]
        return [
            replace(
                self,
                embeddings=tokens,
                grid_thw=self.grid_thw[i : i + 1],
                hidden_states=[each[i] for each in states],
                deepstack=[each[i] for each in deepstack],
                frame_indices=self.frame_indices[i : i + 1],
                timestamps=self.timestamps[i : i + 1],
                second_per_grid_ts=self.second_per_grid_ts[i : i + 1],
            )
            for i, tokens in enumerate(self.split())
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write tokens, deepstack, grid and provenance as safetensors; a file appears whole or not at all.

        Raises InputError where it cannot be written.
        """
        named = {TOKENS: self.embeddings, GRID: self.grid_thw}
        named |= {f"{DEEPSTACK}.{i}": tokens for i, tokens in enumerate(self.deepstack)}
        if self.frame_indices:
            named |= {FRAMES: np.concatenate(self.frame_indices), STAMPS: np.concatenate(self.timestamps)}
            named |= {SECONDS: self.second_per_grid_ts, COUNTS: np.array([*map(len, self.frame_indices)], np.int64)}
        arrays = {name: np.ascontiguousarray(array) for name, array in named.items()}
        with whole_file(Path(path)) as draft:
            save_file(arrays, draft, {**self.provenance, "merge_size": str(self.merge_size)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embeddings:
        """Read what `save` wrote. Raises InputError for a file that is something else."""
        name = os.fspath(path)
        try:
            with safe_open(path, framework="numpy", backend="pread") as file:
                metadata = dict(file.metadata() or {})
                tokens, grid = file.get_tensor(TOKENS), file.get_tensor(GRID)
                count = sum(name.startswith(f"{DEEPSTACK}.") for name in file.keys())  # noqa: SIM118  no mapping
                deepstack = [file.get_tensor(f"{DEEPSTACK}.{i}") for i in range(count)]
                timed = COUNTS in file.keys()  # noqa: SIM118
                times = {key: file.get_tensor(key) for key in (FRAMES, STAMPS, SECONDS, COUNTS) if timed}
            merge_size = MERGE_SIZES[metadata.pop("merge_size")]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{name} holds no embeddings: {error}") from error
        if tokens.dtype != np.float32 or tokens.ndim != 2 or grid.dtype != np.int64 or grid.shape[1:] != (3,):
            got = f"{tokens.dtype} {tokens.shape} and {grid.dtype} {grid.shape}"
            raise InputError(f"{name} holds {got}; expected tokens (m, d) in float32 and a grid (items, 3) in int64")
        if any((array.dtype, array.shape) != (tokens.dtype, tokens.shape) for array in deepstack):
            raise InputError(f"{name} holds deepstack arrays of another type or shape than its tokens {tokens.shape}")
        if not all(np.isfinite(array).all() for array in (tokens, *deepstack)):
            raise InputError(f"{name} holds NaN or infinity among its tokens; encode them again")
        loaded = cls(tokens, grid, merge_size, provenance=metadata, deepstack=deepstack, **_times(times, grid, name))
        patches, unit = [math.prod(item) for item in grid.tolist()], merge_size**2
        if (grid < 1).any() or any(count % unit for count in patches) or sum(patches) != len(tokens) * unit:
            raise InputError(f"{name}: {len(tokens)} tokens do not fit the grid {grid.tolist()}")
        return loaded


def _times(arrays: dict[str, np.ndarray], grid: np.ndarray, name: str) -> dict[str, Any]:
    """The frames and times of each item, as a file has them. Raises InputError where they do not fit the grid."""
    if not arrays:
        return {}
    frames, stamps, seconds, counts = (arrays[key] for key in (FRAMES, STAMPS, SECONDS, COUNTS))
    steps = np.where(counts > 0, grid[:, 0], 0) if counts.shape == (len(grid),) else np.array([-1])
    kinds = [array.dtype.name for array in (frames, stamps, seconds, counts)]
    fits = seconds.shape == counts.shape and frames.shape == (counts.sum(),) and stamps.shape == (steps.sum(),)
    if kinds != ["int64", "float64", "float64", "int64"] or not fits or counts.min(initial=0) < 0:
        raise InputError(f"{name}: its frames and times do not fit the grid {grid.tolist()}")
    return {FRAMES: _split(frames, counts), STAMPS: _split(stamps, steps), SECONDS: seconds}


def _split(array: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Views of as many rows as each count says."""
    return np.split(array, np.cumsum(counts)[:-1]) if len(counts) else []


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A draft beside ``target`` that takes its place after the block, or is gone if the block fails.

    Its name is short, whatever the target's is. Raises InputError where the target cannot be written.
    """
    draft = target.parent / f".{secrets.token_hex(8)}"
    try:
        if target.exists() and not target.is_file():
            raise InputError(f"{target} cannot be written: it is no regular file")
        draft.touch()
        mode = draft.stat().st_mode  # as the umask asks; safetensors makes its files private
        yield draft
        draft.chmod(mode)
        draft.replace(target)
    except InputError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{target} cannot be written: {error}") from error
    finally:
        with suppress(OSError, ValueError):  # ValueError: a path with a NUL
            draft.unlink(missing_ok=True)
