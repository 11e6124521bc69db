"""A job that was stopped, damaged or shared out ends with the same bytes, and encodes little again."""

import resource
import shutil
from pathlib import Path

import pytest

from jobs import small_jobs
from jobs.small_jobs import BLOCK, COUNT
from made.presets import encoder, forward_passes
from processes.programs import output
from qwenvis import InputError
from qwenvis.jobs import open as open_job
from qwenvis.jobs import pipeline
from qwenvis.jobs.parts import Part


def test_the_second_run_does_nothing(want, monkeypatch):
    model = encoder()
    small_jobs.run(model)
    passes = forward_passes(monkeypatch, model)
    summary = small_jobs.run(model)
    assert (summary.encoded, summary.failed, summary.failures, passes) == (0, 0, 1, [])
    assert small_jobs.tree("tokens") == want


@pytest.mark.parametrize("budget", [1, 100, 20_000])
def test_batches_and_threads_change_nothing(want, monkeypatch, budget):
    monkeypatch.setattr(pipeline, "PATCH_BUDGET", budget)
    small_jobs.run(encoder(threads=2))
    assert small_jobs.tree("tokens") == want


CRASHES = f"""
import os, shutil, sys
from pathlib import Path
from jobs import small_jobs
from made.presets import encoder
from qwenvis.jobs import folder, roster
roster.BLOCK = {BLOCK}
os.chdir(sys.argv[1])
model, place, early = encoder(), folder.Folder.place, Path("photos/00002.png")
small_jobs.run(model, directory="want")
want = small_jobs.tree("want")
content = early.read_bytes()
early.unlink()
small_jobs.run(model, "@names", "without")
early.write_bytes(content)

def dies(instants):
    instants[0] -= 1
    if instants[0] < 0:
        os._exit(9)

def interrupted(directory, instant):
    instants = [instant]
    def placed(self, draft, target):
        dies(instants)
        place(self, draft, target)
        dies(instants)
    folder.Folder.place = placed
    small_jobs.run(model, "@names", directory)
    os._exit(0)

for begun in (False, True):
    for instant in range(int(sys.argv[2]), 1000, int(sys.argv[3])):
        if begun:
            shutil.copytree("without", "tokens")
        child = os.fork()
        if child == 0:
            interrupted("tokens", instant)
        killed = os.waitpid(child, 0)[1] != 0
        summary = small_jobs.run(model, "@names", "tokens")
        print(begun, instant, killed, small_jobs.tree("tokens") == want)
        shutil.rmtree("tokens")
        if not killed:
            break
"""


@pytest.mark.parametrize(("first", "step"), [(1, 12), pytest.param(0, 1, marks=pytest.mark.slow)])
def test_a_crash_before_or_after_any_rename(want, tmp_path, first, step):
    """Of a new job, and of a job that is redoing a block because an item has come back."""
    listed = sorted(str(path.relative_to(tmp_path)) for path in Path("photos").resolve().rglob("*.*"))
    order = [line.split('"')[3] for line in (want["items.jsonl"]).decode().splitlines()]
    assert sorted(order) == listed
    Path("names").write_text("\n".join(order))
    told = [line.split() for line in output(CRASHES, tmp_path, first, step).splitlines()]
    assert all(same == "True" for *_, same in told), told
    for begun in ("False", "True"):
        killed = [kill == "True" for state, _, kill, _ in told if state == begun]
        assert len(killed) > 2
        assert killed == [True] * (len(killed) - 1) + [False]


def test_an_item_that_disappears_and_comes_back(want, monkeypatch):
    late = Path("photos") / f"{COUNT - 2:05d}.png"
    content, model = late.read_bytes(), encoder()
    names = [line.split('"')[3] for line in (want["items.jsonl"]).decode().splitlines()]
    assert names.index(str(late)) > BLOCK, "it is read after the first item was told"
    summary = small_jobs.run(model, told=lambda record, done, total: late.unlink(missing_ok=True))
    assert (summary.failed, summary.complete) == (2, True)
    without = small_jobs.tree("tokens")
    assert small_jobs.run(model).encoded == 0
    assert small_jobs.tree("tokens") == without != want
    late.write_bytes(content)
    passes = forward_passes(monkeypatch, model)
    assert small_jobs.run(model).encoded == len(passes) == 1
    assert small_jobs.tree("tokens") == want


def test_failed_items_are_tried_again_on_request(want):
    model = encoder()
    small_jobs.run(model)
    assert small_jobs.run(model).failed == 0
    assert small_jobs.run(model, retry_failed=True).failed == 1
    assert small_jobs.tree("tokens") == want


