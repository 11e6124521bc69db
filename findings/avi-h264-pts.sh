#!/usr/bin/env bash
# PyAV on an AVI file with B-frames: the time stamps of decoded frames are not their times.
#
# Guess: FFmpeg gives frames out in display order, and so with rising `pts`, whatever the container is. AVI stores no
# presentation times, therefore its demuxer would leave `pts` empty where frames are reordered.
# Found: frames come out in display order, but each carries the position of its packet in decode order as `pts`:
# 1, 4, 3, 5, 2, 6 ... The packets of the file claim `pts = dts + 1`. The same H.264 in MP4 has rising stamps.
# So whoever sorts or seeks by `pts` in AVI files gets frames in another order than a player shows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np


def film(container):
    """Sixteen frames, each of one grey, from black to nearly white; two or three B-frames between others."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "3", "x264-params": "b-adapt=0:threads=1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(16):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 16 * i, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    file.seek(0)
    return file


print(f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}")
for container in ("mp4", "avi"):
    with av.open(film(container)) as file:
        seen = [(frame.pts, round(frame.to_ndarray(format="rgb24").mean() / 16)) for frame in file.decode(video=0)]
    stamps, greys = zip(*seen)
    rising = list(stamps) == sorted(stamps)
    print(f"{container}: frames in display order {list(greys) == list(range(16))}; pts {list(stamps)}; rising {rising}")
    assert list(greys) == list(range(16))
    assert rising == (container == "mp4")
PYTHON
# Seen:
# PyAV 18.1.0, FFmpeg 8.1.2
# mp4: frames in display order True; pts [0, 512, 1024, 1536, 2048, ...]; rising True
# avi: frames in display order True; pts [1, 4, 3, 5, 2, 6, 8, 9, 7, 10, 11, 13, 12, 15, 16, 14]; rising False
