"""Videos for the tests: frames that carry a number, and the files that PyAV writes of frames."""

import io
import itertools
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TICK = Fraction(1, 1000)  # seconds
STEADY = {"x264-params": "mbtree=0:threads=1"}  # macroblock trees make x264 write different bytes on each run


def frames(count, height=64, width=96, seed=0):
    """Return frames (count, height, width, 3) uint8 of coarse noise that moves."""
    still = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    large = still.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return np.stack([np.roll(large, (2 * i, 3 * i), axis=(0, 1)) for i in range(count)])


def encoded(pictures, *, fps=10, form="mp4", codec="libx264", times=None, audio=False, keys=None, colorspace=None):
    """Return the bytes of a video file of any iterable of frames.

    ``times`` are those of the frames in milliseconds, for a variable rate; ``keys`` is the distance of key frames;
    ``colorspace`` is FFmpeg's number.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=fps, options=STEADY if codec == "libx264" else {})
        pictures = iter(pictures)
        first = next(pictures)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        if keys is not None:
            stream.codec_context.gop_size = keys
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
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
    """Return a frame of silence."""
    sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    sound.sample_rate = 16000
    return sound


# The matrix in the track header of an MP4 file: rotation clockwise, in 16.16 fixed point (the last column in 2.30).
UPRIGHT = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
ON_ITS_SIDE = {
    90: np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes(),
    180: np.array([-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30], ">i4").tobytes(),
    270: np.array([0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30], ">i4").tobytes(),
}


def turned(data, degrees):
    """Return the MP4 file with metadata that say: rotate by so many degrees clockwise for display."""
    track = data.index(b"tkhd")
    place = data.index(UPRIGHT, track)
    return data[:place] + ON_ITS_SIDE[degrees] + data[place + len(UPRIGHT) :]


# Files of numbered frames, in every shape that a container may have.

BITS = 8


def numbered(count, height=64, width=96, first=0):
    """Return frames with their number as dark and bright bars, which survive every codec."""
    bits = np.arange(first, first + count)[:, None] >> np.arange(BITS) & 1
    bars = (32 + 192 * bits).astype(np.uint8).repeat(width // BITS, axis=1)
    return np.broadcast_to(bars[:, None, :, None], (count, height, width, 3)).copy()


def number(frame):
    """Read the number of a frame of any size."""
    middle = frame[len(frame) // 2].mean(axis=-1)
    width = len(middle) // BITS
    bits = [middle[i * width + width // 4 : (i + 1) * width - width // 4].mean() > 128 for i in range(BITS)]
    return sum(int(bit) << i for i, bit in enumerate(bits))


def remuxed(data, form="mp4", *, skip=0, leave_out=(), options=None, **attributes):
    """Return the packets in another container, ``skip`` seconds earlier and without the packets of ``leave_out``."""
    out = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(out, "w", format=form, options=options or {}) as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for name, value in attributes.items():
            setattr(copy, name, value)
        for index, packet in enumerate(source.demux(stream)):
            if packet.size and index not in leave_out:
                moved = int(skip / packet.time_base)
                packet.pts, packet.dts = packet.pts - moved, None if packet.dts is None else packet.dts - moved
                packet.stream = copy
                container.mux(packet)
    return out.getvalue()


def covered(data, form, cover):
    """Return a file with a cover picture, and the video of ``data``; with sound instead, if ``data`` is None."""
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        source = None if data is None else av.open(io.BytesIO(data))
        stream = container.add_stream_from_template(source.streams.video[0]) if source else container.add_stream("aac")
        front = container.add_stream("mjpeg", rate=1)
        front.height, front.width, front.pix_fmt = *cover.shape[:2], "yuvj420p"
        front.disposition = av.stream.Disposition.attached_pic.value
        picture = front.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")) + front.encode()
        for packet in source.demux(source.streams.video[0]) if source else stream.encode(silence()) + stream.encode():
            if packet.size:
                packet.stream = stream
                container.mux(packet)
        container.mux(picture)
    return out.getvalue()


def places(data):
    """Return (offset, size) of each packet, in the order of the file."""
    with av.open(io.BytesIO(data)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(container.streams.video[0]) if packet.size]


def damaged(data, *which):
    """Return the file with zeros in place of the given packets, which a decoder rejects."""
    found, out = places(data), bytearray(data)
    for index in which:
        place, size = found[index]
        out[place : place + size] = bytes(size)
    return bytes(out)


def begun_early(data, path):
    """Return the MP4 file with its metadata before its packets. FFmpeg writes it twice, and so needs a ``path``."""
    path.write_bytes(data)
    with av.open(str(path), "r") as source, av.open(f"{path}.mp4", "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    return Path(f"{path}.mp4").read_bytes()


def boxes(data):
    """Yield (type, bytes) of each box of an MP4 file, or of each box inside a box."""
    place = 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], data[place : place + size]
        place += size


def box(name, inside):
    """Return the bytes of an MP4 box."""
    return (8 + len(inside)).to_bytes(4, "big") + name + inside


def cover_in_front(data):
    """Return the MP4 file with the box ``udta``, which holds the cover, before its tracks."""
    out = []
    for name, each in boxes(data):
        inside = sorted(boxes(each[8:]), key=lambda part: part[0] != b"udta") if name == b"moov" else []
        out.append(box(name, b"".join(part for _, part in inside)) if inside else each)
    return b"".join(out)


def edited(data, *edits):
    """Return the MP4 file with an edit list: (milliseconds, first tick of the media or -1 for a pause) of each one."""
    entries = b"".join(struct.pack(">Iii", length, first, 1 << 16) for length, first in edits)
    edts = box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits)) + entries))

    def rebuilt(name, each):
        if name == b"edts":
            return edts
        if name not in (b"moov", b"trak"):
            return each
        return box(name, b"".join(rebuilt(*part) for part in boxes(each[8:])))

    return b"".join(rebuilt(*each) for each in boxes(data))
