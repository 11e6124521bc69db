"""The encoder of an attached tower, which follows the weights that the model has in memory."""

from __future__ import annotations

from typing import Any

import torch

from qwenvis.adapters.transformers.reference import features
from qwenvis.adapters.transformers.weights import Tensors, fingerprint, spec, weights
from qwenvis.encoder import Encoder
from qwenvis.errors import InputError
from qwenvis.spec import ModelSpec

# The largest relative difference of tokens that rounding explains: in float32; where one of the two towers rounds to 16
# bits, which makes 0.03 in 32 blocks; and in int8, which makes 0.05, and six to nine times as much as bfloat16. Two
# unrelated towers differ by 1.4, as two random vectors do.
ROUNDING, ROUNDING_16, ROUNDING_8 = 1e-3, 0.1, 0.3


class Follower:
    """The encoder that computes a tower: the one that was given, or one of the tower's own weights.

    When the weights have changed, an own encoder is made again, and a given one is compared again. Copies and pickles
    have a given encoder only.
    """

    def __init__(self, config: Any, projector: Any = None, given: Encoder | None = None) -> None:
        """``config`` is that of the model which holds the tower; a ``projector`` beside the tower belongs to it."""
        self.config, self.projector, self.given = config, projector, given
        self._current: tuple[bytes, Encoder] | None = None  # the fingerprint of the weights, and their encoder

    def encoder(self, tower: Any) -> Encoder:
        """Return the encoder of the weights that the tower has now.

        Raises InputError where the tower has no weights and no encoder, and where a given encoder is that of another
        tower; InputError, ConfigError or CheckpointError for weights that cannot be used; and InputError where other
        code would run within the tower.
        """
        for part in tower, self.projector:
            _check_modules(part)
        found = weights(tower, self.projector)
        if not found and self.given is None:
            raise InputError(
                "the model was loaded without the weights of its tower: attach(model, encoder) with the encoder of the "
                "checkpoint, or pass tokens with inputs(...)"
            )
        seen = fingerprint(found)
        if self._current is None or self._current[0] != seen:
            self._current = seen, self._encoder(tower, found)
        return self._current[1]

    def _encoder(self, tower: Any, found: Tensors) -> Encoder:
        own = spec(found, self.config, tower.config)
        if self.given is None:
            return Encoder.from_spec(own, threads=torch.get_num_threads())
        self._compare_sizes(self.given, own)
        if found:
            self._compare_tokens(self.given, tower)
        return self.given

    def _compare_sizes(self, given: Encoder, own: ModelSpec) -> None:
        """Raise InputError unless the encoder has the mathematics and the sizes of the model's tower."""
        if type(given.spec.tower) is not type(own.tower) or given.config != own.config:
            raise InputError(
                f"the encoder is not that of the model's tower: the encoder is {given.family} with {given.config}, the "
                f"model is {own.family} with {own.config}"
            )

    def _compare_tokens(self, given: Encoder, tower: Any) -> None:
        """Raise InputError unless the encoder makes of one random merge unit what transformers makes of it."""
        config = given.config
        side, generator = config.spatial_merge_size, torch.Generator().manual_seed(0)
        patches = torch.randn(side**2, *config.kernel, generator=generator)
        grid = torch.tensor([[1, side, side]])
        with torch.no_grad():
            arrays = features(tower, self.projector, patches.to(tower.device, tower.dtype), grid.to(tower.device))
            expected = torch.cat(arrays, dim=1).float().cpu()
        got = torch.from_numpy(given(patches.flatten(1), grid).wide())
        difference = float((got - expected).norm() / expected.norm())
        exact = tower.dtype == torch.float32 and given.format == "f32"
        largest = ROUNDING if exact else ROUNDING_8 if given.format == "i8" else ROUNDING_16
        if not difference <= largest:
            raise InputError(
                f"the encoder has other weights than the model's tower: their tokens of a random image differ by "
                f"{difference:.2g}, and rounding explains {largest:.2g}"
            )

    def __reduce__(self) -> tuple[type[Follower], tuple[Any, Any, Encoder | None]]:
        """Copy and pickle the given encoder, not one that is made of the weights of this model."""
        return Follower, (self.config, self.projector, self.given)


def _check_modules(part: torch.nn.Module | None) -> None:
    """Raise InputError for code of others within a tower, which an encoder would not run: hooks and forward passes.

    The hooks of transformers record outputs and request gradients; those of the tower itself run.
    """
    for name, module in part.named_modules() if part is not None else ():
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        foreign = [hook for hook in hooks if not str(getattr(hook, "__module__", "")).startswith("transformers.")]
        if name and (foreign or "forward" in vars(module)):
            raise InputError(
                f"{name} of the model's tower has a hook or another forward pass, which the encoder would not run: "
                "remove it, or do not attach"
            )
