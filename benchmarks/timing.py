"""Alternating measurements, and the peak of the window in which each was taken."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from qwenvis import __version__, cost, ops


@dataclass
class Measurement:
    """Runs of one contender: their seconds, and the instruction peak (flops per second) around each, if measured."""

    seconds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Return the median seconds of a run."""
        return median(self.seconds)

    def rate(self, flops: float) -> float:
        """Return the flops per second of the median run."""
        return flops / self.median

    def fraction(self, flops: float) -> float:
        """Return the median of the fractions of the peak, each within the window of its run."""
        return median(flops / s / p for s, p in zip(self.seconds, self.peaks, strict=True))


def alternate(
    contenders: Mapping[str, Callable[[], object]],
    rounds: Iterable[int],
    threads: int,
    formats: str | Mapping[str, str | None] = "f32",
    *,
    warm_up: bool = True,
    pause: float = 0.0,
) -> dict[str, Measurement]:
    """Run all contenders in turn, once per round after a warm-up, each between two measurements of its format's peak.

    - ``formats``: one format for all contenders, or one each; None for a format without a measured peak.
    - ``pause``: seconds before and after each run, during which workers of other engines stop spinning.
    """
    of = dict.fromkeys(contenders, formats) if isinstance(formats, str) else formats
    measured = {name: Measurement() for name in contenders}
    for run in contenders.values() if warm_up else ():
        run()
    for _ in rounds:
        for name, run in contenders.items():
            before = _peak(threads, of[name])
            time.sleep(pause)
            start = time.perf_counter()
            run()
            measured[name].seconds.append(time.perf_counter() - start)
            time.sleep(pause)
            measured[name].peaks += [(b + a) / 2 for b, a in zip(before, _peak(threads, of[name]), strict=True)]
    return measured


def within(minutes: float, rounds: int) -> Iterator[int]:
    """Yield up to ``rounds`` round numbers; after the time limit in minutes, no round begins except the first."""
    end = time.monotonic() + 60 * minutes
    for nth in range(rounds):
        if nth == 0 or time.monotonic() <= end:
            yield nth


def _peak(threads: int, format: str | None) -> list[float]:
    """Measure the peak of a format; return an empty list without a format."""
    return [cost.peak_rate(threads, format)] if format else []


def cpu() -> str:
    """Return the name of the CPU, from /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.processor()


def command() -> str:
    """Return the command of this process, in the notation of the docs of the benchmarks."""
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def header(threads: int) -> str:
    """Return the context of a table: its command, the machine, the build."""
    return f"{command()}\nqwenvis {__version__}, ISA {ops.isa()}, {threads} threads, {cpu()}"


def write(path: str | None, rows: list[dict[str, object]]) -> None:
    """Write the rows and their context as JSON, if a file is named."""
    if path:
        about = {"command": command(), "qwenvis": __version__, "cpu": cpu(), "isa": ops.isa()}
        Path(path).write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
