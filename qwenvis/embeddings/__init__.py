"""The result of a call: its arrays, its file, and its tokens drawn as images."""

from qwenvis.embeddings.embeddings import Embeddings

__all__ = ["Embeddings"]
