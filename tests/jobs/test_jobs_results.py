"""What a job writes, and how it is read: every field of every item, in both formats."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from jobs import small_jobs
from made import video_files
from made.presets import encoder, forward_passes
from qwenvis import Embeddings, InputError
from qwenvis.jobs import open as open_job
from qwenvis.jobs import roster

FIELDS = ("embeddings", "grid_thw", "sizes", "second_per_grid_ts")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with pictures, one of them broken, an animation and a video."""
    monkeypatch.chdir(tmp_path)
    small_jobs.pictures(tmp_path / "photos", 12)
    (tmp_path / "photos" / "clip.mp4").write_bytes(video_files.encoded(video_files.frames(6)))
    return tmp_path


def names():
    found = sorted(str(path) for path in Path("photos").rglob("*.*") if path.read_bytes() != b"no picture")
    return sorted(found, key=lambda name: (name.split("/")[1] + "/").replace("inner/", "inner/" + name))


def same(got, want):
    """Whether two items are equal in all that a job stores."""
    lists = [
        (a, b)
        for name in ("deepstack", "frame_indices", "timestamps")
        for a, b in zip(getattr(got, name), getattr(want, name), strict=True)
    ]
    arrays = [(getattr(got, name), getattr(want, name)) for name in FIELDS] + lists
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays) and (
        (got.sources, got.keys, got.merge_size) == (want.sources, want.keys, want.merge_size)
    )


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    ("to", "dtype"), [("safetensors", "float32"), ("safetensors", "bfloat16"), ("parquet", "float16")]
)
def test_results_are_those_of_the_encoder(family, to, dtype):
    model = encoder(family)
    summary = small_jobs.run(model, to=to, dtype=dtype)
    results = open_job("tokens")
    assert (summary.encoded, summary.failures, len(results), results.complete) == (12, 1, 12, True)
    for number, (got, source) in enumerate(zip(results, results.sources, strict=True)):
        video = source.endswith(".mp4")
        want = model.encode(None if video else [source], videos=[source] if video else None).astype(dtype)
        if not video:
            want = want._with(frame_indices=[], timestamps=[], second_per_grid_ts=np.zeros(0))
        if not got.frame_indices or not len(got.frame_indices[0]):
            got = got._with(frame_indices=[], timestamps=[], second_per_grid_ts=np.zeros(0))
        assert same(got, want), source
        assert same(results[source], results[number])
        record = results.record(number)
        assert (record["tokens"], record["grid"], record["key"]) == (
            len(want.embeddings),
            want.grid_thw[0].tolist(),
            want.keys[0],
        )
        assert got.provenance["family"] == family
    assert summary.tokens == sum(len(item.embeddings) for item in results)


def test_items_are_mapped_and_read_only():
    small_jobs.run(encoder())
    item = open_job("tokens")[0]
    base = item.embeddings
    while isinstance(base, np.ndarray):
        base = base.base
    assert type(base).__name__ == "mmap"
    assert not item.embeddings.flags.writeable


def test_names_numbers_and_errors():
    small_jobs.run(encoder())
    results = open_job("tokens")
    broken = f"photos/inner/{small_jobs.BROKEN:05d}.png"
    assert results.errors == {broken: f"{broken} is not an image that Pillow can read; it begins with b'no picture'"}
    assert results[-1].sources == [results.sources[-1]]
    assert "photos/00000.jpg" in results
    assert broken not in results
    assert "nothing" not in results
    with pytest.raises(KeyError, match="'nothing' is not an item of tokens"):
        results["nothing"]
    with pytest.raises(InputError, match=r"has no tokens: .* is not an image"):
        results[broken]
    with pytest.raises(IndexError):
        results[12]
    assert pickle.loads(pickle.dumps(results)).sources == results.sources
    assert repr(results) == "<Results: 'tokens', 12 items, 1 failed>"


def test_a_shard_is_a_file_of_embeddings():
    small_jobs.run(encoder())
    results = open_job("tokens")
    record = results.record("photos/00000.jpg")
    shard = Embeddings.load(Path("tokens") / record["shard"])
    rows = shard.embeddings[record["offset"] : record["offset"] + record["tokens"]]
    assert rows.tobytes() == results["photos/00000.jpg"].embeddings.tobytes()
    shards = list(Path("tokens/shards").glob("*.safetensors"))
    tokens = [Embeddings.load(path).embeddings.nbytes for path in shards]
    assert len(shards) > 2
    assert max(tokens) <= small_jobs.SMALL_SHARD


def test_parquet_is_a_table():
    small_jobs.run(encoder(), to="parquet")
    table = pyarrow.parquet.read_table("tokens/shards")
    results = open_job("tokens")
    assert table["source"].to_pylist() == results.sources
    assert str(table["tokens"].type) == "list<element: fixed_size_list<element: float>[96]>"
    assert np.array_equal(table["tokens"][3].as_py(), results[3].embeddings)


def test_a_job_that_is_not_complete_can_be_read(monkeypatch):
    monkeypatch.setattr(roster, "BLOCK", 4)
    summary = small_jobs.run(encoder(), share=(1, 2))
    assert not summary.complete
    results = open_job("tokens")
    assert (len(results), results.complete, len(list(results))) == (5, False, 5)
    assert results[results.sources[2]].embeddings.tobytes() == results[2].embeddings.tobytes()


def test_a_part_that_others_have_replaced_is_not_read_twice(monkeypatch):
    monkeypatch.setattr(roster, "BLOCK", 12)
    small_jobs.run(encoder())
    want = open_job("tokens").sources
    second = sorted(Path("tokens/tables").iterdir())[1]
    Path("tokens/manifest.jsonl").unlink()
    lines = second.read_text().splitlines(keepends=True)
    head = json.loads(lines[0])
    late = {**head, "first": head["first"] + 1}  # of a run with other shards, which was killed
    Path(f"tokens/tables/{late['first']:09d}.jsonl").write_text("".join([json.dumps(late) + "\n", *lines[2:]]))
    assert open_job("tokens").sources == want


@pytest.mark.parametrize(("content", "said"), [("", "cannot be read"), ("{}", "does not fit its index")])
def test_a_damaged_manifest(content, said):
    small_jobs.run(encoder(), "photos/00000.jpg")
    Path("tokens/manifest.jsonl").write_text(content)
    with pytest.raises(InputError, match=rf"manifest\.jsonl {said}"):
        open_job("tokens")


def test_a_shard_that_is_newer_than_its_table_is_not_read(tmp_path):
    """A run that was killed, or is at work, may have replaced the one, and not the other."""
    small_jobs.run(encoder())
    shard, others = sorted(Path("tokens/shards").iterdir())[:2]
    name = json.loads(Path("tokens/tables", shard.stem + ".jsonl").read_text().splitlines()[1])["source"]
    shard.write_bytes(others.read_bytes())
    with pytest.raises(InputError, match=r"shards/000000000\.safetensors does not fit its table"):
        open_job("tokens")[name]


def test_a_cache_saves_the_tower(tmp_path, monkeypatch):
    model = encoder(cache=tmp_path / "cache")
    small_jobs.run(model)
    passes = forward_passes(monkeypatch, model)
    summary = small_jobs.run(model, directory="again", dtype="float16")
    assert (summary.cached, passes) == (12, [])
    assert small_jobs.tree("again") != small_jobs.tree("tokens")


def test_a_directory_without_a_job():
    with pytest.raises(InputError, match=r"photos holds no job: it has no job\.json"):
        open_job("photos")
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        open_job("n" * 300)
