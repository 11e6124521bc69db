"""The process around an encoder: no threads to be had, forks, signal handlers, shutdown, a DataLoader."""

import os
import sys

import pytest
from towers import output

linux = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")

# What the programs below share. Pictures of a stream are prepared ahead: a budget holds one of them.
SETUP = """
import atexit, io, os, signal, sys, threading, time
import numpy as np
from PIL import Image
from qwenvis import Encoder
PRESET = "synthetic:tiny-qwen2-vl"
THREADS = int(os.environ.get("THREADS", "2"))
encoder = Encoder.from_pretrained(PRESET, threads=THREADS)
rng = np.random.default_rng(0)
pictures = [rng.integers(0, 256, (56, 84, 3), np.uint8) for _ in range(6)]
wanted = [encoder.encode(picture).embeddings.tobytes() for picture in pictures]
def stream(pictures=pictures):
    return (out.embeddings.tobytes() for out in encoder.encode_iter(pictures, patch_budget=24))
def right():
    whole = encoder.encode(pictures).embeddings.tobytes() == b"".join(wanted)
    return whole and list(stream()) == wanted
def running():
    return len(os.listdir("/proc/self/task"))
def wait_for(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return child
class Slow(io.BytesIO):
    # A PNG whose pixels take a while: its thread is in the middle of it when something happens.
    def __init__(self, picture, begun, seconds=0.1):
        super().__init__()
        Image.fromarray(picture).save(self, "PNG")
        self.begun, self.seconds = begun, seconds
    def read(self, size=-1):
        if threading.current_thread() is not threading.main_thread():
            self.begun.set()
            time.sleep(self.seconds)
        return super().read(size)
"""


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


def test_child_goes_on_with_a_half_used_stream():
    """Its thread did not survive, and was in the middle of a picture."""
    code = """
begun = threading.Event()
half = stream([*pictures[:2], Slow(pictures[2], begun), *pictures[3:]])
print(next(half) == wanted[0], next(half) == wanted[1])
begun.wait()
rest = lambda: list(half) == wanted[2:]
child = in_child(rest)
print(rest(), wait_for(child))
"""
    assert output(SETUP + code).split() == ["True", "True", "True", "0"]


def test_child_of_a_process_whose_other_threads_encode():
    code = """
ended = threading.Event()
def work():
    while not ended.is_set():
        right()
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
print({wait_for(in_child(right)) for _ in range(25)})
ended.set()
"""
    assert output(SETUP + code).split() == ["{0}"]


def test_child_computes_what_another_thread_was_computing():
    """What an encoder keeps is computed without a lock, which the child would find held by nobody."""
    code = """
from qwenvis.memo import cached_property
class Kept:
    @cached_property
    def value(self):
        if os.getpid() == parent:
            begun.set()
            ended.wait()
        return 3
parent, begun, ended = os.getpid(), threading.Event(), threading.Event()
first = Kept()
thread = threading.Thread(target=lambda: first.value)
thread.start()
begun.wait()
print(wait_for(in_child(lambda: first.value + Kept().value == 6)))
ended.set()
"""
    assert output(SETUP + code).split() == ["0"]


# A signal at every instruction of `tasks`: the n-th one of a call, for every n.
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
print({at(n, lambda: list(stream(pictures[:3])) == wanted[:3]) for n in range(1, most)}, set(heard))
print(len(heard) >= instants[0] // 2 > 100)
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
print({right() for _ in range(60)}, flush=True)
signal.setitimer(signal.ITIMER_REAL, 0)
print(set(heard), len(heard) > 20)
"""
    assert output(SETUP + code).splitlines() == ["{True}", "{True} True"]


@linux
def test_interrupt_at_any_instant_leaves_nothing_behind():
    code = """
def handler(*_):
    sys.settrace(None)
    raise KeyboardInterrupt
signal.signal(signal.SIGUSR1, handler)
before, interrupted = running(), 0
for n in range(1, most):
    try:
        at(n, lambda: list(stream(pictures[:3])))
    except KeyboardInterrupt:
        interrupted += 1
end = time.monotonic() + 10
while running() > before and time.monotonic() < end:
    time.sleep(0.01)
print(interrupted >= instants[0] // 2 > 100, running() - before, right())
"""
    assert output(SETUP + INSTANTS + code, THREADS="1").split() == ["True", "0", "True"]


@linux
def test_stream_that_is_dropped_ends_its_thread():
    """After the picture at which it is; those behind that are as they were."""
    code = """
before, begun = running(), threading.Event()
files = [Slow(picture, begun) for picture in pictures]
half = stream(files)
print(next(half) == wanted[0], next(half) == wanted[1])
begun.wait()
start = time.monotonic()
del half
print(running() - before, time.monotonic() - start < 5, files[4].tell() == len(files[4].getbuffer()))
"""
    assert output(SETUP + code, THREADS="1").split() == ["True", "True", "0", "True", "True"]


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
