"""The encoder of a checkpoint, which turns images and videos into visual tokens."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, SupportsIndex, Unpack

from numpy.typing import ArrayLike

from qwenvis import ops, sources
from qwenvis.cache import Cache
from qwenvis.checkpoints.packed import save
from qwenvis.concurrency.threads import resolve as resolve_threads
from qwenvis.embeddings import Embeddings
from qwenvis.encoding.arguments import check_flag, checked_grid, checked_pixel_values, skip_errors, takes_one_list
from qwenvis.encoding.batching import Batch
from qwenvis.encoding.inputs import Images, Videos
from qwenvis.encoding.outputs import Progress
from qwenvis.encoding.runner import Runner
from qwenvis.encoding.stream import Stream, grouped, stream_results
from qwenvis.errors import InputError, group_errors, shown
from qwenvis.geometry import PATCH_BUDGET
from qwenvis.models import Config
from qwenvis.spec import ImageOptions, ModelSpec
from qwenvis.videos.video import Sampling


class Encoder:
    """The vision encoder of one checkpoint. Python threads may share it.

    The child of a fork may use it too, but on one thread only, because threads do not survive a fork. A
    pickle holds the arguments of `from_pretrained`, and loading it reads the checkpoint again. Copies share the
    weights, which never change. An example:

        >>> encoder = Encoder.from_pretrained("synthetic:tiny-qwen2-vl")
        >>> encoder.encode(np.zeros((280, 420, 3), np.uint8)).embeddings.shape
        (150, 96)

    - ``family``: the name of the family, such as ``qwen2_vl``.
    - ``spec``: the checkpoint as its headers describe it: parameters, processors, and the cost of a forward pass.
    - ``config``: the sizes of the tower.
    - ``isa``: the instruction set whose kernels it uses, such as "avx2".
    - ``format``: how the weights are stored and multiplied, "f32", "bf16" or "i8".
    - ``threads``: the number of threads of a call.
    - ``cache``: the `Cache` in which tokens are looked up and stored, or None.
    """

    family: str
    spec: ModelSpec
    config: Config
    isa: str
    format: str
    threads: int
    cache: Cache | None

    def __init__(self, spec: ModelSpec, *, threads: int, cache: Cache | str | os.PathLike[str] | None = None) -> None:
        """Bind a spec whose weights have been read; `from_pretrained` and `from_spec` do both."""
        self.threads, self.cache = threads, Cache.of(cache)
        self.spec, self._runner = spec, Runner(spec, threads, self.cache)
        self.family, self.config, self.format, self.isa = spec.family, spec.config, spec.format, self._runner.isa
        self._arguments: dict[str, Any] | None = None  # of `from_pretrained`, for another process

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        dtype: object = "float32",
        threads: SupportsIndex | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        pixels: str = "natural",
        backend: str = "pil",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        tower_only: bool = False,
        cache: Cache | str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Encoder:
        """Load the tower of a checkpoint.

        - ``source``: a directory in the Hub's layout or of ``qwenvis pack``, an mmproj file of llama.cpp (``*.gguf``),
          ``synthetic:PRESET``, or a Hub id (ORG/NAME, ORG/NAME/FILE.gguf), which is downloaded unless a cache has it.
        - ``dtype``: "float32"; "bfloat16", which rounds the weights and the inputs of matrix products to bfloat16,
          while sums, norms, softmax, rope and the residual stream stay float32; "int8", which also quantises linear
          layers (docs/int8.md); or "auto": the format of a packed checkpoint, else bfloat16 if the checkpoint stores it
          and this CPU multiplies it, else float32. Also "bf16" and the like, and dtypes of NumPy, ml_dtypes and torch.
        - ``threads``: default QWENVIS_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs that this process may use.
        - ``min_pixels``, ``max_pixels``: the smallest and largest area of a resized image, in pixels, instead of the
          limits of the checkpoint's preprocessor config.
        - ``pixels``: "natural" reads images as a person sees them, upright, on white, in 8 bits; "transformers" reads
          them as its processors do, which depends on the type that is passed (docs/pixels.md).
        - ``backend``: which of transformers' two image processors to equal, "pil" or "torchvision".
        - ``revision``, ``cache_dir``: branch, tag or commit of a Hub id, and the cache to look in.
        - ``token``: of a private repo, and not kept; by default ``HF_TOKEN`` or that of ``hf auth login``, none with
          False.
        - ``local_files_only``: send no request, as with ``HF_HUB_OFFLINE=1``.
        - ``tower_only``: download the tower's bytes only, not the whole shards that hold it (docs/checkpoints.md).
        - ``cache``: a directory or a `Cache`, where tokens are looked up before they are computed (docs/cache.md).
        - ``progress(bytes_done, bytes_total)``: called while weights are downloaded, and then while they are read.

        Raises SourceError if there is no such checkpoint or it cannot be downloaded, CheckpointError or ConfigError if
        it cannot be used, InputError for an argument, and IsaError for an instruction set. The names and shapes of all
        tensors, and all arguments, are checked before a tensor is downloaded or read, or a preset is written.
        """
        count, cache = resolve_threads(threads), Cache.of(cache)
        images = ImageOptions(min_pixels=min_pixels, max_pixels=max_pixels, pixels=pixels, backend=backend)
        opened = partial(sources.open, source, revision=revision, cache_dir=cache_dir, token=token)
        checkpoint = opened(local_files_only=local_files_only, tower_only=tower_only)
        spec = ModelSpec(checkpoint, dtype=dtype, **images)
        encoder = cls.from_spec(spec, threads=count, cache=cache, progress=progress)
        encoder._arguments = {**checkpoint.source, "dtype": dtype, "threads": threads, "cache": cache, **images}
        return encoder

    @classmethod
    def from_spec(
        cls,
        spec: ModelSpec,
        *,
        threads: SupportsIndex | None = None,
        cache: Cache | str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Encoder:
        """Read the weights of an open `ModelSpec` into its own tower; arguments are those of `from_pretrained`.

        Encoders of one spec share its weights. Raises CheckpointError, InputError or IsaError.
        """
        count, cache = resolve_threads(threads), Cache.of(cache)
        with ops.use_threads(count):
            spec.checkpoint.fill(spec.weights, progress)
        return cls(spec, threads=count, cache=cache)

    def save_packed(self, directory: str | os.PathLike[str]) -> None:
        """Write the weights in the layout of the kernels, so that `from_pretrained` maps them instead of reading them.

        Processes share the pages of the file, which must not change while it is in use. The directory also holds the
        configs of the checkpoint, but not the arguments of `from_pretrained`. It serves CPUs that run this ``isa``, in
        this ``format``: load it with ``dtype="auto"``.

        Raises InputError if the directory exists, if its parent does not, or if it cannot be written.
        """
        save(directory, self.spec.checkpoint, self.spec.weights, self.threads)

    def __repr__(self) -> str:
        """Family, format, instruction set, threads and source."""
        source = self.spec.checkpoint.path if self._arguments is None else self._arguments["source"]
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"<Encoder: {self.family} in {self.format} on {self.isa}, {threads}: {shown(str(source))!r}>"

    def __reduce__(self) -> tuple[Callable[[], Encoder], tuple[()]]:
        """Pickle the arguments of `from_pretrained`. Raises InputError for an encoder made by `from_spec`."""
        if self._arguments is None:
            raise InputError(
                "an encoder is pickled as the arguments of Encoder.from_pretrained, but this encoder was made by "
                "from_spec: make it with from_pretrained instead"
            )
        return partial(type(self).from_pretrained, **self._arguments), ()

    def __copy__(self) -> Encoder:
        """Return an encoder that shares the weights."""
        copied = type(self)(self.spec, threads=self.threads, cache=self.cache)
        copied._arguments = self._arguments
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        """Return an encoder that shares the weights, which never change."""
        return self.__copy__()

    @takes_one_list
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
        """Encode one image or a list of any length, and videos; return their visual tokens in order, images first.

        - ``images``: each a path, bytes, a binary file object, a PIL image, or a uint8 array or tensor (H, W),
          (H, W, 1), (H, W, 3) or (H, W, 4).
        - ``videos``: each a path, bytes, a binary file object, a uint8 array or tensor (T, H, W, 3), or a list of T
          images of one size. An image among the videos becomes a still image.
        - ``min_pixels``, ``max_pixels``: limits for this call, as in `from_pretrained`.
        - ``hidden_states``: whether to keep the hidden states of all layers; a cache, which has none, is not used then.
        - ``on_error``: "raise", or "skip" to leave out items that cannot be used; the result's ``errors`` has their
          exceptions.
        - ``progress(done, total)``: called after every layer, with numbers of patches times layers.

        Which frames of a video are encoded (docs/video.md):

        - ``fps`` (frames a second) or ``num_frames``, within ``min_frames`` and ``max_frames``, instead of those of the
          checkpoint.
        - ``sampling``: "natural", the rule of the model for files, and all frames of an array or list; "transformers",
          the choice of its processors; "qwen-vl-utils", the choice of that package; or "all".
        - ``video_fps``: the frames a second of the videos, for frames without a file and files that state a wrong rate.

        All headers are read first, and one error lists the items whose headers are bad before anything is encoded. Then
        patches are prepared and encoded in batches of a limited size. Damage behind a header is found when its item is
        decoded, perhaps after hours of work: the error that "raise" raises then has the `Embeddings` of all items
        before in its attribute ``done``. Every error about an item has its ``index`` and ``source`` (`QwenvisError`).
        If none of the first thousand items can be used, the others are not looked at, and "skip" raises too.

        Raises ImageError, VideoError or LimitError for items that cannot be used (InputError for several of different
        kinds), InputError for other arguments, ConfigError if the checkpoint has no processor for images or videos,
        NumericalError if the tower computes NaN or infinity, and TypeError for unknown keywords.
        """
        skip = skip_errors(on_error)
        check_flag(hidden_states, "hidden_states")
        keying = self._runner.keying(hidden_states)
        inputs = self._runner.inputs(sampling, min_pixels, max_pixels, keying)
        plan, errors = inputs.plan_all(images, videos, skip=skip)
        run = self._runner.begin(inputs, plan, hidden_states=hidden_states, progress=progress, strict=not skip)
        return run.encode_all(errors)

    @takes_one_list
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
        """Encode a stream of images, then a stream of videos; iterate over one `Embeddings` for each item, in order.

        Arguments are those of `encode`, and ``patch_budget``: small images share a forward pass of at most that many
        patches. Two groups of items, each within the budget or of one item, are in memory: one is encoded while the
        next is prepared.

        An item that cannot be used raises its error in its turn, and ``next`` continues with the item after it.
        ``on_error="skip"`` leaves the item out, and appends the error to the ``errors`` of the `Stream`. An error of
        the iterable itself is raised unchanged, after the items before it, and ends the stream.

        Raises InputError for ``on_error`` and ``hidden_states``, and TypeError for unknown keywords; the `Stream`
        raises the rest.
        """
        skip = skip_errors(on_error)
        check_flag(hidden_states, "hidden_states")
        keying = self._runner.keying(hidden_states)
        inputs = self._runner.inputs(sampling, min_pixels, max_pixels, keying)
        groups = grouped(inputs, inputs.factories(images, videos), patch_budget)
        begin = partial(self._runner.begin, inputs, hidden_states=hidden_states)
        return Stream(stream_results(inputs, groups, begin, patch_budget, self.threads), skip=skip)

    @takes_one_list
    def preprocess(
        self,
        images: Images | None = None,
        *,
        videos: Videos | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **sampling: Unpack[Sampling],
    ) -> Batch:
        """Return ``pixel_values`` and ``grid_thw`` of images and videos, as transformers' processors make them.

        Arguments are those of `encode`. Raises ImageError, VideoError, LimitError or InputError, one error that lists
        all items that cannot be used; ConfigError and TypeError as `encode`.
        """
        plan, _ = self._runner.inputs(sampling, min_pixels, max_pixels).plan_all(images, videos, skip=False)
        batch = plan.prepare(self.threads)
        if errors := [item.error for item in plan.items if item.error is not None]:
            raise group_errors(errors, len(plan.items), "items")
        return batch

    def __call__(
        self,
        pixel_values: ArrayLike,
        grid_thw: ArrayLike,
        *,
        hidden_states: bool = False,
        progress: Progress | None = None,
    ) -> Embeddings:
        """Run the tower alone, as transformers' ``visual(pixel_values, grid_thw)``.

        - ``pixel_values``: (patches, C·T·p²) floats, with C channels, T frames and p x p pixels to a patch; rows in
          merge-block order.
        - ``grid_thw``: (items, 3) integers: temporal steps (more than 1 for a video), rows and columns of patches.
        - ``hidden_states``, ``progress``: as in `encode`.

        Raises InputError for arrays that do not fit the tower or each other, before anything is computed, and
        NumericalError if the tower computes NaN or infinity, as `encode`.
        """
        check_flag(hidden_states, "hidden_states")
        grid = checked_grid(grid_thw, self.config)
        patches = checked_pixel_values(pixel_values, grid, self.config)
        return self._runner.forward(patches, grid, hidden_states, progress)
