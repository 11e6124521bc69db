"""The front door: a checkpoint becomes an encoder, images become visual tokens."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from qwenvis import ops, pictures
from qwenvis.door import Batch, checked_grid, checked_pixel_values, join
from qwenvis.embeddings import Embeddings
from qwenvis.errors import QwenvisError
from qwenvis.geometry import groups, item_bounds
from qwenvis.images import preprocess, survey
from qwenvis.models import Config, Features
from qwenvis.outline import Outline
from qwenvis.pictures import Picture
from qwenvis.processors import ImageProcessor
from qwenvis.threads import resolve as resolve_threads
from qwenvis.version import __version__
from qwenvis.workspace import Workspace

__all__ = ["Batch", "Encoder"]

Progress = Callable[[int, int], object]

# Patches of one forward pass, unless one image has more: products are long enough to run at full speed, and the
# workspace stays near 150 MB.
PATCH_BUDGET = 4096


class Encoder:
    """The vision encoder of one checkpoint; it may be shared between Python threads.

    The child of a fork may use it too, but runs it on one thread, whatever ``threads`` says: threads do not
    survive a fork.

    >>> encoder = Encoder.from_pretrained("synthetic:tiny-qwen2-vl")
    >>> encoder.encode(np.zeros((280, 420, 3), np.uint8)).embeddings.shape
    (150, 96)
    """

    def __init__(self, outline: Outline, *, threads: int) -> None:
        """Use `from_pretrained` or `from_outline`; this binds an outline whose weights have been read."""
        self.isa: str = ops.isa()
        self.format = outline.format
        self.threads = threads
        self._outline = outline
        self._workspaces: deque[Workspace] = deque()  # no lock, which a fork could leave held for ever

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        dtype: str = "float32",
        threads: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Encoder:
        """Load the tower of a checkpoint.

        - ``source``: a directory in the Hub's layout, an mmproj file of llama.cpp (``*.gguf``), a Hub id that is in
          the local Hugging Face cache, or ``synthetic:PRESET``.
        - ``dtype``: "float32"; "bfloat16", in which weights and the inputs of products are rounded to it, while sums,
          norms, softmax, rope and the residual stream stay float32; or "auto", bfloat16 where the checkpoint is stored
          in it and this CPU multiplies it, else float32. ``encoder.format`` says which it became: "f32" or
          "bf16".
        - ``threads``: default QWENVIS_NUM_THREADS, OMP_NUM_THREADS, or the CPUs that this process may use.
        - ``min_pixels``, ``max_pixels``: replace the limits of the checkpoint's preprocessor config.
        - ``progress(bytes_done, bytes_total)`` follows the reading.

        Raises SourceError, CheckpointError, ConfigError, InputError or IsaError; no tensor is read before the names
        and shapes of all are found right, and no preset is written before the arguments are.
        """
        count = resolve_threads(threads)
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        outline = Outline.open(source, dtype=dtype, revision=revision, cache_dir=cache_dir, **limits)
        return cls.from_outline(outline, threads=count, progress=progress)

    @classmethod
    def from_outline(cls, outline: Outline, *, threads: int | None = None, progress: Progress | None = None) -> Encoder:
        """Read the weights of an outline that is open, as `from_pretrained` does, into the outline's own tower.

        Encoders of one outline share its weights. Raises CheckpointError, InputError or IsaError.
        """
        count = resolve_threads(threads)
        with ops.use_threads(count):
            outline.checkpoint.load(outline.weights.requests, progress)
        return cls(outline, threads=count)

    @property
    def config(self) -> Config:
        """Sizes of the tower."""
        return self._outline.config

    @property
    def family(self) -> str:
        """Name of the family, such as ``qwen2_vl``."""
        return self._outline.family

    @property
    def outline(self) -> Outline:
        """The checkpoint as its headers describe it: what an image will cost, its processor, its parameters."""
        return self._outline

    def encode(
        self,
        images: Picture | Iterable[Picture],
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        hidden_states: bool = False,
        progress: Progress | None = None,
    ) -> Embeddings:
        """Visual tokens of one image or of a list of any length, in order.

        An image is a path, bytes, a binary file object, a PIL image or a uint8 array (H, W), (H, W, 1), (H, W, 3) or
        (H, W, 4). All headers are read first, so one ImageError lists every image that cannot be used before any is
        encoded; then the list is worked through by a budget of patches. ``progress(done, total)`` follows the work,
        in patches times layers.
        """
        sources = pictures.listed(images)
        processor = self._outline.processor_with(min_pixels, max_pixels)
        planned = survey(sources, processor)
        work = _Work(self, planned, hidden_states, progress)
        for items in groups(planned, PATCH_BUDGET):
            work.add(*self._prepared(sources[items], processor, items.start))
        return work.embeddings(min_pixels=processor.min_pixels, max_pixels=processor.max_pixels)

    def encode_iter(
        self,
        images: Picture | Iterable[Picture],
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        hidden_states: bool = False,
        patch_budget: int = PATCH_BUDGET,
    ) -> Iterator[Embeddings]:
        """Visual tokens of a stream of images: one `Embeddings` an image, in order.

        Small images share a forward pass; no more than ``patch_budget`` patches are held, or one image. An image that
        cannot be used raises its ImageError when its turn comes, after those before it have been given out.
        """
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        processor = self._outline.processor_with(**limits)
        for batches in self._stream(pictures.stream(images), processor, patch_budget):
            yield from self._each(batches, hidden_states, limits)

    def preprocess(
        self,
        images: Picture | Iterable[Picture],
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> Batch:
        """``pixel_values`` and ``grid_thw`` of images, bit-equal to transformers' Qwen2VLImageProcessorPil."""
        processor = self._outline.processor_with(min_pixels, max_pixels)
        return self._prepared(pictures.listed(images), processor)

    def __call__(
        self,
        pixel_values: ArrayLike,
        grid_thw: ArrayLike,
        *,
        hidden_states: bool = False,
        progress: Progress | None = None,
    ) -> Embeddings:
        """The tower alone, as transformers' ``visual(pixel_values, grid_thw)``.

        ``pixel_values`` (patches, C·T·p²) floats, rows in merge-block order; ``grid_thw`` (items, 3) integers, in
        patches, videos with t > 1. Raises InputError for what does not fit, before anything is computed.
        """
        grid = checked_grid(grid_thw, self.config)
        patches = checked_pixel_values(pixel_values, grid, self.config)
        work = _Work(self, grid, hidden_states, progress)
        bounds = item_bounds(grid)
        for items in groups(grid, PATCH_BUDGET):
            work.add(patches[bounds[items.start] : bounds[items.stop]], grid[items])
        return work.embeddings()

    def _prepared(self, sources: Sequence[Picture], processor: ImageProcessor, first: int = 0) -> Batch:
        with ops.use_threads(self.threads):
            return Batch(*preprocess(sources, processor, first))

    def _stream(self, images: Iterable[Picture], processor: ImageProcessor, budget: int) -> Iterator[list[Batch]]:
        """Runs of images within the budget; an error comes after the images before it."""
        waiting: list[Batch] = []
        held = 0
        for index, source in enumerate(images):
            try:
                patches = int(survey([source], processor, index).prod())
                if waiting and held + patches > budget:
                    yield waiting
                    waiting, held = [], 0
                waiting.append(self._prepared([source], processor, index))
                held += patches
            except QwenvisError:
                yield waiting
                raise
        yield waiting

    def _each(self, batches: list[Batch], hidden_states: bool, limits: Mapping[str, int | None]) -> list[Embeddings]:
        """The embeddings of each batch, from one forward pass; the list is emptied."""
        if not batches:
            return []
        joined = join(batches)
        work = _Work(self, joined.grid_thw, hidden_states, None)
        work.add(*joined)
        # Arrays of their own: views would keep all items alive as long as one of them.
        return [
            replace(
                out,
                embeddings=out.embeddings.copy(),
                hidden_states=[state.copy() for state in out.hidden_states],
                deepstack=[tokens.copy() for tokens in out.deepstack],
            )
            for out in work.embeddings(**limits).items()
        ]

    @contextmanager
    def _workspace(self) -> Iterator[Workspace]:
        """A workspace that no other call uses meanwhile; one for each call that runs at the same time."""
        try:
            ws = self._workspaces.pop()
        except IndexError:
            ws = Workspace()
        try:
            yield ws
        finally:
            self._workspaces.append(ws)


