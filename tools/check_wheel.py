"""Fail if a wheel contains unexpected files, lacks expected files, or is too large.

    python tools/check_wheel.py dist/*.whl

The wheel is not installed; tools/check_installed.py tests an installed wheel.
"""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile

LARGEST = 5_000_000  # bytes
NEEDED = (
    *(".dist-info/sboms/qwenvis.cdx.json", ".dist-info/licenses/LICENSE", "qwenvis/py.typed", "qwenvis/demo.jpg"),
    *("qwenvis/server/page/index.html", "qwenvis/server/page/page.css", "qwenvis/server/page/page.js"),
)
SOURCES = (".c", ".h", ".pyx", ".pxd")


def faults(path: Path) -> list[str]:
    """Return the faults of a wheel."""
    with ZipFile(path) as wheel:
        names = wheel.namelist()
    found = [f"has no {end}" for end in NEEDED if not any(name.endswith(end) for name in names)]
    found += [f"has the source {name}" for name in names if name.endswith(SOURCES)]
    parts = [name.split("/")[2] for name in names if name.startswith("qwenvis/ops/")]
    compiled = {part.split(".")[0] for part in parts if part.endswith((".so", ".pyd"))}
    typed = {part.removesuffix(".pyi") for part in parts if part.endswith(".pyi")}
    found += [f"has no compiled qwenvis.ops.{module}" for module in sorted(typed - compiled)]
    if not compiled:
        found.append("has nothing compiled")
    if (size := path.stat().st_size) > LARGEST:
        found.append(f"has {size} bytes; at most {LARGEST} are allowed")
    return found


def main(arguments: list[str]) -> int:
    """Print one line for each wheel, and its faults; return 1 if there are faults, or no wheel."""
    status = int(not arguments)
    for path in map(Path, arguments):
        found = faults(path)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {len(found)} faults")
        for fault in found:
            print(f"  it {fault}")
        status |= bool(found)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
