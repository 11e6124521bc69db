"""Video files as a player shows them: the frames that their packets hold, at their own times, in their own shape.

Headers may be wrong, so all packets are read once, without decoding; then frames are decoded, in their order, up to the
last chosen frame. Damaged frames are replaced by their neighbours.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from qwenvis.errors import VideoError
from qwenvis.processors.frame_sampling import Length, Rate
from qwenvis.videos.decode import VideoDecoder, check_count, check_sides, decoder
from qwenvis.videos.timeline import Packets, Timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MOMENT = 0.5  # seconds
_TAG = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
MOST_DAMAGED = 0.1  # of the frames of a film; past that share it is refused


class Playback(VideoDecoder):
    """A video file, as a player shows it."""

    def __init__(
        self, source: Any, where: str, *, fps: Rate | None = None, upright: bool = True, threads: int = 1
    ) -> None:
        """Read every packet, and decode the first frame that can be decoded.

        ``size`` is as seen; frames come as stored, and resizing stretches them. Raises VideoError for a file that is no
        video, or ends long before its header says; LimitError for a film that is too large.
        """
        self._aspect, self._on_its_side, self._broken = Fraction(1), False, False
        super().__init__(source, where, fps=fps, upright=upright, threads=threads)
        height, width = self._sides[::-1] if self._on_its_side else self._sides
        width = max(round(width * self._aspect), 1)
        check_sides(height, width, where)
        self.size = (width, height) if self._on_its_side else (height, width)

    def _planned(self, fps: Rate | None) -> tuple[tuple[int, int], Length]:
        first: list[VideoFrame] = []
        with self._opened(threads=1) as (container, stream):
            packets, promised = Packets(stream.codec_context.name, stream.time_base or Fraction(1)), stream.frames
            for packet in _packets(container, stream):
                packets.add(packet)
                check_count(packets.arrived, self._where)
                if not first:
                    frames = _decoded(packet)
                    self._broken = self._broken or (frames is None and bool(promised))
                    first = [frame for frame in frames or () if not frame.is_corrupt]
            rate = stream.average_rate or stream.guessed_rate
            stamp = first[0].pts if first and not self._broken else None  # what cannot be decoded before it was meant
            self._timeline = packets.timeline(rate, stamp, bool(stream.codec_context.has_b_frames))
            late = _late(stream, packets.end)
            _check_end(stream, packets.end, self._where)
            if first:
                self._on_its_side = self._turns(first[0]) % 2 == 1
                self._aspect = _aspect(stream) if self._upright else self._aspect
        count, duration = len(self._timeline.seconds), self._timeline.duration
        if not first or not count:
            raise VideoError(f"{self._where} has no frame that can be decoded")
        if late and promised - packets.arrived > max(2, count / duration if duration else 0):
            raise VideoError(f"{self._where} ends after {count} of {promised} frames: it is truncated")
        return self._turned(first[0]), _length(self._timeline, fps)

    def _stream(self, container: InputContainer) -> VideoStream | None:
        """The best one, as FFmpeg judges; never a cover picture."""
        from av.stream import Disposition

        moving = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
        best = container.streams.best("video")
        return next((each for each in moving if each is best), next(iter(moving), None))

    @decoder
    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """As `Clip`. A damaged frame is replaced by the nearest intact frame before it, or else after it.

        Raises VideoError once more than ``MOST_DAMAGED`` of the frames are damaged.
        """
        wanted, lost, last = deque(indices), 0, None
        for index, frame in self._sound():
            before = last or (index, frame)
            lost += index - (last[0] + 1 if last else 0)
            self._note(lost)
            while wanted and wanted[0] <= index:
                place, shown = (index, frame) if wanted.popleft() == index else before
                yield self._pixels(shown, place)
            if not wanted:
                return
            last = (index, frame)
        if last is None:
            raise VideoError(f"{self._where} has no frame that can be decoded")
        self._note(lost + self.length.frames - 1 - last[0])
        for _ in wanted:
            yield self._pixels(last[1], last[0])

    def _note(self, lost: int) -> None:
        """Count lost frames as damaged, unless FFmpeg met no damage: then they never existed (fields, repeats)."""
        if not self._broken:
            return
        self.damaged = max(self.damaged, lost)
        if lost > MOST_DAMAGED * self.length.frames:
            raise VideoError(
                f"{self._where} is damaged: {lost} of {self.length.frames} frames cannot be decoded; "
                f"at most {MOST_DAMAGED:.0%} may be"
            )

    def _sound(self) -> Iterator[tuple[int, VideoFrame]]:
        """Intact frames, in rising order.

        With several threads, FFmpeg also drops intact frames near a damaged end: then one thread decodes again.
        """
        given = -1
        for threads in dict.fromkeys((self._threads, 1)):
            for index, frame in self._numbered(threads):
                if frame is not None and index > given:
                    given = index
                    yield index, frame
            if given == self.length.frames - 1:
                return

    def _numbered(self, threads: int) -> Iterator[tuple[int, VideoFrame | None]]:
        """Decoded frames with their indices, None for damaged frames. Frames that are not shown are left out."""
        index = -1
        with self._opened(threads) as (container, stream):
            for packet in _packets(container, stream):
                frames = _decoded(packet)
                if frames is None:
                    self._broken = True
                    index += self._timeline.stamps is None
                    yield index, None
                for frame in frames or ():
                    place = self._timeline.place(frame.pts, index + 1)
                    if place is not None:
                        index = place
                        self._broken = self._broken or frame.is_corrupt
                        yield index, None if frame.is_corrupt else frame


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets of a stream up to the end of the file, or to where it cannot be read; the last one is empty."""
    from av import Packet
    from av.error import FFmpegError

    try:
        yield from container.demux(stream)
    except FFmpegError:
        end = Packet()
        end.stream = stream
        yield cast("Packet[VideoStream]", end)


def _decoded(packet: Packet[VideoStream]) -> list[VideoFrame] | None:
    """The frames that a packet completes; None where it is damaged."""
    from av.error import FFmpegError

    try:
        return packet.decode()
    except FFmpegError:
        return None


def _late(stream: VideoStream, end: int) -> bool:
    """Whether packets end more than a moment before the header says; it may count packets that an edit list hides."""
    if stream.duration is None or stream.time_base is None:
        return True
    return ((stream.start_time or 0) + stream.duration - end) * stream.time_base > MOMENT


def _check_end(stream: VideoStream, end: int, where: str) -> None:
    """Raise VideoError where packets end over a second before the tag in which Matroska says how long a stream is."""
    told = _TAG.fullmatch(stream.metadata.get("DURATION", ""))
    if told is None or stream.time_base is None:
        return
    hours, minutes, seconds = map(float, told.groups())
    promised, ended = hours * 3600 + minutes * 60 + seconds, max(float(end * stream.time_base), 0)
    if promised - ended > 1:
        raise VideoError(f"{where} ends after {ended:.1f} of {promised:.1f} seconds: it is truncated")


def _aspect(stream: VideoStream) -> Fraction:
    """How much wider a pixel is than it is high; 1 where the file does not say."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and aspect > 0 else Fraction(1)


def _length(timeline: Timeline, fps: Rate | None) -> Length:
    """How long it is, at its own times or at a rate that the caller knows better."""
    count, duration = len(timeline.seconds), timeline.duration
    if fps is not None:
        return Length(count, fps, count / fps)
    return (
        Length(count, float(count / duration), float(duration), timeline.seconds) if duration else Length(count, None)
    )
