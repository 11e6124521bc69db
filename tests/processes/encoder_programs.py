"""The first lines of programs that test an encoder in its process: pictures, their tokens, forks, a slow file."""

# The pictures of a stream are prepared ahead: its budget of patches holds one of them.
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
def back_to(before):
    end = time.monotonic() + 10  # threads that have done their work take a moment to end
    while running() > before and time.monotonic() < end:
        time.sleep(0.01)
    return running() <= before
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

# An encoder and a picture.
ONE_PICTURE = """
import os, sys
import numpy as np
from qwenvis import Encoder, ops
def load():
    return Encoder.from_pretrained("synthetic:tiny-qwen2.5-vl", threads=2, dtype=os.environ.get("DTYPE", "float32"))
encoder = load()
picture = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
"""
