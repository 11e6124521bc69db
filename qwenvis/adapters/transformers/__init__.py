from qwenvis.adapters.transformers.language_model import load_language_model
from qwenvis.adapters.transformers.tower import attach

__all__ = ["attach", "load_language_model"]
