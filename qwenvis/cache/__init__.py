"""Tokens on the disk, by key, so that no item is encoded twice: a directory of bounded size that processes share."""

from qwenvis.cache.cache import Cache, CacheItem

__all__ = ["Cache", "CacheItem"]
