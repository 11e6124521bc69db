"""``--json``: what each command prints for programs, with the keys that docs/command_line.md states."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from docs.test_docs import table
from house.source_files import ROOT
from made.presets import checkpoint, materialise
from qwenvis import Embeddings, ModelSpec, cli, cost
from qwenvis.sources.presets import PRESETS

PAGE = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
KEYS = {
    command.strip("`"): re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", keys)) for command, keys in table(PAGE, "JSON")
}
LINES = {
    "encode": "encode wide.png small.png --model {model} -o t.safetensors --cache tokens",
    "info": "info",
    "info SOURCE": "info {model}",
    "info SOURCE IMAGE": "info {model} wide.png small.png --threads 1",
    "extract": "extract {model} -o tower",
    "pack": "pack {model} packed",
    "verify": "verify {model} wide.png --threads 1",
    "cache list": "cache list tokens",
    "cache prune": "cache prune tokens --size 0",
    "cache verify": "cache verify tokens",
    "doctor": "doctor",
    "show": "show t.safetensors#small.png",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two images, their tokens in a file, and a cache."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, size in (("wide.png", (84, 200)), ("small.png", (61, 97))):
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(name)
        assert cli.main(LINES["encode"].format(model=checkpoint()).split()) == 0
    return folder


@pytest.fixture
def facts(folder, run, monkeypatch):
    """What a command prints as JSON."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cost, "BEST_SECONDS", 0.0)

    def facts(command):
        code, lines, _ = run(f"{LINES[command].format(model=checkpoint())} --json")
        assert code == 0
        return list(map(json.loads, lines)) if command == "encode" else json.loads("\n".join(lines))

    return facts


@pytest.mark.parametrize("command", LINES)
def test_keys_are_documented(facts, command):
    found = facts(command)
    first = found[0] if isinstance(found, list) else found
    stated = KEYS[command]
    if command == "info SOURCE IMAGE":
        stated = KEYS["info SOURCE"] + stated[: stated.index("images") + 1]
    assert list(first) == stated


def test_every_command_of_facts_has_json():
    """All commands but the tour, the service, and the one that prints a script."""
    assert {command.split()[0] for command in KEYS} == cli.COMMANDS.keys() - {"demo", "serve", "completion"}
    assert KEYS.keys() == LINES.keys()


def test_commands_are_documented():
    below = PAGE.split("# Command line\n", 1)[1].split("\n## ")[0]
    assert re.findall(r"^\| `qwenvis (\w+)`", below, re.MULTILINE) == list(cli.COMMANDS)


def test_encode(facts):
    found, out = facts("encode"), Embeddings.load("t.safetensors")
    assert [list(each.values()) for each in found] == [
        ["wide.png", [84, 200], [1, 6, 14], 21, out.keys[0]],
        ["small.png", [61, 97], [1, 4, 6], 6, out.keys[1]],
    ]


def test_info(facts):
    spec, found = ModelSpec.open(checkpoint()), facts("info SOURCE IMAGE")
    assert found["config"]["hidden_size"] == spec.config.hidden_size
    assert (found["parameters"], found["nbytes"], found["format"]) == (spec.parameters, spec.nbytes, "f32")
    assert found["pixels"] == {"min": spec.processor.min_pixels, "max": spec.processor.max_pixels}
    assert found["checkpoint"]["files"] == list(map(str, spec.checkpoint.files))
    assert [list(image) for image in found["images"]] == [KEYS["info SOURCE IMAGE"][4:]] * 2
    for image, (size, grid) in zip(found["images"], (((84, 200), (1, 6, 14)), ((61, 97), (1, 4, 6))), strict=True):
        told = spec.cost(np.array([grid]), threads=1)
        assert (tuple(image["size"]), tuple(image["grid"])) == (size, grid)
        assert (image["tokens"], image["flops"]) == (told.tokens, told.flops)
        assert image["nbytes"] == spec.nbytes + told.nbytes
        assert image["seconds"] == pytest.approx(told.flops / found["rate"])
    assert {name for names in facts("info")["families"].values() for name in names} == PRESETS.keys()


def test_what_is_not_known_is_null(run, tmp_path):
    """The pixel limits of a checkpoint without a processor; of its config, a number without a bound."""
    directory = materialise("tiny-qwen2-vl", tmp_path)
    (directory / "preprocessor_config.json").unlink()
    found = json.loads("\n".join(run(f"info {directory} --json")[1]), parse_constant=pytest.fail)
    assert found["pixels"] == {"min": None, "max": None}
    assert found["config"]["swiglu_limit"] is None


def test_damage_in_a_cache(folder, run, facts):
    facts("encode")
    damaged = sorted((folder / "tokens").glob("*.safetensors"))[0]
    damaged.write_bytes(b"damaged")
    code, lines, err = run("cache verify tokens --json")
    assert (code, json.loads("\n".join(lines))) == (1, {"damaged": [damaged.stem], "removed": False, "items": 2})
    assert "--remove removes them" in err


def test_an_error_leaves_stdout_empty(folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    code, lines, err = run(f"encode nothing.png --model {checkpoint()} --json")
    assert (code, lines) == (1, [])
    assert "no such file" in err
