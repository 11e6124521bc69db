"""The queue and the thread that encodes: order, batches, cancelled items, and errors that stay where they belong."""

import time
from concurrent.futures import CancelledError

import pytest

from made import video_files
from made.images import noise, png
from made.presets import encoder, forward_passes, same_bits
from qwenvis.embeddings.file import to_bytes
from qwenvis.encoding.items import Call
from qwenvis.encoding.runner import Runner
from qwenvis.server import batcher as room
from qwenvis.server.batcher import Batcher
from qwenvis.server.metrics import Metrics


class Queue:
    """A batcher of an encoder, not started yet."""

    def __init__(self):
        self.encoder = encoder()
        self.runner = Runner(self.encoder.spec, 1)
        self.keying = self.runner.keying()
        columns = self.runner.inputs({}, None, None).columns
        self.metrics = Metrics()
        self.batcher = Batcher(self.runner, Call(self.keying), columns, self.metrics)

    def item(self, *size, seed=0, **limits):
        """An item that is decoded."""
        inputs = self.runner.inputs({}, limits.get("min_pixels"), limits.get("max_pixels"), self.keying)
        return inputs.image(png(noise(*size, seed)), 0, lasts=False)


@pytest.fixture
def queue():
    found = Queue()
    yield found
    if found.batcher.running:
        found.batcher.close()


def test_waiting_items_share_forward_passes(queue, monkeypatch):
    """Those of other requests too, in order, up to the budget."""
    monkeypatch.setattr(room, "PATCH_BUDGET", 100)
    passes = forward_passes(monkeypatch, queue.encoder)
    items = [queue.item(56, 56), queue.item(84, 84, max_pixels=4000), queue.item(140, 140), queue.item(56, 56, seed=1)]
    counts = [16, 16, 100, 16]
    futures = [queue.batcher.submit(item) for item in items]
    queue.batcher.start()
    found = [future.result(10).out for future in futures]
    assert passes == [32, 100, 16]
    assert [len(out.embeddings) * 4 for out in found] == counts
    options = [{}, {"max_pixels": 4000}, {}, {}]
    pictures = [png(noise(56, 56)), png(noise(84, 84)), png(noise(140, 140)), png(noise(56, 56, 1))]
    for out, picture, limits in zip(found, pictures, options, strict=True):
        want = queue.encoder.encode([picture], **limits)
        assert same_bits(out.embeddings, want.embeddings)
        assert out.keys == want.keys
        assert out.embeddings.base is None, "a view would keep the tokens of others in memory"


def test_an_image_beside_a_video_is_as_it_is_alone(queue, tmp_path):
    """Also in the names of its fields, and so in its file."""
    film = queue.runner.inputs({}, None, None, queue.keying).video(video_files.encoded(video_files.frames(4)), 0)
    futures = [queue.batcher.submit(item) for item in (film, queue.item(56, 56))]
    queue.batcher.start()
    video, image = (future.result(10).out for future in futures)
    assert len(video.frame_indices[0]) == 4
    want = queue.encoder.encode([png(noise(56, 56))])
    assert (image.frame_indices, image.timestamps, image.second_per_grid_ts.shape) == ([], [], (0,))
    assert to_bytes(image._with(provenance={})._fields(), {}) == to_bytes(want._with(provenance={})._fields(), {})


def test_cancelled_items_leave_the_queue(queue, monkeypatch):
    passes = forward_passes(monkeypatch, queue.encoder)
    futures = [queue.batcher.submit(queue.item(56, 56, seed=seed)) for seed in range(3)]
    assert queue.metrics.registry.get_sample_value("qwenvis_queue_items") == 3
    assert futures[1].cancel()
    assert queue.metrics.registry.get_sample_value("qwenvis_queue_items") == 2
    assert queue.metrics.registry.get_sample_value("qwenvis_queue_patches") == 32
    queue.batcher.start()
    assert [len(futures[number].result(10).out.embeddings) for number in (0, 2)] == [4, 4]
    with pytest.raises(CancelledError):
        futures[1].result()
    assert passes == [32]


def test_a_failing_item_fails_alone(queue, monkeypatch):
    """Also with an error that no room expects."""
    items = [queue.item(56, 56, seed=seed) for seed in range(3)]
    monkeypatch.setattr(items[1], "fill", lambda *arguments: 1 / 0)
    futures = [queue.batcher.submit(item) for item in items]
    queue.batcher.start()
    with pytest.raises(ZeroDivisionError):
        futures[1].result(10)
    for number in (0, 2):
        want = queue.encoder.encode([png(noise(56, 56, number))])
        assert same_bits(futures[number].result(10).out.embeddings, want.embeddings)


def test_closing_encodes_what_waits(queue):
    futures = [queue.batcher.submit(queue.item(56, 56, seed=seed)) for seed in range(5)]
    queue.batcher.start()
    queue.batcher.close()
    assert all(future.done() for future in futures)
    assert not queue.batcher.running


def test_the_expected_wait_follows_the_queue(queue):
    queue.batcher.start()
    queue.batcher.submit(queue.item(56, 56)).result(10)
    time.sleep(0.05)
    assert queue.batcher.expected_wait() == 0
    queue.batcher.close()
    for seed in range(10):
        queue.batcher.submit(queue.item(56, 56, seed=seed))
    assert queue.batcher.expected_wait() > 0
