"""A checkpoint: its configs, and the tensors of its tower by name, wherever and however they are stored.

Only the tower's bytes are read, tensor by tensor: while one is packed, the next is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qwenvis.checkpoints import shards
from qwenvis.checkpoints.files import read_json
from qwenvis.checkpoints.tensors import Read, Tensor, assembled, channels_first, not_finite, refuse_quantised
from qwenvis.concurrency.tasks import prefetch
from qwenvis.errors import CheckpointError, ConfigError, SourceError, listed, shown
from qwenvis.io.fields import Section
from qwenvis.models import FAMILIES
from qwenvis.weights import Request, Weights

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
VIDEO_PREPROCESSOR = "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"

PARTS = ("image_processor", "video_processor")  # of the whole processor's config
FILES = (PREPROCESSOR, VIDEO_PREPROCESSOR)
# Keys of the models that a config wraps: the holders of a family's vision_config, and the VLM of a retriever.
WRAPPED = (*dict.fromkeys(family.hub.holder for family in FAMILIES.values() if family.hub.holder), "vlm_config")

Accept = Callable[[str, Mapping[str, Any]], object]


@dataclass(frozen=True)
class Checkpoint:
    """The configs and the tower of one checkpoint; tensor names are those below ``prefix``.

    ``path`` is its directory, or its one file. ``model_type`` is that of the object which holds ``vision_config``
    (empty where none is named). ``preprocessor`` and ``video_preprocessor`` are the configs of the image processor and
    of the video processor, empty where the checkpoint has none.
    ``tensors`` are in the order of the files; ``opened`` opens one of these for reading.
    """

    path: Path
    config: dict[str, Any]
    vision_config: Mapping[str, Any]
    model_type: str
    preprocessor: Mapping[str, Any]
    prefix: str
    tensors: Mapping[str, Tensor]
    opened: Callable[[Path], AbstractContextManager[Read]] = shards.opened
    video_preprocessor: Mapping[str, Any] = field(default_factory=dict)
    format: str = ""  # what its weights are packed in and for, where they are
    isa: str = ""

    @classmethod
    def open(cls, directory: Path, accept: Accept | None = None) -> Checkpoint:
        """Read the configs and the headers of the tower's shards in a directory of the Hub's layout, no tensor.

        ``accept(model_type, vision_config)`` may refuse what the config names, before a tower is looked for. Raises
        `SourceError` where there is no checkpoint, `ConfigError` for a config that cannot be used, and
        `CheckpointError` for weights that are missing, damaged, quantised or without a tower.
        """
        found = configs(directory, accept)
        prefix, tensors = shards.tower_tensors(directory)
        refuse_quantised(directory, tensors, found["config"])
        return cls(directory, prefix=prefix, tensors=channels_first(prefix, tensors), **found)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the tower."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @property
    def files(self) -> list[Path]:
        """The files that hold the tower, in order."""
        return list(dict.fromkeys(tensor.file for tensor in self.tensors.values()))

    @property
    def nbytes(self) -> int:
        """Bytes of the tower on disk."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def fill(self, weights: Weights, progress: Callable[[int, int], object] | None = None) -> None:
        """Give a tower all that it asks for; as `load`."""
        self.load(weights.requests, progress)

    def load(self, requests: Sequence[Request], progress: Callable[[int, int], object] | None = None) -> None:
        """Answer every request with its tensor: float32, float16 or bfloat16, contiguous, one at a time.

        While a receiver has its tensor the next one is read, by a thread that ends with the call: two exist at a time.
        ``progress(bytes_done, bytes_total)`` is called after each tensor. Raises one `CheckpointError` that lists
        all missing, left-over and wrong-shape tensors before any is read, and one for a file that fails later, or for a
        tensor that is not finite.
        """
        self._compare(requests)
        receivers = {request.name: request.receive for request in requests}
        done, total = 0, self.nbytes
        for file in self.files:
            names = [name for name, tensor in self.tensors.items() if tensor.file == file]
            with (
                self.opened(file) as read,
                closing(prefetch((n, partial(self._read, read, n)) for n in names)) as reading,
            ):
                for name, task in reading:
                    array = task.result()
                    try:
                        receivers[name](array)
                    except FloatingPointError as error:
                        raise not_finite(self.prefix, name, self.tensors[name], array) from error
                    done += self.tensors[name].nbytes
                    if progress is not None:
                        progress(done, total)

    def _compare(self, requests: Sequence[Request]) -> None:
        asked = Counter(request.name for request in requests)
        found = self.shapes
        problems = {
            "missing": [name for name in asked if name not in found],
            "left over": [name for name in found if name not in asked],
            "of the wrong shape": [
                f"{request.name} is {found[request.name]}, expected {request.shape}"
                for request in requests
                if found.get(request.name, request.shape) != request.shape
            ],
            "asked for more than once": [name for name, count in asked.items() if count > 1],
        }
        lines = [f"  {kind} ({len(names)}): {listed(names)}" for kind, names in problems.items() if names]
        if lines:
            under = f' under the prefix "{shown(self.prefix)}"' if self.prefix else ""
            raise CheckpointError("\n".join([f"{self.path}: the tensors{under} are not those of this tower", *lines]))

    def _read(self, read: Read, name: str) -> np.ndarray:
        return assembled(self.prefix, name, self.tensors[name], read)


def configs(directory: Path, accept: Accept | None = None) -> dict[str, Any]:
    """The fields of a `Checkpoint` that its configs fill; `Checkpoint.open` says what is raised."""
    if not directory.is_dir():
        raise SourceError(f"{directory} is no directory, so it holds no checkpoint")
    config = read_json(directory, CONFIG, ConfigError)
    if config is None:
        files = sorted(path.name for path in directory.glob("*.gguf"))
        hint = f"; to read {listed(files)}, name the file itself" if files else ""
        raise SourceError(f"{directory} holds no {CONFIG}, so it is no checkpoint in the Hub's layout{hint}")
    model_type, vision_config = _vision_part(Section(config, str(directory / CONFIG)))
    if accept is not None:
        accept(model_type, vision_config)
    images, videos = preprocessors(directory)
    return {
        "config": config,
        "vision_config": vision_config,
        "model_type": model_type,
        "preprocessor": images,
        "video_preprocessor": videos,
    }


def _vision_part(config: Section) -> tuple[str, Section]:
    """The model_type that governs the tower, and the tower's own config."""
    holder = next((part for part in _wrapped(config) if "vision_config" in {*part, *part.nulls}), None)
    if holder is not None and "vision_config" in holder.nulls:
        raise holder.refused("vision_config", "an object")
    # A tower saved alone has no vision_config: its root is the tower's config.
    vision_config = config if holder is None else holder.part("vision_config")
    named = [part.word("model_type") for part in (holder or config, vision_config, config)]
    return next(filter(None, named), ""), vision_config


def _wrapped(config: Section) -> Iterator[Section]:
    """A config, and those of the models that it wraps."""
    parts = [config]
    for part in parts:
        yield part
        parts += [part.part(key) for key in WRAPPED if key in part]


def preprocessors(directory: Path) -> tuple[Section, Section]:
    """The configs of the image processor and of the video processor, each empty where there is none.

    As in transformers, a part of the whole processor's config comes before a file of its own; and a model whose
    videos have neither takes the image processor's file for them, but not the image processor's part.
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
