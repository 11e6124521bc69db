"""Every field of every config, replaced by each type of JSON: a typed error, or a value that is meant, or no change."""

import json
import random
import shutil
import tracemalloc

import pytest

from made.presets import PRESETS
from made.presets import checkpoint as preset_of
from made.typed_fields import VALUES, Case, answer, at_path, configs_of, paths, replaced, tolerated

SEED, SHARE = 20, 200  # of so many cases, one is tried by default


@pytest.fixture(scope="module", autouse=True)
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def write(directory, name, content):
    (directory / name).write_text(json.dumps(content))


def held(directory, files, chosen):
    """Hold the answer to every case against that to the files as they were."""
    alone = [name for name in files if name != "processor_config.json"]
    for name in alone:
        write(directory, name, files[name])
    before = {name: answer(directory) for name in alone}
    write(directory, "processor_config.json", files["processor_config.json"])
    before["processor_config.json"] = answer(directory)
    (directory / "processor_config.json").unlink()
    assert not any(isinstance(each, Exception) or "refused" in each[2][:1] for each in before.values())
    for case in chosen:
        write(directory, case.file, replaced(files[case.file], case.path, VALUES[case.value]))
        yield case, before[case.file], answer(directory)
        (directory / case.file).unlink()
        if case.file in alone:
            write(directory, case.file, files[case.file])


def tried(tmp_path, family, share):
    directory, files = tmp_path / "copy", configs_of(PRESETS[family])
    shutil.copytree(preset_of(family), directory)
    every = [Case(file, path, value) for file, content in files.items() for path in paths(content) for value in VALUES]
    chosen = random.Random(f"{SEED} {family}").sample(every, len(every) // share)
    found = []
    for case, before, after in held(directory, files, chosen):
        was = at_path(files[case.file], case.path)
        if not tolerated("".join(map(str, case.path[-1:])), was, VALUES[case.value], before, after):
            found.append(case)
    return found


@pytest.mark.parametrize("family", PRESETS)
def test_every_field_of_every_type(tmp_path, family):
    assert tried(tmp_path, family, SHARE) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", PRESETS)
def test_every_field_of_every_type_whole(tmp_path, family):
    assert tried(tmp_path, family, 1) == []
