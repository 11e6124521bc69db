"""Many clients at once: each gets its own tokens, to the bit, beside clients that are bad, slow or gone.

The slow test goes on for QWENVIS_SOAK seconds, by default 20 minutes.
"""

import asyncio
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load

from made.images import noise, png
from made.presets import same_bits
from processes.served import answer_on, form, served
from qwenvis.server.requests.limits import Limits
from qwenvis.server.service import Service
from qwenvis.videos.video import VideoItem

CLIENTS = 16
SECONDS = float(os.environ.get("QWENVIS_SOAK", "1200"))
WARM = 0.2  # the share of the time after which nothing may grow
SIZES = [(28, 28), (56, 84), (140, 90), (200, 300), (420, 300), (61, 400)]
PICTURES = [png(noise(*size, seed)) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def expected(encoder):
    """The tokens of each picture."""
    return [encoder.encode([picture]).embeddings for picture in PICTURES]


def one(service, rng, expected):
    """Ask for one picture."""
    number = rng.randrange(len(PICTURES))
    reply = service.ask(body=PICTURES[number])
    assert reply.status == 200, reply.body
    assert same_bits(load(reply.body)["embeddings"], expected[number])


def several(service, rng, expected):
    """Ask for several pictures."""
    numbers = rng.choices(range(len(PICTURES)), k=3)
    reply = service.ask("/v1/encode", *form([("image", str(n), PICTURES[n]) for n in numbers]))
    assert reply.status == 200, reply.body
    assert same_bits(load(reply.body)["embeddings"], np.concatenate([expected[n] for n in numbers]))


def damaged(service, rng, expected):
    """Ask for pictures of which one is cut."""
    picture = rng.choice(PICTURES)
    reply = service.ask("/v1/encode", *form([("image", "a", picture), ("image", "b", picture[: len(picture) // 2])]))
    assert (reply.status, reply.error["item"]) == (400, 1)


def request(picture):
    """A request as bytes."""
    return b"POST /v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture


def gone(service, rng, expected):
    """Go away while the body is sent, while the picture is encoded, or while the answer comes."""
    sent = request(rng.choice(PICTURES))
    with service.connected() as connection:
        connection.sendall(sent[: rng.choice([20, len(sent) // 2, len(sent)])])
        time.sleep(rng.choice([0, 0.001, 0.02]))


def slow(service, rng, expected):
    """Send a picture in pieces."""
    number = rng.randrange(2)
    sent = request(PICTURES[number])
    with service.connected() as connection:
        for first in range(0, len(sent), 1 + len(sent) // 8):
            connection.sendall(sent[first : first + 1 + len(sent) // 8])
            time.sleep(0.01)
        assert same_bits(load(answer_on(connection).body)["embeddings"], expected[number])


def test_clients_of_every_kind_at_once(service, expected):
    def client(seed):
        rng = random.Random(seed)
        for _ in range(15):
            rng.choice([one, one, one, several, damaged, gone, slow])(service, rng, expected)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    settled(service)
    assert service.process.poll() is None
    assert len(service.stderr) == 1, service.stderr


def settled(service):
    """Wait until no request is left in the service."""
    for _ in range(100):
        if service.metric("qwenvis_held_bytes") == service.metric("qwenvis_queue_items") == 0:
            return
        time.sleep(0.05)
    raise AssertionError("requests are left in the service")


def test_more_than_the_memory_is_turned_away(expected):
    """Each request is answered in full or with 429, and the process does not grow by more than its memory."""
    with served("--threads", 1, "--memory", "20MB") as service:
        service.ask(body=PICTURES[4])
        before, peak = service.metric("process_resident_memory_bytes"), [0.0]
        statuses = []

        def flood(seed):
            for _ in range(6):
                reply = service.ask("/v1/encode", *form([("image", "a", PICTURES[4])] * 8))
                statuses.append(reply.status)
                if reply.status == 429:
                    assert reply.error["type"] == "BusyError"
                    assert int(reply.headers["retry-after"]) >= 1
                else:
                    tokens = load(reply.body)["embeddings"]
                    assert same_bits(tokens, np.concatenate([expected[4]] * 8))

        def watch():
            while not done.wait(0.05):
                peak[0] = max(peak[0], service.metric("process_resident_memory_bytes"))

        done, watcher = threading.Event(), threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(flood, range(CLIENTS)))
        done.set()
        watcher.join()
        assert set(statuses) == {200, 429}
        assert peak[0] - before < 60e6


def test_who_goes_away_frees_the_place(service):
    """The items of clients that are gone are not encoded, if they were not begun."""
    large = png(noise(600, 900))
    before = service.metric("qwenvis_items_total")
    connections = [service.connected() for _ in range(6)]
    for connection in connections:
        connection.sendall(request(large))
    while service.metric("qwenvis_queue_items") < 3:
        time.sleep(0.005)
    for connection in connections:
        connection.close()
    settled(service)
    assert service.metric("qwenvis_items_total") - before <= 3
    assert service.metric("qwenvis_requests_total") > 0


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


def state(service):
    """The resident memory in bytes, and the numbers of descriptors and threads, of a service that is idle."""
    place = Path(f"/proc/{service.process.pid}")
    pages = int((place / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), *(len(list((place / name).iterdir())) for name in ("fd", "task"))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_nothing_grows(encoder):
    expected = [encoder.encode([picture]).embeddings for picture in PICTURES]
    with served("--threads", 1, "--memory", "60MB", "--read-seconds", 2) as service:
        end, states = time.monotonic() + SECONDS, []

        def client(seed):
            rng = random.Random(seed)
            while time.monotonic() < stop:
                rng.choice([one, several, damaged, gone, slow])(service, rng, expected)

        while time.monotonic() < end:
            stop = time.monotonic() + SECONDS / 20
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(client, [random.random() for _ in range(CLIENTS)]))
            time.sleep(3)  # connections that were cut are closed after the time for reading
            states.append(state(service))
        warm = states[int(WARM * len(states)) :]
        memory, descriptors, threads = zip(*warm, strict=True)
        print(states)
        assert max(memory) < 1.1 * memory[0], states
        assert max(descriptors) <= descriptors[0] + 2, states
        assert max(threads) <= threads[0], states
        assert service.end() == 0
