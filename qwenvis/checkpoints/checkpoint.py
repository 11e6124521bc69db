"""A checkpoint: its configs, and the tensors of its tower by name, for every layout of files.

Each layout has a room that lists the tensors: `shards`, `packed`, `mmproj`, and `synthetic` in `sources`. Only the
tower's bytes are read, tensor by tensor: while one is packed, the next is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from qwenvis.checkpoints.configs import write_configs
from qwenvis.checkpoints.stored import OpenFile, Read, reader
from qwenvis.checkpoints.tensors import Tensor, assembled, not_finite
from qwenvis.concurrency.tasks import prefetch
from qwenvis.errors import CheckpointError, listed, shown
from qwenvis.io.files import open_regular
from qwenvis.weights import Request, Weights

Progress = Callable[[int, int], object]  # bytes done, bytes in all


@dataclass(frozen=True)
class Checkpoint:
    """The configs and the tower of one checkpoint; no weight has been read.

    - ``path``: its directory, or its one file.
    - ``config``: the content of config.json; ``vision_config`` is the tower's part, and ``model_type`` that of the
      object which holds ``vision_config`` (empty where none is named).
    - ``preprocessor``, ``video_preprocessor``: the configs of the image processor and of the video processor, empty
      where the checkpoint has none.
    - ``prefix``: what precedes the names of the tower's tensors in the files.
    - ``tensors``: the tower's tensors by the names behind the prefix, in the order of the files.
    - ``source``: the arguments with which `qwenvis.sources.open` opens this checkpoint again from any directory.
    - ``open_file``: opens a file of the checkpoint for reading.
    - ``format``, ``isa``: the format and the instruction set that the weights are packed for, such as "bf16" and
      "avx2"; empty where they are not packed.
    """

    path: Path
    config: dict[str, Any]
    vision_config: Mapping[str, Any]
    model_type: str
    preprocessor: Mapping[str, Any]
    video_preprocessor: Mapping[str, Any]
    prefix: str
    tensors: Mapping[str, Tensor]
    source: Mapping[str, Any] = field(default_factory=dict)
    open_file: OpenFile = open_regular
    format: str = ""
    isa: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the tower."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @property
    def evidence(self) -> dict[str, tuple[int, ...]]:
        """The shapes in the files, with which a config is compared."""
        return self.shapes

    @property
    def dtypes(self) -> set[str]:
        """Types of the stored tensors: safetensors' words (``BF16``), or ggml's (``Q8_0``)."""
        return {tensor.dtype for tensor in self.tensors.values()}

    @property
    def files(self) -> list[Path]:
        """The files that hold the tower, in order."""
        return list(dict.fromkeys(tensor.file.path for tensor in self.tensors.values()))

    @property
    def nbytes(self) -> int:
        """Bytes of the tower on disk."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def write_configs(self, directory: Path) -> None:
        """Write the configs of the tower and its processors into a directory. Raises OSError."""
        write_configs(directory, self.model_type, self.vision_config, (self.preprocessor, self.video_preprocessor))

    def holding(self, requests: Sequence[Request]) -> Self:
        """Return the checkpoint for a tower that makes these requests.

        The files have listed the tensors already; a synthetic checkpoint has the tensors that its tower requests.
        """
        return self

    @property
    def pending(self) -> str:
        """The work that `prepare` will do, such as "writes DIRECTORY"; empty where all files are there."""
        return ""

    def prepare(self, progress: Progress | None = None) -> None:
        """Write or download files that are not there yet, of a synthetic checkpoint or of a Hub id; as `load` does.

        ``progress(bytes_done, bytes_total)`` follows the work. Raises SourceError where it fails.
        """

    def streamed(self) -> Checkpoint:
        """Return a checkpoint to read all tensors of once, in order; what is not here is read where it is."""
        return self

    def fill(self, weights: Weights, progress: Progress | None = None) -> None:
        """Give a tower all the weights that it requests, as `load` does."""
        weights.hashes.clear()  # encoders of one spec fill its weights again, and the files may have changed
        self.load(weights.requests, progress)

    def load(self, requests: Sequence[Request], progress: Progress | None = None) -> None:
        """Serve every request with its tensor: float32, float16 or bfloat16, contiguous, one at a time.

        While a receiver has its tensor the next one is read, by a thread that ends with the call: two exist at a time.
        ``progress(bytes_done, bytes_total)`` is called after each tensor. Raises one `CheckpointError` that lists
        all missing, left-over and wrong-shape tensors before any is read, and one for a file that fails later, or for a
        tensor that is not finite.
        """
        self._compare(requests)
        self.prepare()
        receivers = {request.name: request.receive for request in requests}
        done, total = 0, self.nbytes
        for file in dict.fromkeys(tensor.file for tensor in self.tensors.values()):
            names = [name for name, tensor in self.tensors.items() if tensor.file == file]
            with (
                reader(file, self.open_file) as read,
                closing(prefetch((name, partial(self._read, read, name)) for name in names)) as reading,
            ):
                for name, task in reading:
                    array = task.result()
                    try:
                        receivers[name](array)
                    except FloatingPointError as error:
                        raise not_finite(self.tensors[name], array) from error
                    done += self.tensors[name].nbytes
                    if progress is not None:
                        progress(done, total)

    def _compare(self, requests: Sequence[Request]) -> None:
        """Raise CheckpointError unless the tensors are those of the requests."""
        requested = Counter(request.name for request in requests)
        found = self.shapes
        problems = {
            "missing": [name for name in requested if name not in found],
            "left over": [name for name in found if name not in requested],
            "of the wrong shape": [
                f"{request.name} is {found[request.name]}, expected {request.shape}"
                for request in requests
                if found.get(request.name, request.shape) != request.shape
            ],
            "requested more than once": [name for name, count in requested.items() if count > 1],
        }
        lines = [f"  {kind} ({len(names)}): {listed(names)}" for kind, names in problems.items() if names]
        if lines:
            under = f' under the prefix "{shown(self.prefix)}"' if self.prefix else ""
            raise CheckpointError("\n".join([f"{self.path}: the tensors{under} are not those of this tower", *lines]))

    def _read(self, read: Read, name: str) -> np.ndarray:
        return assembled(self.tensors[name], read)
