"""Prompts whose placeholders the family's own processor expands, without pixels."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import transformers
from transformers.models.auto import processing_auto
from transformers.video_utils import VideoMetadata

from qwenvis.adapters.modalities import check_times
from qwenvis.adapters.transformers.receiver import Receiver
from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError, listed, quoted

# What processors count as one image and as one video; the pixels are never read.
PIXELS = {"image": np.zeros((1, 1, 3), np.uint8), "video": np.zeros((1, 1, 1, 3), np.uint8)}


@dataclass
class Prepared:
    """In the place of an image or video processor: answers with the grids and times of encoded items."""

    answer: dict[str, Any]
    merge_size: int
    temporal_patch_size: int

    def __call__(self, items: object, **kwargs: object) -> dict[str, Any]:
        """Return what a processor returns beside pixels."""
        return dict(self.answer)

    def fetch_images(self, images: object) -> object:
        """Return the images as they are: nothing is downloaded."""
        return images


class Prompt:
    """Texts with placeholders, and the family's processor, which expands them for encoded images and videos.

    ``order`` has, for each text, "image" or "video" for each placeholder, in order.
    """

    def __init__(self, text: object, items: Mapping[str, Embeddings], processor: object, receiver: Receiver) -> None:
        """Find the placeholders. Raises InputError unless there is one for each item."""
        self.texts = _texts(text)
        self._items = items
        self._processor = _prepared(processor, items, receiver)
        self.order = self._order()

    def _order(self) -> list[list[str]]:
        tokens = {name: getattr(self._processor, f"{name}_token", None) for name in PIXELS}
        names = {token: name for name, token in tokens.items() if token}
        pattern = "|".join(map(re.escape, names))
        order = [[names[token] for token in re.findall(pattern, text)] for text in self.texts]
        for name, token in tokens.items():
            placeholders = sum(text.count(name) for text in order)
            items = self._items.get(name)
            if placeholders != (len(items) if items else 0):
                had = f"{placeholders} placeholders {token} of {name}s" if token else f"no placeholder for {name}s"
                given = f"{len(items)}: {listed(items.sources)}" if items else "none"
                raise InputError(f"the text has {had}, and out has {given}; expected one placeholder for each item")
        return order

    def expand(self, *, token_types: bool) -> dict[str, Any]:
        """Return ids, mask, grids, and whatever else the processor writes, of all texts, padded on the left.

        They are lists and arrays, not tensors, from which the processors of GLM make types only with a warning.
        """
        pixels = {f"{name}s": [PIXELS[name]] * len(items) for name, items in self._items.items()}
        types = {"return_mm_token_type_ids": True} if token_types else {}
        padding = {"padding": True, "padding_side": "left"}  # `generate` continues the right end
        try:
            return dict(self._processor(text=self.texts, **pixels, **types, **padding))
        except ValueError as error:
            raise InputError(f"the processor does not take the text: {error}") from error


def _texts(text: object) -> list[str]:
    """Return the texts of a call. Raises InputError for anything but texts."""
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(each, str) for each in texts):
        raise InputError(
            f"text is {quoted(text)}; expected a str or a list of them, such as "
            "apply_chat_template(messages, tokenize=False) returns"
        )
    return list(texts)


def _prepared(given: object, items: Mapping[str, Embeddings], receiver: Receiver) -> Any:
    """Return a copy of a processor, or the processor of a tokenizer, which answers for these items.

    Raises InputError where there is none.
    """
    merge_size = receiver.tower.spatial_merge_size
    temporal_patch_size = getattr(receiver.tower, "temporal_patch_size", 1)  # PaddleOCR-VL has stills only
    answers: dict[str, dict[str, Any]] = {name: {} for name in PIXELS}
    for name, each in items.items():
        answers[name][f"{name}_grid_thw"] = each.grid_thw.copy()
    if "video" in items:
        answers["video"]["video_metadata"] = _metadata(items["video"], temporal_patch_size)
    parts = {f"{name}_processor": Prepared(answer, merge_size, temporal_patch_size) for name, answer in answers.items()}
    if isinstance(given, transformers.PreTrainedTokenizerBase):
        return _made(given, parts, receiver.model)
    if not isinstance(given, transformers.ProcessorMixin):
        raise InputError(
            f"processor is a {type(given).__name__}; expected the processor of the model, or its tokenizer"
        )
    processor: Any = copy.copy(given)
    for name, part in parts.items():
        setattr(processor, name, part)
    return processor


def _metadata(videos: Embeddings, temporal_patch_size: int) -> list[VideoMetadata]:
    """Return metadata from which processors compute exactly the times of the temporal steps.

    The times are the indices of frames at 1 frame per second. All frames of a temporal step have its time, because some
    processors write their mean and others the first. Raises InputError for a video without times.
    """
    check_times(videos)
    frames = [np.repeat(stamps, temporal_patch_size).tolist() for stamps in videos.timestamps]
    return [VideoMetadata(total_num_frames=len(each), fps=1.0, frames_indices=each) for each in frames]


def _made(tokenizer: Any, parts: Mapping[str, Prepared], model: Any) -> Any:
    """Return the family's processor with this tokenizer. Raises InputError if the family has none.

    AutoProcessor also loads a video processor, which transformers refuses to do without torchvision.
    """
    family = type(model.config).__module__.split(".")[-2]  # of a thinker, the module of the whole model
    known: Mapping[str, str] = getattr(processing_auto, "PROCESSOR_MAPPING_NAMES", {})
    name = tokenizer.init_kwargs.get("processor_class") or known.get(family)
    found = getattr(transformers, str(name), None)
    if not isinstance(found, type) or not issubclass(found, transformers.ProcessorMixin):
        raise InputError(
            f"transformers names no processor for the tokenizer of a {type(model).__name__}; pass the processor"
        )
    kind: Any = found
    unchecked = type(kind.__name__, (kind,), {"check_argument_for_proper_class": lambda *given: None})
    given = {"tokenizer": tokenizer, **parts}
    return unchecked(**{name: given.get(name) for name in kind.get_attributes()})
