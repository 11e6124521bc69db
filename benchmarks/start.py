"""A cold process to its first tokens beside a warm encode, its memory, and the page faults of each call.

python -m benchmarks.start --model synthetic:qwen2-vl-2b --side 448

Every line is a process of its own, the files in the page cache: a first process that is not counted puts them there.
In seconds, ``python`` is the start of the interpreter, ``import`` that of the package and of NumPy, ``open`` the
reading of configs and headers, ``load`` the reading and packing of the weights, ``first`` the first encode and ``warm``
the median of later ones; ``cold - warm`` is what the process needs until its first tokens beyond a warm encode. ``RSS``
is the largest in the life of the process, its workspace included, as Linux tells it (getrusage would tell that of the
parent, if that is larger). ``faults`` are the minor page faults of the first encode, of the second, and of the later
ones together; tokens are let go of before the next call.

With ``--packed`` a process maps what `Encoder.save_packed` has written, and ``RSS`` counts the pages of that file.

How long a fresh page takes depends on what ran before on the machine and its host, so the smallest load of several
rounds says most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.timing import header, write
from qwenvis import Encoder
from qwenvis.concurrency import threads

PROGRAM = """
import time
times = [time.monotonic()]
import json, resource, sys
import numpy as np
from qwenvis import Encoder
from qwenvis.spec import ModelSpec
model, dtype, side, threads, calls = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
times.append(time.monotonic())
spec = ModelSpec.open(model, dtype=dtype)
times.append(time.monotonic())
encoder = Encoder.from_spec(spec, threads=threads)
picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
faults = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
times.append(time.monotonic())
for _ in range(calls):
    encoder.encode(picture)
    times.append(time.monotonic())
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
rss = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"times": times, "faults": np.diff(faults).tolist(), "rss": rss, "isa": encoder.isa}))
"""
STEPS = ("python", "import", "open", "load", "first")


def measure(model: str, dtype: str, side: int, count: int, calls: int) -> dict[str, object]:
    """One process: the seconds of its steps, and its memory."""
    start = time.monotonic()  # one clock for all processes
    command = [sys.executable, "-c", PROGRAM, model, dtype, *map(str, (side, count, calls))]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    times = [start, *found.pop("times")]
    seconds = [after - before for before, after in pairwise(times)]
    warm = median(seconds[len(STEPS) :])
    steps = dict(zip(STEPS, seconds, strict=False))
    return {"dtype": dtype, **steps, "warm": warm, "cold - warm": sum(steps.values()) - warm, **found}


def sources(model: str, dtypes: list[str], packed: Path | None) -> dict[str, str]:
    """What each dtype is loaded from: the model, or its packed weights in a directory."""
    if packed is None:
        return dict.fromkeys(dtypes, model)
    for dtype in dtypes:
        Encoder.from_pretrained(model, dtype=dtype).save_packed(packed / dtype)
    return {dtype: str(packed / dtype) for dtype in dtypes}


def line(row: dict[str, object]) -> str:
    """A row for the reader."""
    seconds = "".join(f"{row[name]:8.2f}" for name in STEPS)
    first, second, *later = row["faults"]
    return (
        f"{row['dtype']:10s}{seconds}{row['warm']:8.2f}{row['cold - warm']:13.2f}{row['rss'] / 1e9:8.2f}"
        f"{first:9d}{second:9d}{sum(later):9d}"
    )


def main() -> None:
    """Print one line per process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:qwen2-vl-2b")
    parser.add_argument("--side", type=int, default=448, help="of the square image, in pixels")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=threads.resolve())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=4, help="encodes of each process; at least 3")
    parser.add_argument("--packed", action="store_true", help="from packed weights, which are written first")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    arguments.calls = max(3, arguments.calls)
    print(header(arguments.threads))
    steps = "".join(f"{name:>8s}" for name in (*STEPS, "warm"))
    print(f"{'format':10s}{steps}{'cold - warm':>13s}{'RSS GB':>8s}{'faults':>9s}{'second':>9s}{'later':>9s}")
    given = arguments.side, arguments.threads, arguments.calls
    rows = []
    with TemporaryDirectory() as directory:
        found = sources(arguments.model, arguments.dtype, Path(directory) if arguments.packed else None)
        measure(found[arguments.dtype[0]], arguments.dtype[0], *given)
        for _ in range(arguments.rounds):
            for dtype in arguments.dtype:
                rows.append(measure(found[dtype], dtype, *given))
                print(line(rows[-1]), flush=True)
    about = {"model": arguments.model, "side": arguments.side, "packed": arguments.packed}
    write(arguments.json, [{**about, **row} for row in rows])


if __name__ == "__main__":
    main()
