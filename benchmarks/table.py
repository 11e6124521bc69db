"""Markdown tables of the results of `benchmarks.peers`, one for each machine, printed or written into a page.

python -m benchmarks.table benchmarks/results/peers-*.json --into README.md

In the page the tables replace the text between two comments, which stay.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from benchmarks.engines import NAMES
from benchmarks.measured import FORMATS, cases, engine, read

BEGIN, END = "<!-- python -m benchmarks.table -->", "<!-- end of the table -->"


def tables(paths: list[Path], formats: list[str]) -> str:
    """Return one table per machine, for all runs with the same CPU, instruction set and number of threads."""
    machines: dict[str, list[Path]] = {}
    for path in paths:
        run = read(path)
        machine = f"{run['cpu']}, ISA {run['isa']}, {run['rows'][0]['threads']} threads"
        machines.setdefault(machine, []).append(path)
    return "\n\n".join(table(machine, runs, formats) for machine, runs in machines.items())


def table(machine: str, paths: list[Path], formats: list[str]) -> str:
    """Return a table with one line per case and format, and one column per engine; the fastest engine is bold."""
    found = sorted(cases(paths).items(), key=lambda item: item[1][0]["patches"])
    rows = [row for _, measured in found for row in measured]
    engines = [name for name in NAMES if any(engine(row) == name for row in rows)]
    lines = [["tower", "input", "format", *(head(name, rows) for name in engines)]]
    lines.append(["---"] * len(lines[0]))
    for case, measured in found:
        for format in formats:
            of = {engine(row): row for row in measured if row["format"] == format}
            if of:
                lines.append([*case, FORMATS[format], *(cell(of.get(name), of) for name in engines)])
    return "\n".join([title(machine, paths), "", *(f"| {' | '.join(line)} |" for line in lines)])


def title(machine: str, paths: list[Path]) -> str:
    """Return the title of a table: the machine, and the command of each run."""
    commands = [f"`{command}`" for path in paths if (command := read(path).get("command"))]
    if len(commands) > 1:
        return "\n".join([f"{machine}, {len(commands)} runs:", "", *(f"- {command}" for command in commands)])
    return ", ".join([machine, *commands]) + ":"


def head(name: str, rows: list[dict[str, Any]]) -> str:
    """Return the head of a column: an engine, and its version if known."""
    versions = next((row["versions"] for row in rows if engine(row) == name), {})
    names = [NAMES[name], *list(versions)[1:]]
    return ", ".join(f"{n} {short(v)}" for n, v in zip(names, versions.values(), strict=False)) or NAMES[name]


def short(version: str) -> str:
    """Return the first two numbers of a version."""
    return ".".join(version.split(".")[:2])


def cell(row: dict[str, Any] | None, others: dict[str, dict[str, Any]]) -> str:
    """Return a cell: seconds and the fraction of the peak."""
    if row is None:
        return ""
    fraction = "" if row["fraction"] is None else f" ({row['fraction']:.2f})"
    text = f"{row['median']:#.3g}".rstrip(".") + fraction
    fastest = row["median"] == min(other["median"] for other in others.values())
    return f"**{text}**" if fastest and len(others) > 1 else text


def main() -> None:
    """Print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, nargs="+", help="a file written by `python -m benchmarks.peers --json`")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--into", type=Path, help="a page that contains the two comments")
    arguments = parser.parse_args()
    made = tables(arguments.json, arguments.formats)
    if arguments.into is None:
        print(made)
        return
    page = arguments.into.read_text(encoding="utf-8")
    before, between, after = re.escape(BEGIN), r".*?", re.escape(END)
    page, count = re.subn(before + between + after, lambda _: f"{BEGIN}\n{made}\n{END}", page, flags=re.DOTALL)
    if count != 1:
        parser.error(f"{arguments.into} has {count} tables between {BEGIN} and {END}; expected 1")
    arguments.into.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
