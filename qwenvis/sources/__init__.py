"""Sources: what a caller names (a path, a Hub id, a preset) opens as one `Checkpoint`."""

from qwenvis.sources.resolve import open as open
