"""``qwenvis encode INPUT... -o DIRECTORY/``, and names in a file."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from house.source_files import ROOT
from jobs import small_jobs
from made.presets import checkpoint
from qwenvis import cli
from qwenvis.cli import items
from qwenvis.jobs import open as open_job


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with pictures, one of them broken."""
    monkeypatch.chdir(tmp_path)
    small_jobs.pictures(tmp_path / "photos", 10)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command line: (exit code, lines on stdout, stderr)."""

    def run(*words):
        code = cli.main(["encode", *words, "--model", str(checkpoint())])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


def test_a_job_says_what_it_did(run):
    code, out, err = run("photos", "-o", "tokens/", "--dtype-out", "float16")
    assert (code, out) == (3, [])
    assert "photos/inner/00007.png is not an image" in err
    tokens = sum(len(item.embeddings) for item in open_job("tokens"))
    assert err.endswith(f"tokens/: 9 of 10 items encoded now, {tokens} tokens, 1 failed; complete\n")
    assert open_job("tokens")[0].embeddings.dtype == "float16"
    code, out, err = run("photos", "-o", "tokens", "--dtype-out", "float16")
    assert (code, out, err) == (3, [], "tokens: 0 of 10 items encoded now, 0 tokens, 1 failed; complete\n")
    assert run("photos", "-o", "tokens", "--dtype-out", "float16", "--quiet") == (3, [], "")
    code, out, err = run("photos", "-o", "silent/", "--quiet")
    assert (code, out) == (3, [])
    assert err.startswith("qwenvis: photos/inner/00007.png is not an image")
    assert err.count("\n") == 1
    Path("photos/inner/00007.png").unlink()
    assert run("photos", "-o", "whole/")[0] == 0


def test_a_line_of_json_for_each_item(run):
    Path("names").write_text("photos/00000.jpg\nphotos/00000.jpg\nnowhere.png\n")
    code, out, err = run("@names", "-o", "tokens/", "--json")
    records = [json.loads(line) for line in out]
    assert code == 3
    assert records == [json.loads(line) for line in Path("tokens/manifest.jsonl").read_text().splitlines()]
    assert [record["error"] for record in records] == [None, "nowhere.png: there is no such file"]
    assert "1 name listed again and left out" in err


def test_shares(run):
    first = run("photos", "-o", "tokens/", "--shard", "2/2")
    assert first[0] == 0
    assert "not complete: other shares are missing" in first[2]
    assert run("photos", "-o", "tokens/", "--shard", "1/2")[2].endswith("; complete\n")
    for wrong in ("0/2", "3/2", "1", "a/b"):
        assert run("photos", "-o", "tokens/", "--shard", wrong)[0] == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("photos/00000.jpg", "-o", "out.safetensors", "--to", "parquet"), 2, "--to needs -o DIRECTORY/"),
        (("photos/00000.jpg", "--quiet"), 2, "--quiet needs -o DIRECTORY/"),
        (("nowhere/", "-o", "tokens/"), 1, "nowhere/: there is no such file or directory"),
        (("photos", "-o", "photos/"), 1, "and no job: name a new directory"),
        (("photos", "-o", "tokens/", "--to", "parquet", "--dtype-out", "bfloat16"), 1, "parquet has no bfloat16"),
        (("photos", "-o", "tokens"), 1, "photos is for jobs, which write into a directory: -o DIRECTORY/"),
        (("photos/*.jpg", "-o", "tokens"), 1, "photos/*.jpg is for jobs"),
        (("photos", "-o", "photos/00000.jpg/tokens/"), 1, "photos/00000.jpg is not a directory"),
        (("photos", "-o", f"{'n' * 300}/"), 1, "cannot be a directory: File name too long"),
        (("n" * 300, "-o", "tokens/"), 1, "cannot be read: File name too long"),
        (("@nowhere", "-o", "out.safetensors"), 1, "'nowhere' cannot be read: there is no such file"),
    ],
)
def test_what_cannot_be_used_is_said_before_a_weight_is_read(run, monkeypatch, words, code, said):
    monkeypatch.setattr("qwenvis.cli.steps.load", pytest.fail)
    got, _, err = run(*words)
    assert got == code
    assert said in err
    assert not Path("tokens").exists()


def test_names_in_a_file_are_encoded_into_one_file(run):
    Path("names").write_text("photos/00000.jpg\nphotos/00002.png\n")
    code, out, _ = run("@names", "photos/inner/00001.png", "-o", "out.safetensors")
    assert code == 0
    assert [line.split()[0] for line in out] == ["photos/00000.jpg", "photos/00002.png", "photos/inner/00001.png"]


def test_forty_thousand_names_in_a_file():
    names = [f"photos/{number:05d}.jpg" for number in range(40_000)]
    Path("names").write_text("\n".join(names))
    assert items.listed(["@names"]) == names


def command(directory, count):
    words = [
        "encode",
        f"photos-{count}",
        "--model",
        str(checkpoint()),
        "--threads",
        "1",
        "--json",
        "--shard-size",
        "200kB",
    ]
    return [sys.executable, "-m", "qwenvis", *words, "-o", directory]


def encodes(printed):
    return printed.count(b'"error": null')


@pytest.mark.parametrize(("count", "kills"), [(300, 2), pytest.param(2000, 20, marks=pytest.mark.slow)])
def test_kills_at_any_time(folder, monkeypatch, count, kills):
    """Byte-equal output, and about a shard's worth of encodes more for each kill; two if it hits the writing of one."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    small_jobs.pictures(folder / f"photos-{count}", count, broken=range(5, count, 97))
    start = time.perf_counter()
    done = subprocess.run(command("want/", count), capture_output=True)
    seconds = time.perf_counter() - start
    assert done.returncode == 3, done.stderr
    tables = sorted(Path("want/tables").iterdir())
    shard = max(table.read_bytes().count(b'"error": null') for table in tables)
    rng, encoded = random.Random(count), 0
    for _ in range(kills):
        with Path("log").open("wb") as log:
            process = subprocess.Popen(command("tokens/", count), stdout=log, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.1, min(seconds, 0.5 + 2 * seconds / kills)))
            process.kill()
            process.wait()
        encoded += encodes(Path("log").read_bytes())
    done = subprocess.run(command("tokens/", count), capture_output=True)
    assert done.returncode == 3, done.stderr
    assert small_jobs.tree("tokens") == small_jobs.tree("want")
    assert encoded + encodes(done.stdout) <= count + (kills + 2) * shard


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_items(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    peaks = []
    for count in (400, 4000):
        small_jobs.pictures(folder / f"photos-{count}", count, broken=())
        program = (
            "import resource, sys; from qwenvis.cli import main; code = main(sys.argv[1:]); "
            "print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        words = [sys.executable, "-c", program, *command(f"tokens-{count}/", count)[3:], "--quiet"]
        words.remove("--json")
        code, peak = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        assert code == "0"
        peaks.append(int(peak))
    assert peaks[1] < 1.05 * peaks[0], peaks
