"""The code blocks of the README and the docs, run with a tiny model in place of the published checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from made import video_files
from made.presets import cache, encoder, picture

PRESET = "synthetic:tiny-qwen2-vl"  # a tower


def run_blocks(text: str, directory: Path, monkeypatch, model: str = PRESET) -> dict[str, Any]:
    """Run the blocks of a page one by one, beside two pictures and a video; return the names that they define.

    ``model`` takes the place of each Hub id.
    """
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(directory)
    monkeypatch.setenv("QWENVIS_CACHE", str(cache()))
    for name in ("cat.jpg", "dog.png"):
        Image.fromarray(picture(61, 97)).save(name)
    Path("talk.mp4").write_bytes(video_files.encoded(video_files.frames(70)))
    batch = encoder().preprocess("cat.jpg")
    names = {"paths": ["cat.jpg", "dog.png"], "pixel_values": batch.pixel_values, "grid_thw": batch.grid_thw}
    for block in blocks:
        code = re.sub(r'"Qwen/[\w.-]+"', f'"{model}"', block)
        exec(compile(code, "a block of code", "exec"), names)
    return names if blocks else {}
