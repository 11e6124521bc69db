"""The tables of the docs, held against the registry and the presets."""

import math
import re

import families
import pytest
from towers import ROOT

from qwenvis import models, synthetic
from qwenvis.models import FAMILIES

README, MODELS = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/models.md"))


def table(text, heading):
    """The rows of the first table below a heading, without its head: lists of cells."""
    below = text.split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_readme_has_every_family():
    named = [name for row in table(README, "Models") for name in re.findall(r"`(\w+)`", row[1])]
    assert sorted(named) == sorted(FAMILIES)


def test_models_have_every_family():
    rows = table(MODELS, "Families")
    assert [row[0].strip("`") for row in rows] == list(FAMILIES)
    for row in rows:
        name, _, classes, file, _ = (cell.replace("`", "") for cell in row)
        assert classes.split(", ")[0] == families.FAMILIES[name].model
        assert (ROOT / "qwenvis" / "models" / file.split(":")[0]).is_file()


def test_every_family_is_under_test():
    assert list(families.FAMILIES) == list(FAMILIES)


@pytest.mark.parametrize("row", table(MODELS, "Published sizes"), ids=lambda row: row[0])
def test_published_sizes(row):
    preset = synthetic.PRESETS[row[0]]
    tower, weights = models.build(preset.family, preset.vision_config, {})
    c, parameters = tower.config, sum(math.prod(request.shape) for request in weights.requests)
    sizes = c.hidden_size, c.depth, f"{c.num_heads} of {c.head_dim}", c.intermediate_size, c.out_hidden_size
    assert row[1:] == [*map(str, sizes), f"{parameters / 1e6:.2f} M"]


def test_every_preset_is_in_the_docs():
    stated = [row[0] for row in table(MODELS, "Published sizes")]
    assert stated == [name for name in synthetic.PRESETS if not name.startswith("tiny-")]
