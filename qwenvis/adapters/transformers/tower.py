"""The tower of a transformers model, computed by an encoder: `attach`.

The tower's module keeps its name, config, hooks and weights; only its class becomes a subclass, whose forward pass is
that of an `Encoder`.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qwenvis.adapters.transformers.follower import Follower
from qwenvis.encoder import Encoder
from qwenvis.errors import InputError, listed

TOWER, PROJECTOR = "visual", "projector"  # in the models of all families; beside the tower of PaddleOCR-VL
DEEPSTACK_OUTPUT = "BaseModelOutputWithDeepstackFeatures"  # in the modules of the families with deepstack
# What transformers computes from grid_thw, unless the caller passes it.
PRECOMPUTED = frozenset(
    "bilinear_indices bilinear_weights cu_seqlens cu_window_seqlens interp_indices interp_weights max_seqlen "
    "merged_shape position_ids window_index".split()
)

Model = TypeVar("Model", bound=torch.nn.Module)


def attach(model: Model, encoder: Encoder | None = None) -> Model:
    """Compute the tower of a transformers model with an encoder from now on; return the model.

    - ``model``: a loaded model, whole or from `load_language_model`.
    - ``encoder``: by default, an encoder of the weights that the model has in memory, with as many threads as PyTorch,
      in the format that ``dtype="auto"`` takes for their type. If the weights change (``model.to(dtype)``,
      ``load_state_dict``, a merged adapter), the next call makes a new one.

    The weights stay in the model too, for ``state_dict`` and ``save_pretrained``; to have them in memory once, attach an
    encoder to a model from `load_language_model`.

    ``get_image_features`` and ``get_video_features`` return the tokens, and the deepstack features of the families that
    have them, in the dtype of the model's tower, on the device of the pixels. The encoder does not return the hidden
    states of all layers here: ``hidden_states`` and ``attentions`` are None, and ``last_hidden_state`` is an empty
    tensor on the meta device. The tower is frozen: a backward pass through it raises InputError.

    Raises InputError for a model that cannot be used and for an encoder of another tower, ConfigError or CheckpointError
    for a tower of no family.
    """
    parent = parent_of_tower(model)
    tower, projector = getattr(parent, TOWER), getattr(parent, PROJECTOR, None)
    if "forward" in vars(tower):
        raise InputError(
            "another library has replaced the forward pass of the model's tower, as accelerate does for a device_map of "
            "several devices: load the model on one device"
        )
    follower = Follower(parent.config, projector, encoder)
    follower.encoder(tower)
    take_over(parent, follower)
    return model


def parent_of_tower(model: torch.nn.Module) -> Any:
    """Return the module of a model that holds the tower. Raises InputError unless there is one, not compiled."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    parents = [module for module in modules if isinstance(module._modules.get(TOWER), PreTrainedModel)]
    if len(parents) != 1:
        found = f"{len(parents)} modules" if parents else "no module"
        raise InputError(f"{type(model).__name__} has {found} named {TOWER!r}; expected a model with one vision tower")
    if any(hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in modules):
        raise InputError("the model is compiled: attach first, then compile")
    return parents[0]


def take_over(parent: Any, follower: Follower) -> None:
    """Give the tower below ``parent``, and a projector beside it, the forward pass of an encoder."""
    tower, projector = getattr(parent, TOWER), getattr(parent, PROJECTOR, None)
    tower.__class__ = subclass(Tower, original(tower))
    tower.follower = follower
    if projector is not None:
        projector.__class__ = subclass(Projector, original(projector))


@cache
def subclass(mixin: type, kind: type) -> type:
    """Return a class of ``kind`` with the methods of ``mixin`` first.

    Its name and module are those of ``kind``, by which transformers finds how the names of weights are converted.
    """
    return type(kind)(kind.__name__, (mixin, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def original(module: torch.nn.Module) -> type:
    """Return the class of a module in transformers."""
    return type(module).__bases__[1] if isinstance(module, Mixin) else type(module)


def _blank(mixin: type, kind: type) -> Any:
    return object.__new__(subclass(mixin, kind))


class Mixin:
    """What the classes of `subclass` share: pickles and copies name the class of transformers."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the two classes that the class is made of, and the attributes."""
        return _blank, type(self).__bases__, self.__dict__.copy()


class Tower(Mixin):
    """A tower of transformers whose forward pass is that of an encoder."""

    follower: Follower

    def forward(
        self,
        hidden_states: torch.Tensor | None = None,
        grid_thw: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode pixels: (patches, C·T·p²), or (1, patches, C, p, p) of PaddleOCR-VL; ``grid_thw`` (items, 3).

        Raises InputError for arguments that the encoder computes itself, and the errors of `Encoder.__call__`.
        """
        if computed := sorted(name for name in PRECOMPUTED if options.get(name) is not None):
            raise InputError(f"the attached encoder computes {listed(computed)} from the grid: leave that out")
        pixels = hidden_states if pixel_values is None else pixel_values
        encoder = self.follower.encoder(self)
        patches = pixels.detach().cpu()
        out = encoder(patches[0] if patches.dim() == 5 else patches, grid_thw.cpu())
        tokens, *deepstack = (self._as_output(array, pixels) for array in (out.embeddings, *out.deepstack))
        last = torch.empty(0, device="meta")
        last.tokens = tokens  # for the projector
        kind = getattr(sys.modules[type(self).__module__], DEEPSTACK_OUTPUT, None)
        if kind is None:
            return BaseModelOutputWithPooling(last_hidden_state=last, pooler_output=tokens)
        return kind(last_hidden_state=last, pooler_output=tokens, deepstack_features=deepstack)

