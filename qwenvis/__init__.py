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
    from qwenvis.cache import Cache as Cache
    from qwenvis.cache import CacheItem as CacheItem
    from qwenvis.checkpoints.checkpoint import Checkpoint as Checkpoint
    from qwenvis.cost import Cost as Cost
    from qwenvis.embeddings import Embeddings as Embeddings
    from qwenvis.encoder import Encoder as Encoder
    from qwenvis.encoding.batching import Batch as Batch
    from qwenvis.encoding.stream import Stream as Stream
    from qwenvis.errors import CacheWarning as CacheWarning
    from qwenvis.errors import CheckpointError as CheckpointError
    from qwenvis.errors import ConfigError as ConfigError
    from qwenvis.errors import ImageError as ImageError
    from qwenvis.errors import ImageLimitError as ImageLimitError
    from qwenvis.errors import InputError as InputError
    from qwenvis.errors import IsaError as IsaError
    from qwenvis.errors import LimitError as LimitError
    from qwenvis.errors import NumericalError as NumericalError
    from qwenvis.errors import PackageError as PackageError
    from qwenvis.errors import QwenvisError as QwenvisError
    from qwenvis.errors import SourceError as SourceError
    from qwenvis.errors import VideoError as VideoError
    from qwenvis.errors import VideoLimitError as VideoLimitError
    from qwenvis.errors import VideoWarning as VideoWarning
    from qwenvis.models.config import Config as Config
    from qwenvis.models.family import Tower as Tower
    from qwenvis.processors.image import ImageProcessor as ImageProcessor
    from qwenvis.processors.smart_resize import FrameSize as FrameSize
    from qwenvis.processors.video import VideoProcessor as VideoProcessor
    from qwenvis.spec import ModelSpec as ModelSpec
    from qwenvis.version import __version__ as __version__
    from qwenvis.weights import Weights as Weights

_ROOMS = {
    "Batch": "encoding.batching",
    "Cache": "cache",
    "CacheItem": "cache",
    "CacheWarning": "errors",
    "Checkpoint": "checkpoints.checkpoint",
    "CheckpointError": "errors",
    "Config": "models.config",
    "ConfigError": "errors",
    "Cost": "cost",
    "Embeddings": "embeddings",
    "Encoder": "encoder",
    "FrameSize": "processors.smart_resize",
    "ImageError": "errors",
    "ImageLimitError": "errors",
    "ImageProcessor": "processors.image",
    "InputError": "errors",
    "IsaError": "errors",
    "LimitError": "errors",
    "ModelSpec": "spec",
    "NumericalError": "errors",
    "PackageError": "errors",
    "QwenvisError": "errors",
    "SourceError": "errors",
    "Stream": "encoding.stream",
    "Tower": "models.family",
    "VideoError": "errors",
    "VideoLimitError": "errors",
    "VideoProcessor": "processors.video",
    "VideoWarning": "errors",
    "Weights": "weights",
    "__version__": "version",
}
__all__ = [
    "Batch",
    "Cache",
    "CacheItem",
    "CacheWarning",
    "Checkpoint",
    "CheckpointError",
    "Config",
    "ConfigError",
    "Cost",
    "Embeddings",
    "Encoder",
    "FrameSize",
    "ImageError",
    "ImageLimitError",
    "ImageProcessor",
    "InputError",
    "IsaError",
    "LimitError",
    "ModelSpec",
    "NumericalError",
    "PackageError",
    "QwenvisError",
    "SourceError",
    "Stream",
    "Tower",
    "VideoError",
    "VideoLimitError",
    "VideoProcessor",
    "VideoWarning",
    "Weights",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'qwenvis' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"qwenvis.{_ROOMS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
