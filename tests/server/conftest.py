"""A running service of the tiny Qwen2-VL, and its encoder in this process."""

import pytest

from made.presets import encoder as encoder_of
from processes.served import served


@pytest.fixture(scope="session")
def encoder():
    """The encoder of the service."""
    return encoder_of()


@pytest.fixture(scope="session")
def service():
    """A service with small limits."""
    limits = ("--threads", 1, "--max-body", "3MB", "--max-items", 8, "--max-image-pixels", 1_000_000)
    more = ("--max-patches", 3000, "--max-video-frames", 80, "--max-video-seconds", 8, "--memory", "60MB")
    with served(*limits, *more, "--read-seconds", 1, "--wait-seconds", 20) as running:
        yield running
