"""Decode video files as a player shows them: actual frames, presentation times and display aspect ratio.

Headers may be wrong, so all packets are read once, without decoding; then frames are decoded in order, up to the last
chosen frame. Damaged frames are replaced by their neighbours.
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

END_TOLERANCE = 0.5  # seconds between the end in the header and the end of the last packet
_TAG = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")  # hours, minutes and seconds
MOST_DAMAGED = 0.1  # the largest share of damaged frames before a video is refused


class PlaybackDecoder(VideoDecoder):
    """A video file as a player shows it: a `VideoSource`."""

    def __init__(
        self, source: Any, where: str, *, fps: Rate | None = None, upright: bool = True, threads: int = 1
    ) -> None:
        """Read every packet, and decode the first decodable frame.

        ``size`` is the display size; frames have the coded size, and the later resize corrects their aspect ratio.
        Raises VideoError for a file that is not a video or is truncated, VideoLimitError for a video that is too large.
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
            stamp = first[0].pts if first and not self._broken else None  # lost frames before it count
            self._timeline = packets.timeline(rate, stamp, bool(stream.codec_context.has_b_frames))
            late = _late(stream, packets.end)
            _check_end(stream, packets.end, self._where)
            if first:
                self._on_its_side = self._turns(first[0]) % 2 == 1
                self._aspect = _aspect(stream) if self._upright else self._aspect
        count, duration = len(self._timeline.seconds), self._timeline.duration
        if not first or not count:
            raise VideoError(f"{self._where} has no decodable frame")
        if late and promised - packets.arrived > max(2, count / duration if duration else 0):
            raise VideoError(f"{self._where} ends after {count} of {promised} frames: it is truncated")
        return self._turned(first[0]), _length(self._timeline, fps)

    def _stream(self, container: InputContainer) -> VideoStream | None:
        """Return the video stream that FFmpeg ranks best, ignoring cover pictures."""
        from av.stream import Disposition

        moving = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
        best = container.streams.best("video")
        return next((each for each in moving if each is best), next(iter(moving), None))

    @decoder
    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield frames as a `VideoSource` does.

        The nearest intact frame before a damaged frame replaces it, or else the nearest one after it. Raises VideoError
        once more than ``MOST_DAMAGED`` of the frames are damaged.
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
            raise VideoError(f"{self._where} has no decodable frame")
        self._note(lost + self.length.frames - 1 - last[0])
        for _ in wanted:
            yield self._pixels(last[1], last[0])

    def _note(self, lost: int) -> None:
        """Record lost frames as damaged if FFmpeg reported damage; else they never existed (fields, repeats)."""
        if not self._broken:
            return
        self.damaged = max(self.damaged, lost)
        if lost > MOST_DAMAGED * self.length.frames:
            raise VideoError(
                f"{self._where} is damaged: {lost} of {self.length.frames} frames cannot be decoded; "
                f"at most {MOST_DAMAGED:.0%} are tolerated"
            )

    def _sound(self) -> Iterator[tuple[int, VideoFrame]]:
        """Yield intact frames with their indices, in increasing order.

        With several threads, FFmpeg also drops intact frames near a damaged end; then one thread decodes once more.
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
        """Yield decoded frames with their indices, None for a damaged frame; skip frames that are not shown."""
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
    """Yield the packets of a stream up to the end of its readable part, then an empty packet, which flushes."""
    from av import Packet
    from av.error import FFmpegError

    try:
        yield from container.demux(stream)
    except FFmpegError:
        end = Packet()
        end.stream = stream
        yield cast("Packet[VideoStream]", end)


def _decoded(packet: Packet[VideoStream]) -> list[VideoFrame] | None:
    """Return the frames that a packet completes, or None for a damaged packet."""
    from av.error import FFmpegError

    try:
        return packet.decode()
    except FFmpegError:
        return None


def _late(stream: VideoStream, end: int) -> bool:
    """Return whether packets end before the header says; the header may count packets that an edit list hides."""
    if stream.duration is None or stream.time_base is None:
        return True
    return ((stream.start_time or 0) + stream.duration - end) * stream.time_base > END_TOLERANCE


def _check_end(stream: VideoStream, end: int, where: str) -> None:
    """Raise VideoError if packets end over a second before Matroska's DURATION tag says."""
    tag = _TAG.fullmatch(stream.metadata.get("DURATION", ""))
    if tag is None or stream.time_base is None:
        return
    hours, minutes, seconds = map(float, tag.groups())
    promised, ended = hours * 3600 + minutes * 60 + seconds, max(float(end * stream.time_base), 0)
    if promised - ended > 1:
        raise VideoError(f"{where} ends after {ended:.1f} of {promised:.1f} seconds: it is truncated")


def _aspect(stream: VideoStream) -> Fraction:
    """Return the sample aspect ratio, pixel width over height; 1 if the file does not specify it."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and aspect > 0 else Fraction(1)


def _length(timeline: Timeline, fps: Rate | None) -> Length:
    """Return the length by the times of the file, or by the caller's rate."""
    count, duration = len(timeline.seconds), timeline.duration
    if fps is not None:
        return Length(count, fps, count / fps)
    return (
        Length(count, float(count / duration), float(duration), timeline.seconds) if duration else Length(count, None)
    )
