"""Programs in a process of their own, which finds the package where these tests find it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program with these environment variables added; it may fail."""
    found = f"import sys\nsys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
    command = [sys.executable, "-P", "-c", found + textwrap.dedent(code)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=100, check=False
    )


def output_of(code: str, **environment: str) -> str:
    """What a program prints, which must not fail."""
    done = run(code, **environment)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
    return done.stdout.strip()
