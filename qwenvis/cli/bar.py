"""A progress bar on stderr, if stderr is a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType

from qwenvis.cli import units

WIDTH = 24
DELAY = 0.3  # seconds before the bar appears: shorter work needs none
PAUSE = 0.1  # seconds between two updates


class Bar:
    """A callback ``progress(done, total)`` that draws one line, which is erased when the work ends or fails.

    ``rate`` turns the number done per second into the text beside the bar. If ``expected`` seconds are set, the bar
    appears at once, before anything is done.
    """

    def __init__(self, label: str, rate: Callable[[float], str], *, quiet: bool = False) -> None:
        self.shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self.expected: float | None = None
        self._label, self._rate = label, rate
        self._next = self._start = 0.0
        self._length = 0

    def __enter__(self) -> Bar:
        self.start()
        if self.shown and self.expected is not None and self.expected > DELAY:
            self._draw(0.0, f"about {units.seconds(self.expected)}")
        return self

    def start(self) -> None:
        """Start the clock of the rate: again, if other work came first."""
        self._start = time.monotonic()
        self._next = self._start + DELAY

    def __call__(self, done: int, total: int) -> None:
        """Update the line, unless it was updated a moment ago."""
        now = time.monotonic()
        if not self.shown or now < self._next or not 0 < done <= total:
            return
        self._next = now + PAUSE
        elapsed = now - self._start
        self._draw(done / total, self._rate(done / elapsed), f"{units.clock(elapsed * (total - done) / done)} left")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.erase()

    def erase(self) -> None:
        """Erase the line, if there is one."""
        if self._length:
            self._write("", end="\r")

    def _draw(self, fraction: float, *words: str) -> None:
        filled = int(fraction * WIDTH)
        line = f"{self._label}  [{'#' * filled:.<{WIDTH}}] {fraction:4.0%}  {', '.join(words)}"
        self._write(line[: self._columns() - 1])

    def _columns(self) -> int:
        """Return the width of the terminal, or 80 if it is unknown."""
        try:
            return os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except OSError:
            return 80

    def _write(self, line: str, end: str = "") -> None:
        """Replace the line; blanks erase the rest of a longer line, on every kind of terminal."""
        print(f"\r{line:{self._length}}", end=end, file=sys.stderr, flush=True)
        self._length = len(line)
