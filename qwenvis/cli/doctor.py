"""``qwenvis doctor``: the features of this machine, and the choices that follow from them."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

from qwenvis.cli import units
from qwenvis.errors import QwenvisError

if TYPE_CHECKING:
    from pathlib import Path

SUMMARY = "report the capabilities of this machine: instruction sets, formats, threads, OpenMP, speed"
DESCRIPTION = """\
Print the facts that a bug report needs: versions, instruction sets, formats, threads, OpenMP, speed and caches.
The exit code is 0 if images can be encoded on this machine, else 1.
"""
EXAMPLES = """\
  qwenvis doctor
  QWENVIS_ISA=avx2 qwenvis doctor
"""
LIBRARIES = {"NumPy": "numpy", "Pillow": "PIL", "safetensors": "safetensors", "ml_dtypes": "ml_dtypes"}
EXTRAS = (
    ("gguf", "gguf", "the mmproj files of llama.cpp"),
    ("av", "video", "videos"),
    ("huggingface_hub", "hub", "Hub ids that no cache holds"),
    ("pyarrow", "arrow", "Embeddings.to_arrow"),
)
FREE = 0.93  # of the CPUs: less means that other programs are running
RUNTIMES = ("libgomp", "libomp", "libiomp", "vcomp")  # files of OpenMP runtimes: GCC, LLVM, Intel, Microsoft


def add(parser: argparse.ArgumentParser) -> None:
    """Add no arguments: the command always prints everything."""


def run(args: argparse.Namespace) -> int:
    """Print all lines, each problem once; return the exit code."""
    problems: set[str] = set()
    for title, line in LINES.items():
        try:
            text = line()
        except (QwenvisError, ImportError) as error:
            text = "unknown, because of the problem above" if str(error) in problems else f"PROBLEM: {error}"
            problems.add(str(error))
        print(f"{title:<12}{text}", flush=True)
    if problems:
        print("qwenvis: no image can be encoded on this machine until the problem is solved", file=sys.stderr)
        return 1
    print("No problems found.")
    return 0


def _version() -> str:
    import qwenvis

    return f"{qwenvis.__version__} in {', '.join(qwenvis.__path__)}"


def _python() -> str:
    import platform

    return f"{platform.python_version()}, {platform.system()} {platform.machine()}"


def _libraries() -> str:
    return ", ".join(f"{name} {importlib.import_module(module).__version__}" for name, module in LIBRARIES.items())


def _extras() -> str:
    return "; ".join(_extra(*row) for row in EXTRAS)


def _extra(package: str, extra: str, purpose: str) -> str:
    """Describe a package of an extra, installed or not, and its purpose."""
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        return f"no {package}: pip install 'qwenvis[{extra}]' for {purpose} ({error})"
    inside = getattr(module, "library_versions", {}).get("libavcodec")
    codecs = f" with libavcodec {'.'.join(map(str, inside))}" if inside else ""
    return f"{package} {metadata.version(package)}{codecs}, for {purpose}"


def _cpu() -> str:
    import platform

    models = (line.partition(":")[2].strip() for line in _proc("cpuinfo") if line.startswith("model name"))
    return f"{next(models, platform.processor() or 'unknown')}, {os.cpu_count()} CPUs"


def _isa() -> str:
    from qwenvis import ops

    forced = os.environ.get("QWENVIS_ISA")
    isas = [name if present else f"{name} (not on this CPU)" for name, present in ops.isas().items()]
    return f"{ops.isa()}, {'forced by QWENVIS_ISA' if forced else 'the best available'}; compiled: {', '.join(isas)}"


def _formats() -> str:
    """List the dtypes of weights, and how this CPU multiplies those that it expands, or quantises rows for."""
    from qwenvis import ops
    from qwenvis.nn.formats import DTYPES

    facts = ops.formats()
    expanded, quantized = " (stored; multiplied as float32)", " (inputs of linear layers are quantised too)"
    uses = {name: expanded * format.expanded + quantized * format.quantized for name, format in facts.items()}
    return ", ".join(f"{dtype}{uses[format]}" for dtype, format in DTYPES.items())


def _threads() -> str:
    from qwenvis.concurrency import threads

    count, available = threads.resolve(), threads.available()
    variable = next((name for name in threads.VARIABLES if os.environ.get(name, "").strip()), None)
    if variable:
        return f"{count}, from {variable}={os.environ[variable]} ({available} CPUs are available)"
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    source = "the quota of this cgroup" if available < affinity else "the CPUs that this process may use"
    return f"{count}, {source}"


def _openmp() -> str:
    from qwenvis import ops

    if not ops.openmp:
        return "none: this build starts its threads itself"
    files = {words[5] for line in _proc("self/maps") if len(words := line.split(maxsplit=5)) == 6}
    loaded = sorted(file for file in files if file.rpartition("/")[2].startswith(RUNTIMES))
    return f"{ops.openmp}, {', '.join(loaded) or 'runtime library unknown'}"


def _load() -> str:
    """Describe the load, and what it costs at this moment: the load average tells of the last minute."""
    from qwenvis import ops
    from qwenvis.concurrency import threads
    from qwenvis.cost import cpu_share

    count = ops.granted_threads(min(threads.resolve(), threads.available()))
    share = cpu_share(count)
    cpus = f"{count} CPU{'s' * (count > 1)}"
    told = f"{_load_average()}; products got {share:.0%} of {cpus}"
    if share >= FREE:
        return f"{told}: the machine is free"
    return f"{told}: other programs are running, and a call takes about {1 / share:.1f} times as long as without them"


def _load_average() -> str:
    try:
        return f"{os.getloadavg()[0]:.1f} programs on {os.cpu_count() or 1} CPUs in the last minute"
    except (AttributeError, OSError):  # Windows has none
        return "load average unknown"


def _speed() -> str:
    from qwenvis import ops
    from qwenvis.concurrency.threads import resolve
    from qwenvis.cost import best_rates

    threads = resolve()
    formats = [name for name, format in ops.formats().items() if not format.expanded]
    speeds = [f"{format} products {units.speed(*best_rates(threads, format))}" for format in formats]
    return f"{'; '.join(speeds)}, on {threads} thread{'s' * (threads > 1)}"


def _memory() -> str:
    sizes = {words[0]: 1024 * int(words[1]) for line in _proc("meminfo") if len(words := line.split()) == 3}
    if not sizes:
        return "unknown"
    return f"{units.nbytes(sizes['MemAvailable:'])} available of {units.nbytes(sizes['MemTotal:'])}"


def _hub() -> str:
    from qwenvis.sources.caches import hub_cache

    return _place(hub_cache(), "models--*", "model")


def _synthetic() -> str:
    from qwenvis.sources.caches import cache_root

    return _place(cache_root(), "*-v[0-9]*", "synthetic checkpoint")


def _towers() -> str:
    from qwenvis.sources.caches import cache_root

    return _place(cache_root() / "towers", "models--*/[!.]*", "downloaded tower")


def _proc(name: str) -> list[str]:
    """Return the lines of a file in /proc, or no lines if the file does not exist."""
    from pathlib import Path

    try:
        return Path("/proc", name).read_text(errors="replace").splitlines()
    except OSError:
        return []


def _place(directory: Path, pattern: str, noun: str) -> str:
    """Describe a cache directory and the number of its entries."""
    try:
        found = len(list(directory.glob(pattern)))
    except OSError as error:
        return f"{directory} cannot be read: {error.strerror}"
    return f"{directory}: {found or 'no'} {noun}{'s' * (found != 1)}"


LINES: dict[str, Callable[[], str]] = {
    "qwenvis": _version,
    "Python": _python,
    "libraries": _libraries,
    "extras": _extras,
    "CPU": _cpu,
    "ISA": _isa,
    "formats": _formats,
    "threads": _threads,
    "OpenMP": _openmp,
    "load": _load,
    "speed": _speed,
    "memory": _memory,
    "Hub cache": _hub,
    "cache": _synthetic,
    "towers": _towers,
}
