"""Recognise video containers by the first bytes of a file (magic numbers)."""

from __future__ import annotations

HEAD = 4096  # bytes that suffice

# Container -> first bytes of its files. Raw MPEG begins with a start code; its last byte is the type of the unit.
SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "Matroska or WebM": (b"\x1a\x45\xdf\xa3",),
    "ASF (WMV)": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",),
    "Flash Video": (b"FLV\x01",),
    "Ogg": (b"OggS",),
    "MPEG": (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x00\x00\x01\xb0", b"\x00\x00\x01\xb5"),
    "H.264 or HEVC": (b"\x00\x00\x00\x01", b"\x00\x00\x01\x67", b"\x00\x00\x01\x27", b"\x00\x00\x01\x40"),
    "AV1": (b"\x12\x00\x0a",),
    "IVF": (b"DKIF\x00\x00",),
    "MXF": (b"\x06\x0e\x2b\x34\x02\x05\x01\x01",),
    "NUT": (b"nut/multimedia container\x00",),
    "YUV4MPEG2": (b"YUV4MPEG2",),
    "RealMedia": (b".RMF",),
    "WTV": (b"\xb7\xd8\x00\x20\x37\x49\xda\x11",),
    "DV": (b"\x1f\x07\x00",),
}
# Types of the first box in QuickTime files from before ``ftyp``.
BOXES = (b"moov", b"mdat", b"wide", b"pnot", b"moof", b"styp")
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2")
TRANSPORT = ((0, 188), (4, 192), (0, 204))  # offset of the first sync byte of MPEG-TS, and the size of a packet


def video_container(head: bytes) -> str | None:
    """Return the name of the video container that begins with these bytes, or None."""
    if head[4:8] == b"ftyp":
        return None if head[8:12] in PICTURE_BRANDS else "MP4 or QuickTime"
    if head[4:8] in BOXES:
        return "MP4 or QuickTime"
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
        return "AVI"
    if any(_synced(head, first, step) for first, step in TRANSPORT):
        return "MPEG-TS"
    return next((name for name, starts in SIGNATURES.items() if head.startswith(starts)), None)


def _synced(head: bytes, first: int, step: int) -> bool:
    """Return whether the first three packets start with a sync byte."""
    return head[first::step][:3] == b"GGG"
