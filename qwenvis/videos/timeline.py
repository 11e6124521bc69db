"""Which frames of a film are shown, and when, as its packets say: demultiplexed, none decoded.

A packet counts if it holds a frame that a player shows. Packets do not count if an edit list hides them, if they are
empty, if their frame only serves as a reference, if they come before the first key frame, or if the end of the file
cuts them off.
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
JUMP = 1  # seconds that a clock goes back by, to another packet than a key frame, where files were joined


class Timeline(NamedTuple):
    """The frames that are shown, in their order."""

    stamps: NDArray[np.int64] | None  # by which a decoded frame is known; None where frames are known by their order
    seconds: NDArray[np.float64]  # from the first frame to each
    duration: Fraction  # seconds from the first frame to the end of the last; 0 where it is not known

    def place(self, stamp: int | None, least: int) -> int | None:
        """The index of a decoded frame that comes after ``least`` others; None where it is not one that is shown."""
        if self.stamps is None or stamp is None:
            return least if least < len(self.seconds) else None
        index = max(int(np.searchsorted(self.stamps, stamp)), least)  # of frames with one stamp, one after the other
        return index if index < len(self.stamps) and self.stamps[index] == stamp else None


class Packets:
    """What the packets of one stream say, collected one by one."""

    def __init__(self, codec: str, time_base: Fraction) -> None:
        """``codec`` is FFmpeg's name, ``time_base`` the seconds of one unit of its time stamps."""
        self._codec, self._unit = codec, time_base
        self._pts, self._dts, self._durations = array("q"), array("q"), array("q")
        self._joints: list[int] = []  # packets that are shown before the clock begins anew
        self._latest = self._first_key = NO_STAMP
        self._before_key: int | None = None  # packets that are shown before the first key frame
        self._cut = False  # whether the last one arrived damaged
        self.arrived, self.end = 0, NO_STAMP  # packets, shown or not, and when the last of them ends

    def __len__(self) -> int:
        """The number of packets that hold a frame to be shown."""
        return len(self._pts)

    def add(self, packet: Packet[Any]) -> None:
        """Take the next packet, in the order of the file."""
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
        """The frames of all packets. ``first`` is the stamp of the first decoded frame; None: all packets count.

        ``rate`` is the header's; ``reorders``: frames come in another order than packets. The stamps of some files are
        of no use: raw streams have none, and AVI numbers packets where H.264 would have times. Their frames are known
        by their order, and so are those of a clock that begins anew.
        """
        pts, dts, durations = (np.array(each, np.int64) for each in (self._pts, self._dts, self._durations))
        told = not (pts == NO_STAMP).any()
        if told and not self._joints:
            shown = pts >= (NO_STAMP if first is None else min(self._first_key, first))
        else:
            shown = np.arange(len(pts)) >= (self._before_key or 0)
        shown[len(shown) - self._cut :] = False  # where the file ends
        known = told and not self._joints and not (reorders and bool((np.diff(pts) > 0).all()))
        if not told and (dts == NO_STAMP).any():
            step = Fraction(int(np.median(durations))) * self._unit or (1 / rate if rate else Fraction(0))
            count = int(shown.sum())
            return Timeline(None, np.arange(count, dtype=np.float64) * float(step), count * step)
        stamps = _joined(pts if told else dts, durations, self._joints)[shown]
        order = np.argsort(stamps, kind="stable")
        return self._timed(stamps[order], int(durations[shown][order[-1:]].sum()), rate, known)

    def _timed(self, stamps: NDArray[np.int64], last: int, rate: Fraction | None, known: bool) -> Timeline:
        """With the time that the last one takes: ``last``, or that of the others where the file does not say.

        A clock of milliseconds rounds; where the header's rate says the same within that, it is the exact one.
        """
        units = (stamps - stamps[:1]).view(np.uint64)  # also right where the difference is over 2^63
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
    """Stamps whose clock goes on at the joints, where it begins anew before the end of what was there."""
    end, moved = NO_STAMP, []
    for part, lasting in zip(np.split(stamps, joints), np.split(durations, joints), strict=True):
        if len(part):
            start = int(part.min())
            part = part + (end - start if start < end else 0)
            end = int((part + lasting).max())
        moved.append(part)
    return np.concatenate(moved)


def _hidden(codec: str, packet: Packet[Any]) -> bool:
    """Whether it holds a frame of VP8 or VP9 that others refer to and nobody sees."""
    data = memoryview(packet)
    if codec == "vp8":
        return not data[0] & 0x10
    if codec != "vp9" or data[0] >> 6 != 2 or data[-1] >> 5 == 6:  # the last: a superframe, of which one is shown
        return False
    flags = data[0] if data[0] & 0x30 == 0x30 else data[0] >> 1  # profile 3 has one bit more in front of them
    return not flags & 0b101  # show_existing_frame, show_frame
