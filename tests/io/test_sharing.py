"""One object passed many times gives the tokens that it gives alone: to one call, to several threads, after a fork."""

import gzip
import io
import os
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from PIL import Image

from made import video_files
from made.images import noise
from made.presets import encoder, same_bits
from processes.encoder_programs import ONE_PICTURE
from processes.programs import output
from qwenvis.images.decode import decode
from qwenvis.io import sharing

VIDEO = video_files.encoded(video_files.frames(6, 32, 48))
FORMATS = {"PNG": {}, "JPEG": {}, "GIF": {}, "BMP": {}, "WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_lzw"}}


class Slow(io.RawIOBase):
    """A file object of somebody's own, which lets other threads go first between a seek and a read."""

    def __init__(self, data):
        self._file = io.BytesIO(data)
        self.name = "slow"

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        return self._file.seek(offset, whence)

    def readinto(self, buffer):
        time.sleep(0)
        return self._file.readinto(buffer)


def image_file(kind="PNG", seed=0, mode="RGB"):
    file = io.BytesIO()
    Image.fromarray(noise(60, 90, seed)).convert(mode).save(file, kind, **FORMATS[kind])
    return file.getvalue()


def packed(data, count):
    """A tar file with the same file in it so many times."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for index in range(count):
            entry = tarfile.TarInfo(str(index))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


@contextmanager
def file_objects(data, path):
    """Lists of file objects of the same bytes that share something, by the name of what they share."""
    path.write_bytes(data)
    archive = path.with_suffix(".tar")
    archive.write_bytes(packed(data, 3))
    raw = Slow(data)
    with (
        path.open("rb") as opened,
        os.fdopen(os.dup(opened.fileno()), "rb") as again,
        tempfile.NamedTemporaryFile() as written,
        tempfile.SpooledTemporaryFile() as spooled,
        gzip.open(io.BytesIO(gzip.compress(data))) as unpacked,
        tarfile.open(archive) as tar,
    ):
        written.write(data)
        spooled.write(data)
        files = {
            "nothing but themselves": [io.BytesIO(data)] * 3,
            "a file": [opened] * 3,
            "a descriptor": [opened, again, opened.raw],
            "a temporary file": [written, written.file, written],
            "a spooled file": [spooled] * 3,
            "a raw file": [raw, io.BufferedReader(raw), io.BufferedReader(raw)],
            "a compressed file": [unpacked] * 3,
            "a tar file": [tar.extractfile(entry) for entry in tar],
        }
        yield files  # which keeps all of them: a buffered file that goes away closes the raw one


def shared_images(data, path):
    """The same, of PIL images that are not loaded yet, and file objects."""
    for name in ("a file", "a descriptor", "a temporary file", "a raw file"):
        with file_objects(data, path) as files:
            one, two, three = files[name]
            with Image.open(one) as image, Image.open(two) as other:
                yield f"images over {name}", [image, three, other, image, one]
    with Image.open(path) as image:
        yield "one image", [image] * 5


def assert_each(tokens, alone, name):
    """Tokens of a list of one thing are those of it alone, so many times."""
    for index, part in enumerate(np.split(tokens, len(tokens) // len(alone))):
        assert same_bits(part, alone), (name, index)


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("kind", FORMATS)
def test_file_objects_and_images_in_a_list(kind, threads, tmp_path):
    found, data = encoder(threads=threads), image_file(kind)
    alone = found.encode(data).embeddings
    with file_objects(data, tmp_path / "image") as files:
        for name, sources in files.items():
            assert_each(found.encode(sources).embeddings, alone, name)
    for name, sources in shared_images(data, tmp_path / "image"):
        assert_each(found.encode(sources).embeddings, alone, name)


@pytest.mark.parametrize("threads", [1, 2])
def test_videos_of_one_file_object(threads, tmp_path):
    """Their frames are decoded by turns, a few steps of each."""
    found = encoder(threads=threads)
    alone = found.encode(videos=[VIDEO], sampling="all").embeddings
    with file_objects(VIDEO, tmp_path / "video") as files:
        for name, sources in files.items():
            assert_each(found.encode(videos=sources, sampling="all").embeddings, alone, name)
            streams = [found.encode_iter(videos=sources, sampling="all", patch_budget=8) for _ in range(2)]
            for outs in zip(*streams, strict=True):
                assert all(same_bits(out.embeddings, alone) for out in outs), name


def test_files_stay_where_they_are_and_open(tmp_path):
    data = image_file()
    (tmp_path / "a.png").write_bytes(data)
    with (tmp_path / "a.png").open("rb") as file:
        for source in (file, io.BytesIO(data)):
            source.seek(5)
            encoder().encode([source, source])
            assert source.read() == data[5:]


def round_of_everything(stack, tmp_path, seed):
    """What a call gets, and the bytes of each item."""
    data = image_file(["PNG", "JPEG", "GIF"][seed % 3], seed)
    files = stack.enter_context(file_objects(data, tmp_path / "image"))
    clips = stack.enter_context(file_objects(VIDEO, tmp_path / "video"))
    image = stack.enter_context(Image.open(io.BytesIO(data)))
    other = stack.enter_context(Image.open(files["a file"][0]))
    images = [image, other, files["a raw file"][0], image, files["a file"][0], other, files["a raw file"][1]]
    videos = [clips["a file"][0], [image, other] * 2, clips["a raw file"][0], clips["a file"][1], [image, other] * 2]
    return images, videos, [data] * 7, [VIDEO, [data] * 4, VIDEO, VIDEO, [data] * 4]


def rounds(count, tmp_path):
    """Of two and of four threads, and of four Python threads that share it all."""
    for seed in range(count):
        with ExitStack() as stack:
            for threads in (2, 4):
                images, videos, *alone = round_of_everything(stack, tmp_path, seed)
                want = encoder(threads=1).encode(alone[0], videos=alone[1]).embeddings
                assert same_bits(encoder(threads=threads).encode(images, videos=videos).embeddings, want), seed
            images, videos, *_ = round_of_everything(stack, tmp_path, seed)
            calls = [encoder(threads=1 + index % 2).encode for index in range(4)]
            with ThreadPoolExecutor(4) as pool:
                for out in pool.map(lambda call, a=images, b=videos: call(a, videos=b).embeddings, calls):
                    assert same_bits(out, want), seed


def test_rounds(tmp_path):
    rounds(3, tmp_path)


@pytest.mark.slow
def test_many_rounds(tmp_path):
    rounds(200, tmp_path)


def test_orientation_and_palette_of_a_shared_image():
    """Pillow reads both once, in steps; whoever comes in between sees neither."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(noise(60, 90)).convert("P").save(file, "PNG", exif=exif, transparency=bytes(range(256)))
    want = np.asarray(decode(file.getvalue()))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            with Image.open(file) as image:
                assert all(np.array_equal(got, want) for got in pool.map(decode, [image] * 8))


def test_a_view_reads_as_a_file_does(tmp_path):
    data = bytes(np.random.default_rng(0).integers(0, 256, 200_000, np.uint8))
    with file_objects(data, tmp_path / "file") as files:
        for sources in files.values():
            with sharing.view(sources[0]) as view:
                assert view.read() == data
                assert view.seek(-7, os.SEEK_END) == len(data) - 7
                assert view.read() == data[-7:]
                assert view.read(1) == b""
                view.seek(100)
                assert view.seek(11, os.SEEK_CUR) == view.tell() == 111
                assert view.read(3) == data[111:114]
                with pytest.raises(ValueError, match="negative seek"):
                    view.seek(-1)
            assert not sources[0].closed


FORKED = """
import threading
from PIL import Image
from qwenvis.io import sharing
image = Image.fromarray(picture)
want, held, go_on = encoder.encode(image).embeddings.tobytes(), threading.Event(), threading.Event()
def hold():
    with sharing.locked(image):
        held.set()
        go_on.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(0 if encoder.encode([image, image]).embeddings.tobytes() == want * 2 else 2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
go_on.set()
"""


def test_child_of_a_fork_waits_for_nobody():
    assert output(ONE_PICTURE + FORKED, timeout=60).split() == ["0"]
