"""The cost of a busy machine: whole towers beside programs that compute without pause, and without them.

    python -m benchmarks.busy --cases synthetic:qwen2-vl-2b/448 synthetic:qwen2-vl-2b/224 small/60x112

Contenders are this package on several threads and on one, and with ``--against DIR`` the package in another directory.
Each is a process of its own; they run in turn, each alone with its busy programs. ``/ share`` is the ratio to the
quiet time, divided by the fair share: with t threads and b busy programs on c CPUs, (t + b) / c, but at least 1. 1.00
means that the time of the CPUs is all that is lost. ``small`` is a qwen2_vl tower of 7 blocks with embed_dim 512, and
``60x112`` 60 calls, each with an image of 112 x 112.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from benchmarks.encoder import CASES
from benchmarks.timing import header, write
from qwenvis import models
from qwenvis.concurrency.threads import available
from qwenvis.sources.presets import PRESETS

ROOT = Path(__file__).parents[1]
CALLS, SIDE = 60, 112
SMALL = {"depth": 7, "embed_dim": 512, "num_heads": 8}
START = 0.3  # seconds until a busy program computes

PROGRAM = """
import sys, time
package, root, *case = sys.argv[1:]
sys.path.insert(0, package)
import qwenvis
sys.path.insert(0, root)  # the benchmarks are always those of this directory
from benchmarks.busy import work
run = work(*case)
run()
print(0, flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    run()
    print(time.perf_counter() - start, flush=True)
"""
BUSY = "while True:\n    pass"


def write_small(directory: Path) -> str:
    """Write a checkpoint of the small tower, with random weights; return its path."""
    preset = PRESETS["tiny-qwen2-vl"]
    config = {**preset.config, "vision_config": {**preset.vision_config, **SMALL}}
    rng = np.random.default_rng(0)
    requests = models.build(preset.family, config["vision_config"], {})[1].requests
    drawn = {r.name: 0.02 * rng.standard_normal(r.shape, np.float32) for r in requests}
    tensors = {preset.prefix + name: array.astype(ml_dtypes.bfloat16) for name, array in drawn.items()}
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(preset.preprocessor))
    return str(directory)


def work(model: str, case: str, dtype: str, threads: str):  # type: ignore[no-untyped-def]
    """Return the function that a contender runs."""
    from benchmarks.encoder import inputs
    from qwenvis import Encoder

    encoder = Encoder.from_pretrained(model, dtype=dtype, threads=int(threads))
    if case in CASES:
        pixel_values, grid = inputs(encoder, CASES[case])
        return lambda: encoder(pixel_values, grid)
    images = np.random.default_rng(0).integers(0, 256, (CALLS, SIDE, SIDE, 3), np.uint8)
    return lambda: [encoder.encode(image) for image in images]


class Contender:
    """A process with an encoder, which runs it when asked."""

    def __init__(self, package: Path, threads: int, *case: str) -> None:
        self.threads = threads
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, str(package), str(ROOT), *case, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def seconds(self, busy: int) -> float:
        """Run once beside ``busy`` programs; return the seconds."""
        with programs(busy):
            assert self._process.stdin
            print(file=self._process.stdin, flush=True)
            return self._answer()

    def end(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> float:
        assert self._process.stdout
        return float(self._process.stdout.readline())


@contextmanager
def programs(busy: int) -> Iterator[None]:
    """Run programs that compute without pause."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        time.sleep(START if busy else 0)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(contenders: dict[str, Contender], busy: list[int], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Run the contenders in turn; return the seconds of each by the number of busy programs."""
    found: dict[str, dict[int, list[float]]] = {name: {count: [] for count in busy} for name in contenders}
    for _ in range(rounds):
        for count in busy:
            for name, contender in contenders.items():
                found[name][count].append(contender.seconds(count))
    return found


def main() -> None:
    """Print one line per case and contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["synthetic:qwen2-vl-2b/448", "small/60x112"])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=available())
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 1, 2], help="numbers of busy programs, first 0")
    parser.add_argument("--against", type=Path, help="the directory of another build of the package")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    packages = {"this": ROOT} | ({"other": arguments.against} if arguments.against else {})
    print(header(arguments.threads))
    print(f"{'case':32s} {'package':7s} {'threads':>7s}" + "".join(f" {b:5d} busy / share" for b in arguments.busy))
    rows: list[dict[str, object]] = []
    with TemporaryDirectory() as directory:
        small = write_small(Path(directory))
        for text in arguments.cases:
            model, _, case = text.rpartition("/")
            about = (small if model == "small" else model, case, arguments.dtype)
            with ExitStack() as stack:
                contenders = {}
                for name, package in packages.items():
                    for threads in sorted({arguments.threads, 1}, reverse=True):
                        contender = contenders[f"{name:7s} {threads:7d}"] = Contender(package, threads, *about)
                        stack.callback(contender.end)
                found = measure(contenders, arguments.busy, arguments.rounds)
            for name, contender in contenders.items():
                print(f"{text:32s} {name}" + shares(found[name], contender.threads), flush=True)
                rows.append({"case": text, "contender": name.split(), "seconds": found[name]})
    write(arguments.json, rows)


def shares(found: dict[int, list[float]], threads: int) -> str:
    """Format the median seconds beside each number of busy programs, and their ratio to the fair share."""
    quiet = median(found[min(found)])
    fair = {busy: max(1.0, (threads + busy) / available()) for busy in found}
    return "".join(f" {median(s):10.3f} {median(s) / quiet / fair[busy]:7.3f}" for busy, s in found.items())


if __name__ == "__main__":
    main()
