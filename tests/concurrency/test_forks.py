"""Forks around an encoder, at any time, and the workers of a torch DataLoader."""

from importlib.util import find_spec

import pytest

from made import video_files
from processes.encoder_programs import SETUP
from processes.programs import output


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


@pytest.mark.parametrize("taken", [1, 2])
def test_child_goes_on_with_a_half_used_video(tmp_path, taken):
    """Its decoder's threads did not survive, and who frees it waits for them: the child at its exit."""
    path = tmp_path / "video.mp4"
    path.write_bytes(video_files.encoded(video_files.frames(24, 64, 64)))
    code = """
video = sys.argv[1]
stream = lambda: [encoder.encode_iter(pictures[:2], videos=[video, video], patch_budget=24)]
rest = lambda half: [out.embeddings.tobytes() for out in half[0]]
want = rest(stream())
half, taken = stream(), int(sys.argv[2])
for _ in range(taken):
    next(half[0])
time.sleep(0.1)  # for the thread that is ahead
child = os.fork()
if child == 0:
    signal.alarm(20)
    sys.exit(0 if rest(half) == want[taken:] else 2)
print(rest(half) == want[taken:], wait_for(child))
"""
    assert output(SETUP + code, path, taken).split() == ["True", "0"]


def test_child_converts_frames_as_its_parent_has(tmp_path):
    """PyAV 19 keeps one reformatter per Python thread, whose threads stay in the parent: the child needs its own."""
    path = tmp_path / "film.mp4"
    path.write_bytes(video_files.encoded(video_files.frames(4, 64, 64)))
    code = """
import av
from qwenvis.videos.decode import VideoDecoder
with av.open(sys.argv[1]) as container:
    next(container.decode(video=0)).to_ndarray(format="rgb24")
read = lambda: [frame.tobytes() for frame in VideoDecoder(sys.argv[1], "the film").frames(range(4))]
want = read()
print(wait_for(in_child(lambda: read() == want)))
"""
    assert output(SETUP + code, path).split() == ["0"]


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
from qwenvis.concurrency.memo import cached_property
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


PICTURES = """
import numpy as np
import torch
from torch.utils.data import Dataset
class Pictures(Dataset):
    def __init__(self, load):
        self.load = load
    def __len__(self):
        return 6
    def __getitem__(self, index):
        picture = np.random.default_rng(index).integers(0, 256, (56, 84, 3), np.uint8)
        return torch.from_numpy(self.load().encode(picture).embeddings)
"""


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader(tmp_path, method):
    """They have the encoder of the process that they are forked from, and load theirs where they are spawned."""
    (tmp_path / "pictures.py").write_text(PICTURES)
    code = """
sys.path.insert(0, sys.argv[1])
import functools
import torch
from pictures import Pictures
from torch.utils.data import DataLoader
load = functools.partial(Encoder.from_pretrained, PRESET, threads=THREADS)
dataset = Pictures((lambda: encoder) if sys.argv[2] == "fork" else load)
wanted = torch.stack([dataset[index] for index in range(6)])
workers = 2 if sys.argv[2] == "fork" else 1  # a spawned one takes its time to import torch
loader = DataLoader(dataset, batch_size=2, num_workers=workers, multiprocessing_context=sys.argv[2], timeout=60)
print(torch.equal(torch.cat(list(loader)), wanted))
"""
    assert output(SETUP + code, tmp_path, method).split() == ["True"]
