"""The front door: a checkpoint becomes an encoder, images become visual tokens."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from qwenvis import ops, sources
from qwenvis.checkpoints.packed import save
from qwenvis.concurrency.threads import resolve as resolve_threads
from qwenvis.embeddings import Embeddings
from qwenvis.encoding.batching import Batch, Plan
from qwenvis.encoding.inputs import Entry, Images, Inputs, Videos, check_flag, checked_grid, checked_pixel_values, skips
from qwenvis.encoding.outputs import Outputs, Progress
from qwenvis.encoding.passage import Passage, finished
from qwenvis.encoding.stream import Runs, Stream, encoded
from qwenvis.errors import InputError, joined, shown
from qwenvis.geometry import PATCH_BUDGET, spanned, spans
from qwenvis.models import Config
from qwenvis.nn.workspace import Workspaces
from qwenvis.spec import ImageOptions, ModelSpec
from qwenvis.version import __version__
from qwenvis.videos.video import Sampling

__all__ = ["Batch", "Encoder"]


class Encoder:
    """The vision encoder of one checkpoint; it may be shared between Python threads.

    The child of a fork may use it too, but runs it on one thread, whatever ``threads`` says: threads do not
    survive a fork. A pickle holds the source and the arguments of `from_pretrained`, and loading it reads the
    checkpoint again; copies share the weights, which never change.

    >>> encoder = Encoder.from_pretrained("synthetic:tiny-qwen2-vl")
    >>> encoder.encode(np.zeros((280, 420, 3), np.uint8)).embeddings.shape
    (150, 96)
    """

    def __init__(self, spec: ModelSpec, *, threads: int) -> None:
        """Use `from_pretrained` or `from_spec`; this binds an outline whose weights have been read."""
        self.isa: str = ops.isa()
        self.format = spec.format
        self.threads = threads
        self._spec = spec
        self._workspaces = Workspaces()
        self._arguments: dict[str, Any] | None = None  # of `from_pretrained`, for another process

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        dtype: object = "float32",
        threads: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        pixels: str = "natural",
        backend: str = "pil",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Encoder:
        """Load the tower of a checkpoint.

        - ``source``: a directory in the Hub's layout or of ``qwenvis pack``, an mmproj file of llama.cpp (``*.gguf``),
          a Hub id that is in the local Hugging Face cache, or ``synthetic:PRESET``.
        - ``dtype``: "float32"; "bfloat16", in which weights and the inputs of products are rounded to it, while sums,
          norms, softmax, rope and the residual stream stay float32; or "auto": what it is packed in, else bfloat16
          where it is stored in that and this CPU multiplies it, else float32. ``encoder.format`` says which it became:
          "f32" or "bf16". Types of NumPy, ml_dtypes and PyTorch are accepted, and other spellings, such as "bf16".
        - ``threads``: default QWENVIS_NUM_THREADS, OMP_NUM_THREADS, or the CPUs that this process may use.
        - ``min_pixels``, ``max_pixels``: replace the limits of the checkpoint's preprocessor config.
        - ``pixels``: "natural", images as a person sees them, upright, on white, in 8 bits; or "transformers", as its
          processors read them, which depends on what an image is passed as (docs/pixels.md).
        - ``backend``: which of transformers' two image processors to equal, "pil" or "torchvision".
        - ``progress(bytes_done, bytes_total)`` follows the reading.

        Raises SourceError, CheckpointError, ConfigError, InputError or IsaError; no tensor is read before the names
        and shapes of all are found right, and no preset is written before the arguments are.
        """
        count = resolve_threads(threads)
        images: ImageOptions = {
            "min_pixels": min_pixels,
            "max_pixels": max_pixels,
            "pixels": pixels,
            "backend": backend,
        }
        checkpoint = sources.open(source, revision=revision, cache_dir=cache_dir)
        encoder = cls.from_spec(ModelSpec(checkpoint, dtype=dtype, **images), threads=count, progress=progress)
        encoder._arguments = {**checkpoint.source, "dtype": dtype, "threads": threads, **images}
        return encoder

    @classmethod
    def from_spec(cls, spec: ModelSpec, *, threads: int | None = None, progress: Progress | None = None) -> Encoder:
        """Read the weights of an outline that is open, as `from_pretrained` does, into the outline's own tower.

        Encoders of one outline share its weights. Raises CheckpointError, InputError or IsaError.
        """
        count = resolve_threads(threads)
        with ops.use_threads(count):
            spec.checkpoint.fill(spec.weights, progress)
        return cls(spec, threads=count)

    def save_packed(self, directory: str | os.PathLike[str]) -> None:
        """Write the weights as they are packed, so that `from_pretrained` of that directory maps them, and is ready.

        Processes share the pages of its file, which must not change while it is in use. The directory holds the
        configs too, but not the arguments of `from_pretrained`. It is for CPUs that run this ``isa``, in this
        ``format``: pass ``dtype="auto"``. Raises InputError if it exists or cannot be written; its parent has to exist.
        """
        save(directory, self._spec.checkpoint, self._spec.weights)

    def __repr__(self) -> str:
        """Family, format, instruction set, threads and source."""
        source = self._spec.checkpoint.path if self._arguments is None else self._arguments["source"]
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"<Encoder: {self.family} in {self.format} on {self.isa}, {threads}: {shown(str(source))!r}>"

    def __reduce__(self) -> tuple[Callable[[], Encoder], tuple[()]]:
        """Pickle the arguments of `from_pretrained`. Raises InputError for an encoder that was made otherwise."""
        if self._arguments is None:
            raise InputError(
                "an encoder is pickled as the arguments of Encoder.from_pretrained, but this encoder was made from an "
                "outline: make it with from_pretrained instead"
            )
        return partial(type(self).from_pretrained, **self._arguments), ()

    def __copy__(self) -> Encoder:
        """An encoder with the same weights."""
        copied = type(self)(self._spec, threads=self.threads)
        copied._arguments = self._arguments
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        """As `copy`: nothing changes the weights."""
        return self.__copy__()

    @property
    def config(self) -> Config:
        """Sizes of the tower."""
        return self._spec.config

    @property
    def family(self) -> str:
        """Name of the family, such as ``qwen2_vl``."""
        return self._spec.family

    @property
    def spec(self) -> ModelSpec:
        """The checkpoint as its headers describe it: what an image will cost, its processor, its parameters."""
        return self._spec

    def encode(
        self,
        images: Images | None = None,
        *,
        videos: Videos | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        hidden_states: bool = False,
        on_error: str = "raise",
        progress: Progress | None = None,
        **sampling: Unpack[Sampling],
    ) -> Embeddings:
        """Visual tokens of one image or of a list of any length, and of videos, in order: images first.

        An image is a path, bytes, a binary file object, a PIL image, or a uint8 array or tensor (H, W), (H, W, 1),
        (H, W, 3) or (H, W, 4). A video is a path, bytes, a binary file object, a uint8 array or tensor (T, H, W, 3), or
        a list of images of one size; an image among the videos becomes a still. All headers are read first, and one
        error lists the items whose headers are bad before anything is encoded; then the items are encoded by a budget
        of patches, frame by frame. ``progress(done, total)`` follows the work, in patches times layers.

        ``on_error``: "raise", or "skip", where the result holds the usable items, and ``errors`` the exceptions of the
        others. Damage behind a header is found when its item is decoded, perhaps after hours of work. With "raise" the
        error is raised then, and its ``done`` is the `Embeddings` of all items before. Every error about an item has
        its ``index`` and ``source`` (`QwenvisError`). If none of the first thousand items can be used, the others are
        not looked at, and "skip" raises too.

        Which frames of a video are looked at (docs/video.md):

        - ``fps``, or ``num_frames``, within ``min_frames`` and ``max_frames``; they replace those of the checkpoint.
        - ``sampling``: "natural", the rule of the model for files, and all frames of an array or list; "transformers",
          the choice of its processors; "qwen-vl-utils", the choice of that package; or "all".
        - ``video_fps``: the frames a second of the videos, for frames without a file and for files that say it wrong.
        """
        skip = skips(on_error)
        check_flag(hidden_states, "hidden_states")
        intake = self._inputs(sampling, min_pixels, max_pixels)
        entries, errors = intake.listed(images, videos, skip=skip)
        passage = self._begin(entries, Plan(entries, intake.columns), hidden_states, progress, strict=not skip)
        passage.run(PATCH_BUDGET)
        return passage.result(self._provenance(intake), errors)

    def encode_iter(
        self,
        images: Images | None = None,
        *,
        videos: Videos | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        hidden_states: bool = False,
        on_error: str = "raise",
        patch_budget: int = PATCH_BUDGET,
        **sampling: Unpack[Sampling],
    ) -> Stream:
        """Visual tokens of a stream of images and of one of videos: one `Embeddings` an item, in order.

        Small images share a forward pass. Two runs of at most ``patch_budget`` patches, or of one temporal step, are
        held: one is encoded while the next is prepared. An item that cannot be used raises its error in its turn, and
        ``next`` continues with the item after it. ``on_error="skip"`` leaves the item out, and keeps the error in the
        ``errors`` of the iterator. An error of the iterable itself is raised unchanged, after the items before it, and
        ends the stream.
        """
        skip = skips(on_error)
        check_flag(hidden_states, "hidden_states")
        intake = self._inputs(sampling, min_pixels, max_pixels)
        begin = partial(self._begin, hidden_states=hidden_states, progress=None, strict=False)
        runs = Runs(intake.makers(images, videos), intake.columns, patch_budget)
        return Stream(encoded(runs, begin, lambda: self._provenance(intake), self.threads), skip=skip)

    def preprocess(
        self,
        images: Images | None = None,
        *,
        videos: Videos | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **sampling: Unpack[Sampling],
    ) -> Batch:
        """``pixel_values`` and ``grid_thw`` of images and videos, as transformers' processors make them.

        Raises one error that lists the items that cannot be used.
        """
        intake = self._inputs(sampling, min_pixels, max_pixels)
        entries, _ = intake.listed(images, videos, skip=False)
        batch = Plan(entries, intake.columns).prepare(self.threads)
        if errors := [entry.error for entry in entries if entry.error is not None]:
            raise joined(errors, len(entries), "items")
        return batch

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
        check_flag(hidden_states, "hidden_states")
        grid = checked_grid(grid_thw, self.config)
        patches = checked_pixel_values(pixel_values, grid, self.config)
        work = self._outputs(grid, hidden_states, progress)
        top = 0
        for run in spans(grid, PATCH_BUDGET):
            steps = spanned(grid, run)
            rows = int(steps.prod(axis=1).sum())
            with ops.use_threads(self.threads):
                work.add(patches[top : top + rows], steps)
            top += rows
        return finished(work, grid, self._provenance())

    def _inputs(self, sampling: Sampling, min_pixels: int | None, max_pixels: int | None) -> Inputs:
        return Inputs(self._spec, sampling, min_pixels=min_pixels, max_pixels=max_pixels, threads=self.threads)

    def _outputs(self, grid_thw: np.ndarray, hidden_states: bool, progress: Progress | None) -> Outputs:
        return Outputs(self._spec.tower, self._workspaces, grid_thw, hidden_states, progress)

    def _begin(
        self, entries: list[Entry], plan: Plan, hidden_states: bool, progress: Progress | None, *, strict: bool
    ) -> Passage:
        work = self._outputs(plan.grid_thw, hidden_states, progress)
        return Passage(entries, plan, work, strict=strict, threads=self.threads)

    def _provenance(self, intake: Inputs | None = None) -> dict[str, str]:
        return {
            "source": str(self._spec.checkpoint.path.absolute()),
            "family": self.family,
            "format": self.format,
            "isa": self.isa,
            "qwenvis_version": __version__,
            **(intake.provenance if intake is not None else {}),
        }
