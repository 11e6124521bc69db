"""Checkpoints that come from a Hub: what is asked of it, what is kept, and what is asked no second time."""

import pickle
import random
import shutil
import socket
import time

import pytest

from made import mmproj_files
from made.presets import checkpoint, same_bits
from processes import hub_repos, hub_server
from processes.hub_server import COMMIT, TOKEN
from processes.programs import launch, output, run
from qwenvis import Encoder, sources
from qwenvis.errors import CheckpointError, ConfigError, InputError, SourceError
from qwenvis.sources.hub import HubOptions
from qwenvis.sources.ranges import Location
from qwenvis.spec import ModelSpec

REPO = "Some/Model"
FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


@pytest.fixture(scope="module")
def published():
    """The files of a repo, and the bytes of its tower."""
    return hub_repos.repo()


@pytest.fixture
def hub(tmp_path, monkeypatch, published):
    """A Hub with that repo, which this process may ask."""
    with hub_server.running() as found, hub_server.allowed(found, tmp_path, monkeypatch):
        found.repos[REPO] = dict(published[0])
        yield found


@pytest.fixture(scope="module")
def local(tmp_path_factory, published):
    """The same files in a directory."""
    return hub_repos.write(tmp_path_factory.mktemp("local") / "model", published[0])


def weights(found):
    """All that the tower of an encoder keeps."""
    return [memory if hasattr(memory, "tobytes") else memory.memory for memory in found.spec.weights.kept]


def equal(found, other):
    """Whether two encoders have the same weights."""
    return all(map(same_bits, weights(found), weights(other)))


@pytest.mark.parametrize("tower_only", [False, True])
def test_an_id_is_downloaded_once(hub, local, published, tower_only):
    """And with its tower's shards alone, or its tower's bytes alone."""
    steps = []
    found = Encoder.from_pretrained(REPO, tower_only=tower_only, progress=lambda *step: steps.append(step))
    assert equal(found, Encoder.from_pretrained(local))
    assert f"HEAD {SECOND}" not in hub.paths("hub")
    nbytes = published[1]
    wanted = nbytes if tower_only else len(published[0][FIRST])
    assert hub.sent <= 1.03 * wanted + 10_000  # of configs
    totals = [total for _, total in steps]
    assert totals == sorted(totals, reverse=True)
    assert set(totals) == {wanted, nbytes}
    assert [done for done, total in steps if done == total]
    asked = len(hub.requests)
    for revision in (None, "main", COMMIT):
        assert equal(Encoder.from_pretrained(REPO, revision=revision), found)
        assert Encoder.from_pretrained(REPO, revision=revision, local_files_only=True).family == "qwen2_vl"
    assert len(hub.requests) == asked


def test_headers_are_all_that_a_spec_needs(hub, tmp_path, published):
    spec = ModelSpec.open(REPO)
    assert spec.parameters == published[1] // 2
    assert spec.nbytes
    assert hub.sent < 200_000
    assert spec.checkpoint.pending == f"downloads 1 file of {len(published[0][FIRST]) / 1e9:.2f} GB"
    assert not list((tmp_path / "hf").rglob("*.safetensors"))


def test_a_config_without_a_tower_is_all_that_is_asked_for(hub):
    hub.repos[REPO]["config.json"] = b'{"model_type": "qwen2_audio"}'
    with pytest.raises(CheckpointError, match="an audio model without a vision tower"):
        sources.open(REPO)
    assert {path.partition(" ")[2] for path in hub.paths("hub")} == {"config.json"}


def test_a_single_file(hub, tmp_path, published):
    files, nbytes = published
    hub.repos[REPO] = {name: content for name, content in files.items() if "model" not in name}
    hub.repos[REPO]["model.safetensors"] = files[FIRST]
    assert ModelSpec.open(REPO, tower_only=True).checkpoint.nbytes == nbytes
    assert Encoder.from_pretrained(REPO, tower_only=True).family == "qwen2_vl"


