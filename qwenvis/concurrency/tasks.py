"""Run calls in the background: on threads if the system grants them, else on the thread that needs the result.

A ``ThreadPoolExecutor`` depends on its workers. It raises an error if no thread can start: at a limit of the system,
or while the interpreter shuts down. It waits for ever for a worker that did not survive a fork, or in a signal handler
that interrupts the start of a worker. Here a thread is optional: the thread that needs a result runs the call itself if
no thread has started it, or if the thread that started it is gone. No lock is held while a thread starts or a call
runs, so that signal handlers and forks may come at any time.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock, get_ident, start_new_thread
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar, cast

K = TypeVar("K")
T = TypeVar("T")


class Task(Generic[T]):
    """A call whose result is fetched once."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call, self._process = call, os.getpid()
        self._running = allocate_lock()  # held until the call is done; waiting threads acquire it
        self._running.acquire()
        # A dict of its own: two threads that first ask for `__dict__` at once may share what it holds, and free it
        # twice, if a garbage collection comes in between (CPython 3.11).
        self._owner: dict[str, list[int]] = {}
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the call has returned or raised."""
        return self._done

    def start(self) -> bool:
        """Run the call on a new thread; return whether the system grants one."""
        return _started((self,))

    def run(self) -> None:
        """Run the call, unless another thread has claimed it."""
        if self._claim():
            self._execute()

    def finish(self) -> None:
        """Run the call, or wait for the thread that runs it."""
        if self._claim():
            self._execute()
        elif not self._done:
            if self._abandoned:
                self._execute()
            else:
                self._wait()

    def result(self) -> T:
        """Finish the call; return its result or raise its error, and drop both."""
        self.finish()
        value, error = self._value, self._error
        self._value = self._error = None
        if error is None:
            return cast(T, value)
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame: break the cycle

    def cancel(self) -> None:
        """Prevent the call from starting, or wait for the thread that runs it; drop the result."""
        if not (self._claim() or self._done or self._abandoned):
            self._wait()
        self._value = self._error = None

    def _claim(self) -> bool:
        """Return whether this thread claims the call, as the first to try."""
        mine = [get_ident()]
        # One atomic step of the interpreter: neither a signal handler nor another thread can come in between.
        return self._owner.setdefault("thread", mine) is mine

    @property
    def _abandoned(self) -> bool:
        """Whether the thread that claimed the call will never finish it.

        That holds for a thread that did not survive a fork, for a thread frozen by the shutdown of the interpreter,
        and for this thread itself, if a signal handler or the garbage collector interrupted the call here.
        """
        return self._process != os.getpid() or sys.is_finalizing() or self._owner["thread"] == [get_ident()]

    def _execute(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error
            if not isinstance(error, Exception):  # KeyboardInterrupt does not wait for result()
                raise
        finally:
            self._done = True
            if self._running.locked():
                self._running.release()

    def _wait(self) -> None:
        self._running.acquire()
        self._running.release()


def prefetch(
    calls: Iterable[tuple[K, Callable[[], T]]], beside: Callable[[K], bool] = lambda key: True
) -> Generator[tuple[K, Task[T]], None, None]:
    """Yield keys and their finished calls; each call runs while the consumer uses the result before it.

    A call with a false ``beside(key)`` starts only after that use. An error of the iterator ``calls`` is raised after
    the results before it.
    """
    coming: deque[tuple[K, Task[T]]] = deque()
    try:
        for key, call in calls:
            coming.append((key, Task(call)))
            if len(coming) > 1:
                coming[0][1].finish()
                if beside(key):
                    coming[1][1].start()
                yield coming.popleft()
    except Exception:
        yield from _rest(coming)
        raise
    else:
        yield from _rest(coming)
    finally:
        for _, task in coming:
            task.cancel()


def _rest(coming: deque[tuple[K, Task[T]]]) -> Iterator[tuple[K, Task[T]]]:
    while coming:
        coming[0][1].finish()
        yield coming.popleft()


def run_parallel(calls: Iterable[Callable[[], T]], threads: int) -> Iterator[T]:
    """Yield the results of calls in order; run them on up to ``threads`` threads, including the caller's.

    The first error in order is raised; calls that have not started by then are dropped.
    """
    tasks = [Task(call) for call in calls]
    queue = iter(tasks)
    try:
        for _ in range(min(threads, len(tasks)) - 1):
            if not _started(queue):
                break
        for task in tasks:
            while not task.done and (other := next(queue, None)):
                other.run()
            yield task.result()
    finally:
        for task in tasks:
            task.cancel()


def run_ahead(calls: Iterable[Callable[[], T]], ahead: int) -> Generator[T, None, None]:
    """Yield the results of calls in order, while up to ``ahead`` of the calls run or wait to be yielded.

    Closing the generator waits for the calls that run, and drops the rest.
    """
    coming: deque[Task[T]] = deque()
    try:
        for call in calls:
            coming.append(Task(call))
            coming[-1].start()
            if len(coming) == ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        for task in coming:
            task.cancel()


def _started(tasks: Iterable[Task[T]]) -> bool:
    """Start a thread that runs tasks in order; return whether the system grants one."""
    try:
        # threading.Thread.start waits for the new thread under a global lock, and a signal handler may interrupt that.
        start_new_thread(_run_all, (tasks,))
    except (RuntimeError, MemoryError):  # too many threads, too little memory, or interpreter shutdown
        return False
    return True


def _run_all(tasks: Iterable[Task[T]]) -> None:
    for task in tasks:
        task.run()
