"""The threads that decode: images get one, whatever becomes of videos."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from qwenvis.server.requests.limits import Limits
from qwenvis.server.service import Service
from qwenvis.videos.video import VideoItem


def test_videos_that_are_given_up_leave_a_thread_for_images(encoder):
    """A video is decoded on when its client has gone; another one waits for its thread."""
    service, leave = Service(encoder, "tiny", Limits()), threading.Event()
    film = SimpleNamespace(item=object.__new__(VideoItem), settle=leave.wait)
    image = SimpleNamespace(item=None, settle=lambda: None)

    async def ask():
        given_up = [asyncio.create_task(service._decoded(film)) for _ in range(encoder.threads)]
        await asyncio.sleep(0.05)
        for task in given_up:
            task.cancel()
        waiting = [asyncio.create_task(service._decoded(film)) for _ in range(encoder.threads)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await service._decoded(image)
        assert not any(task.done() for task in waiting)
        leave.set()
        await asyncio.gather(*waiting)
        with pytest.raises(asyncio.CancelledError):
            await given_up[0]

    try:
        asyncio.run(ask())
    finally:
        leave.set()
        service._decoders.shutdown()
