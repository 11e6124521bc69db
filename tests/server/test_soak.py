"""A service under load for a long time: memory, descriptors and threads stay as they are.

QWENVIS_SOAK is the time in seconds, 20 minutes by default.
"""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from processes.served import served
from server.test_load import CLIENTS, PICTURES, damaged, gone, one, several, slow

SECONDS = float(os.environ.get("QWENVIS_SOAK", "1200"))
WARM = 0.2  # the share of the time after which nothing may grow


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
