"""Instruction peaks: multiply-adds that stay in registers, by ISA, format and number of threads.

python -m benchmarks.peak
"""

from __future__ import annotations

import argparse
import itertools
from statistics import median

from benchmarks.timing import header, write
from qwenvis import cost, ops
from qwenvis.concurrency import threads


def main() -> None:
    """Print one line per ISA and thread count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=threads.resolve(), help="largest number of threads")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    print(header(arguments.threads))
    print(f"{'ISA':14s} {'format':6s} {'threads':>7s} {'median GFLOP/s':>15s} {'best':>8s}")
    rows: list[dict[str, object]] = []
    for isa in [isa for isa, present in ops.isas().items() if present]:
        ops.use_isa(isa)
        formats = [name for name, format in ops.formats().items() if not format.expanded]
        for name, count in itertools.product(formats, sorted({1, arguments.threads})):
            rates = [cost.peak_rate(count, name) / 1e9 for _ in range(arguments.rounds)]
            print(f"{isa:14s} {name:6s} {count:7d} {median(rates):15.1f} {max(rates):8.1f}", flush=True)
            rows.append({"isa": isa, "format": name, "threads": count, "rates": rates})
    write(arguments.json, rows)


if __name__ == "__main__":
    main()
