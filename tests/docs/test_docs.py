"""The docs: tables held against the registry, the presets and the tests; code that runs."""

import itertools
import json
import math
import re

import pytest

from docs.code_blocks import BLOCK, run_blocks
from house.source_files import ROOT
from oracle import families
from qwenvis import models
from qwenvis.models import FAMILIES
from qwenvis.sources.presets import PRESETS

README, MODELS = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/models.md"))


def table(text, heading):
    """The rows of the first table below a heading, without its head: lists of cells."""
    below = text.split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_readme_names_families_that_are_there():
    named = [name for row in table(README, "Models") for name in re.findall(r"`(\w+)`", row[1])]
    assert len(set(named)) == len(named) > 10
    assert set(named) <= FAMILIES.keys()


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
    preset = PRESETS[row[0]]
    tower, weights = models.build(preset.family, preset.vision_config, {})
    c, parameters = tower.config, sum(math.prod(request.shape) for request in weights.requests)
    sizes = c.hidden_size, c.depth, f"{c.num_heads} of {c.head_dim}", c.intermediate_size, c.out_hidden_size
    assert row[1:] == [*map(str, sizes), f"{parameters / 1e6:.2f} M"]


def test_every_preset_is_in_the_docs():
    stated = [row[0] for row in table(MODELS, "Published sizes")]
    assert stated == [name for name in PRESETS if not name.startswith("tiny-")]


# The command that runs the blocks which need an engine; None where the page says that they were not run.
ENGINES = {
    "llama_cpp": "make test-llama-cpp",
    "vllm": "make test-vllm",
    "mlx_vlm": "pytest tests/adapters/test_mlx_vlm.py",
    "ray": "pytest tests/adapters/test_ray.py",
    "serve": "pytest tests/server/test_api.py",
    "sglang": None,
    "dynamo": None,
    "ray_llm": None,
}
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_CODE = [path for path in PAGES if "```" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.name)
def test_code_runs(path, tmp_path, monkeypatch):
    text = path.read_text(encoding="utf-8")
    run_blocks(text, tmp_path, monkeypatch)
    blocks, printed = list(BLOCK.finditer(text)), len(re.findall("^```text$", text, re.MULTILINE))
    assert len(re.findall("^```", text, re.MULTILINE)) == 2 * (len(blocks) + printed) > 0
    assert printed == sum(block["printed"] is not None for block in blocks)
    assert {block["engine"] for block in blocks} <= {None, *ENGINES}


def test_every_promise_is_held_by_what_the_page_names():
    rows = [line.split(" | ") for line in (ROOT / "docs/promises.md").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row[0].strip("| ").isdecimal()]
    assert [int(row[0].strip("| ")) for row in rows] == list(range(1, 31))
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for number, _, held, by in rows:
        named = re.findall("`(.+?)`", by)
        assert bool(named) != held.startswith("no:"), number
        for name in named:
            assert f"def test_{name[3:]}_" in tests if name.startswith("-k ") else (ROOT / name).is_file(), name


def test_every_numbered_test_is_in_the_promises():
    named = set(re.findall(r"`-k (p\d\d)`", (ROOT / "docs/promises.md").read_text(encoding="utf-8")))
    found = {
        number
        for path in (ROOT / "tests").rglob("test_*.py")
        for number in re.findall(r"def test_(p\d\d)_", path.read_text(encoding="utf-8"))
    }
    assert found == named


def test_every_adapter_is_in_the_table_of_engines():
    named = set(re.findall(r"`adapters\.(\w+)`", (ROOT / "docs/language_models.md").read_text(encoding="utf-8")))
    shared = {"__init__", "__pycache__", "memory", "modalities", "ray_cluster"}
    assert {path.stem for path in (ROOT / "qwenvis/adapters").iterdir()} - shared <= named


def test_every_page_is_on_the_site():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [path.name for path in PAGES if f": {path.name}\n" not in settings]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_prose_is_at_most_120_wide(path):
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert not [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "    "))]


MEASURED = {"qwenvis": "qwenvis", "OpenVINO": "openvino", "zentorch": "zentorch", "transformers": "torch"}


def test_speeds_beside_the_alternatives_are_those_of_the_results():
    results = ROOT / "benchmarks/results/peers-avx512_bf16-qwen2-vl-2b-448.json"
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    measured = {row["engine"]: (f"{row['median']:.2f}", f"{row['error']:.1e}") for row in rows}
    stated = table((ROOT / "docs/alternatives.md").read_text(encoding="utf-8"), "Speed")
    for name, *cells in stated:
        engine = MEASURED[name.split()[0]]
        expected = [measured.pop(f"{engine}-{format}", ("", "")) for format in ("f32", "bf16", "i8")]
        assert cells == list(itertools.chain(*expected)), name
    assert not measured
