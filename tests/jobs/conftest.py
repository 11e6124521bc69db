"""The folder of pictures and the bytes of an undisturbed job, which the tests of accidents share."""

import shutil

import pytest

from jobs import small_jobs
from jobs.small_jobs import BLOCK, COUNT
from made import video_files
from made.presets import encoder
from qwenvis.jobs import roster


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with pictures, and the bytes of a job over them that nobody disturbed."""
    root = tmp_path_factory.mktemp("made")
    small_jobs.pictures(root / "photos", COUNT)
    (root / "photos" / "00003.mp4").write_bytes(video_files.encoded(video_files.frames(4)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        small_blocks(patch)
        summary = small_jobs.run(encoder())
    assert (summary.encoded, summary.failures) == (COUNT, 1)
    return root, small_jobs.tree(root / "tokens")


def small_blocks(patch):
    patch.setattr(roster, "BLOCK", BLOCK)


@pytest.fixture
def want(made, tmp_path, monkeypatch):
    """The bytes that the job must leave; the pictures are in the current folder."""
    shutil.copytree(made[0] / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    small_blocks(monkeypatch)
    return made[1]
