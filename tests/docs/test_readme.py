"""The README: its two commands are those that CI runs, its code runs, its links lead somewhere."""

import re

import pytest

from docs.code_blocks import run_blocks
from house.source_files import ROOT
from qwenvis import Cache
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
    assert README.count('"Qwen/') == 1
    names = run_blocks(README, tmp_path, monkeypatch)
    assert names["answer"].shape[0] == 1
    assert len(Cache(tmp_path / "tokens")) == 1
    assert names["out"].last_hidden_state.shape[1] == 64
    assert (tmp_path / "tokens.safetensors").is_file()


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)", README)
    assert targets
    missing = [t for t in targets if not re.match(r"https?://", t) and not (ROOT / t).exists()]
    assert not missing
