"""Calls that run ahead of the loop that uses their results; objects that several threads use for the first time."""

import threading
import time
from functools import partial

import pytest

from qwenvis.concurrency.memo import cached_property
from qwenvis.concurrency.tasks import Task, run_ahead


def test_run_ahead_keeps_the_order_and_the_bound():
    running, most, lock = [0], [0], threading.Lock()

    def call(number):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.001)
        with lock:
            running[0] -= 1
        return number

    assert list(run_ahead([partial(call, number) for number in range(50)], 3)) == list(range(50))
    assert most[0] <= 3


def test_run_ahead_starts_nothing_after_it_is_closed():
    started = []
    results = run_ahead([partial(started.append, number) for number in range(50)], 4)
    next(results)
    results.close()
    assert len(started) <= 5


def test_run_ahead_raises_errors_in_order():
    results = run_ahead([int, partial(int, "x"), int], 2)
    assert next(results) == 0
    with pytest.raises(ValueError, match="invalid literal"):
        next(results)


class Watched:
    """An object whose ``__dict__`` must not be asked for: CPython 3.11 may free what it holds twice."""

    def __getattribute__(self, name):
        assert name != "__dict__"
        return super().__getattribute__(name)


def test_threads_do_not_share_the_dict_of_a_task():
    class WatchedTask(Watched, Task):
        pass

    task = WatchedTask(lambda: 3)
    task.start()
    task.run()
    assert task.result() == 3
    WatchedTask(lambda: 4).cancel()


def test_threads_do_not_share_the_dict_of_a_cached_property():
    class Holder(Watched):
        @cached_property
        def value(self):
            return object()

    holder = Holder()
    assert holder.value is holder.value
