"""Determine the frames that a player shows, and their times, from packets alone: demultiplexed, not decoded.

A packet counts if it holds a frame that a player shows. A packet does not count if an edit list hides it, if it is
empty, if its frame only serves as a reference, if it precedes the first key frame, or if the end of the file cuts it
off.
"""

from __future__ import annotations

from array import array
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.packet import Packet

NO_STAMP = -(2**63)  # FFmpeg's AV_NOPTS_VALUE
JUMP = 1  # seconds by which time stamps step back, at a packet that is no key frame, where files were concatenated


class Timeline(NamedTuple):
    """The shown frames in presentation order."""

    stamps: NDArray[np.int64] | None  # time stamps that identify decoded frames; None if only their order does
    seconds: NDArray[np.float64]  # from the first frame to each frame
    duration: Fraction  # seconds from the first frame to the end of the last; 0 if unknown

    def place(self, stamp: int | None, least: int) -> int | None:
        """Return the index, at least ``least``, of a decoded frame; None for a frame that is not shown."""
        if self.stamps is None or stamp is None:
            return least if least < len(self.seconds) else None
        index = max(int(np.searchsorted(self.stamps, stamp)), least)  # frames may share a stamp
        return index if index < len(self.stamps) and self.stamps[index] == stamp else None


class Packets:
    """The time stamps of the packets of one stream, collected packet by packet."""

    def __init__(self, codec: str, time_base: Fraction) -> None:
        """Start without packets; ``codec`` is FFmpeg's name, ``time_base`` the unit of time stamps in seconds."""
        self._codec, self._unit = codec, time_base
        self._pts, self._dts, self._durations = array("q"), array("q"), array("q")
        self._joints: list[int] = []  # shown packets before each restart of the time stamps
        self._latest = self._first_key = NO_STAMP
        self._before_key: int | None = None  # shown packets before the first key frame
        self._cut = False  # whether the last packet arrived damaged
        self.arrived, self.end = 0, NO_STAMP  # the number of packets, shown or hidden, and the end of the last

    def __len__(self) -> int:
        """Return the number of packets with a shown frame."""
        return len(self._pts)

    def add(self, packet: Packet[Any]) -> None:
        """Add the next packet in file order."""
        if not packet.size:
            self.arrived += packet.dts is not None
            return
        pts, dts, duration = _stamp(packet.pts), _stamp(packet.dts), max(packet.duration or 0, 0)
        self.arrived, self.end = self.arrived + 1, max(self.end, pts + duration)
        if packet.is_keyframe and self._before_key is None:
            self._first_key, self._before_key = pts, len(self)
        back = (self._latest - dts) * self._unit if dts != NO_STAMP else 0
        if back > (0 if packet.is_keyframe else JUMP):
            self._joints.append(len(self))
        self._latest = dts
        if not packet.is_discard and not _hidden(self._codec, packet):
            self._cut = packet.is_corrupt
            self._pts.append(pts)
            self._dts.append(dts)
            self._durations.append(duration)

    def timeline(self, rate: Fraction | None, first: int | None, reorders: bool) -> Timeline:
        """Build the timeline of all packets.

        ``rate`` is the frame rate in the header; ``first`` is the stamp of the first decoded frame, or None if all
        packets count; ``reorders`` says that decoding order differs from presentation order. Where time stamps are
        unusable, the order identifies frames: raw streams have no stamps, AVI numbers the packets of H.264, and
        stamps may restart.
        """
        pts, dts, durations = (np.array(each, np.int64) for each in (self._pts, self._dts, self._durations))
        stamped = not (pts == NO_STAMP).any()
        if stamped and not self._joints:
            shown = pts >= (NO_STAMP if first is None else min(self._first_key, first))
        else:
            shown = np.arange(len(pts)) >= (self._before_key or 0)
        shown[len(shown) - self._cut :] = False  # cut off by the end of the file
        known = stamped and not self._joints and not (reorders and bool((np.diff(pts) > 0).all()))
        if not stamped and (dts == NO_STAMP).any():
            step = Fraction(int(np.median(durations))) * self._unit or (1 / rate if rate else Fraction(0))
            count = int(shown.sum())
            return Timeline(None, np.arange(count, dtype=np.float64) * float(step), count * step)
        stamps = _joined(pts if stamped else dts, durations, self._joints)[shown]
        order = np.argsort(stamps, kind="stable")
        return self._timed(stamps[order], int(durations[shown][order[-1:]].sum()), rate, known)

    def _timed(self, stamps: NDArray[np.int64], last: int, rate: Fraction | None, known: bool) -> Timeline:
        """Add the duration of the last frame: ``last``, or the median of the others if the file does not specify it.

        Time stamps in milliseconds are rounded: where the rate in the header agrees within that, the rate is exact.
        """
        units = (stamps - stamps[:1]).view(np.uint64)  # unsigned, so that differences over 2^63 are right too
        if not last and len(units) > 1:
            last = int(np.median(np.diff(units)))
        duration = (int(units[-1:].sum()) + last) * self._unit or (1 / rate if rate else Fraction(0))
        if rate and abs(len(units) / rate - duration) <= 2 * self._unit:
            duration = len(units) / rate
        seconds = units.astype(np.float64) * self._unit.numerator / self._unit.denominator
        return Timeline(stamps if known else None, seconds, duration if len(units) else Fraction(0))


def _stamp(value: int | None) -> int:
    return NO_STAMP if value is None else value


def _joined(stamps: NDArray[np.int64], durations: NDArray[np.int64], joints: list[int]) -> NDArray[np.int64]:
    """Shift stamps that restart at a joint, so that time goes on from the end of the previous part."""
    end, moved = NO_STAMP, []
    for part, lasting in zip(np.split(stamps, joints), np.split(durations, joints), strict=True):
        if len(part):
            start = int(part.min())
            part = part + (end - start if start < end else 0)
            end = int((part + lasting).max())
        moved.append(part)
    return np.concatenate(moved)


def _hidden(codec: str, packet: Packet[Any]) -> bool:
    """Return whether a packet of VP8 or VP9 holds a reference frame that is not shown.

    Bits: RFC 6386, section 9.1; VP9 bitstream specification, section 6.2.
    """
    data = memoryview(packet)
    if codec == "vp8":
        return not data[0] & 0x10
    if codec != "vp9" or data[0] >> 6 != 2 or data[-1] >> 5 == 6:  # 6: a superframe, which shows one frame
        return False
    flags = data[0] if data[0] & 0x30 == 0x30 else data[0] >> 1  # profile 3 has one more bit before them
    return not flags & 0b101  # show_existing_frame, show_frame
