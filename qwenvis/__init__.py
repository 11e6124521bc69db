"""The vision encoder of Qwen-VL on a CPU: images in, visual tokens out.

>>> import qwenvis
>>> encoder = qwenvis.Encoder.from_pretrained("synthetic:tiny-qwen2-vl")
>>> encoder.encode([np.zeros((56, 84, 3), np.uint8)]).embeddings.shape
(6, 96)

Names are loaded on first use, so that importing the package (and ``qwenvis --help``) takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwenvis.embeddings import Embeddings as Embeddings
    from qwenvis.encoder import Batch as Batch
    from qwenvis.encoder import Encoder as Encoder
    from qwenvis.encoding.stream import Stream as Stream
    from qwenvis.errors import CheckpointError as CheckpointError
    from qwenvis.errors import ConfigError as ConfigError
    from qwenvis.errors import ImageError as ImageError
    from qwenvis.errors import ImageLimitError as ImageLimitError
    from qwenvis.errors import InputError as InputError
    from qwenvis.errors import IsaError as IsaError
    from qwenvis.errors import LimitError as LimitError
    from qwenvis.errors import NumericalError as NumericalError
    from qwenvis.errors import QwenvisError as QwenvisError
    from qwenvis.errors import SourceError as SourceError
    from qwenvis.errors import VideoError as VideoError
    from qwenvis.errors import VideoLimitError as VideoLimitError
    from qwenvis.errors import VideoWarning as VideoWarning
    from qwenvis.version import __version__ as __version__

_ROOMS = {
    "Batch": "encoder",
    "Embeddings": "embeddings",
    "Encoder": "encoder",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "ImageError": "errors",
    "ImageLimitError": "errors",
    "InputError": "errors",
    "IsaError": "errors",
    "LimitError": "errors",
    "NumericalError": "errors",
    "QwenvisError": "errors",
    "SourceError": "errors",
    "Stream": "encoding.stream",
    "VideoError": "errors",
    "VideoLimitError": "errors",
    "VideoWarning": "errors",
    "__version__": "version",
}
__all__ = [
    "Batch",
    "CheckpointError",
    "ConfigError",
    "Embeddings",
    "Encoder",
    "ImageError",
    "ImageLimitError",
    "InputError",
    "IsaError",
    "LimitError",
    "NumericalError",
    "QwenvisError",
    "SourceError",
    "Stream",
    "VideoError",
    "VideoLimitError",
    "VideoWarning",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'qwenvis' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"qwenvis.{_ROOMS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
