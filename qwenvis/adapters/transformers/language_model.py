"""Models of transformers whose towers are never in memory: `load_language_model`.

transformers builds a model on the meta device, without memory, and then reads the tensors that the model has. A
subclass empties the tower in between, so nothing of a tower is read, and no state of transformers changes.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import transformers
from transformers import MODEL_FOR_MULTIMODAL_LM_MAPPING, AutoConfig, PreTrainedModel

from qwenvis.adapters.transformers.conversion import opened
from qwenvis.adapters.transformers.follower import Follower
from qwenvis.adapters.transformers.subclasses import Mixin, subclass
from qwenvis.adapters.transformers.tower import PROJECTOR, TOWER, parent_of_tower, take_over
from qwenvis.errors import InputError, quoted

WHERE = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token", "trust_remote_code")


def load_language_model(
    source: str | os.PathLike[str], *, model_class: type[PreTrainedModel] | None = None, **options: Any
) -> Any:
    """Load a model of transformers without its vision tower, whose weights are never in memory.

    - ``source``: a directory in the Hub's layout, or a Hub id.
    - ``model_class``: by default, the class that the config names, else the one that ``AutoModelForMultimodalLM``
      chooses. Of an Omni model, the class of its thinker leaves out speech too.
    - ``options``: those of transformers' ``from_pretrained``, such as ``dtype``, ``revision`` and ``device_map``.

    The model generates from text, and from tokens that `inputs` prepares. With pixels, it raises InputError, unless
    `attach` has given it an encoder. Its ``save_pretrained`` raises InputError, except for adapters.

    Raises InputError for a model without a vision tower, and the errors of ``from_pretrained``.
    """
    kind = model_class or _named_class(source, {name: options[name] for name in WHERE if name in options})
    return subclass(LanguageModel, kind).from_pretrained(source, **options)


def _named_class(source: str | os.PathLike[str], where: dict[str, Any]) -> Any:
    """Return the class that the config of a checkpoint names, or the one that transformers chooses for the config."""
    config = AutoConfig.from_pretrained(source, **where)
    named = [kind for name in config.architectures or [] if isinstance(kind := getattr(transformers, name, None), type)]
    if not named and type(config) not in MODEL_FOR_MULTIMODAL_LM_MAPPING:
        raise InputError(f"transformers has no model of images and text for model_type {quoted(config.model_type)}")
    return named[0] if named else MODEL_FOR_MULTIMODAL_LM_MAPPING[type(config)]


class LanguageModel(Mixin):
    """A model whose tower is empty."""

    def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:
        """Build the model, and empty its tower."""
        super().__init__(config, *arguments, **options)
        parent = parent_of_tower(self)
        take_over(parent, Follower(parent.config, getattr(parent, PROJECTOR, None)))
        for name in TOWER, PROJECTOR:
            if (module := parent._modules.get(name)) is not None:
                _empty(module)
        self._keys_to_ignore_on_load_unexpected |= {rf"(^|\.)({TOWER}|{PROJECTOR})\."}

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: list[str] | None, load_config: Any, **options: Any
    ) -> Any:
        """Load as transformers does, but convert tensors to another type in pieces, while they are read.

        transformers maps files into memory, so the pages of all converted tensors would be there beside the tensors.
        """
        load = PreTrainedModel._load_pretrained_model
        if state_dict is not None or not _converts(model, checkpoint_files, load_config):
            return load(model, state_dict, checkpoint_files, load_config, **options)
        with opened(checkpoint_files or [], load_config.dtype) as tensors:
            return load(model, tensors, checkpoint_files, load_config, **options)

    def save_pretrained(self, *arguments: Any, **options: Any) -> Any:
        """Save adapters as transformers does. Raises InputError for a model, which would lack its tower."""
        if not getattr(self, "_hf_peft_config_loaded", False):
            raise InputError(
                "the model was loaded without its tower, which a saved model would lack: load it with from_pretrained "
                "before it is saved"
            )
        return super().save_pretrained(*arguments, **options)


def _converts(model: Any, checkpoint_files: list[str] | None, load_config: Any) -> bool:
    """Return whether tensors may take the type of the load while they are read: no second rounding follows."""
    if load_config.hf_quantizer is not None or not all(
        name.endswith(".safetensors") for name in checkpoint_files or [""]
    ):
        return False
    types = {tensor.dtype for tensor in model.state_dict().values()}
    return load_config.dtype == torch.float32 or (types == {load_config.dtype} and not load_config.dtype_plan)


def _empty(module: Any) -> None:
    """Remove all weights of a module, and leave an empty buffer that has its dtype and device."""
    dtype = next(tensor.dtype for tensor in module.parameters() if tensor.is_floating_point())
    for tensors in (module._modules, module._parameters, module._buffers):
        tensors.clear()
    module.register_buffer("empty", torch.empty(0, dtype=dtype), persistent=False)
