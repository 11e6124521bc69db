"""Where the caches lie: the Hugging Face cache, and the cache of qwenvis."""

from __future__ import annotations

import os
from pathlib import Path

from qwenvis.io.files import expanded


def hub_cache() -> Path:
    """The cache of huggingface_hub: ``HF_HUB_CACHE``, else ``HF_HOME/hub``, else a directory below ``~/.cache``."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return expanded(os.path.expandvars(cache))


def cache_root() -> Path:
    """The cache of synthetic checkpoints and of extracted towers.

    ``QWENVIS_CACHE``, else ``XDG_CACHE_HOME/qwenvis``, else ``~/.cache/qwenvis``.
    """
    own, shared = os.environ.get("QWENVIS_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return expanded(own or f"{shared or '~/.cache'}/qwenvis").absolute()