class _Work:
    """One call of an encoder: the arrays that its groups of items fill, and how far it has come."""

    def __init__(self, encoder: Encoder, grid_thw: np.ndarray, hidden_states: bool, progress: Progress | None) -> None:
        config = encoder.config
        patches = int(grid_thw.prod(axis=1).sum())
        self.encoder, self.grid_thw, self.progress = encoder, grid_thw.copy(), progress
        tokens = patches // config.merge_unit, config.out_hidden_size
        self.tokens, *self.deepstack = (np.empty(tokens, np.float32) for _ in range(1 + len(config.deepstack)))
        shape = (patches, config.hidden_size)
        self.hidden_states = [np.empty(shape, np.float32) for _ in range(config.depth + 1)] if hidden_states else []
        self.layers, self.total = config.depth + 1, patches * (config.depth + 1)
        self.done = self.items = self.patches = 0

    def add(self, patches: np.ndarray, grid_thw: np.ndarray) -> None:
        """Encode the next items."""
        encoder, first, unit = self.encoder, self.patches, self.encoder.config.merge_unit
        layer = 0

        def watch(x: np.ndarray, order: np.ndarray) -> None:
            nonlocal layer
            if self.hidden_states:
                self.hidden_states[layer][first : first + len(x)][order] = x
            layer += 1
            self.done += len(x)
            if self.progress is not None:
                self.progress(self.done, self.total)

        with encoder._workspace() as ws, ops.use_threads(encoder.threads):
            tower = encoder.outline.tower
            rows = slice(first // unit, (first + len(patches)) // unit)
            out = Features(self.tokens[rows], [tokens[rows] for tokens in self.deepstack])
            tower.forward(patches, grid_thw, ws.fit(tower.sizes(grid_thw)), out, watch)
        self.grid_thw[self.items : self.items + len(grid_thw)] = grid_thw
        self.items += len(grid_thw)
        self.patches += len(patches)

    def embeddings(self, **limits: int | None) -> Embeddings:
        """What the call returns; ``limits`` are those that its images had."""
        encoder = self.encoder
        provenance = {
            "source": str(encoder.outline.checkpoint.path),
            "family": encoder.family,
            "format": encoder.format,
            "isa": encoder.isa,
            "qwenvis_version": __version__,
            **{name: str(value) for name, value in limits.items() if value is not None},
        }
        merge_size = encoder.config.spatial_merge_size
        return Embeddings(self.tokens, self.grid_thw, merge_size, self.hidden_states, provenance, self.deepstack)
