"""The result of an encoding: its arrays, its file, its picture."""

from qwenvis.embeddings.embeddings import Embeddings

__all__ = ["Embeddings"]
