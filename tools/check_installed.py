"""Fail if the installed package is slow to import, or computes wrong tokens.

Run this program in the environment of the installed package, from a directory without its sources: it imports the
installed package, and so tests a wheel instead of a checkout.

    python tools/check_installed.py
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import golden

SECONDS = 0.150  # for `import qwenvis`, the best of several processes: the first process reads from the disk
TRIES = 7
CODE = "import time; t = time.perf_counter(); import qwenvis; print(time.perf_counter() - t, qwenvis.__file__)"


def imported() -> tuple[float, Path]:
    """Return the seconds of an import in a fresh process, and the file that was imported."""
    done = subprocess.run([sys.executable, "-P", "-c", CODE], check=True, capture_output=True, text=True)
    seconds, file = done.stdout.strip().split(maxsplit=1)
    return float(seconds), Path(file)


def main() -> int:
    """Print the findings; return 1 if something is wrong."""
    runs = [imported() for _ in range(TRIES)]
    seconds, file = min(runs)
    print(f"{file}: imported in {1000 * seconds:.0f} ms", flush=True)
    if Path(sysconfig.get_path("platlib")).resolve() not in file.resolve().parents:
        print("That is not the installed package.", file=sys.stderr)
        return 1
    if seconds > SECONDS:
        print(f"An import may take {1000 * SECONDS:.0f} ms.", file=sys.stderr)
        return 1
    doctor = subprocess.run([sys.executable, "-P", "-m", "qwenvis", "doctor"], check=False).returncode
    return doctor or golden.main([])


if __name__ == "__main__":
    sys.exit(main())
