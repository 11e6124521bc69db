"""The images and videos of a call, planned as items: images first, then videos, in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from numbers import Number
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qwenvis.concurrency.memo import cached_property
from qwenvis.errors import (
    MOST_GATHERED,
    ImageError,
    InputError,
    Place,
    QwenvisError,
    about,
    check_choice,
    joined,
    quoted,
    sifted,
)
from qwenvis.images.decode import EXPECTED, ImageInput, as_iterable
from qwenvis.images.image import ImageItem
from qwenvis.io import arrays
from qwenvis.io.iterables import with_lifetime
from qwenvis.models import Config
from qwenvis.processors.frame_sampling import ASSUMED_FPS
from qwenvis.processors.image import PIXELS, ImageProcessor
from qwenvis.spec import ModelSpec
from qwenvis.videos.source import VideoInput, is_still
from qwenvis.videos.video import Sampling, VideoItem, VideoOptions

MOST_PATCHES = 2**31 - 1  # cu_seqlens are int32
CHECKED_ROWS = 4096  # looked at together for NaN: the flags of these stay small

Images: TypeAlias = ImageInput | Iterable[ImageInput]
Videos: TypeAlias = VideoInput | Iterable[VideoInput | ImageInput]


class Entry:
    """A still or a video with its place in the call: an item of ``plan`` that keeps its error instead of raising it.

    ``error``: why it turned out to be unusable; patches that it has written by then are invalid.
    """

    def __init__(self, place: Place, make: Callable[[], ImageItem | VideoItem]) -> None:
        """Plan the item. Raises an InputError that says which item it is about."""
        self.place = place
        self.error: QwenvisError | None = None
        with about(place):
            self.item = make()
        self.grid = self.item.grid

    def fill(self, first: int, stop: int, out: NDArray[np.float32]) -> tuple[int, int, int]:
        """As `Item`, but raises no InputError."""
        if self.error is None:
            try:
                with about(self.place):
                    return self.item.fill(first, stop, out)
            except InputError as error:
                self.error = error
        return stop - first, *self.grid[1:]


class Inputs:
    """The items of one call. The processors are looked up when the first image, or the first video, comes."""

    def __init__(
        self, spec: ModelSpec, sampling: Sampling, *, min_pixels: int | None, max_pixels: int | None, threads: int
    ) -> None:
        """Raises TypeError, as Python does, for keywords that `Sampling` does not have."""
        if unknown := [name for name in sampling if name not in Sampling.__annotations__]:
            raise TypeError(
                f"unexpected keyword argument {unknown[0]!r}; of videos, {', '.join(Sampling.__annotations__)}"
            )
        self._spec, self._sampling, self._threads = spec, sampling, threads
        self._rules = [name for name, value in sampling.items() if value is not None]
        self._limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        config = spec.config
        self.columns = config.in_channels * config.temporal_patch_size * config.patch_size**2

    @cached_property
    def images(self) -> ImageProcessor:
        """How images are prepared. Raises ConfigError where that is not known."""
        return self._spec.processor_with(**self._limits)

    @cached_property
    def videos(self) -> VideoOptions:
        """How videos are looked at. Raises ConfigError where that is not known, InputError for a wrong sampling."""
        options = VideoOptions.of(
            self._spec.video_processor, self._sampling, upright=self._spec.upright, threads=self._threads
        )
        return options.with_limits(**self._spec.limits).with_limits(**self._limits)

    def listed(
        self, images: Images | None, videos: Videos | None, *, skip: bool
    ) -> tuple[list[Entry], list[InputError]]:
        """Plan all items; return the usable items, and with ``skip`` the errors of the others.

        Without ``skip``, or if none of very many items can be used, raises one error that lists all errors.
        """
        entries, errors = sifted(self.makers(images, videos), lenient=skip)
        if errors and (not skip or (len(errors) == MOST_GATHERED and not entries)):
            nouns = [noun for noun, given in (("images", images), ("videos", videos)) if given is not None]
            raise joined(errors, len(entries) + len(errors), " and ".join(nouns))
        if self._rules and entries and not any(isinstance(entry.item, VideoItem) for entry in entries):
            raise InputError(f"{' and '.join(self._rules)} would choose the frames of videos, but all items are stills")
        return entries, errors

    def makers(self, images: Images | None, videos: Videos | None) -> Iterator[Callable[[], Entry]]:
        """Yield a function for each item, as items come, that plans it."""
        if images is None and videos is None:
            raise InputError("neither images nor videos are given")
        if videos is None and self._rules:
            raise InputError(f"{' and '.join(self._rules)} would choose the frames of videos, but no videos are given")
        if images is not None:
            processor = self.images  # an error of its own, even of no image
            _refuse_pixels(images)
            for index, (source, lasts) in enumerate(with_lifetime(as_iterable(images))):
                still = partial(ImageItem, source, processor, index)
                yield partial(Entry, Place.of("images", index, source), partial(_made, still, lasts))
        for index, (video, lasts) in enumerate(with_lifetime(_videos(videos) if videos is not None else ())):
            seen = partial(self._seen, cast(Any, video), index)
            yield partial(Entry, Place.of("videos", index, video), partial(_made, seen, lasts))

    def _seen(self, video: VideoInput | ImageInput, index: int) -> ImageItem | VideoItem:
        """One of the videos, which may be a still."""
        if is_still(video):
            return ImageItem(cast(ImageInput, video), self.images, index)
        return VideoItem(cast(VideoInput, video), self.videos, index)

    @property
    def provenance(self) -> dict[str, str]:
        """The limits that were used, how pixels were read, and the sampling."""
        told: dict[str, str] = {}
        if "images" in self.__dict__:
            told |= {"min_pixels": str(self.images.min_pixels), "max_pixels": str(self.images.max_pixels)}
            told |= {"pixels": self.images.pixels, "backend": self.images.backend}
        if "videos" in self.__dict__:
            processor = self.videos.processor
            told |= {
                "video_min_pixels": str(processor.min_pixels),
                "video_max_pixels": str(processor.max_pixels),
                "sampling": self.videos.sampling,
                "pixels": PIXELS[0 if self.videos.upright else 1],
            }
        return told


def _made(make: Callable[[], ImageItem | VideoItem], lasts: bool) -> ImageItem | VideoItem:
    """Make an item; decode it at once if its source may change before it is prepared."""
    item = make()
    if not lasts:
        item.settle()
    return item


def _refuse_pixels(images: object) -> None:
    """Raise one error for a collection of pixels, and not one for each number in it; one image among them is enough."""
    first = images[:MOST_GATHERED] if isinstance(images, list | tuple | range) else ()
    if first and all(isinstance(each, list | tuple | Number) for each in first):
        raise ImageError(
            f"image 0 is a {type(first[0]).__name__}; expected {EXPECTED}: pass pixels in lists as "
            "np.array(pixels, np.uint8), lists of images one by one, and the frames of a video as videos=[frames]"
        )


def _videos(videos: Videos) -> Iterable[VideoInput | ImageInput]:
    """The videos as they come; a single file or array becomes a list of one.

    Raises InputError for a list of pictures alone, which transformers takes as the frames of one video.
    """
    listed = videos if isinstance(videos, list | tuple) else ()
    if listed and all(map(is_still, listed)):
        raise InputError(
            f"videos is a {type(videos).__name__} of {len(listed)} pictures: for the frames of one video pass "
            "videos=[frames], for stills pass images"
        )
    return cast(Iterable[VideoInput | ImageInput], as_iterable(cast(Any, videos)))


def skips(on_error: str) -> bool:
    """Whether to leave out items that cannot be used. Raises InputError for an unknown word."""
    check_choice(on_error, "on_error", ("raise", "skip"))
    return on_error == "skip"


def origins(entries: Sequence[Entry]) -> dict[str, Any]:
    """The sources, sizes, frames and times of items, as fields of `Embeddings`.

    Frames and times are empty for a still, and left out if all items are stills.
    """
    video_items = [entry.item if isinstance(entry.item, VideoItem) else None for entry in entries]
    told: dict[str, Any] = {
        "sources": [entry.place.source for entry in entries],
        "sizes": np.array([entry.item.size for entry in entries], np.int64).reshape(-1, 2),
    }
    if any(video_items):
        told |= {
            "frame_indices": [np.zeros(0, np.int64) if item is None else item.frame_indices for item in video_items],
            "timestamps": [np.zeros(0) if item is None else item.timestamps for item in video_items],
            "second_per_grid_ts": np.array([0.0 if item is None else item.second_per_grid for item in video_items]),
        }
    return told


def remarks(entries: Sequence[Entry]) -> dict[str, str]:
    """The provenance of videos: whether a rate was assumed, and the number of damaged frames."""
    video_items = [entry.item for entry in entries if isinstance(entry.item, VideoItem) and entry.error is None]
    told: dict[str, str] = {}
    if any(not item.video.length.fps for item in video_items):
        told["video_fps"] = f"{ASSUMED_FPS} (assumed)"
    if damaged := sum(item.damaged for item in video_items):
        told["damaged_frames"] = str(damaged)
    return told


def check_flag(value: object, name: str) -> None:
    """Raise InputError for an argument that is not True or False, of Python or of NumPy."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {quoted(value)}; expected True or False")


