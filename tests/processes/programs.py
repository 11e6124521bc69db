"""Programs in a process of their own, which find the package where these tests find it, and the cache of presets."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from made.presets import cache


def launch(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a program with these environment variables added; its output is piped."""
    found = f"import sys\nsys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", found + textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "QWENVIS_CACHE": str(cache()), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, *arguments: object, timeout: float = 100, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which may be a failure but must be in time."""
    with launch(code, *arguments, **environment) as process:
        try:
            out, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def output(code: str, *arguments: object, timeout: float = 100, **environment: str) -> str:
    """Return what a program prints, which must not fail."""
    done = run(code, *arguments, timeout=timeout, **environment)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
    return done.stdout.strip()
