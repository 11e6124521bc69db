"""A number format compared with a reference, with the weights of only one of the two in memory at a time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from shutil import disk_usage
from typing import SupportsIndex, Unpack

import numpy as np
from numpy.typing import NDArray

from qwenvis.comparison.deviation import row_errors
from qwenvis.comparison.passes import Stage, Visit, encode, encode_in_transformers
from qwenvis.comparison.recording import Recording
from qwenvis.comparison.results import Comparison, Tallies
from qwenvis.concurrency.threads import resolve as resolve_threads
from qwenvis.encoding.batching import MicroBatch, Plan
from qwenvis.encoding.inputs import Images, InputItem, Inputs, Videos
from qwenvis.encoding.outputs import Progress
from qwenvis.errors import InputError, quoted
from qwenvis.io.arrays import dtype_name
from qwenvis.models import Config
from qwenvis.nn.formats import DTYPES
from qwenvis.spec import ModelSpec
from qwenvis.videos.video import Sampling

Pass = Callable[[Plan[InputItem], Visit], None]

TRANSFORMERS = "transformers"
RECORDED = 1 << 31  # bytes of recorded outputs, unless one item has more: loading is short beside encoding so much


def compare(
    spec: ModelSpec,
    images: Images | None = None,
    *,
    videos: Videos | None = None,
    against: object = "float32",
    threads: SupportsIndex | None = None,
    progress: Progress | None = None,
    **sampling: Unpack[Sampling],
) -> Comparison:
    """Encode images and videos in the format of a spec and with a reference, and compare the results.

    - ``spec``: the checkpoint, the format and the pixel limits; weights are read here, and dropped again.
    - ``images``, ``videos``, ``threads``, ``sampling``: as in `Encoder.encode` and `Encoder.from_pretrained`.
    - ``against``: the reference. A dtype other than that of the spec, such as "float32"; or "transformers", whose own
      code computes tokens and deepstack of the same ``pixel_values``, in float32.
    - ``progress(done, total)``: called after every layer, with numbers of patches times layers.

    An example:

        >>> spec = ModelSpec.open("synthetic:tiny-qwen2-vl", dtype="bfloat16")
        >>> found = compare(spec, np.zeros((280, 420, 3), np.uint8))
        >>> found.tokens.rows, found.tokens.relative_rms < 0.02
        (150, True)

    Memory holds the weights of one of the two at a time. The outputs of the reference wait in a temporary file, which
    holds a group of items with outputs of up to 2 GB, or one item; both sets of weights are read again for each group.

    Raises InputError for ``against``, for packed weights, and if the disk of the temporary file (TMPDIR) is too small;
    PackageError without transformers, or with one that lacks the family; NumericalError if a result is NaN or infinite,
    or differs from a reference that is zero; and the errors of `Encoder.encode` and `Encoder.from_spec`.
    """
    (run_reference, name), count = reference(spec, against), resolve_threads(threads)
    inputs = Inputs(spec, sampling, threads=count)
    plan, _ = inputs.plan_all(images, videos, skip=False)
    if not plan.items:
        raise InputError("images and videos are empty lists: there is nothing to compare")
    tallies, work = Tallies(spec.config), _Work(spec.config, plan, progress)
    passes = partial(run_reference, count), partial(encode, spec, count)
    for items in list(_groups(plan.items, spec.config, layers=name != TRANSFORMERS)):
        _compare_group(inputs.plan(items), passes, tallies, work)
    return tallies.result(plan.items, spec.dtype, name)


def reference(spec: ModelSpec, against: object) -> tuple[Callable[[int, Plan[InputItem], Visit], None], str]:
    """Return the pass through the reference that ``against`` names, and its name.

    Raises InputError and PackageError as `compare`, before a weight is read or downloaded.
    """
    word = dtype_name(against)
    if word not in (*DTYPES, TRANSFORMERS):
        raise InputError(f"against is {quoted(against)}; expected {', '.join(DTYPES)} or {TRANSFORMERS}")
    refuse_packed(spec)
    if word == TRANSFORMERS:
        from qwenvis.adapters.transformers.reference import tower_class

        tower_class(spec.family)
        return partial(encode_in_transformers, spec), word
    if word == spec.dtype:
        raise InputError(f"dtype and against are both {word}, whose results are equal to the bit: pass another dtype")
    return partial(encode, spec.with_dtype(word)), word


def refuse_packed(spec: ModelSpec) -> None:
    """Raise InputError for a checkpoint whose weights exist in one format only."""
    checkpoint = spec.checkpoint
    if checkpoint.format:
        raise InputError(
            f"{checkpoint.path} holds weights that are packed in {checkpoint.format}, and no others to compare with: "
            "pass the checkpoint that was packed"
        )


def _compare_group(plan: Plan[InputItem], passes: tuple[Pass, Pass], tallies: Tallies, work: _Work) -> None:
    """Record the outputs of the first pass over a plan, and compare those of the second with them."""
    run_reference, run = passes
    with tempfile.TemporaryFile() as file:
        recording = Recording(file)

        def record(micro_batch: MicroBatch, stage: Stage, array: NDArray[np.float32]) -> None:
            recording.write((micro_batch.spans[0], stage), array)
            work.count(stage, array)

        def measure(micro_batch: MicroBatch, stage: Stage, array: NDArray[np.float32]) -> None:
            if (expected := recording.read((micro_batch.spans[0], stage))) is not None:
                tallies.add(micro_batch, stage, row_errors(array, expected))
            work.count(stage, array)

        run_reference(plan, record)
        run(plan, measure)


def _groups(items: Sequence[InputItem], config: Config, layers: bool) -> Iterator[list[InputItem]]:
    """Yield the items in groups whose recorded outputs take `RECORDED` bytes at most, or those of one item.

    Raises InputError if a group does not fit on the disk.
    """
    row = (1 + len(config.deepstack)) * config.out_hidden_size / config.merge_unit
    row += (config.depth + 1) * config.hidden_size * layers
    group: list[InputItem] = []
    held = 0
    for item in items:
        nbytes = int(4 * row * math.prod(item.grid))
        if group and held + nbytes > RECORDED:
            yield group
            group, held = [], 0
        group.append(item)
        held += nbytes
        _refuse_a_full_disk(held)
    yield group


def _refuse_a_full_disk(nbytes: int) -> None:
    """Raise InputError if the disk of temporary files has less than ``nbytes`` bytes free."""
    directory = tempfile.gettempdir()
    free = disk_usage(directory).free
    if free < nbytes:
        raise InputError(
            f"the outputs of the reference take {nbytes / 1e9:.3g} GB in a temporary file, and {directory} has "
            f"{free / 1e9:.3g} GB free: set TMPDIR to another directory, or lower max_pixels (--max-pixels)"
        )


class _Work:
    """The work that is done, in patches times layers, of two passes over a plan."""

    def __init__(self, config: Config, plan: Plan[InputItem], report: Progress | None) -> None:
        self._report, self._layers, self._unit = report, config.depth + 1, config.merge_unit
        self._total = 2 * self._layers * int(plan.grid_thw.prod(axis=1).sum())
        self._done = self._ended = 0

    def count(self, stage: Stage, array: NDArray[np.float32]) -> None:
        """Count an output: the tokens of a micro-batch end its layers, whether or not these came one by one."""
        if stage.kind == "layers":
            self._done += len(array)
        elif stage.kind == "tokens":
            self._done = self._ended = self._ended + len(array) * self._unit * self._layers
        if self._report is not None and stage.kind != "deepstack":
            self._report(self._done, self._total)
