"""The configs of a directory in the Hub's layout: of the tower, the image processor and the video processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from qwenvis.checkpoints.files import read_json
from qwenvis.errors import ConfigError, SourceError, listed
from qwenvis.io.fields import Section
from qwenvis.models import FAMILIES

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
VIDEO_PREPROCESSOR = "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"

PARTS = ("image_processor", "video_processor")  # of the whole processor's config
FILES = (PREPROCESSOR, VIDEO_PREPROCESSOR)
# Keys of the models that a config wraps: the holders of a family's vision_config, and the VLM of a retriever.
WRAPPED = (*dict.fromkeys(family.hub.holder for family in FAMILIES.values() if family.hub.holder), "vlm_config")


class Configs(TypedDict):
    """The fields of a `Checkpoint` that come from its configs."""

    config: dict[str, Any]
    vision_config: Mapping[str, Any]
    model_type: str
    preprocessor: Mapping[str, Any]
    video_preprocessor: Mapping[str, Any]


def read_configs(directory: Path) -> Configs:
    """Read the configs of a directory in the Hub's layout.

    Raises `SourceError` where there is no checkpoint, `ConfigError` for a config that cannot be used, and
    `CheckpointError` for a file that cannot be read.
    """
    if not directory.is_dir():
        raise SourceError(f"{directory} is not a directory, so it holds no checkpoint")
    config = read_json(directory, CONFIG, ConfigError)
    if config is None:
        files = sorted(path.name for path in directory.glob("*.gguf"))
        hint = f"; to read {listed(files)}, name the file itself" if files else ""
        raise SourceError(f"{directory} holds no {CONFIG}, so it is not a checkpoint in the Hub's layout{hint}")
    return configs_of(directory, config, *preprocessors(directory))


def configs_of(directory: Path, config: dict[str, Any], images: Section, videos: Section) -> Configs:
    """Find the tower's part of the content of a config.json in ``directory``."""
    model_type, vision_config = _vision_part(Section(config, str(directory / CONFIG)))
    return {
        "config": config,
        "vision_config": vision_config,
        "model_type": model_type,
        "preprocessor": images,
        "video_preprocessor": videos,
    }


def _vision_part(config: Section) -> tuple[str, Section]:
    """Find the model_type that governs the tower, and the tower's own config."""
    holder = next((part for part in _wrapped(config) if "vision_config" in {*part, *part.nulls}), None)
    if holder is not None and "vision_config" in holder.nulls:
        raise holder.refused("vision_config", "an object")
    # A tower saved alone has no vision_config: its root is the tower's config.
    vision_config = config if holder is None else holder.part("vision_config")
    named = [part.word("model_type") for part in (holder or config, vision_config, config)]
    return next(filter(None, named), ""), vision_config


def _wrapped(config: Section) -> Iterator[Section]:
    """Yield a config and those of the models that it wraps: an Omni's thinker, a retriever's VLM."""
    parts = [config]
    for part in parts:
        yield part
        parts += [part.part(key) for key in WRAPPED if key in part]


def preprocessors(directory: Path) -> tuple[Section, Section]:
    """Read the configs of the image processor and of the video processor, each empty where there is none.

    As in transformers, a part of the whole processor's config comes before a file of its own; and a model without
    either for videos uses the image processor's file for them, but not the image processor's part.
    """
    whole = _section(directory, PROCESSOR) or Section({}, PROCESSOR)
    images, videos = _section(directory, PREPROCESSOR), _section(directory, VIDEO_PREPROCESSOR)
    if videos is None:
        videos = images
    found = [whole.part(key) if key in whole else own for key, own in zip(PARTS, (images, videos), strict=True)]
    first, second = (Section({}, name) if part is None else part for name, part in zip(FILES, found, strict=True))
    return first, second


def _section(directory: Path, name: str) -> Section | None:
    content = read_json(directory, name, ConfigError)
    return None if content is None else Section(content, str(directory / name))
