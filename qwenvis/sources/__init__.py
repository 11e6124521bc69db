"""Open a source, such as a path, a Hub id or a preset, as a `Checkpoint`."""

from qwenvis.sources.resolve import open as open
