"""The version, read from the installed package's metadata."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("qwenvis")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"
