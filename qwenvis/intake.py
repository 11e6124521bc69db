"""What a caller passes as images and as videos, planned as items: images first, then videos, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any, TypeAlias, cast

import numpy as np
from PIL import Image

from qwenvis import pictures
from qwenvis.clips import Video, is_picture
from qwenvis.errors import InputError, gathered
from qwenvis.images import Still
from qwenvis.outline import Outline
from qwenvis.pictures import Picture
from qwenvis.plan import Item
from qwenvis.processors import ImageProcessor
from qwenvis.samplers import ASSUMED_FPS
from qwenvis.videos import Footage, Sampling, Viewing

Images: TypeAlias = Picture | Iterable[Picture]
Videos: TypeAlias = Video | Iterable[Video | Picture]


class Intake:
    """The items of one call. How its images and videos are prepared is looked up when the first of them comes."""

    def __init__(
        self, outline: Outline, sampling: Sampling, *, min_pixels: int | None, max_pixels: int | None, threads: int
    ) -> None:
        """Raises TypeError, as Python does, for what `Sampling` does not have."""
        if unknown := [name for name in sampling if name not in Sampling.__annotations__]:
            raise TypeError(
                f"unexpected keyword argument {unknown[0]!r}; of videos, {', '.join(Sampling.__annotations__)}"
            )
        self._outline, self._sampling, self._threads = outline, sampling, threads
        self._limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        config = outline.config
        self.columns = config.in_channels * config.temporal_patch_size * config.patch_size**2

    @cached_property
    def images(self) -> ImageProcessor:
        """How images are prepared. Raises ConfigError where that is not known."""
        return self._outline.processor_with(**self._limits)

    @cached_property
    def videos(self) -> Viewing:
        """How videos are looked at. Raises ConfigError where that is not known, InputError for a wrong sampling."""
        viewing = Viewing.of(
            self._outline.video_processor, self._sampling, upright=self._outline.upright, threads=self._threads
        )
        return viewing.with_limits(**self._outline.limits).with_limits(**self._limits)

    def listed(self, images: Images | None, videos: Videos | None) -> list[Item]:
        """All items, planned. Raises one error that lists those which cannot be used."""
        nouns = [noun for noun, given in (("images", images), ("videos", videos)) if given is not None]
        return gathered(self._makers(images, videos), " and ".join(nouns))

    def stream(self, images: Images | None, videos: Videos | None) -> Iterator[Item]:
        """The items as they come."""
        for make in self._makers(images, videos):
            yield make()

    def _makers(self, images: Images | None, videos: Videos | None) -> Iterator[Callable[[], Item]]:
        if images is None and videos is None:
            raise InputError("neither images nor videos are given")
        if videos is None and any(value is not None for value in self._sampling.values()):
            raise InputError(
                f"{' and '.join(self._sampling)} say which frames of videos to look at, and there are none"
            )
        if images is not None:
            processor = self.images  # an error of its own, even of no image
            for index, source in enumerate(pictures.stream(images)):
                yield partial(Still, source, processor, index)
        for index, video in enumerate(_videos(videos) if videos is not None else ()):
            if is_picture(video):
                yield partial(Still, cast(Picture, video), self.images, index)
            else:
                yield partial(Footage, cast(Video, video), self.videos, index)

    @property
    def provenance(self) -> dict[str, str]:
        """The limits that were used, and the sampling."""
        told: dict[str, str] = {}
        if "images" in self.__dict__:
            told |= {"min_pixels": str(self.images.min_pixels), "max_pixels": str(self.images.max_pixels)}
        if "videos" in self.__dict__:
            processor = self.videos.processor
            told |= {
                "video_min_pixels": str(processor.min_pixels),
                "video_max_pixels": str(processor.max_pixels),
                "sampling": self.videos.sampling,
            }
        return told


def _videos(videos: Videos) -> Iterable[Video | Picture]:
    """The videos as they come; a single file or array becomes a list of one.

    Raises InputError for a list of pictures alone, which transformers takes as the frames of one video.
    """
    listed = list(videos) if isinstance(videos, list | tuple) else []
    if listed and all(isinstance(video, Image.Image | np.ndarray) and is_picture(video) for video in listed):
        raise InputError(
            f"videos is a {type(videos).__name__} of {len(listed)} pictures: for the frames of one video pass "
            "videos=[frames], for stills pass images"
        )
    return cast(Iterable[Video | Picture], pictures.stream(cast(Any, videos)))


def timing(items: Iterable[Item]) -> dict[str, Any]:
    """The frames and times of items, as `Embeddings` names them: empty of a still, and nothing where all are stills."""
    footage = [item if isinstance(item, Footage) else None for item in items]
    if not any(footage):
        return {}
    return {
        "frame_indices": [np.zeros(0, np.int64) if item is None else item.frame_indices for item in footage],
        "timestamps": [np.zeros(0) if item is None else item.timestamps for item in footage],
        "second_per_grid_ts": np.array([0.0 if item is None else item.second_per_grid for item in footage]),
    }


def remarks(items: Iterable[Item]) -> dict[str, str]:
    """What provenance says of videos: a rate that was assumed, and frames that are damaged."""
    footage = [item for item in items if isinstance(item, Footage)]
    told: dict[str, str] = {}
    if any(not item.clip.length.fps for item in footage):
        told["video_fps"] = f"{ASSUMED_FPS} (assumed)"
    if damaged := sum(item.damaged for item in footage):
        told["damaged_frames"] = str(damaged)
    return told
