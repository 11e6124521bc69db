"""The code blocks of the README and the docs, run with a tiny model in place of the published checkpoint.

A block of text after a block of code is what the code prints.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from PIL import Image

from made import video_files
from made.presets import cache, encoder, picture
from oracle.transformers_models import full_model


def run_blocks(text: str, directory: Path, monkeypatch) -> dict[str, Any]:
    """Run the blocks of a page one by one, beside two pictures and a video; return the names that they define."""
    blocks = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(directory)
    monkeypatch.setenv("QWENVIS_CACHE", str(cache()))
    for name in ("cat.jpg", "dog.png"):
        Image.fromarray(picture(61, 97)).save(name)
    Path("talk.mp4").write_bytes(video_files.encoded(video_files.frames(70)))
    batch = encoder().preprocess("cat.jpg")
    names = {"paths": ["cat.jpg", "dog.png"], "pixel_values": batch.pixel_values, "grid_thw": batch.grid_thw}
    source = full_model("qwen2_vl").directory if "adapters.transformers" in text else "synthetic:tiny-qwen2-vl"
    for block, expected in blocks:
        code = re.sub(r'"Qwen/[\w.-]+"', repr(str(source)), block)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "a block of code", "exec"), names)
        assert not expected or printed.getvalue() == expected, block
    return names if blocks else {}
