"""The version, read from the installed package's metadata, and the version of the numbers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("qwenvis")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

NUMBERS = 3  # raised by each commit that changes a bit of any token: tokens in caches were made by the code before it