@pytest.mark.parametrize("name", ["mmproj.gguf", "deep/er/mmproj.gguf"])
def test_an_mmproj_file(hub, tmp_path, name):
    mmproj_files.write_smallest(tmp_path / "mmproj.gguf")
    hub.repos[REPO] = {name: (tmp_path / "mmproj.gguf").read_bytes()}
    found = sources.open(f"{REPO}/{name}", tower_only=True)
    assert not found.path.exists()
    found.prepare()
    assert found.path.read_bytes() == (tmp_path / "mmproj.gguf").read_bytes()
    asked = len(hub.requests)
    assert sources.open(f"{REPO}/{name}").path == found.path
    assert len(hub.requests) == asked
    with pytest.raises(SourceError, match=rf"{REPO} has no x\.gguf at its revision"):
        sources.open(f"{REPO}/x.gguf")
    with pytest.raises(SourceError, match=rf"has no config\.json on .*name the file: {REPO}/FILE\.gguf"):
        sources.open(REPO)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_p11_a_file_that_is_too_long_is_not_downloaded(hub, file):
    hub.repos[REPO][file] = hub_repos.Drawn(b"{", 10**9)
    with pytest.raises(CheckpointError, match=rf"{file} of {REPO} has 1,000,000,001 bytes; at most"):
        sources.open(REPO)
    assert hub.sent < 10_000


def test_p20_shards_of_an_index_are_plain_names(hub):
    hub.repos[REPO]["model.safetensors.index.json"] = b'{"weight_map": {"visual.patch_embed.proj.weight": "../x"}}'
    with pytest.raises(CheckpointError, match="expected the plain name of a"):
        sources.open(REPO)


def test_tensors_of_another_tower_are_not_downloaded(hub, monkeypatch):
    shapes, made = {}, hub_repos.shard
    monkeypatch.setattr(hub_repos, "shard", lambda found: shapes.update(found) or made(found))
    hub.repos[REPO] = hub_repos.repo()[0]
    del shapes["visual.merger.ln_q.bias"]
    del hub.repos[REPO]["model.safetensors.index.json"], hub.repos[REPO][SECOND], hub.repos[REPO][FIRST]
    hub.repos[REPO]["model.safetensors"] = made(shapes)
    with pytest.raises(CheckpointError, match=r"missing \(1\): merger\.ln_q\.bias"):
        Encoder.from_pretrained(REPO)
    with pytest.raises(CheckpointError, match=r"missing \(1\): merger\.ln_q\.bias"):
        ModelSpec.open(REPO, tower_only=True).checkpoint.prepare()
    assert hub.sent < 300_000


@pytest.mark.parametrize("variable", ["", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_p24_no_request_where_requests_are_forbidden(hub, monkeypatch, variable):
    if variable:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(socket, "socket", pytest.fail)
    reason = variable or "local_files_only"
    with pytest.raises(SourceError, match=rf"holds no snapshot.* Nothing is downloaded, because {reason} is set"):
        Encoder.from_pretrained(REPO, local_files_only=not variable)
    assert not hub.requests


def test_p24_tokens_go_to_the_hub_alone(hub, tmp_path):
    hub.private = True
    for options in ({}, {"token": False}, {"token": "hf_wrongWRONGwrong"}):
        with pytest.raises(SourceError, match=r"is private, gated or not there.*pass token= or set HF_TOKEN") as caught:
            sources.open(REPO, **options)
        assert "hf_" not in str(caught.value)
        assert caught.value.__cause__ is None
    found = Encoder.from_pretrained(REPO, token=TOKEN, tower_only=True)
    shutil.rmtree(tmp_path / "qwenvis")
    Encoder.from_pretrained(REPO, token=TOKEN)
    assert f"Bearer {TOKEN}" in hub.tokens("hub")
    assert hub.tokens("store") == {None}
    kept = [found, found.spec.checkpoint, found.spec.checkpoint.source, ModelSpec.open(REPO, token=TOKEN).checkpoint]
    assert TOKEN not in repr(kept)
    assert TOKEN.encode() not in pickle.dumps(found)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_p24_pickles_of_arguments_have_no_token():
    options = HubOptions(revision="v1", token=TOKEN)
    again = pickle.loads(pickle.dumps(options))
    assert (again.revision, again.token) == ("v1", None)
    assert TOKEN not in repr(options)
    assert TOKEN not in repr(Location("http://a", 1, "b", {"authorization": TOKEN}, "c"))


def test_the_token_of_the_environment(hub, monkeypatch):
    hub.private = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert ModelSpec.open(REPO).family == "qwen2_vl"


@pytest.mark.parametrize("option", [{"token": ""}, {"token": "hf_x\nHost: a"}, {"token": 3}, {"tower_only": 1}])
def test_p24_wrong_arguments_are_not_quoted(hub, option):
    with pytest.raises(InputError) as caught:
        sources.open(REPO, **option)
    assert "hf_x" not in str(caught.value)
    assert not hub.requests


def test_a_pickle_names_the_commit(hub):
    found = Encoder.from_pretrained(REPO, tower_only=True, local_files_only=False)
    hub.commits["main"] = "d" * 40
    again = pickle.loads(pickle.dumps(found))
    assert again.spec.checkpoint.source["revision"] == COMMIT
    assert equal(again, found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "Some/Other"}, "is private, gated or not there"),
        ({"revision": "v9"}, f"{REPO} has no revision v9 on 127.0.0.1"),
        ({"endpoint": "http://127.0.0.1:9"}, r"the transfer from 127\.0\.0\.1:9 failed \(ConnectError\)"),
        ({"commit": "x"}, "names no commit"),
        ({"commit": "../../x"}, f"{REPO} is not here and cannot be downloaded"),
    ],
    ids=str,
)
def test_what_a_hub_may_answer(hub, monkeypatch, change, message):
    if "endpoint" in change:
        monkeypatch.setenv("HF_ENDPOINT", change["endpoint"])
    hub.commits["main"] = change.get("commit", COMMIT)
    with pytest.raises(SourceError, match=message):
        sources.open(change.get("source", REPO), revision=change.get("revision"))


