"""The tower of a transformers model, computed by an encoder: `attach`.

The tower's module keeps its name, config, hooks and weights; only its class becomes a subclass, whose forward pass is
that of an `Encoder`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qwenvis.adapters.transformers.follower import Follower
from qwenvis.adapters.transformers.subclasses import Mixin, original, subclass
from qwenvis.embeddings.convert import to_torch
from qwenvis.encoder import Encoder
from qwenvis.errors import InputError, listed

TOWER, PROJECTOR = "visual", "projector"  # in the models of all families; beside the tower of PaddleOCR-VL
PROJECTED = "projected"  # the attribute of an empty last_hidden_state that holds the tokens, for the projector
DEEPSTACK_OUTPUT = "BaseModelOutputWithDeepstackFeatures"  # in the modules of the families with deepstack
# What transformers computes from grid_thw, unless the caller passes it.
PRECOMPUTED = {
    *("position_ids", "cu_seqlens", "max_seqlen", "cu_window_seqlens", "window_index", "merged_shape"),
    *("interp_indices", "interp_weights", "bilinear_indices", "bilinear_weights"),
}

Model = TypeVar("Model", bound=torch.nn.Module)


def attach(model: Model, encoder: Encoder | None = None) -> Model:
    """Compute the tower of a transformers model with an encoder from now on; return the model.

    - ``model``: a loaded model, whole or from `load_language_model`.
    - ``encoder``: by default, an encoder of the weights that the model has in memory, with as many threads as PyTorch,
      in the format that ``dtype="auto"`` takes for their type. If the weights change (``model.to(dtype)``,
      ``load_state_dict``, an assignment of some entries), the next call makes a new one. Of changes through ``.data``,
      which PyTorch does not count, it sees those of all entries, as of a merged adapter, not those of a few.

    The weights stay in the model too, for ``state_dict`` and ``save_pretrained``. To have them in memory once, attach
    an encoder to a model from `load_language_model`.

    ``get_image_features`` and ``get_video_features`` return the tokens, and the deepstack features of the families that
    have them, in the dtype of the model's tower, on the device of the pixels. They return no hidden states:
    ``last_hidden_state`` is an empty tensor on the meta device, ``hidden_states`` and ``attentions`` are None. The
    tower is frozen: a backward pass that reaches its weights or the pixels raises InputError. Hooks of the tower itself
    run; hooks on the modules in it would not, and raise InputError, unless they are those of transformers.

    Raises InputError for a model that cannot be used and for an encoder of another tower; ConfigError or
    CheckpointError for a tower that no family has.
    """
    parent = parent_of_tower(model)
    tower, projector = getattr(parent, TOWER), getattr(parent, PROJECTOR, None)
    if "forward" in vars(tower):
        raise InputError(
            "another library has replaced the forward pass of the model's tower, as accelerate does for models on "
            "several devices: load the model on one"
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


class Tower(Mixin):
    """A tower whose forward pass is that of an encoder."""

    follower: Follower

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        hidden_states: torch.Tensor | None = None,
        grid_thw: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode pixels of a ``grid_thw`` (items, 3), as the tower of transformers does.

        The pixels, ``hidden_states`` or ``pixel_values``, are (patches, C·T·p²) or (1, patches, C, p, p).

        Raises InputError for arguments that the encoder computes itself, and the errors of `Encoder.__call__`.
        """
        if computed := sorted(name for name in PRECOMPUTED if options.get(name) is not None):
            raise InputError(f"the encoder computes {listed(computed)} of the grid itself: leave that out")
        pixels = hidden_states if pixel_values is None else pixel_values
        if pixels is None or grid_thw is None:
            raise InputError("the tower needs pixels and grid_thw; the model was called without one of them")
        encoder = self.follower.encoder(self)
        patches = pixels.detach().cpu()
        out = encoder(patches[0] if patches.dim() == 5 else patches, grid_thw.cpu()).astype(self.dtype)
        arrays = (out.embeddings, *out.deepstack)
        tokens, *deepstack = (self._frozen(to_torch(array).to(pixels.device), pixels) for array in arrays)
        return _output(type(self).__module__, tokens, deepstack)

    def _frozen(self, output: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Return the output; where a gradient of weights or pixels is wanted, the backward pass will raise."""
        if not torch.is_grad_enabled():
            return output
        wanting = next((tensor for tensor in (pixels, *self.parameters()) if tensor.requires_grad), None)
        if wanting is not None:
            output = Frozen.apply(output, wanting)  # type: ignore[no-untyped-call]
        return output

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which is that of the tokens."""
        return self._first.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights; the encoder computes on the CPU."""
        return self._first.device

    @property
    def _first(self) -> torch.Tensor:
        tensors: Iterator[torch.Tensor] = chain(self.parameters(), self.buffers())  # an empty tower has a buffer
        return next(tensor for tensor in tensors if tensor.is_floating_point())


class Projector(Mixin):
    """The projector of PaddleOCR-VL behind an attached tower, whose encoder has projected already."""

    def forward(self, image_features: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
        """Return the tokens that an attached tower has made; project the features of any other."""
        tokens = getattr(image_features, PROJECTED, None)
        if tokens is None:
            tokens = original(self).forward(self, image_features, image_grid_thw)
        found: torch.Tensor = tokens
        return found


class Frozen(torch.autograd.Function):
    """The tokens of a tower that is frozen: the backward pass raises InputError instead of losing the gradient."""

    @staticmethod
    def forward(context: Any, tokens: torch.Tensor, wanting: torch.Tensor) -> torch.Tensor:
        """Return the tokens; ``wanting`` is a tensor that requires a gradient."""
        return tokens.view_as(tokens)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:
        """Raise InputError."""
        raise InputError(
            "no gradient flows through an attached tower: freeze its weights with requires_grad_(False), and pass "
            "pixels that require none"
        )


def _output(module: str, tokens: torch.Tensor, deepstack: list[torch.Tensor]) -> BaseModelOutputWithPooling:
    """Return the output of the tower in a module of transformers. Its last_hidden_state holds no values."""
    hidden = torch.empty(0, device="meta")
    setattr(hidden, PROJECTED, tokens)
    kind = getattr(sys.modules[module], DEEPSTACK_OUTPUT, None)
    if kind is None:
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=tokens)
    output: BaseModelOutputWithPooling = kind(
        last_hidden_state=hidden, pooler_output=tokens, deepstack_features=deepstack
    )
    return output
