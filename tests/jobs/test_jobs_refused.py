"""What a job refuses: other settings, other items, other directories; and errors that end a run."""

import shutil
from pathlib import Path

import pytest

from jobs import small_jobs
from jobs.small_jobs import COUNT
from made.presets import encoder
from qwenvis import InputError, VideoError
from qwenvis.jobs import open as open_job
from qwenvis.jobs import roster
from qwenvis.jobs.folder import Folder


def test_other_settings_are_refused(want):
    small_jobs.run(encoder())
    for model, options, said in [
        (encoder("qwen2_5_vl"), {}, r"the weights of the model, the config of the model, .*family \('qwen2_vl' there"),
        (encoder(dtype="bfloat16"), {}, r"format \('f32' there, 'bf16' here\)"),
        (encoder(), {"max_pixels": 50_000}, r"max_pixels \('12845056' there, '50000' here\)"),
        (encoder(), {"fps": 1.0}, r"fps \(None there, 1.0 here\)"),
        (encoder(), {"dtype": "float16"}, r"dtype \('float32' there, 'float16' here\)"),
        (encoder(), {"to": "parquet"}, r"to \('safetensors' there, 'parquet' here\)"),
        (encoder(), {"shard_size": 10**6}, r"shard_size \(12000 there, 1000000 here\)"),
    ]:
        with pytest.raises(InputError, match=f"tokens holds a job with other settings: .*{said}"):
            small_jobs.run(model, **options)
    assert small_jobs.tree("tokens") == want


def test_other_items_are_refused_but_some_may_be_gone(want):
    model = encoder()
    small_jobs.run(model)
    Path("photos/00000.jpg").unlink()
    small_jobs.run(model)
    assert small_jobs.tree("tokens") == want
    small_jobs.pictures(Path("photos"), COUNT + 2)
    with pytest.raises(InputError, match=r"begun with 37 items; not among them.*: photos/00036.jpg, and 1 more: name"):
        small_jobs.run(model)
    (Path("tokens") / "items.jsonl").write_text("{}")
    with pytest.raises(InputError, match=r"items\.jsonl was changed"):
        small_jobs.run(model)


def test_a_directory_of_others_and_a_second_process(want):
    with pytest.raises(InputError, match=r"photos holds 00000.jpg, .* and no job: name a new directory"):
        small_jobs.run(encoder(), directory="photos")
    with (
        Folder(Path("tokens")).opened(),
        pytest.raises(InputError, match="another process is at work in tokens, on the same share"),
    ):
        small_jobs.run(encoder())
    assert not Path("tokens").exists(), "a run that could not begin leaves nothing"


def test_an_error_that_is_no_item_s_ends_the_run(want):
    def stop(record, done, total):
        if done == 20:
            raise BrokenPipeError

    model = encoder()
    with pytest.raises(BrokenPipeError):
        small_jobs.run(model, told=stop)
    assert not (Path("tokens") / "manifest.jsonl").exists()
    small_jobs.run(model)
    assert small_jobs.tree("tokens") == want


def test_a_missing_package_ends_the_run_instead_of_failing_every_video(want, monkeypatch):
    (Path("photos") / "a.mp4").write_bytes(b"\0\0\0\x20ftypisom")

    def without_av(where):
        raise VideoError(f"{where} is read with PyAV, which is not installed") from ImportError("av")

    monkeypatch.setattr("qwenvis.videos.decode._av", without_av)
    with pytest.raises(InputError, match="PyAV, which is not installed"):
        small_jobs.run(encoder())


def test_what_cannot_be_an_argument():
    for options, said in [
        ({"to": "csv"}, "to is 'csv'; expected safetensors or parquet"),
        ({"to": "parquet", "dtype": "bfloat16"}, "parquet has no bfloat16"),
        ({"shard_size": 0}, "shard_size is 0"),
        ({"share": (2, 2)}, "share is 2; expected an integer from 0 to 1"),
        ({}, "there are no inputs"),
    ]:
        with pytest.raises(InputError, match=said):
            small_jobs.run(None, [], **options)


def test_an_encoder_is_loaded_once_the_arguments_are_checked(want):
    with pytest.raises(InputError, match="no such file or directory"):
        small_jobs.run(pytest.fail, "nowhere")
    small_jobs.run(encoder)
    assert small_jobs.tree("tokens") == want


def test_shares_that_begin_at_the_same_time_have_one_list(want, monkeypatch):
    """The share that lists more slowly goes on with the list of the other, which has an item more."""
    write = roster.write

    def overtaken(listing, path):
        found = write(listing, path)
        monkeypatch.setattr(roster, "write", write)
        small_jobs.run(encoder(), ["photos", "late.png"], share=(1, 2))
        return found

    shutil.copy("photos/00000.jpg", "late.png")
    monkeypatch.setattr(roster, "write", overtaken)
    summary = small_jobs.run(encoder(), share=(0, 2))
    assert (summary.complete, summary.items, summary.failures) == (True, COUNT + 2, 0)
    assert "late.png" in open_job("tokens")
