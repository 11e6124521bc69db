"""Towers as transformers itself computes them: what an encoder is compared with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.initialization import no_init_weights

from qwenvis import models
from qwenvis.adapters.transformers.subclasses import original
from qwenvis.adapters.transformers.weights import PROJECTOR_PREFIX, Tensors, weights
from qwenvis.errors import ConfigError, PackageError
from qwenvis.spec import ModelSpec
from qwenvis.weights import Request


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings of transformers about configs: some concern its own defaults."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def features(tower: Any, projector: Any, patches: torch.Tensor, grid: torch.Tensor) -> list[torch.Tensor]:
    """Return the tokens, and each array of deepstack, that transformers makes of patches (n, C, T, p, p).

    ``grid`` is (items, 3). A ``projector`` that belongs to the tower makes the tokens of its hidden states.
    """
    forward = partial(original(tower).forward, tower, grid_thw=grid)
    if projector is None:
        output = forward(patches.flatten(1))
        return [output.pooler_output, *(output.get("deepstack_features") or ())]
    hidden = forward(pixel_values=patches.squeeze(2)[None]).last_hidden_state
    return [original(projector).forward(projector, hidden, grid)]


def tower_class(family: str) -> Any:
    """Return the class of a family's tower in transformers. Raises PackageError if transformers lacks the family."""
    if family not in CONFIG_MAPPING:
        raise PackageError(
            f"transformers {transformers.__version__} has no {family}: pip install --upgrade transformers"
        )
    holder = models.FAMILIES[family].hub.holder
    with quiet():
        config = CONFIG_MAPPING[family]()
    config_class = type((getattr(config, holder) if holder else config).vision_config)
    module = import_module(config_class.__module__.replace("configuration_", "modeling_"))
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, PreTrainedModel)]
    return [kind for kind in kinds if kind.config_class is config_class][-1]  # a module defines parts before the whole


class Reference:
    """The tower of a checkpoint in transformers, in float32, with weights of its own."""

    def __init__(self, spec: ModelSpec, threads: int) -> None:
        """Read the weights.

        Raises PackageError if transformers lacks the family, ConfigError if the tower that it builds of the
        ``vision_config`` has other tensors, and CheckpointError for tensors that cannot be read.
        """
        kind = tower_class(spec.family)
        with quiet(), no_init_weights():
            config = kind.config_class(**spec.checkpoint.vision_config)
            self._tower = kind._from_config(config, dtype=torch.float32).eval()
            self._projector = _projector(kind, config, spec)
        tensors = weights(self._tower, self._projector)
        _check(spec, tensors)
        spec.checkpoint.load([Request(name, tuple(each.shape), _receiver(each)) for name, each in tensors.items()])
        self._kernel, self._threads = spec.config.kernel, threads

    def __call__(self, pixel_values: NDArray[np.float32], grid_thw: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """Return the tokens, and each array of deepstack, of ``pixel_values`` and ``grid_thw``.

        The steps of a video go as stills, as the GLM models pass them to their towers: patches of different steps do
        not attend to each other in any tower.
        """
        patches, grid = torch.from_numpy(pixel_values).view(-1, *self._kernel), torch.from_numpy(grid_thw)
        stills = torch.cat([torch.ones_like(grid[:, :1]), grid[:, 1:]], dim=1).repeat_interleave(grid[:, 0], dim=0)
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.no_grad():
                return [array.numpy() for array in features(self._tower, self._projector, patches, stills)]
        finally:
            torch.set_num_threads(before)


def _projector(tower: Any, config: Any, spec: ModelSpec) -> Any:
    """Build the module beside a tower that makes the tokens; None where the tower makes them itself."""
    if not any(request.name.startswith(PROJECTOR_PREFIX) for request in spec.weights.requests):
        return None
    module = vars(import_module(tower.__module__))
    (kind,) = (module[name] for name in module if name.endswith("Projector"))
    text_config = SimpleNamespace(hidden_size=spec.config.out_hidden_size)
    return kind(SimpleNamespace(vision_config=config, text_config=text_config)).eval()


def _check(spec: ModelSpec, tensors: Tensors) -> None:
    """Raise ConfigError unless the tensors have the names and shapes of those of the spec's tower."""
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, shape in {request.name: request.shape for request in spec.weights.requests}.items():
        if got.get(name) != shape:
            raise ConfigError(
                f"{spec.checkpoint.path}: in the tower that transformers builds of its vision_config, {name} is not "
                f"{shape}. A vision_config without all sizes, as of an mmproj file, does not suffice: pass the "
                "checkpoint that the file was made from"
            )


def _receiver(tensor: torch.Tensor) -> Callable[[NDArray[Any]], object]:
    """Return a function that copies an array of a checkpoint into a tensor, as float32."""
    return lambda array: tensor.copy_(torch.from_numpy(np.array(array, np.float32)))
