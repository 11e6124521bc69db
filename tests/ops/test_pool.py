"""The pool of threads: they sleep soon after a call, do every task once, and lie where OpenMP's variables put them."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from house.source_files import ROOT
from processes.programs import output
from qwenvis import ops

openmp = pytest.mark.skipif(not ops.openmp, reason="the threads are not OpenMP's")
linux = pytest.mark.skipif(sys.platform != "linux", reason="knows the threads of Linux")

PRODUCT = """
    import os, signal, sys, time
    from statistics import median
    import numpy as np
    from qwenvis import ops

    x, w = np.random.default_rng(0).standard_normal((2, 200, 200), np.float32)
    weight = ops.PackedWeight(200, 200)
    weight.pack(w)

    def product(threads):
        with ops.use_threads(threads):
            return ops.linear(x, weight, np.empty((200, 200), np.float32)).tobytes()
"""


@pytest.mark.parametrize("policy", ["", "active"])
def test_p15_no_thread_spins_for_a_millisecond_after_a_call(policy):
    """Whatever OpenMP's variables say.

    The system counts the time of a thread that is running only at its next tick or when the thread sleeps, so the
    measurement begins a millisecond after the call, when all threads should sleep; the median forgives late ticks.
    """
    code = """
    seconds = []
    rows = np.zeros((6000, 200), np.float32)
    for _ in range(9):
        with ops.use_threads(2):  # for some milliseconds, so that the worker wakes and takes part
            ops.linear(rows, weight, np.empty((6000, 200), np.float32))
        time.sleep(0.001)
        before = time.process_time()
        time.sleep(0.05)
        seconds.append(time.process_time() - before)
    print(median(seconds) < 0.001)
    """
    assert output(PRODUCT + code, OMP_WAIT_POLICY=policy, GOMP_SPINCOUNT="") == "True"


@pytest.mark.skipif(sys.platform == "win32", reason="gcc has the sanitizer")
@pytest.mark.parametrize("sanitizer", ["thread", "undefined"])
def test_loops_of_many_callers_run_each_task_once(tmp_path, sanitizer):
    if not shutil.which("gcc"):
        pytest.skip("no gcc")
    sources = [f"-I{ROOT / 'qwenvis' / 'ops'}", ROOT / "tests" / "ops" / "pool.c"]
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wno-unused-function", "-pthread", f"-fsanitize={sanitizer}"]
    made = subprocess.run(["gcc", *flags, *sources, "-o", tmp_path / "pool"], capture_output=True, text=True)
    if "cannot find" in made.stderr:
        pytest.skip("gcc has no such sanitizer")
    assert (made.returncode, made.stderr) == (0, "")
    done = subprocess.run([tmp_path / "pool"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 failures\n", "")


@pytest.mark.skipif(not hasattr(signal, "sigwait"), reason="a system without masks of signals")
def test_signals_are_for_the_threads_of_python():
    """A thread that did not block the signal would end the process."""
    code = """
    import signal
    product(3)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)
    print(signal.sigwait({signal.SIGTERM}) == signal.SIGTERM)
    """
    assert output(PRODUCT + code, OPENBLAS_NUM_THREADS="1") == "True"


@linux
@openmp
def test_openmp_binds_the_workers_beside_the_caller():
    """To the next CPUs of its list, also those that start later."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU")
    code = """
    def bound():
        where = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
        return where.count({first}), where.count({second})

    if "libgomp" not in open("/proc/self/maps").read():
        sys.exit(print("another runtime"))
    first, second = map(int, sys.argv[1:])
    assert product(2) == product(1)
    before = bound()
    assert product(4) == product(1)
    after = bound()
    print(*before, *(new - old for new, old in zip(after, before)))
    """
    first, second = sorted(os.sched_getaffinity(0))[:2]
    places = ",".join(f"{{{cpu}}}" for cpu in (first, first, second, second))
    bound = output(PRODUCT + code, first, second, OMP_PROC_BIND="true", OMP_PLACES=places, OPENBLAS_NUM_THREADS="1")
    if bound == "another runtime":
        pytest.skip("counts the places of libgomp")
    # The caller, its place in the first team and a worker; then the places of both, and two workers.
    assert bound == "3 0 2 2"


@linux
@openmp
@pytest.mark.parametrize(
    ("variables", "most"),
    [
        ({"OMP_THREAD_LIMIT": "2"}, 2),
        ({"OMP_THREAD_LIMIT": "1", "OMP_PROC_BIND": "true"}, 1),
        ({"OMP_MAX_ACTIVE_LEVELS": "0"}, 1),
        ({"OMP_DYNAMIC": "true"}, 4),  # by the load, of the moment in which threads start: ours stay
    ],
)
def test_limit_of_openmp(variables, most):
    code = """
    assert product(4) == product(1)
    print(ops.granted_threads(4), len(os.listdir("/proc/self/task")))
    """
    assert output(PRODUCT + code, OPENBLAS_NUM_THREADS="1", **variables) == f"{most} {most}"


WORKERS = """
    import threading

    def run(callers, threads):
        def call():
            with ops.use_threads(threads):
                for _ in range(5):
                    ops.linear(rows, weight, np.empty((6000, 200), np.float32))

        started = [threading.Thread(target=call) for _ in range(callers)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    def workers(expected):  # a thread that has been joined lives on for a moment
        end = time.monotonic() + 10
        while (found := len(os.listdir("/proc/self/task")) - before) != expected and time.monotonic() < end:
            time.sleep(0.001)
        return found

    rows, before = np.zeros((6000, 200), np.float32), len(os.listdir("/proc/self/task"))
"""


@linux
def test_callers_one_after_the_other_share_the_workers():
    code = """
    for _ in range(5):
        run(callers=1, threads=3)
    print(workers(2))
    """
    assert output(PRODUCT + WORKERS + code) == "2"


@linux
def test_callers_at_once_have_workers_of_their_own():
    """While there are CPUs for them: five callers that want a worker each have three on four CPUs."""
    code = """
    for _ in range(5):
        run(callers=5, threads=2)
    print(workers(3))
    """
    assert output(f"    import os; os.cpu_count = lambda: 4{PRODUCT}{WORKERS}{code}") == "3"


@linux
def test_threads_are_started():
    code = """
    def count():
        return len(os.listdir("/proc/self/task"))

    one, before = product(1), count()
    assert product(3) == one
    print(count() - before)
    """
    assert output(PRODUCT + code) == "2"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("before", [1, 2])
def test_child_of_a_fork_works(before):
    """Workers do not survive a fork; a child that waited for them would hang."""
    code = f"""
    want = product({before})
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if product(2) == want else 3)
    _, status = os.waitpid(child, 0)
    assert product(2) == want
    print(os.waitstatus_to_exitcode(status))
    """
    assert output(PRODUCT + code) == "0"