@pytest.mark.parametrize("limit", [12_000, 1500])
def test_a_full_disk(want, limit):
    """A limit on the size of files fails as a full disk does."""
    model = encoder()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written: .*File too large"):
            small_jobs.run(model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    left = small_jobs.tree("tokens") if Path("tokens").exists() else {}
    assert {name for name, content in left.items() if want.get(name) != content} == set()
    small_jobs.run(model)
    assert small_jobs.tree("tokens") == want


def test_a_manifest_never_tells_of_other_shards(want):
    def stop(record, done, total):
        raise KeyboardInterrupt

    model, late = encoder(), Path("photos") / f"{COUNT - 2:05d}.png"
    content = late.read_bytes()
    small_jobs.run(model, told=lambda record, done, total: late.unlink(missing_ok=True))
    late.write_bytes(content)
    with pytest.raises(KeyboardInterrupt):
        small_jobs.run(model, told=stop)
    assert not open_job("tokens").complete
    assert not (Path("tokens") / "manifest.jsonl").exists()
    assert all(len(item.embeddings) for item in open_job("tokens"))
    small_jobs.run(model)
    assert open_job("tokens").complete


def test_a_table_that_another_share_left_over_is_not_joined(want):
    small_jobs.run(encoder())
    left = table(sorted(Path("tokens/shards").iterdir())[-1])
    left.with_stem(f"{int(left.stem) + 1:09d}").write_bytes(left.read_bytes())
    (Path("tokens") / "manifest.jsonl").unlink()
    blocks = -(-(COUNT + 1) // BLOCK)
    assert small_jobs.run(encoder(), share=(0, blocks)).complete
    assert (Path("tokens") / "manifest.jsonl").read_bytes() == want["manifest.jsonl"]


def test_a_shard_whose_items_are_all_gone_is_removed(want):
    small_jobs.run(encoder())
    shutil.rmtree("tokens/tables")
    for picture in Path("photos").glob("**/*.*"):
        picture.rename(picture.with_suffix(".gone"))
    Path("names").write_text("photos/00000.jpg\nphotos/00002.png\n")
    assert small_jobs.run(encoder(), "@names").failures == COUNT + 1
    assert list(Path("tokens/shards").iterdir()) == []
    assert len(open_job("tokens")) == 0


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def table(shard):
    return shard.parents[1] / "tables" / f"{shard.stem}.jsonl"


DAMAGES = {
    "a bit of a shard": flip,
    "a shard that is gone": Path.unlink,
    "a shard that was cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a table that is gone": lambda path: table(path).unlink(),
    "a table that was cut": lambda path: table(path).write_bytes(table(path).read_bytes()[:500]),
    "an index that is gone": lambda path: (path.parents[1] / "index.safetensors").unlink(),
    "a manifest that was cut": lambda path: (path.parents[1] / "manifest.jsonl").write_text("{"),
    "a shard of a job before": lambda path: path.with_stem("000000001").write_bytes(b"x"),
    "a draft of a killed process": lambda path: (path.parents[1] / ".drafts-3-of-4").mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_repaired(want, monkeypatch, damage):
    model = encoder()
    small_jobs.run(model)
    shard = sorted(Path("tokens/shards").glob("*.safetensors"))[1]
    items = len(Part.load(table(shard)).records)
    passes = forward_passes(monkeypatch, model)
    damage(shard)
    small_jobs.run(model)
    assert {name: content for name, content in small_jobs.tree("tokens").items() if want.get(name) != content} == {}
    assert small_jobs.tree("tokens").keys() == want.keys()
    assert sum(passes) <= items * 64, "no other shard is encoded again"


def test_shares_of_one_directory(want):
    model = encoder()
    summaries = [small_jobs.run(model, share=(number, 3)) for number in (2, 0, 1)]
    assert [summary.complete for summary in summaries] == [False, False, True]
    assert small_jobs.tree("tokens") == want


def test_shares_of_several_directories_are_copied_together(want, monkeypatch):
    model = encoder()
    for number in range(2):
        small_jobs.run(model, directory=f"machine-{number}", share=(number, 2))
        shutil.copytree(f"machine-{number}", "tokens", dirs_exist_ok=True)
    passes = forward_passes(monkeypatch, model)
    assert small_jobs.run(model).complete
    assert passes == []
    assert small_jobs.tree("tokens") == want
