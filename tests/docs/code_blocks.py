"""The code blocks of the README and the docs, run with a tiny model in place of the published checkpoint.

A block of text after a block of code is what the code prints. A block that needs an engine says so in its first line,
```python title="needs vllm", which the site shows above the block: the default suite leaves such blocks out, and the
tests of the engine, in an environment that contains it, run them.
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

BLOCK = re.compile(
    r'^```python(?: title="needs (?P<engine>\w+)")?\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```)?',
    re.MULTILINE | re.DOTALL,
)


def run_blocks(text: str, directory: Path, monkeypatch, engine: str = "") -> dict[str, Any]:
    """Run the blocks of a page one by one, beside two pictures and a video; return the names that they define.

    Blocks that need another engine are left out.
    """
    blocks = [block for block in BLOCK.finditer(text) if block["engine"] in (None, engine)]
    monkeypatch.chdir(directory)
    monkeypatch.setenv("QWENVIS_CACHE", str(cache()))
    for name in ("cat.jpg", "dog.png"):
        Image.fromarray(picture(61, 97)).save(name)
    Path("talk.mp4").write_bytes(video_files.encoded(video_files.frames(70)))
    batch = encoder().preprocess("cat.jpg")
    names = {"paths": ["cat.jpg", "dog.png"], "pixel_values": batch.pixel_values, "grid_thw": batch.grid_thw}
    whole = engine or "adapters.transformers" in text  # a language model too
    source = full_model("qwen2_vl").directory if whole else "synthetic:tiny-qwen2-vl"
    for block in blocks:
        code = re.sub(r'"Qwen/[\w.-]+"', repr(str(source)), block["code"])
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "a block of code", "exec"), names)
        assert not block["printed"] or printed.getvalue() == block["printed"], code
    return names
