"""Items prepared in parts, ahead of whoever takes them: on how many threads, in which order, with which errors."""

import threading
import time

import numpy as np
import pytest

from qwenvis import ops
from qwenvis.encoding.batching import Plan, prefetched
from qwenvis.errors import ImageError


def threads_here():
    """Those of this Python thread: a probe runs once on each."""
    with ops.use_threads(1):
        one = ops.peak(1)
    return round(ops.peak(1) / one)


class Counting:
    """An item whose patches are their own numbers; it keeps who asked for what."""

    def __init__(self, grid, calls, error=None):
        self.grid, self.calls, self.error = grid, calls, error

    def fill(self, first, stop, out):
        self.calls.append((first, stop, threading.current_thread(), threads_here()))
        if self.error:
            raise self.error
        frame = self.grid[1] * self.grid[2]
        out[:] = np.arange(first * frame, stop * frame)[:, None]
        return stop - first, *self.grid[1:]


def items(calls, *grids):
    return [Counting(grid, calls) for grid in grids]


@pytest.mark.parametrize("budget", [1, 5, 8, 12, 100])
def test_parts_are_the_whole_in_order(budget):
    plan = Plan(items([], (1, 2, 2), (5, 1, 4), (1, 3, 3), (2, 1, 1)), 3)
    whole = plan.prepare()
    parts = plan.micro_batches(budget)
    assert [(part.first, part.last) for part in parts] == [(part is parts[0], part is parts[-1]) for part in parts]
    batches = [coming.result() for _, coming in prefetched(parts, budget, 1)]
    assert np.array_equal(np.concatenate([batch.pixel_values for batch in batches]), whole.pixel_values)
    assert [len(batch.pixel_values) for batch in batches] == [part.patches for part in parts]
    assert sum(int(batch.grid_thw.prod(axis=1).sum()) for batch in batches) == len(whole.pixel_values)
    assert whole.grid_thw.tolist() == plan.grid_thw.tolist() == [[1, 2, 2], [5, 1, 4], [1, 3, 3], [2, 1, 1]]


def test_one_part_is_ahead_and_has_the_threads_of_the_call():
    """The first has nothing to be ahead of: it is prepared by the caller."""
    calls = []
    plan = Plan(items(calls, *[(1, 2, 2)] * 4), 3)
    for taken, (_, coming) in enumerate(prefetched(plan.micro_batches(4), 4, 3), 1):
        coming.result()
        assert len(calls) <= taken + 1
        until(lambda taken=taken: len(calls) == min(taken + 1, 4))
    assert len(calls) == 4
    assert {count for *_, count in calls} == {3}
    first, *others = [thread for _, _, thread, _ in calls]
    assert first is threading.current_thread()
    assert threading.current_thread() not in others


def until(happened):
    """Wait for what another thread does."""
    end = time.monotonic() + 60
    while not happened() and time.monotonic() < end:
        time.sleep(0.001)


def test_no_two_parts_above_the_budget_are_there():
    calls = []
    plan = Plan(items(calls, *[(1, 3, 3)] * 3), 3)
    for taken, (_, coming) in enumerate(prefetched(plan.micro_batches(4), 4, 1), 1):
        coming.result()
        assert len(calls) == taken


def test_what_cannot_be_planned_comes_after_what_can():
    def micro_batches():
        yield from Plan(items([], (1, 2, 2), (1, 2, 2)), 3).micro_batches(4)
        raise ImageError("of the third")

    taken = []
    with pytest.raises(ImageError, match="of the third"):
        taken.extend(prefetched(micro_batches(), 4, 1))
    assert len(taken) == 2


def test_an_error_of_an_item_is_that_of_its_part():
    calls = []
    plan = Plan([*items(calls, (1, 2, 2)), Counting((1, 2, 2), calls, ImageError("of the second"))], 3)
    (_, first), (_, second) = prefetched(plan.micro_batches(4), 4, 1)
    assert len(first.result().pixel_values) == 4
    with pytest.raises(ImageError, match="of the second"):
        second.result()


def test_a_grid_that_turns_out_otherwise():
    item = Counting((2, 2, 4), [])
    plan = Plan([item], 3)
    item.grid = 2, 4, 2  # as an image whose header says after its pixels that it lies on its side
    assert plan.prepare().grid_thw.tolist() == plan.grid_thw.tolist() == [[2, 4, 2]]


def test_items_of_a_part_are_prepared_side_by_side():
    """Each on a thread of its own: all of them wait for one another."""
    together = threading.Barrier(3, timeout=60)

    class Waiting(Counting):
        def fill(self, first, stop, out):
            together.wait()
            return super().fill(first, stop, out)

    calls = []
    plan = Plan([Waiting((1, 2, 2), calls) for _ in range(3)], 3)
    assert plan.prepare(3).grid_thw.tolist() == [[1, 2, 2]] * 3
    assert len({thread for _, _, thread, _ in calls}) == 3
    assert {count for *_, count in calls} == {1}


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_of_a_part_is_raised(threads):
    plan = Plan([Counting((1, 2, 2), [], error and ImageError(error)) for error in (None, "one", None, "three")], 3)
    with pytest.raises(ImageError, match="one"):
        plan.prepare(threads)


def test_bits_do_not_depend_on_the_threads():
    grids = [(1, 2, 2), (3, 1, 4), (1, 3, 3)]
    one, many = (Plan(items([], *grids), 3).prepare(threads) for threads in (1, 4))
    assert np.array_equal(one.pixel_values, many.pixel_values)
    assert np.array_equal(one.grid_thw, many.grid_thw)
