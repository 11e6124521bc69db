"""Ray Data with several processes: an actor is killed, a run is killed, actors leave the readers a CPU."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow.dataset
import pyarrow.parquet
import pytest
import ray
from PIL import Image

from docs.code_blocks import run_blocks
from house.source_files import ROOT
from made.presets import cache, encoder, materialise, picture
from qwenvis import InputError
from qwenvis.adapters.ray_data import Encode, encode

pytestmark = pytest.mark.filterwarnings("ignore")  # those of Ray

SOURCE = str(materialise("tiny-qwen2-vl", cache()))
ENCODER = encoder()
EXAMPLE = ROOT / "examples" / "ray_encode.py"
BAD = {7, 23}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A directory of 60 images, two of which are none."""
    directory = tmp_path_factory.mktemp("photos")
    for number in range(60):
        file = directory / f"{number:02}.png"
        if number in BAD:
            file.write_bytes(b"no image")
        else:
            Image.fromarray(picture(28 * (1 + number % 5), 84, seed=number)).save(file)
    return directory


@pytest.fixture
def cluster():
    ray.init(num_cpus=4, include_dashboard=False)
    yield
    ray.shutdown()


def check(rows, photos):
    """Each image has one row: its tokens, or why there are none."""
    names = Counter(Path(row["path"]).name for row in rows)
    assert names == Counter(file.name for file in photos.iterdir())
    for row in rows:
        number = int(Path(row["path"]).stem)
        assert (row["error"] is not None) == (row["tokens"] is None) == (number in BAD)
        if number % 10 == 0:
            want = ENCODER.encode(row["path"])
            assert row["key"] == want.keys[0]
            np.testing.assert_array_equal(np.array(row["tokens"], np.float32), want.wide())


def workers():
    """The processes of actors that encode."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if "MapWorker" in each.name() or "MapWorker" in " ".join(each.cmdline())]


def test_an_actor_is_killed(photos, cluster, tmp_path):
    rows = ray.data.read_binary_files(str(photos), include_paths=True, override_num_blocks=12)
    slow = rows.map(lambda row: time.sleep(0.05) or row)
    encoded = encode(slow, SOURCE, column="bytes", actors=2, num_cpus=1, batch_size=2)
    killed = []

    def kill():
        while not killed:
            if ready := workers():
                time.sleep(1)  # it is at work
                killed.append(ready[0].pid)
                os.kill(ready[0].pid, signal.SIGKILL)
            time.sleep(0.1)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    encoded.drop_columns(["bytes"]).write_parquet(str(tmp_path / "out"))
    thread.join(10)
    assert killed
    check(pyarrow.dataset.dataset(tmp_path / "out").to_table().to_pylist(), photos)


def test_batches_of_numpy_and_pandas(photos, cluster):
    """`Encode` alone, with the defaults of ``map_batches``, and images that Ray has decoded."""
    files = [str(photos / f"{number:02}.png") for number in (0, 5)]
    for batch_format in ("numpy", "pandas"):
        rows = ray.data.from_items([{"image": file} for file in files])
        options = {"compute": ray.data.ActorPoolStrategy(size=1), "num_cpus": 1, "batch_format": batch_format}
        found = rows.map_batches(Encode, fn_constructor_args=(SOURCE,), **options).take_all()
        for row, file in zip(sorted(found, key=lambda row: row["image"]), files, strict=True):
            assert (row["key"], row["error"]) == (ENCODER.encode(file).keys[0], None)
    found = encode(ray.data.read_images(files), SOURCE).take_all()
    assert {row["key"] for row in found} == set(ENCODER.encode(files).keys)


def test_columns_of_other_libraries(photos, cluster, tmp_path):
    """Null rows and ragged tokens come back from Parquet through pandas and Ray."""
    rows = ray.data.read_binary_files([str(photos / "00.png"), str(photos / "07.png")], include_paths=True)
    encode(rows, SOURCE, column="bytes").drop_columns(["bytes"]).write_parquet(str(tmp_path))
    want = ENCODER.encode(str(photos / "00.png")).wide()
    again = {Path(row["path"]).name: row for row in ray.data.read_parquet(str(tmp_path)).take_all()}
    np.testing.assert_array_equal(np.stack(list(again["00.png"]["tokens"])), want)
    assert again["07.png"]["tokens"] is None
    frame = pyarrow.dataset.dataset(tmp_path).to_table().to_pandas().set_index("path")
    np.testing.assert_array_equal(np.stack(frame.loc[str(photos / "00.png"), "tokens"]), want)


def test_actors_leave_a_cpu_to_the_readers(cluster):
    rows = ray.data.from_items([{"image": "a.png"}])
    for actors, cpus in ((4, 1), (2, 2), (1, 4)):
        with pytest.raises(InputError, match="would take all of Ray's 4 CPUs"):
            encode(rows, SOURCE, actors=actors, num_cpus=cpus)
    with pytest.raises(InputError, match="largest machine of the Ray cluster has 4 CPUs"):
        encode(rows, SOURCE, num_cpus=5)
    with pytest.raises(InputError, match="actors is 0"):
        encode(rows, SOURCE, actors=0)
    for actors in (1, 2, 3, 4, 5):  # by default
        encode(rows, SOURCE, actors=actors)


def run_example(photos, out, *options, **arguments):
    command = [sys.executable, str(EXAMPLE), str(photos), str(out), "--model", SOURCE, *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, **arguments)


def test_the_example_is_killed_and_goes_on(photos, tmp_path):
    out = tmp_path / "out"
    first = run_example(photos, out, "--actors", 1, "--batch-size", 2)
    while not list(out.glob("*.parquet")):
        assert first.poll() is None or first.returncode == 0
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    for _ in range(2):  # the second finds nothing to do
        told, _ = run_example(photos, out).communicate(timeout=300)
        assert told.startswith(f"60 rows in {out}, 2 with an error")
    check(pyarrow.dataset.dataset(out).to_table().to_pylist(), photos)


def test_the_example_reads_parquet(photos, tmp_path):
    files = sorted(photos.iterdir())
    table = pyarrow.table({"id": [file.name for file in files], "image": [file.read_bytes() for file in files]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=10)
    told, _ = run_example(tmp_path / "in.parquet", tmp_path / "out", "--name", "id").communicate(timeout=300)
    assert told.startswith("60 rows")
    rows = pyarrow.dataset.dataset(tmp_path / "out").to_table().rename_columns({"id": "path"}).to_pylist()
    assert Counter(row["path"] for row in rows) == Counter(file.name for file in files)


def test_the_code_of_the_docs(tmp_path, monkeypatch):
    for page in ("language_models.md", "ray.md"):
        try:
            run_blocks((ROOT / "docs" / page).read_text(encoding="utf-8"), tmp_path, monkeypatch, engine="ray")
        finally:
            ray.shutdown()
