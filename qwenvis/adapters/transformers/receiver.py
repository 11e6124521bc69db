"""What a model of transformers states about the visual tokens that it takes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transformers

from qwenvis import models
from qwenvis.embeddings import Embeddings
from qwenvis.errors import InputError, quoted

FIRST = "5.18"  # the first transformers whose models take mm_encoder_outputs


@dataclass(frozen=True)
class Receiver:
    """A model of transformers that takes visual tokens in place of pixels."""

    model: Any

    @classmethod
    def of(cls, model: object) -> Receiver:
        """Return the model behind its adapters. Raises InputError for a model that takes no visual tokens."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model  # of the peft package
        name = type(base).__name__
        if not isinstance(base, transformers.PreTrainedModel):
            raise InputError(f"model is a {name}; expected a model of transformers with a generate")
        if hasattr(base, "thinker"):
            raise InputError(f"model is a {name}; expected its thinker, which takes the tokens: model.thinker")
        receiver = cls(base)
        if "mm_encoder_outputs" not in receiver.parameters:
            raise InputError(
                f"model is a {name} of transformers {transformers.__version__}, which takes no visual tokens; expected "
                f"a model with a generate and images, of transformers {FIRST} or later"
            )
        return receiver

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The names of the arguments of the forward pass."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    @property
    def tower(self) -> Any:
        """The config of the model's tower, whether or not the tower is loaded."""
        return self.model.config.vision_config

    @property
    def embedding(self) -> torch.Tensor:
        """The weight of the language model's embedding, (vocabulary, hidden_size): tokens get its dtype and device."""
        weight: torch.Tensor = self.model.get_input_embeddings().weight
        return weight

    def takes_frames_as_images(self, input_ids: torch.Tensor) -> bool:
        """Whether the tokens of videos in these ids go to the model together with those of images.

        The GLM models write the frames of a video with the placeholder of images. GLM-5.3 tells them apart; others do
        not, and take videos only without images, and without beam search, unless the tokens come as those of images.
        """
        images, videos, *_ = self.model.base_model.get_placeholder_mask(input_ids, inputs_embeds=self.embedding[:1])
        return torch.equal(images, videos)

    def check(self, out: Embeddings) -> None:
        """Raise InputError unless a result is of the family, merge size, deepstack levels and width of the model."""
        if not isinstance(out, Embeddings):
            raise InputError(f"out is a {type(out).__name__}; expected the Embeddings that encode returns, or None")
        family = out.provenance.get("family")
        expected = models.named(self.model.config.model_type, self.tower.to_dict())
        if family is not None and family not in expected:
            raise InputError(f"the tokens are of the family {quoted(family)}; the model takes those of {expected[0]}")
        if out.merge_size != self.tower.spatial_merge_size:
            got = f"{out.merge_size} x {out.merge_size} patches"
            raise InputError(f"the tokens are of {got}; the model takes those of {self.tower.spatial_merge_size}")
        levels = len(getattr(self.tower, "deepstack_visual_indexes", ()))
        if len(out.deepstack) != levels:
            raise InputError(f"the tokens have {len(out.deepstack)} levels of deepstack; the model adds {levels}")
        out.check(self.embedding.shape[1] * (1 + levels))
