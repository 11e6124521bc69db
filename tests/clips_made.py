"""Videos for the tests, made here: frames with a number in them, and files of them that PyAV writes."""

import io
import itertools
from fractions import Fraction

import av
import numpy as np

TICK = Fraction(1, 1000)  # seconds


def frames(count, height=64, width=96, seed=0):
    """Frames (count, height, width, 3) that move: noise that is rolled, so that a codec has something to do."""
    still = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    large = still.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return np.stack([np.roll(large, (2 * i, 3 * i), axis=(0, 1)) for i in range(count)])


def film(pictures, *, fps=10, form="mp4", codec="libx264", times=None, audio=False):
    """The bytes of a file, of any iterable of frames; ``times`` of each in milliseconds, for a rate that varies."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=fps)
        pictures = iter(pictures)
        first = next(pictures)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        if times is not None:
            stream.codec_context.time_base = TICK
        if audio:
            sound = container.add_stream("aac", rate=16000)
            container.mux(sound.encode(silence()))
            container.mux(sound.encode())
        for index, picture in enumerate(itertools.chain([first], pictures)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def silence():
    """A frame of sound."""
    sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    sound.sample_rate = 16000
    return sound


# Of the track header of an MP4 file: the matrix that turns by 90 degrees clockwise, in 16.16 (the last column 2.30).
UPRIGHT = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
ON_ITS_SIDE = {
    90: np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes(),
    180: np.array([-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30], ">i4").tobytes(),
    270: np.array([0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30], ">i4").tobytes(),
}


def turned(data, degrees):
    """The same MP4 file with the metadata of a camera that was held on its side: to be shown so far clockwise."""
    track = data.index(b"tkhd")
    place = data.index(UPRIGHT, track)
    return data[:place] + ON_ITS_SIDE[degrees] + data[place + len(UPRIGHT) :]
