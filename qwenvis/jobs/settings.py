"""The settings of a job, which a run that continues the job must have too."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenvis.embeddings.convert import rounded_provenance
from qwenvis.embeddings.rules import dtype_named
from qwenvis.encoder import Encoder
from qwenvis.encoding.inputs import Inputs
from qwenvis.errors import ConfigError, InputError, check_choice, checked_integer, quoted, shown
from qwenvis.jobs.formats import FORMATS, ShardFormat
from qwenvis.version import NUMBERS, __version__
from qwenvis.videos.video import Sampling

LAYOUT = 1  # raised when the files of a job change
SHARD_SIZE = 64_000_000  # bytes: a kill loses seconds to minutes of work, and memory holds two shards

# Settings whose values say nothing to a reader -> what differs.
HASHES = {
    "weights": "the weights of the model",
    "config": "the config of the model",
    "preprocessor": "the preprocessor config of the model",
    "numbers": "the version of the numbers that qwenvis computes",
}


@dataclass(frozen=True)
class Output:
    """How the tokens are stored: the format of the shards, their dtype, and the bytes of tokens in a shard."""

    to: str = "safetensors"
    dtype: str = "float32"
    shard_size: int = SHARD_SIZE

    @classmethod
    def checked(cls, to: str, dtype: object, shard_size: object) -> Output:
        """Check the arguments of a call. Raises InputError."""
        check_choice(to, "to", tuple(FORMATS))
        name = dtype_named(dtype, FORMATS["safetensors"].dtypes)
        if name not in FORMATS[to].dtypes:
            raise InputError(f"{to} has no {name}; expected {' or '.join(FORMATS[to].dtypes)}")
        return cls(to, name, checked_integer(shard_size, "shard_size", 1))

    @property
    def format(self) -> ShardFormat:
        """The format of the shards."""
        return FORMATS[self.to]


@dataclass(frozen=True)
class Settings:
    """The settings of a job, and the provenance of its tokens, as job.json has them."""

    settings: dict[str, Any]
    provenance: dict[str, str]
    items: int = 0
    repeated: int = 0
    list_sha256: str = ""

    @classmethod
    def of(cls, encoder: Encoder, inputs: Inputs, sampling: Sampling, output: Output) -> Settings:
        """Collect all that the bytes of a job depend on besides its items."""
        for processor in ("image_processor", "video_options"):
            with suppress(ConfigError):  # which an item of this kind will raise
                getattr(inputs, processor)
        spec = encoder.spec
        made = {"family": spec.family, "format": spec.format, "isa": encoder.isa}
        limits = inputs.provenance([])
        configs = spec.checkpoint.preprocessor, spec.checkpoint.video_preprocessor
        settings = {
            "layout": LAYOUT,
            "numbers": NUMBERS,
            "weights": spec.weights.sha256(encoder.threads),
            "config": _digest(repr(spec.config)),
            "preprocessor": _digest(json.dumps(configs, sort_keys=True, default=dict)),
            **made,
            **limits,
            **{name: value for name, value in sampling.items() if value is not None},
            "to": output.to,
            "dtype": output.dtype,
            "shard_size": output.shard_size,
        }
        provenance = {**made, "qwenvis_version": __version__, **limits}
        rounded = provenance if output.dtype == "float32" else rounded_provenance(provenance, output.dtype)
        return cls(json.loads(json.dumps(settings, default=str)), rounded)

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read job.json. Raises InputError if it is damaged or of another version of qwenvis."""
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
            layout = found.settings["layout"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{shown(str(path))} cannot be read: {shown(str(error))}") from error
        if layout != LAYOUT:
            raise InputError(f"{shown(str(path))} is of layout {quoted(layout)}; this version reads {LAYOUT}")
        return found

    def save(self, path: Path) -> None:
        """Write job.json. Raises OSError."""
        path.write_text(json.dumps(self.__dict__, indent=1) + "\n", encoding="utf-8")

    def refuse_others(self, others: Settings, where: Path) -> None:
        """Raise InputError, which names the differences, unless a run has the settings of the job."""
        mine, theirs = self.settings, others.settings
        different = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        if different:
            told = [
                HASHES.get(name) or f"{name} ({quoted(mine.get(name))} there, {quoted(theirs.get(name))} here)"
                for name in different
            ]
            raise InputError(
                f"{shown(str(where))} holds a job with other settings: {', '.join(told)} differ: name another "
                "directory, or use the same settings"
            )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
