"""Images per second of a service with many clients, beside a job over the same images; and the times of its answers.

    python -m benchmarks.serve --model synthetic:qwen2-vl-2b --sides 112 168 224 --images 48 --clients 16

A service runs in a process of its own, with the same number of threads. Each client sends an image, reads its tokens,
and sends the next one, until all images are encoded. Job and service alternate; ``ratio`` is the median of the images
per second of the service over those of the job in the same round, which should be at least 0.95. ``p50`` and ``p99``
are times from the request to the end of its answer, in seconds, with all clients at work; ``alone`` is the p50 of one
client.
"""

from __future__ import annotations

import argparse
import http.client
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from benchmarks.pixels import photograph
from benchmarks.timing import header, write
from qwenvis import Encoder, jobs
from qwenvis.concurrency import threads

MODEL = "synthetic:qwen2-vl-2b"


@contextmanager
def service(model: str, count: int) -> Iterator[int]:
    """Run a service; yield its port."""
    command = [sys.executable, "-m", "qwenvis", "serve", "--model", model, "--port", "0", "--threads", str(count)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = (re.search(r"serving on http://\S+:(\d+)", line) for line in process.stderr)
            yield int(next(found[1] for found in lines if found))
        finally:
            process.terminate()


def answered(port: int, file: Path) -> float:
    """Send an image, and read its tokens; return the seconds."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/v1/encode", file.read_bytes())
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()
    return time.perf_counter() - start


def load(port: int, files: Sequence[Path], clients: int) -> tuple[float, list[float]]:
    """Let clients send all images; return the seconds of all, and of each answer."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        each = list(pool.map(lambda file: answered(port, file), files))
    return time.perf_counter() - start, each


def job(encoder: Encoder, files: Sequence[Path], place: Path) -> float:
    """Run a job over all images; return the seconds."""
    start = time.perf_counter()
    jobs.run(encoder, list(map(str, files)), place)
    return time.perf_counter() - start


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Alternate job and service."""
    with TemporaryDirectory() as directory:
        files = [Path(directory) / f"{number}.jpg" for number in range(arguments.images)]
        for number, file in enumerate(files):
            side = arguments.sides[number % len(arguments.sides)]
            photograph(file, side, side)
        encoder = Encoder.from_pretrained(arguments.model, threads=arguments.threads)
        with service(arguments.model, arguments.threads) as port:
            answered(port, files[0])
            alone = [answered(port, file) for file in files[: 2 * len(arguments.sides)]]
            ratios, rates, times = [], [], []
            for number in range(arguments.rounds):
                seconds = job(encoder, files, Path(directory) / f"job{number}")
                served, each = load(port, files, arguments.clients)
                ratios.append(seconds / served)
                print(f"round {number}: job {seconds:.1f} s, service {served:.1f} s", flush=True)
                rates.append(len(files) / served)
                times += each
    cuts = quantiles(times, n=100)
    found = {"images/s": median(rates), "ratio": median(ratios), "p50": cuts[49], "p99": cuts[98]}
    return {**found, "alone": median(alone)}


def main() -> None:
    """Print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--sides", type=int, nargs="+", default=[112, 168, 224], help="of the square images, in pixels")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int, default=threads.resolve())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    print(header(arguments.threads))
    found = measure(arguments)
    for name, value in found.items():
        print(f"{name:10s}{value:10.2f}")
    write(arguments.json, found)


if __name__ == "__main__":
    main()
