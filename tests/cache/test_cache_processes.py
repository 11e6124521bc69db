"""One directory, many users: processes and threads at once, killed writers, full disks, read-only directories."""

import os
import stat
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from made.embeddings import equal, item, key
from processes.programs import launch, output
from qwenvis import Cache, CacheWarning
from qwenvis.cache.cache import ABANDONED, STEP

SETUP = """
import os, random, signal, time
from made.embeddings import equal, item, key
from qwenvis import Cache
cache = Cache(sys.argv[1], int(sys.argv[2]))
"""
SIZE = 5000  # more than the file of an item has


def names(cache):
    return [path.name for path in cache.directory.iterdir()]


def test_processes_that_write_and_prune_at_once(tmp_path):
    """Each sees only whole items of their keys; the bound holds but for a share of each; nothing is left behind."""
    bound, writers = 20 * SIZE, 3
    code = """
random.seed(int(sys.argv[3]))
os.fsync = lambda _: None  # disks are slow, and only a loss of power would show that it is missing
hits = 0
for _ in range(150):
    number = random.randrange(40)
    got = cache.get(key(number))
    if got is None:
        cache.put(key(number), item(number))
    else:
        hits += 1
        equal(got, item(number))
    if random.random() < 0.02:
        cache.prune(cache.max_bytes // 2)
    if random.random() < 0.1:
        assert cache.verify() == []
print(hits)
"""
    running = [launch(SETUP + code, tmp_path, bound, number) for number in range(writers)]
    cache, seen = Cache(tmp_path, bound), 0
    while any(process.poll() is None for process in running):
        seen = max(seen, cache.nbytes)
        time.sleep(0.001)
    for process in running:
        out, error = process.communicate()
        assert (process.returncode, error) == (0, "")
        assert int(out) > 20
    # An item that was written is counted a moment later, in each process.
    assert bound / 2 < seen <= bound + (writers - 1) * bound // STEP + writers * SIZE
    assert all(name.endswith(".safetensors") for name in names(cache))


def test_killed_writers_leave_nothing_half_written(tmp_path):
    """A child is killed at a random instant of its writing, many times; what it leaves is pruned when it is old."""
    code = """
random.seed(0)
start = time.monotonic()
for number in range(10):
    cache.put(key(number), item(number, 20_000))
of_a_put = (time.monotonic() - start) / 10
for number in range(10, 50):
    child = os.fork()
    if child == 0:
        while True:
            cache.put(key(number), item(number, 20_000))
    time.sleep(random.uniform(0, 2 * of_a_put))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    got = cache.get(key(number))
    if got is not None:
        equal(got, item(number, 20_000))
    assert cache.verify() == []
print(len(cache), len([name for name in os.listdir(cache.directory) if name.startswith(".")]))
"""
    whole, drafts = map(int, output(SETUP + code, tmp_path, 10**9).split())
    assert whole > 10
    assert drafts > 5
    cache = Cache(tmp_path)
    cache.prune()
    assert len(names(cache)) == whole + drafts  # their writers may be at work
    for path in tmp_path.glob(".*"):
        os.utime(path, times=(time.time() - ABANDONED - 10,) * 2)
    cache.prune()
    assert len(names(cache)) == len(cache) == whole


def test_threads(tmp_path):
    cache = Cache(tmp_path, 20 * SIZE)

    def use(number):
        got = cache.get(key(number % 30))
        if got is None:
            cache.put(key(number % 30), item(number % 30))
        else:
            equal(got, item(number % 30))
        return got is not None

    with ThreadPoolExecutor(8) as pool:
        hits = sum(pool.map(use, range(600)))
    assert hits > 20
    assert cache.verify() == []
    # each thread may have counted later than another has scanned
    assert cache.nbytes <= cache.max_bytes + 8 * SIZE
    cache.put(key(99), item(99))
    assert all(name.endswith(".safetensors") for name in names(cache))


def test_the_child_of_a_fork_goes_on(tmp_path):
    code = """
cache.put(key(0), item(0))
child = os.fork()
if child == 0:
    signal.alarm(20)
    equal(cache.get(key(0)), item(0))
    for number in range(1, 40):
        cache.put(key(number), item(number))
    os._exit(0)
for number in range(40, 80):
    cache.put(key(number), item(number))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), cache.verify())
print(cache.nbytes)
"""
    bound = 20 * SIZE
    ended, nbytes = output(SETUP + code, tmp_path, bound).splitlines()
    assert ended == "0 []"
    assert bound / 2 < int(nbytes) <= bound + bound // STEP + 2 * SIZE


def test_a_file_that_another_process_removes_meanwhile(tmp_path, monkeypatch):
    """Between the scan and the removal, the listing and the header, the file and its use."""
    cache = Cache(tmp_path, 4 * SIZE)
    for number in range(3):
        cache.put(key(number), item(number))
    scan = Cache._files

    def and_remove(self):
        found = scan(self)
        (tmp_path / f"{found[0].key}.safetensors").unlink()
        return found

    monkeypatch.setattr(Cache, "_files", and_remove)
    assert [each.source for each in cache] == ["1.jpg", "2.jpg"]
    assert cache.prune(SIZE // 2) == 2
    monkeypatch.setattr(Cache, "_files", scan)
    cache.put(key(1), item(1))
    monkeypatch.setattr(os, "utime", lambda path, *_: Path(path).unlink())
    equal(cache.get(key(1)), item(1))
    assert len(cache) == 0


def full_disk(*_):
    raise OSError(28, os.strerror(28))


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    cache.put(key(0), item(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.warns(CacheWarning, match="not kept: No space left on device"):
            cache.put(key(1), item(1))
    assert (len(names(cache)), cache.get(key(1))) == (1, None)
    equal(cache.get(key(0)), item(0))


def test_a_write_that_stops_in_the_middle(tmp_path):
    """By the limit of a file's size, as a disk or a quota that is full; Python says it once."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
for number in range(3):
    cache.put(key(number), item(number))
    assert cache.get(key(number)) is None
print(os.listdir(cache.directory))
"""
    with launch(SETUP + code, tmp_path, 10**9) as process:
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "[]\n")
    assert error.count("CacheWarning") == 1
    assert "File too large" in error


def test_a_read_only_directory_serves_what_it_holds():
    code = """
import warnings
cache.put(key(0), item(0))
os.mkdir(sys.argv[1] + "/empty")
for directory in ("/empty", ""):
    os.chmod(sys.argv[1] + directory, 0o555)
os.chdir("/")
if os.geteuid() == 0:
    os.setuid(65534)  # no root, who may write everywhere
cache = Cache(sys.argv[1])
equal(cache.get(key(0)), item(0))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    cache.put(key(1), item(1))
print(len(cache), caught[0].message)
for use in (lambda: cache.prune(0), lambda: Cache(sys.argv[1] + "/empty"), lambda: Cache(sys.argv[1] + "/new")):
    try:
        use()
    except ValueError as error:
        print(error)
"""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        lines = output(SETUP + code, directory, 10**9).splitlines()
        Path(directory).chmod(0o755)
    assert lines[0] == f"1 the cache {directory} cannot be written, so new tokens are not kept: Permission denied"
    assert lines[1:] == [
        f"the cache {directory}/{key(0)}.safetensors cannot be used: Permission denied",
        f"the cache {directory}/empty is empty and cannot be written",
        f"the cache {directory}/new cannot be used: Permission denied",
    ]


def test_files_obey_the_umask(tmp_path):
    cache = Cache(tmp_path)
    before = os.umask(0o027)
    try:
        cache.put(key(0), item(0))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / f"{key(0)}.safetensors").stat().st_mode) == 0o640
