"""The process around an encoder: no threads to be had, signal handlers, interrupts, shutdown, crowds."""

import os
import sys

import pytest

from processes.encoder_programs import SETUP
from processes.programs import output

linux = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")


def test_system_that_refuses_threads():
    """No address space has room for such a stack, so no thread starts; the caller does all of the work."""
    code = """
threading.stack_size(1 << 47)
try:
    threading.Thread(target=print).start()
except RuntimeError as error:
    print(error)
encoder = Encoder.from_pretrained(PRESET, threads=THREADS)
print(right())
"""
    assert output(SETUP + code).splitlines() == ["can't start new thread", "True"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="must become a user with a limit")
def test_user_without_threads():
    code = """
import resource
os.setuid(12345)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
print(right())
"""
    assert output(SETUP + code, THREADS="1").split() == ["True"]


def test_thread_that_outlives_main_and_exit_functions():
    code = """
def late():
    threading.main_thread().join()
    print("thread", right(), flush=True)
atexit.register(lambda: print("atexit", right(), flush=True))
threading.Thread(target=late).start()
"""
    assert output(SETUP + code).splitlines() == ["thread True", "atexit True"]


def test_exit_with_a_stream_that_is_not_used_up():
    """The thread that prepares the next picture neither holds the exit up nor crashes it."""
    code = """
begun = threading.Event()
half = stream([pictures[0], pictures[1], Slow(pictures[2], begun, 60)])
print(next(half) == wanted[0], next(half) == wanted[1])
begun.wait()
"""
    assert output(SETUP + code, timeout=30).split() == ["True", "True"]


# A signal at an instruction of `tasks`: the n-th one of a call.
INSTANTS = """
def at(instant, work):
    met = 0
    def trace(frame, event, arg):
        nonlocal met
        if not frame.f_code.co_filename.endswith("tasks.py"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            met += 1
            if met == instant:
                signal.raise_signal(signal.SIGUSR1)
        return trace
    sys.settrace(trace)
    try:
        return work()
    finally:
        sys.settrace(None)
        instants.append(met)
instants = []
at(0, lambda: list(stream(pictures[:3])))
most = instants[0] * 5 // 4
"""


def test_signal_handler_encodes_at_any_instant():
    code = """
heard = []
def handler(*_):
    sys.settrace(None)
    heard.append(list(stream(pictures[4:])) == wanted[4:])
signal.signal(signal.SIGUSR1, handler)
print({at(n, lambda: list(stream(pictures[:3])) == wanted[:3]) for n in range(1, most, 2)}, set(heard))
print(len(heard) >= instants[0] // 4 > 50)
"""
    assert output(SETUP + INSTANTS + code, THREADS="1").splitlines() == ["{True} {True}", "True"]


def test_signal_handler_encodes_while_threads_start():
    """And at the instants that no trace sees: a timer that is set anew by its handler."""
    code = """
heard = []
def handler(*_):
    heard.append(encoder.encode(pictures[:2]).embeddings.tobytes() == b"".join(wanted[:2]))
    signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.002 * rng.random())
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
print({right() for _ in range(25)}, flush=True)
signal.setitimer(signal.ITIMER_REAL, 0)
print(set(heard), len(heard) > 10)
"""
    assert output(SETUP + code).splitlines() == ["{True}", "{True} True"]


@linux
def test_interrupt_at_any_instant_leaves_nothing_behind():
    code = """
def handler(*_):
    sys.settrace(None)
    raise KeyboardInterrupt
signal.signal(signal.SIGUSR1, handler)
time.sleep(0.2)  # for the threads that have just done their work
before, interrupted = running(), 0
for n in range(1, most):
    try:
        at(n, lambda: list(stream(pictures[:3])))
    except KeyboardInterrupt:
        interrupted += 1
print(interrupted >= instants[0] // 2 > 100, back_to(before), right())
"""
    assert output(SETUP + INSTANTS + code, THREADS="1").split() == ["True"] * 3


@linux
def test_stream_that_is_dropped_ends_its_thread():
    """After the picture at which it is; those behind that are as they were."""
    code = """
time.sleep(0.2)
before, begun = running(), threading.Event()
files = [Slow(picture, begun) for picture in pictures]
half = stream(files)
print(next(half) == wanted[0], next(half) == wanted[1])
begun.wait()
start = time.monotonic()
del half
print(time.monotonic() - start < 5, back_to(before), files[4].tell() == len(files[4].getbuffer()))
"""
    assert output(SETUP + code, THREADS="1").split() == ["True"] * 5


@linux
def test_many_threads_at_once_and_calls_within_calls():
    """Of eight threads each has one that prepares, and a second one to compute with in both."""
    code = """
most = 0
def within(*_):
    global most
    most = max(most, running())
    assert encoder.encode(pictures[0]).embeddings.tobytes() == wanted[0]
def work():
    for _ in range(5):
        found.append(right())
        whole = encoder.encode(pictures, progress=within).embeddings.tobytes()
        found.append(whole == b"".join(wanted))
found = []
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(set(found), len(found), most <= 2 + 8 * 4)
"""
    assert output(SETUP + code).split() == ["{True}", "80", "True"]