def checked_grid(grid_thw: ArrayLike, config: Config) -> NDArray[np.int64]:
    """``grid_thw`` as (items, 3) int64, C-contiguous.

    Raises InputError unless every item has at least one frame and whole merge units.
    """
    grid = arrays.plain(grid_thw, "grid_thw")
    if grid.ndim != 2 or grid.shape[1] != 3 or (grid.size and grid.dtype.kind not in "iu"):
        expected = "expected integers (items, 3): frames / 2, rows, columns"
        raise InputError(f"grid_thw is {grid.dtype} {grid.shape}; {expected}")
    merge = config.spatial_merge_size
    for i, (t, h, w) in enumerate(grid.tolist()):
        if min(t, h, w) < 1 or h % merge or w % merge:
            raise InputError(
                f"grid_thw[{i}] is ({t}, {h}, {w}); expected t >= 1 and positive h and w that {merge} divides"
            )
    if sum(math.prod(item) for item in grid.tolist()) > MOST_PATCHES:
        raise InputError(f"grid_thw has more than {MOST_PATCHES:,} patches in all")
    return np.ascontiguousarray(grid, np.int64).reshape(-1, 3)


def checked_pixel_values(pixel_values: ArrayLike, grid_thw: NDArray[np.int64], config: Config) -> NDArray[np.float32]:
    """``pixel_values`` as (patches, C·T·p²) float32, C-contiguous; other float types are rounded to it.

    Where a patch is one frame, its axes (C, p, p) may be apart.

    Raises InputError for another shape, for what is no float, and for NaN or infinity.
    """
    values = arrays.plain(pixel_values, "pixel_values")
    c, t, h, w = config.kernel
    columns, patches = c * t * h * w, int(grid_thw.prod(axis=1).sum())
    if values.shape[1:] == (c, h, w) and t == 1:
        values = values.reshape(len(values), columns)  # as transformers' PaddleOCRVLImageProcessor returns them
    if values.ndim != 2:
        raise InputError(f"pixel_values is {values.shape}; expected (patches, {columns})")
    if values.shape[1] != columns:
        made = f"this model needs {columns} ({c} x {t} x {h} x {w})"
        raise InputError(f"pixel_values has {values.shape[1]} columns; {made}")
    if len(values) != patches:
        raise InputError(f"pixel_values has {len(values)} rows; grid_thw {grid_thw.tolist()} adds up to {patches}")
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        raise InputError(f"pixel_values is {values.dtype}; expected floats, normalised as the checkpoint asks")
    for first in range(0, patches, CHECKED_ROWS):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is refused as such
            rows = values[first : first + CHECKED_ROWS].astype(np.float32, copy=False)
        if not np.isfinite(rows).all():
            row = first + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            item = int(np.searchsorted(np.cumsum(grid_thw.prod(axis=1)), row, side="right"))
            raise InputError(f"pixel_values has NaN or infinity in row {row}, of item {item}")
    return np.ascontiguousarray(values, np.float32)