def test_a_revision_with_a_slash(hub):
    hub.commits |= {"refs/pr/7": "e" * 40, "e" * 40: "e" * 40}
    assert ModelSpec.open(REPO, revision="refs/pr/7").checkpoint.source["revision"] == "e" * 40


LOAD = f"""
    from qwenvis import Encoder
    print(Encoder.from_pretrained("{REPO}", tower_only=int(sys.argv[1]) == 1, threads=1).family)
"""


@pytest.mark.parametrize("tower_only", [0, 1])
def test_two_processes_download_once(hub, tmp_path, published, tower_only):
    variables = hub_server.environment(hub, tmp_path)
    both = [launch(LOAD, tower_only, **variables) for _ in range(2)]
    assert [process.communicate(timeout=100)[0].strip() for process in both] == ["qwen2_vl"] * 2
    wanted = published[1] if tower_only else len(published[0][FIRST])
    assert hub.sent <= 1.03 * wanted + 2 * 140_000  # headers


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tower_only", [0, 1])
def test_killed_at_any_instant(hub, tmp_path, local, tower_only, kills):
    """Nothing that is half there is taken for whole, and nothing is left over once it is."""
    variables = hub_server.environment(hub, tmp_path)
    for goal in random.Random(kills).sample(range(12_000_000), kills):
        before = hub.sent
        with launch(LOAD, tower_only, **variables) as process:
            while hub.sent - before < goal and process.poll() is None:
                time.sleep(1e-4)  # the server is in this process
            process.kill()
    assert equal(Encoder.from_pretrained(REPO, tower_only=bool(tower_only)), Encoder.from_pretrained(local))
    folder = tmp_path / "qwenvis" / "towers" / "models--Some--Model"
    if tower_only:
        assert {path.name for path in folder.iterdir()} <= {COMMIT, ".lock"}


def test_local_sources_do_not_load_the_client():
    code = f"from qwenvis import Encoder; Encoder.from_pretrained({str(checkpoint())!r}); print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in output(f"import sys; {code}").split()}
    assert not loaded & {"huggingface_hub", "httpx2", "filelock", "tqdm"}


def test_without_the_extra(tmp_path):
    code = f"""
        sys.modules["huggingface_hub"] = None
        from qwenvis import Encoder
        Encoder.from_pretrained("{REPO}")
    """
    done = run(code, HF_HUB_OFFLINE="0", HF_HUB_CACHE=str(tmp_path), QWENVIS_CACHE=str(tmp_path))
    assert "hf download Some/Model --include" in done.stderr
    assert "pip install 'qwenvis[hub]'" in done.stderr


def test_a_broken_transfer_says_nothing_about_the_index(hub, tmp_path):
    (tmp_path / "hf" / "models--Some--Model" / "snapshots" / COMMIT).mkdir(parents=True)
    (tmp_path / "hf" / "models--Some--Model" / "snapshots" / COMMIT / SECOND).touch()
    hub.answers = [(404, {})] * 9
    with pytest.raises(SourceError, match=r"answers 404$"):
        sources.open(REPO)


def test_a_config_that_cannot_be_used(hub):
    hub.repos[REPO]["config.json"] = b"[]"
    with pytest.raises(ConfigError, match="expected an object"):
        sources.open(REPO)


def test_caches_that_cannot_be_written(hub, tmp_path):
    (tmp_path / "qwenvis").touch()
    with pytest.raises(SourceError, match=rf"{REPO} cannot be downloaded: .*qwenvis"):
        Encoder.from_pretrained(REPO, tower_only=True)
    assert any((tmp_path / "hf").iterdir())
