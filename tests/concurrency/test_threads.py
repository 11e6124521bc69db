"""How many threads: the argument, the environment, the affinity, the quota; in this order, and never more."""

import os

import numpy as np
import pytest

from made.presets import checkpoint
from qwenvis import Encoder
from qwenvis.concurrency import threads
from qwenvis.errors import InputError


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine of eight CPUs without variables or quotas; the directory stands in for /sys/fs/cgroup."""
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    return tmp_path


def version_1(directory, quota, period):
    (directory / "cpu").mkdir()
    (directory / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (directory / "cpu" / "cpu.cfs_period_us").write_text(f"{period}\n")


def test_argument_comes_first(monkeypatch):
    monkeypatch.setenv("QWENVIS_NUM_THREADS", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads.resolve(2) == 2
    assert threads.resolve() == 3
    assert Encoder.from_pretrained(checkpoint(), threads=2).threads == 2
    assert Encoder.from_pretrained(checkpoint()).threads == 3


def test_argument_may_ask_for_more_than_there_is():
    assert threads.resolve(64) == 64


def test_own_variable_comes_before_that_of_openmp(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads.resolve() == 4
    monkeypatch.setenv("QWENVIS_NUM_THREADS", " 3 ")
    assert threads.resolve() == 3
    monkeypatch.setenv("QWENVIS_NUM_THREADS", "")
    assert threads.resolve() == 4


def test_openmp_may_list_its_nesting_levels(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2,1")
    assert threads.resolve() == 4


def test_affinity():
    assert threads.resolve() == threads.available() == 8


def test_system_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert threads.available() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.available() == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1000 1000000", 1),
        ("1600000 100000", 8),
        ("", 8),
        ("200000", 8),
        ("many 100000", 8),
        ("0 100000", 8),
        ("200000 0", 8),
    ],
)
def test_quota_of_version_2(machine, text, count):
    (machine / "cpu.max").write_text(f"{text}\n")
    assert threads.available() == count


@pytest.mark.parametrize(("quota", "count"), [(-1, 8), (300_000, 3), (150_000, 1), (50_000, 1), (10**7, 8)])
def test_quota_of_version_1(machine, quota, count):
    version_1(machine, quota, 100_000)
    assert threads.available() == count


def test_version_2_comes_before_version_1(machine):
    version_1(machine, 200_000, 100_000)
    (machine / "cpu.max").write_text("400000 100000")
    assert threads.available() == 4


def test_quota_does_not_bind_what_was_asked_for(machine, monkeypatch):
    (machine / "cpu.max").write_text("100000 100000")
    assert threads.resolve() == 1
    assert threads.resolve(2) == 2
    monkeypatch.setenv("QWENVIS_NUM_THREADS", "5")
    assert threads.resolve() == 5


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array])
def test_integers_of_every_library(kind):
    assert Encoder.from_pretrained(checkpoint(), threads=kind(2)).threads == 2


WRONG = [0, -1, 1025, 10**30, 1.5, 2.0, "2", True, [2], np.int64(0), np.True_, np.float64(2), np.array([2, 3])]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_wrong_arguments(value):
    with pytest.raises(InputError, match=r"threads is .*; expected an integer from 1 to 1024"):
        threads.resolve(value)


def test_messages_stay_short():
    with pytest.raises(InputError, match="threads is int of very many digits; expected"):
        threads.resolve(10**5000)
    with pytest.raises(InputError, match=r"threads is .{200}[.]{3}; expected"):
        threads.resolve("2" * 10**6)


@pytest.mark.parametrize("text", ["0", "-1", "1025", "two", "1.5", "2x", "²", "9" * 5000])
@pytest.mark.parametrize("name", threads.VARIABLES)
def test_wrong_variables(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(InputError, match=f"environment variable {name} is"):
        threads.resolve()
