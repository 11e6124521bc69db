"""A whole tower, alternating with other engines in one process: seconds, and the fraction of the peak of each case.

python -m benchmarks.peers --json peers.json
python -m benchmarks.peers --cases synthetic:qwen2-vl-2b/448 --engines qwenvis-bf16 openvino-bf16 --minutes 2

Without ``--cases`` the benchmark takes more than an hour on two cores. With ``--minutes`` no round of a case begins
after that many minutes, except the first. Each case runs in a process of its own. The JSON, which `benchmarks.plot` and
`benchmarks.table` read, is written after each case.

All engines have the same weights, patches and number of threads. GFLOP/s count the work that the tower needs, which is
the same for all engines: for still images the patch embedding is counted once, though only qwenvis computes it once.
The fraction is relative to the instruction peak of the engine's format: the median of the peaks around all runs of the
case. int8 has no peak. ``error`` is the largest deviation from transformers in float32, relative to its largest value.
In seconds, ``convert`` is the conversion to the engine's own file, which needs torch and is done once; ``build`` turns
this file, or the checkpoint, into an engine, including the imports of every package except qwenvis; ``first`` is the
first call. For zentorch it is the second call: the first call compiles, and counts as ``build``.

The engines do not disturb one another. After a call, OpenMP's workers (torch and zentorch share one libgomp and one
pool) spin for 10 ms, qwenvis's for 150 us, ONNX Runtime's for 40 ms, OpenVINO's for 1 ms, and no engine leaves the
process pinned. ONNX Runtime is set to stop spinning after a call, and every call is between two pauses that are longer
than the remaining spinning. All engines thus keep their usual wait policy: OMP_WAIT_POLICY=passive would slow the
OpenMP engines at each of their loops. On cores that other programs use, this policy costs OpenMP engines far more than
the others: measure on idle cores.

All engines on a tower of 665 million parameters take 13 GB of memory at 1024 patches, 16 GB at 6144, and 7 GB of disk.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.conversions import Work, convert, deviation, in_a_process, reason
from benchmarks.encoder import CASES
from benchmarks.engines import ENGINES, Run, versions
from benchmarks.measured import with_fractions
from benchmarks.timing import Measurement, alternate, header, within, write
from qwenvis import cost
from qwenvis.concurrency import threads

PAUSE = 0.05  # seconds: OpenMP's workers spin for 10 ms
# The cases that are measured by default.
TABLE = [
    *(f"synthetic:qwen2-vl-2b/{name}" for name in ("224", "448", "video8x224")),
    "synthetic:qwen2.5-vl-3b/448",
    *(f"synthetic:{name}/1344x896" for name in ("qwen2-vl-2b", "qwen2.5-vl-3b")),  # the longest case last
]
BY_NAME_ONLY = {"openvino-i8"}  # its quantisation takes a minute


@dataclass
class Built:
    """An engine that is ready: the error of its first call, and the seconds that the preparation took."""

    run: Run
    error: float | None
    convert: float
    build: float
    first: float


def leave_out(what: str, why: str) -> None:
    """Print which row is left out of the table, and why."""
    print(f"{what} is left out: {why}", file=sys.stderr)


def build(work: Work, names: list[str]) -> dict[str, Built]:
    """Build the engines that are installed and support this tower, and call each once."""
    made = {"": 0.0, **convert(work, {ENGINES[name].file for name in names} - {""})}
    tokens = np.load(work.file("tokens")) if isinstance(made["tokens"], float) else None
    if tokens is None:
        leave_out("the error", made["tokens"])
    built: dict[str, Built] = {}
    for name in names:
        seconds = made[ENGINES[name].file]
        try:
            if isinstance(seconds, str):
                leave_out(name, seconds)
            else:
                built[name] = _first_call(work, name, seconds, tokens)
        except Exception as error:
            leave_out(name, reason(error))
    return built


def _first_call(work: Work, name: str, convert: float, expected: np.ndarray | None) -> Built:
    start = time.perf_counter()
    run = ENGINES[name].build(work)
    ready = time.perf_counter()
    tokens = run()
    first = time.perf_counter() - ready
    error = None if expected is None else deviation(tokens, expected)
    return Built(run, error, convert, ready - start, first)


def has_peak(format: str) -> bool:
    """Whether an instruction peak can be measured for a format."""
    try:
        return bool(cost.peak_rate(1, format))
    except ValueError:
        return False


def row(name: str, engine: Built, run: Measurement, work: Work) -> dict[str, object]:
    """Return one line of the table, as stored in the JSON."""
    flops = work.cost.flops
    return {
        "model": work.model,
        "case": work.case,
        "patches": work.cost.patches,
        "threads": work.threads,
        "engine": name,
        "versions": versions(name),
        "format": ENGINES[name].format,
        "seconds": run.seconds,
        "peaks": run.peaks,
        "flops": flops,
        "median": run.median,
        "error": engine.error,
        "convert": engine.convert,
        "build": engine.build,
        "first": engine.first,
    }


def line(row: dict[str, object]) -> str:
    """Format a row for the terminal."""
    fraction = "-" if row["fraction"] is None else f"{row['fraction']:.3f}"
    error = "-" if row["error"] is None else f"{row['error']:.1e}"
    costs = "".join(f"{row[name]:9.1f}" for name in ("convert", "build", "first"))
    rate = row["flops"] / row["median"] / 1e9
    return f"{row['engine']:18s}{row['median']:9.3f}{rate:9.1f}{fraction:>10s}{error:>10s}{costs}"


def measure(work: tuple[str, str, int, Path], names: list[str], rounds: int, minutes: float) -> list[dict[str, object]]:
    """Measure one case and return its rows; ``work`` holds the arguments of `Work`."""
    case = Work(*work)
    engines = build(case, names)
    formats = {name: ENGINES[name].format for name in engines}
    peaks = {format: format if has_peak(format) else None for format in set(formats.values())}
    contenders = {name: engine.run for name, engine in engines.items()}
    formats_with_peak = {name: peaks[format] for name, format in formats.items()}
    turns = within(minutes, rounds)
    runs = alternate(contenders, turns, case.threads, formats_with_peak, warm_up=False, pause=PAUSE)
    return with_fractions([row(name, engine, runs[name], case) for name, engine in engines.items()])


def report(rows: list[dict[str, object]]) -> None:
    """Print the lines of one case."""
    first = rows[0]
    print(f"\n{first['model']}/{first['case']}: {first['patches']} patches, {first['flops'] / 1e9:.0f} GFLOP")
    columns = ("seconds", "GFLOP/s", "fraction", "error", "convert", "build", "first")
    print(f"{'engine':18s}" + "".join(f"{name:>{10 if name in ('fraction', 'error') else 9}s}" for name in columns))
    print(*map(line, rows), sep="\n", flush=True)


def case(text: str) -> tuple[str, str]:
    """Split MODEL/CASE into a model and the name of a case."""
    model, _, name = text.rpartition("/")
    if not model or name not in CASES:
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL/CASE, where CASE is one of {', '.join(CASES)}")
    return model, name


def main() -> None:
    """Print one line per case and engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", type=case, default=list(map(case, TABLE)), metavar="MODEL/CASE")
    everywhere = [name for name in ENGINES if name not in BY_NAME_ONLY]
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=everywhere, metavar="ENGINE")
    parser.add_argument("--threads", type=int, default=threads.resolve())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="time limit for the rounds of a case, in minutes"
    )
    parser.add_argument("--json")
    arguments = parser.parse_args()
    print(header(arguments.threads))
    rows: list[dict[str, object]] = []
    for model, name in arguments.cases:
        with TemporaryDirectory() as directory:
            work = model, name, arguments.threads, Path(directory)
            try:
                found = in_a_process(measure, work, arguments.engines, arguments.rounds, arguments.minutes)
            except Exception as error:
                leave_out(f"{model}/{name}", reason(error))
                continue
        if found:
            report(found)
            rows += found
            write(arguments.json, rows)


if __name__ == "__main__":
    main()
