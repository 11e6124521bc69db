"""The items of a result by modality: language models take the tokens of images and those of videos apart."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError, counted, quoted, shown


def items_of(out: Embeddings) -> dict[str, list[int]]:
    """Return the positions of the images and of the videos, under "image" and "video", as far as there are any.

    Videos are the items with frames, and those of several temporal steps; a still among the videos is an image. Raises
    InputError if frames or times are those of another number of items.
    """
    for name in ("frame_indices", "timestamps", "second_per_grid_ts"):
        if (count := len(getattr(out, name))) not in (0, len(out)):
            raise InputError(f"out has {name} of {counted(count, 'item')}; expected {len(out)}")
    frames = [len(indices) for indices in out.frame_indices] or [0] * len(out)
    moving = (np.array(frames, int) > 0) | (out.grid_thw[:, 0] > 1)
    chosen = {"image": np.flatnonzero(~moving).tolist(), "video": np.flatnonzero(moving).tolist()}
    return {name: numbers for name, numbers in chosen.items() if numbers}


def check_times(videos: Embeddings) -> None:
    """Raise InputError unless each video has the time of each of its temporal steps, and the seconds between them."""
    for index, (source, steps) in enumerate(zip(videos.sources, videos.grid_thw[:, 0], strict=True)):
        if not videos.timestamps or len(videos.timestamps[index]) != steps:
            raise InputError(f"{quoted(source)} has {steps} temporal steps and no times; encode videos with videos=")
        seconds = videos.second_per_grid_ts[index] if len(videos.second_per_grid_ts) else 0.0
        if not (np.isfinite(videos.timestamps[index]).all() and 0 < seconds < np.inf):
            got = f"{videos.timestamps[index].tolist()} and second_per_grid_ts {seconds}"
            raise InputError(f"{quoted(source)} has timestamps {shown(got)}; encode it again")


def checked(out: Embeddings, engine: str, families: Collection[str], width: int | None) -> Embeddings:
    """Return a result that an engine takes.

    Raises InputError for another family, for items that ``on_error="skip"`` left out, since others would take their
    placeholders, and where `Embeddings.check` does.
    """
    if not isinstance(out, Embeddings):
        raise InputError(f"out is a {type(out).__name__}; expected the Embeddings that encode returns")
    if out.errors:
        lost = f"{counted(len(out.errors), 'item')} left out: {shown(str(out.errors[0]))}"
        raise InputError(f"{lost}; a prompt without placeholders for such items takes out[:]")
    family = out.provenance.get("family")
    if family not in families:
        got = "without a family in their provenance" if family is None else f"of the family {quoted(family)}"
        raise InputError(f"the tokens are {got}; {engine} takes those of {', '.join(families)}")
    out.check(width)
    return out
