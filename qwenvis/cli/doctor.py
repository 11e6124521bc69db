"""``qwenvis doctor``: the features of this machine, and the choices that follow from them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from qwenvis.cli import arguments, machine, units
from qwenvis.errors import QwenvisError

SUMMARY = "report the capabilities of this machine: instruction sets, formats, threads, OpenMP, speed"
DESCRIPTION = """\
Print the facts that a bug report needs: versions, instruction sets, formats, threads, OpenMP, speed and caches.
The exit code is 0 if images can be encoded on this machine, else 1.
"""
EXAMPLES = """\
  qwenvis doctor
  qwenvis doctor --json
  QWENVIS_ISA=avx2 qwenvis doctor
"""
FREE = 0.93  # of the CPUs: less means that other programs are running
NAMES = {"numpy": "NumPy", "PIL": "Pillow"}  # of libraries whose modules have other names


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print all facts, each problem once; return the exit code."""
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name, fact in machine.FACTS.items():
        title, words = WORDS[name]
        try:
            found[name] = fact()
            text = words(found[name])
        except (QwenvisError, ImportError) as error:
            found[name] = None
            text = "unknown, because of the problem above" if str(error) in problems else f"PROBLEM: {error}"
            problems += [str(error)] * (str(error) not in problems)
        if not args.json:
            print(f"{title:<12}{text}", flush=True)
    if args.json:
        arguments.print_json({**found, "problems": problems})
    if problems:
        print("qwenvis: no image can be encoded on this machine until the problem is solved", file=sys.stderr)
        return 1
    if not args.json:
        print("No problems found.")
    return 0


def _version(fact: dict[str, Any]) -> str:
    return f"{fact['version']} in {', '.join(fact['path'])}"


def _python(fact: dict[str, str]) -> str:
    return f"{fact['version']}, {fact['system']} {fact['machine']}"


def _libraries(fact: dict[str, str]) -> str:
    return ", ".join(f"{NAMES.get(module, module)} {version}" for module, version in fact.items())


def _extras(fact: dict[str, dict[str, Any]]) -> str:
    return "; ".join(_extra(package, found) for package, found in fact.items())


def _extra(package: str, found: dict[str, Any]) -> str:
    """Describe a package of an extra, installed or not, and its purpose."""
    extra, purpose = machine.EXTRAS[package]
    if found["version"] is None:
        return f"no {package}: pip install 'qwenvis[{extra}]' for {purpose} ({found['error']})"
    codecs = f" with libavcodec {found['libavcodec']}" if "libavcodec" in found else ""
    return f"{package} {found['version']}{codecs}, for {purpose}"


def _cpu(fact: dict[str, Any]) -> str:
    return f"{fact['model']}, {fact['count']} CPUs"


def _isa(fact: dict[str, Any]) -> str:
    isas = [name if present else f"{name} (not on this CPU)" for name, present in fact["compiled"].items()]
    choice = "forced by QWENVIS_ISA" if fact["forced"] else "the best available"
    return f"{fact['name']}, {choice}; compiled: {', '.join(isas)}"


def _formats(fact: dict[str, dict[str, bool]]) -> str:
    """List the dtypes of weights, and how this CPU multiplies those that it expands, or quantises rows for."""
    expanded, quantized = " (stored; multiplied as float32)", " (inputs of linear layers are quantised too)"
    return ", ".join(
        f"{dtype}{expanded * each['expanded']}{quantized * each['quantized']}" for dtype, each in fact.items()
    )


def _threads(fact: dict[str, Any]) -> str:
    if variable := fact["variable"]:
        return f"{fact['count']}, from {variable}={os.environ[variable]} ({fact['available']} CPUs are available)"
    quota = fact["available"] < fact["affinity"]
    return f"{fact['count']}, {'the quota of this cgroup' if quota else 'the CPUs that this process may use'}"


def _openmp(fact: dict[str, Any]) -> str:
    if fact["version"] is None:
        return "none: this build starts its threads itself"
    return f"{fact['version']}, {', '.join(fact['runtimes']) or 'runtime library unknown'}"


def _load(fact: dict[str, Any]) -> str:
    """Describe the load, and what it costs at this moment."""
    share, count = fact["cpu_share"], fact["cpus"]
    average = "load average unknown"
    if fact["average"] is not None:
        average = f"{fact['average']:.1f} programs on {os.cpu_count() or 1} CPUs in the last minute"
    told = f"{average}; products got {share:.0%} of {count} CPU{'s' * (count > 1)}"
    if share >= FREE:
        return f"{told}: the machine is free"
    return f"{told}: other programs are running, and a call takes about {1 / share:.1f} times as long as without them"


def _speed(fact: dict[str, Any]) -> str:
    formats = fact["formats"].items()
    speeds = [f"{format} products {units.speed(speed['rate'], speed['peak'])}" for format, speed in formats]
    return f"{'; '.join(speeds)}, on {fact['threads']} thread{'s' * (fact['threads'] > 1)}"


def _memory(fact: dict[str, int]) -> str:
    if not fact:
        return "unknown"
    return f"{units.nbytes(fact['available'])} available of {units.nbytes(fact['total'])}"


def _place(noun: str) -> Callable[[dict[str, Any]], str]:
    """Return the words for a cache directory and the number of its entries."""

    def words(fact: dict[str, Any]) -> str:
        count = fact["entries"]
        if count is None:
            return f"{fact['path']} cannot be read: {fact['error']}"
        return f"{fact['path']}: {count or 'no'} {noun}{'s' * (count != 1)}"

    return words


# The title of each fact, and the function that puts it into words.
WORDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "qwenvis": ("qwenvis", _version),
    "python": ("Python", _python),
    "libraries": ("libraries", _libraries),
    "extras": ("extras", _extras),
    "cpu": ("CPU", _cpu),
    "isa": ("ISA", _isa),
    "formats": ("formats", _formats),
    "threads": ("threads", _threads),
    "openmp": ("OpenMP", _openmp),
    "load": ("load", _load),
    "speed": ("speed", _speed),
    "memory": ("memory", _memory),
    "hub_cache": ("Hub cache", _place("model")),
    "synthetic_cache": ("cache", _place("synthetic checkpoint")),
    "tower_cache": ("towers", _place("downloaded tower")),
}
