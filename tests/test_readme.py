"""The README: its two commands are those that CI runs, its code runs, its links lead somewhere."""

import re

import pytest
from PIL import Image
from towers import ROOT, cache, encoder, picture

from qwenvis.cli import COMMANDS

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("end", "file"), [("pytest", ".ci/run"), ("qwenvis demo", ".github/workflows/test.yml")])
def test_commands_are_those_that_ci_runs(end, file):
    """CI takes them out of the README by their ends, so each end must be there once."""
    assert f"grep '&& {end}$' README.md" in (ROOT / file).read_text(encoding="utf-8")
    commands = [line for line in README.splitlines() if line.endswith(f"&& {end}")]
    assert len(commands) == 1
    assert commands[0].strip().startswith("pip install ")


def test_shell_commands_exist():
    shown = re.findall(r"^ *qwenvis (\w+)", README, re.MULTILINE)
    assert len(shown) >= 3
    assert set(shown) <= COMMANDS.keys()


def test_code_runs(tmp_path, monkeypatch):
    """With the tiny preset in place of the published checkpoint."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWENVIS_CACHE", str(cache()))
    for name in ("cat.jpg", "dog.png"):
        Image.fromarray(picture(61, 97)).save(name)
    batch = encoder().preprocess("cat.jpg")
    names = {"paths": ["cat.jpg", "dog.png"], "pixel_values": batch.pixel_values, "grid_thw": batch.grid_thw}
    for block in blocks:
        code, replaced = re.subn(r'"Qwen/[\w.-]+"', '"synthetic:tiny-qwen2-vl"', block)
        assert replaced
        exec(compile(code, "README.md", "exec"), names)
    assert names["out"].last_hidden_state.shape[1] == 64
    assert (tmp_path / "tokens.safetensors").is_file()


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)", README)
    assert targets
    missing = [t for t in targets if not re.match(r"https?://", t) and not (ROOT / t).exists()]
    assert not missing
