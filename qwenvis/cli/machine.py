"""The facts of this machine and installation that ``qwenvis doctor`` reports."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = ("numpy", "PIL", "safetensors", "ml_dtypes")
# Packages of extras: the extra, and what the package is for.
EXTRAS = {
    "gguf": ("gguf", "the mmproj files of llama.cpp"),
    "av": ("video", "videos"),
    "huggingface_hub": ("hub", "Hub ids that no cache holds"),
    "pyarrow": ("arrow", "Embeddings.to_arrow and Parquet files"),
    "argcomplete": ("completion", "qwenvis completion"),
}
RUNTIMES = ("libgomp", "libomp", "libiomp", "vcomp")  # files of OpenMP runtimes: GCC, LLVM, Intel, Microsoft


def _version() -> dict[str, Any]:
    import qwenvis

    return {"version": qwenvis.__version__, "path": list(qwenvis.__path__)}


def _python() -> dict[str, Any]:
    import platform

    return {"version": platform.python_version(), "system": platform.system(), "machine": platform.machine()}


def _libraries() -> dict[str, str]:
    return {module: importlib.import_module(module).__version__ for module in LIBRARIES}


def _extras() -> dict[str, dict[str, Any]]:
    return {package: _extra(package) for package in EXTRAS}


def _extra(package: str) -> dict[str, Any]:
    """Return the version of a package, or why it cannot be imported; of PyAV also that of libavcodec."""
    found: dict[str, Any] = {"version": None, "extra": EXTRAS[package][0]}
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        return {**found, "error": str(error)}
    found["version"] = metadata.version(package)
    codecs = getattr(module, "library_versions", {}).get("libavcodec")
    return {**found, "libavcodec": ".".join(map(str, codecs))} if codecs else found


def _cpu() -> dict[str, Any]:
    import platform

    models = (line.partition(":")[2].strip() for line in _proc("cpuinfo") if line.startswith("model name"))
    return {"model": next(models, platform.processor() or "unknown"), "count": os.cpu_count()}


def _isa() -> dict[str, Any]:
    """Return the instruction set, whether a variable forces it, and the compiled ones: whether this CPU has each."""
    from qwenvis import ops

    return {"name": ops.isa(), "forced": bool(os.environ.get("QWENVIS_ISA")), "compiled": ops.isas()}


def _formats() -> dict[str, dict[str, bool]]:
    """Return the dtypes of weights: whether this CPU expands each to float32, and whether it quantises rows too."""
    from qwenvis import ops
    from qwenvis.nn.formats import DTYPES

    formats = ops.formats()
    names = ("expanded", "quantized")
    return {dtype: {name: bool(getattr(formats[format], name)) for name in names} for dtype, format in DTYPES.items()}


def _threads() -> dict[str, Any]:
    """Return the number of threads, the available CPUs and those of the affinity, and the variable that decides."""
    from qwenvis.concurrency import threads

    variable = next((name for name in threads.VARIABLES if os.environ.get(name, "").strip()), None)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"count": threads.resolve(), "available": threads.available(), "affinity": affinity, "variable": variable}


def _openmp() -> dict[str, Any]:
    from qwenvis import ops

    files = {words[5] for line in _proc("self/maps") if len(words := line.split(maxsplit=5)) == 6}
    loaded = sorted(file for file in files if file.rpartition("/")[2].startswith(RUNTIMES))
    return {"version": ops.openmp or None, "runtimes": loaded if ops.openmp else []}


def _load() -> dict[str, Any]:
    """Return the load average, and the part of the CPUs that products get now: the average is of the last minute."""
    from qwenvis import ops
    from qwenvis.concurrency import threads
    from qwenvis.cost import cpu_share

    count = ops.granted_threads(min(threads.resolve(), threads.available()))
    try:
        average = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        average = None
    return {"average": average, "cpu_share": cpu_share(count), "cpus": count}


def _speed() -> dict[str, Any]:
    """Return flops per second of products and the peak, for each format that is multiplied as it is."""
    from qwenvis import ops
    from qwenvis.concurrency.threads import resolve
    from qwenvis.cost import best_rates

    threads = resolve()
    formats = [name for name, format in ops.formats().items() if not format.expanded]
    rates = {name: dict(zip(("rate", "peak"), best_rates(threads, name), strict=True)) for name in formats}
    return {"threads": threads, "formats": rates}


def _memory() -> dict[str, int]:
    """Return the available and the total bytes; empty where the system does not tell."""
    sizes = {words[0]: 1024 * int(words[1]) for line in _proc("meminfo") if len(words := line.split()) == 3}
    return {"available": sizes["MemAvailable:"], "total": sizes["MemTotal:"]} if sizes else {}


def _hub() -> dict[str, Any]:
    from qwenvis.sources.caches import hub_cache

    return _place(hub_cache(), "models--*")


def _synthetic() -> dict[str, Any]:
    from qwenvis.sources.caches import cache_root

    return _place(cache_root(), "*-v[0-9]*")


def _towers() -> dict[str, Any]:
    from qwenvis.sources.caches import cache_root

    return _place(cache_root() / "towers", "models--*/[!.]*")


def _proc(name: str) -> list[str]:
    """Return the lines of a file in /proc, or no lines if the file does not exist."""
    from pathlib import Path

    try:
        return Path("/proc", name).read_text(errors="replace").splitlines()
    except OSError:
        return []


def _place(directory: Path, pattern: str) -> dict[str, Any]:
    """Return a cache directory and the number of its entries, or why it cannot be read."""
    try:
        return {"path": str(directory), "entries": len(list(directory.glob(pattern)))}
    except OSError as error:
        return {"path": str(directory), "entries": None, "error": str(error.strerror)}


FACTS: dict[str, Callable[[], dict[str, Any]]] = {
    "qwenvis": _version,
    "python": _python,
    "libraries": _libraries,
    "extras": _extras,
    "cpu": _cpu,
    "isa": _isa,
    "formats": _formats,
    "threads": _threads,
    "openmp": _openmp,
    "load": _load,
    "speed": _speed,
    "memory": _memory,
    "hub_cache": _hub,
    "synthetic_cache": _synthetic,
    "tower_cache": _towers,
}
