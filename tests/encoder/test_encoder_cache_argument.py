"""The cache of an encoder: how it is passed, and where it goes with the encoder."""

import copy
import os
import pickle

import pytest

from made.presets import encoder
from processes.programs import output
from qwenvis import Cache, Encoder, InputError, ModelSpec


def test_directories_and_caches(tmp_path):
    spec = ModelSpec.open("synthetic:tiny-qwen2-vl")
    made = [
        encoder(cache=tmp_path / "a"),
        encoder(cache=str(tmp_path / "a")),
        encoder(cache=Cache(tmp_path / "a")),
        Encoder.from_spec(spec, cache=tmp_path / "a"),
        Encoder(spec, threads=1, cache=tmp_path / "a"),
    ]
    made += [pickle.loads(pickle.dumps(made[0])), copy.copy(made[0]), copy.deepcopy(made[0])]
    assert {found.cache.directory for found in made} == {tmp_path / "a"}
    assert encoder().cache is None


@pytest.mark.parametrize("wrong", [5, "file", True, {}], ids=repr)
def test_caches_that_are_none(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        encoder(cache=wrong)


PROGRAM = """
import os, sys
import numpy as np
from qwenvis import Encoder
encoder = Encoder.from_pretrained("synthetic:tiny-qwen2-vl", cache=sys.argv[1], threads=2)
images = [np.full((56, 84, 3), value, np.uint8) for value in range(4)]
mine = encoder.encode(images[:2])
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
    print(len(encoder.cache), len(encoder.encode(images)))
else:
    again = encoder.encode(images)
    os._exit(again[:2].embeddings.tobytes() != mine.embeddings.tobytes())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_the_child_of_a_fork_uses_the_cache(tmp_path):
    assert output(PROGRAM, tmp_path / "tokens").split() == ["4", "4"]
