"""The images and videos that a command names: each file is planned once, as an item of the encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from qwenvis.cli.bar import Bar
from qwenvis.errors import InputError, call_all

if TYPE_CHECKING:
    from qwenvis.encoding.inputs import InputItem, Inputs
    from qwenvis.spec import ModelSpec
    from qwenvis.videos.video import Sampling


def inputs(spec: ModelSpec, sampling: Sampling, threads: int) -> Inputs:
    """Return the inputs of a command, with the pixel limits of the spec."""
    from qwenvis.encoding.inputs import Inputs

    return Inputs(spec, sampling, threads=threads)


def listed(names: Sequence[str]) -> list[str]:
    """Return the names with those in the lines of each ``@FILE`` in its place. Raises InputError."""
    from qwenvis.jobs.inputs.listing import names_in

    return [name for given in names for name in (names_in(given[1:]) if given.startswith("@") else [given])]


def plan(
    paths: Sequence[str], inputs: Inputs, sampling: Sampling, visit: Callable[[InputItem], None] = lambda item: None
) -> list[InputItem]:
    """Plan every file by its header, as an image or a video, and call ``visit`` with each item.

    Raises one error that lists all files that cannot be used, and InputError if ``sampling`` is given and there is
    no video.
    """
    from qwenvis.videos.decode import is_video

    sampled = bool(_given(sampling))

    def plan_one(path: str, index: int) -> InputItem:
        plans = inputs.video if is_video(path, path) or (sampled and is_animated(path)) else inputs.image
        item = plans(path, index)
        visit(item)
        return item

    items = call_all((partial(plan_one, path, index) for index, path in enumerate(paths)), "images")
    check_sampling(items, sampling)
    return items


def check_sampling(items: Sequence[InputItem], sampling: Sampling) -> None:
    """Raise InputError if options that choose frames are given, and there is no video."""
    if (given := _given(sampling)) and not any(item.place.argument == "videos" for item in items):
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{options} would choose the frames of videos, but there is no video")


def _given(sampling: Sampling) -> list[str]:
    """Name the options that are given."""
    return [name for name in ("fps", "num_frames", "sampling") if sampling.get(name) is not None]


def verify(paths: Sequence[str], inputs: Inputs, sampling: Sampling) -> list[InputItem]:
    """Plan as `plan`, and decode every image, so that damage is found now and not after hours of work.

    The packets and the first frame of a video are read.
    """
    from qwenvis.images.image import ImageItem

    done = 0
    with Bar("opening the images", lambda rate: f"{rate:.1f} images/s") as bar:

        def visit(item: InputItem) -> None:
            nonlocal done
            done += 1
            bar(done, len(paths))
            if isinstance(item.item, ImageItem):
                item.item.verify()

        return plan(paths, inputs, sampling, visit)


def is_animated(path: str) -> bool:
    """Return whether a file is an animated image."""
    from qwenvis.videos.animation import format_of

    return format_of(path) is not None
