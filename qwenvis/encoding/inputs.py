"""The images and videos of one call, planned as items: from their headers, images first, each kind in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Number
from typing import Any, TypeAlias, cast

from qwenvis.concurrency.memo import cached_property
from qwenvis.encoding.batching import Plan
from qwenvis.encoding.items import Call, CallItem
from qwenvis.encoding.keying import Keying, Times
from qwenvis.errors import (
    MAX_ERRORS,
    ImageError,
    InputError,
    Place,
    about,
    group_errors,
    try_all,
)
from qwenvis.images.decode import EXPECTED, ImageInput, as_iterable
from qwenvis.images.image import ImageItem
from qwenvis.images.step import Step
from qwenvis.io.iterables import with_lifetime
from qwenvis.processors.frame_sampling import ASSUMED_FPS
from qwenvis.processors.image import PIXELS, ImageProcessor
from qwenvis.spec import ModelSpec
from qwenvis.videos.source import VideoInput, is_still
from qwenvis.videos.video import Sampling, VideoItem, VideoOptions

Images: TypeAlias = ImageInput | Iterable[ImageInput]
Videos: TypeAlias = VideoInput | Iterable[VideoInput | ImageInput]


class InputItem(CallItem):
    """An image or a video of a call."""

    def __init__(self, call: Call, place: Place, make: Callable[[], ImageItem | VideoItem]) -> None:
        """Plan the item. Raises an InputError that says which item it is about."""
        super().__init__(call, place)
        with about(place):
            self.item = make()
        self.grid = self.item.grid

    def settle(self) -> None:
        """Decode and resize now, once, instead of when the patches are cut; the grid is final then.

        Raises ImageError or VideoError for a damaged source, which is not read again.
        """
        with about(self.place):
            self.item.settle()
        self.grid = self.item.grid

    def read(self, first: int, stop: int) -> Iterator[Step]:
        """Decode and resize temporal steps; the grid is final after the first."""
        for step in self.item.steps(first, stop):
            self.grid = self.item.grid
            yield step

    @property
    def size(self) -> tuple[int, int]:  # type: ignore[override]
        """(height, width) before resizing."""
        return self.item.size

    @property
    def times(self) -> Times:
        """The frames of a video and their times."""
        video = self.item
        if not isinstance(video, VideoItem):
            return Times()
        return Times(video.frame_indices, video.timestamps, video.second_per_grid)


class Inputs(Call):
    """The images and videos of one call. A processor is looked up for the first item of its kind."""

    def __init__(
        self,
        spec: ModelSpec,
        sampling: Sampling,
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        threads: int = 1,
        keying: Keying | None = None,
    ) -> None:
        """Take the arguments of a call. Raises TypeError, as Python does, for keywords that `Sampling` lacks."""
        if unknown := [name for name in sampling if name not in Sampling.__annotations__]:
            raise TypeError(
                f"unexpected keyword argument {unknown[0]!r}; for videos there are "
                f"{', '.join(Sampling.__annotations__)}"
            )
        super().__init__(keying)
        self._spec, self._sampling, self._threads = spec, sampling, threads
        self._rules = [name for name, value in sampling.items() if value is not None]
        self._limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        config = spec.config
        self.columns = config.in_channels * config.temporal_patch_size * config.patch_size**2

    @cached_property
    def image_processor(self) -> ImageProcessor:
        """The processor of the images. Raises ConfigError if the checkpoint has none."""
        return self._spec.processor_with(**self._limits)

    @cached_property
    def video_options(self) -> VideoOptions:
        """The processor and sampling of the videos. Raises ConfigError, or InputError for a wrong sampling."""
        options = VideoOptions.of(
            self._spec.video_processor, self._sampling, upright=self._spec.upright, threads=self._threads
        )
        return options.with_limits(**self._spec.limits).with_limits(**self._limits)

    def plan_all(
        self, images: Images | None, videos: Videos | None, *, skip: bool
    ) -> tuple[Plan[InputItem], list[InputError]]:
        """Plan all items; return the plan of the usable items, and with ``skip`` the errors of the others.

        Without ``skip``, or if none of the first `MAX_ERRORS` items can be used, raises one error that lists all.
        """
        items, errors = try_all(self.factories(images, videos), lenient=skip)
        if errors and (not skip or (len(errors) == MAX_ERRORS and not items)):
            nouns = [noun for noun, given in (("images", images), ("videos", videos)) if given is not None]
            raise group_errors(errors, len(items) + len(errors), " and ".join(nouns))
        self.check_sampling(items)
        return self.plan(items), errors

    def check_sampling(self, items: Sequence[InputItem]) -> None:
        """Raise InputError if arguments of the call choose the frames of videos, and all items are still images."""
        if self._rules and items and not any(isinstance(each.item, VideoItem) for each in items):
            rules = " and ".join(self._rules)
            raise InputError(f"{rules} would choose the frames of videos, but all items are still images")

    def plan(self, items: Sequence[InputItem]) -> Plan[InputItem]:
        """Make a plan of items, in their order."""
        return Plan(items, self.columns)

    def factories(self, images: Images | None, videos: Videos | None) -> Iterator[Callable[[], InputItem]]:
        """Yield for each item, as it comes, a function that plans the item: images first, then videos."""
        if images is None and videos is None:
            raise InputError("neither images nor videos were passed")
        if videos is None and self._rules:
            raise InputError(
                f"{' and '.join(self._rules)} would choose the frames of videos, but no videos were passed"
            )
        if images is not None:
            self.image_processor  # noqa: B018  a checkpoint without one is an error of the call, even of an empty list
            for index, (source, lasts) in enumerate(with_lifetime(_image_list(images))):
                yield partial(self.image, source, index, lasts)
        for index, (video, lasts) in enumerate(with_lifetime(_video_list(videos) if videos is not None else ())):
            yield partial(self.video_or_still, cast(Any, video), index, lasts)

    def image(self, source: ImageInput, index: int, lasts: bool = True) -> InputItem:
        """Plan an image; ``lasts`` states whether its source stays unchanged until it is decoded.

        Raises ImageError or ImageLimitError, as `ImageItem`; ConfigError if the checkpoint has no image processor.
        """
        make = partial(ImageItem, source, self.image_processor, index)
        return self._item(Place.of("images", index, source), make, lasts)

    def video(self, source: VideoInput, index: int, lasts: bool = True) -> InputItem:
        """Plan a video, as `image`. Raises VideoError or VideoLimitError, ConfigError, or InputError for a sampling."""
        make = partial(self._video_item, source, index)
        return self._item(Place.of("videos", index, source), make, lasts)

    def video_or_still(self, source: VideoInput | ImageInput, index: int, lasts: bool = True) -> InputItem:
        """Plan one of the videos, as `video`; an image among the videos becomes a still image."""
        make = partial(self._still_or_video_item, source, index)
        return self._item(Place.of("videos", index, source), make, lasts)

    def _item(self, place: Place, make: Callable[[], ImageItem | VideoItem], lasts: bool) -> InputItem:
        """Plan an item; decode it at once if its source may change before its turn comes."""
        item = InputItem(self, place, make)
        if not lasts:
            item.settle()
        return item

    def _video_item(self, source: VideoInput, index: int) -> VideoItem:
        return VideoItem(source, self.video_options, index)

    def _still_or_video_item(self, source: VideoInput | ImageInput, index: int) -> ImageItem | VideoItem:
        if is_still(source):
            return ImageItem(cast(ImageInput, source), self.image_processor, index)
        return self._video_item(cast(VideoInput, source), index)

    def provenance(self, items: Sequence[InputItem]) -> dict[str, str]:
        """Return the facts that results record: pixel limits, how pixels were read, and the sampling of videos.

        Of usable videos among the ``items``: whether a rate was assumed, and the number of damaged frames.
        """
        facts: dict[str, str] = {}
        if "image_processor" in self.__dict__:
            images = self.image_processor
            facts |= {"min_pixels": str(images.min_pixels), "max_pixels": str(images.max_pixels)}
            facts |= {"pixels": images.pixels, "backend": images.backend}
        if "video_options" in self.__dict__:
            videos = self.video_options
            facts |= {
                "video_min_pixels": str(videos.processor.min_pixels),
                "video_max_pixels": str(videos.processor.max_pixels),
                "sampling": videos.sampling,
                "pixels": PIXELS[0 if videos.upright else 1],
            }
        usable = [each.item for each in items if isinstance(each.item, VideoItem) and each.error is None]
        if any(not video.video.length.fps for video in usable):
            facts["video_fps"] = f"{ASSUMED_FPS} (assumed)"
        if damaged := sum(video.damaged for video in usable):
            facts["damaged_frames"] = str(damaged)
        return facts


def _image_list(images: Images) -> Iterable[ImageInput]:
    """Return the images as an iterable; a single image becomes a list of one.

    Raises InputError for a dict, and ImageError for lists of numbers: one error, instead of one for each number.
    """
    _refuse_mapping(images, "images")
    first = images[:MAX_ERRORS] if isinstance(images, list | tuple | range) else ()
    if first and all(isinstance(each, list | tuple | Number) for each in first):
        raise ImageError(
            f"image 0 is a {type(first[0]).__name__}; expected {EXPECTED}: pass pixels in lists as "
            "np.array(pixels, np.uint8), lists of images one by one, and the frames of a video as videos=[frames]"
        )
    return as_iterable(images)


def _video_list(videos: Videos) -> Iterable[VideoInput | ImageInput]:
    """Return the videos as an iterable; a single file or array becomes a list of one.

    Raises InputError for a dict, and for a list of pictures alone, which transformers takes as the frames of one video.
    """
    _refuse_mapping(videos, "videos")
    listed = videos if isinstance(videos, list | tuple) else ()
    if listed and all(map(is_still, listed)):
        raise InputError(
            f"videos is a {type(videos).__name__} of {len(listed)} images: for the frames of one video pass "
            "videos=[frames], for still images pass images"
        )
    return cast(Iterable[VideoInput | ImageInput], as_iterable(cast(Any, videos)))


def _refuse_mapping(given: object, name: str) -> None:
    """Raise InputError for a dict, which would be iterated over by its keys."""
    if isinstance(given, Mapping):
        raise InputError(f"{name} is a {type(given).__name__}; expected a list: pass list({name}.values())")
