"""Published configs with one field replaced by a value of each JSON type, and what may become of them."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from qwenvis.errors import CheckpointError, ConfigError
from qwenvis.sources.presets import PRESETS
from qwenvis.spec import ModelSpec

SECONDS, NBYTES, CHARACTERS = 1, 100e6, 4000  # the most that opening a source may take, and the longest message

VALUES = {
    "null": None,
    "true": True,
    "false": False,
    "negative": -1,
    "zero": 0,
    "one": 1,
    "huge": 10**30,
    "no float": 10**400,
    "fraction": 0.5,
    "whole fraction": 2.0,
    "not a number": float("nan"),
    "infinity": float("inf"),
    "text": "abc",
    "number in text": "2",
    "empty text": "",
    "long text": "x" * 10**5,
    "paint": "\x1b[31m\n",
    "list": ["x"],
    "empty list": [],
    "lists in lists": [[1, [2, [True]]]],
    "long list": list(range(20_000)),
    "objects in a list": [{"a": 1}],
    "object": {"a": {"b": [1]}},
    "empty object": {},
}
# The fields that video processors of all families read beside those of an image processor.
VIDEO = {
    "fps": 2,
    "num_frames": 4,
    "min_frames": 4,
    "max_frames": 768,
    "max_duration": 300,
    "do_sample_frames": True,
    "cap_pixels_per_frame": False,
    "max_video_tokens": 768,
    "patch_expand_factor": 1,
    "size": {"shortest_edge": 4096, "longest_edge": 25165824},
    "video_processor_type": "Qwen3VLVideoProcessor",
}
LIMITS = {"min_pixels", "max_pixels", "shortest_edge", "longest_edge", "min_image_tokens", "max_image_tokens"}
STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3, "rescale_factor": 1 / 255}


class Case(NamedTuple):
    """A file, the path of a field in it, and the name of its new value."""

    file: str
    path: tuple[Any, ...]
    value: str


def paths(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of the whole content, of every field and of the first entry of every list."""
    yield at
    entries = (
        content.items() if isinstance(content, dict) else enumerate(content[:1] if isinstance(content, list) else ())
    )
    for name, value in entries:
        yield from paths(value, (*at, name))


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at a path."""
    if not path:
        return value
    copy = list(content) if isinstance(content, list) else dict(content)
    copy[path[0]] = replaced(content[path[0]], path[1:], value)
    return copy


def at_path(content: Any, path: tuple[Any, ...]) -> Any:
    """Return the value at a path."""
    for step in path:
        content = content[step]
    return content


def configs_of(preset: str) -> dict[str, dict[str, Any]]:
    """Return the JSON files of a preset, with the fields that other publishers add."""
    found = PRESETS[preset]
    config = json.loads(json.dumps(found.config)) | {"quantization_config": {"quant_method": "awq", "format": "x"}}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    vision = config.get("thinker_config", config)["vision_config"]
    vision |= {"rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0}, "initializer_range": 0.02}
    images = found.preprocessor | STEPS
    videos = images | VIDEO | {"patch_size": images["patch_size"]}
    return {
        "config.json": config,
        "preprocessor_config.json": images,
        "video_preprocessor_config.json": videos,
        "processor_config.json": {"image_processor": images, "video_processor": videos},
    }


def facts(source: Any) -> Any:
    """Return all that the configs of a source decide: the tower's sizes, and how images and videos are prepared."""
    spec = ModelSpec.open(source)
    prepared = []
    for name in ("processor", "video_processor"):
        try:
            prepared.append(getattr(spec, name))
        except ConfigError as error:
            check_message(error)
            prepared.append("refused")
    return spec.family, spec.config, [_of(each) for each in prepared]


def _of(processor: Any) -> Any:
    return (
        processor if isinstance(processor, str) else (type(processor), processor, processor.normalisation.lut.tobytes())
    )


def check_message(error: Exception) -> None:
    """Assert that a message is short and holds no control characters."""
    assert len(str(error)) < CHARACTERS, str(error)[:300]
    assert str(error).replace("\n", "").isprintable(), str(error)[:300]


def answer(source: Any) -> Any:
    """Return the facts of a source, or its typed error; assert that opening it takes little time and memory."""
    tracemalloc.reset_peak()
    held, start = tracemalloc.get_traced_memory()[0], time.process_time()
    try:
        with np.errstate(all="ignore"):
            return facts(source)
    except CheckpointError as error:
        check_message(error)
        return error
    finally:
        assert time.process_time() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] - held < NBYTES


def is_number(value: Any) -> bool:
    """Whether a value is a number in JSON."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def tolerated(field: Any, was: Any, value: Any, before: Any, after: Any) -> bool:
    """Whether a source with ``value`` in a field that ``was`` otherwise is refused, means it, or is as ``before``."""
    if isinstance(after, Exception) or value is None or type(value) is type(was):
        return True
    (*names, old), (*others, new) = before, after
    same = [a == b or "refused" in (a, b) for a, b in zip([*names, *old], [*others, *new], strict=True)]
    return all(same) or _means(field, was, value)


def _means(field: Any, was: Any, value: Any) -> bool:
    """Whether a value of another type than the published one means what it says, as in transformers."""
    if not is_number(value):
        return False
    if str(field).endswith(("image_mean", "image_std")):
        return isinstance(was, list)  # one for all channels
    return is_number(was) and (isinstance(was, float) or field == "fps" or (field in LIMITS and value == int(value)))
