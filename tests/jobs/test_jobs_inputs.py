"""What the inputs of a job name: every kind, in an order that is always the same, each name once."""

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jobs import small_jobs
from made import images, video_files
from made.presets import encoder, picture
from qwenvis import InputError
from qwenvis.io.files import opened
from qwenvis.jobs import open as open_job
from qwenvis.jobs import roster
from qwenvis.jobs.inputs.entries import Entry
from qwenvis.jobs.inputs.listing import Listing
from qwenvis.jobs.inputs.payloads import Reader


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with one picture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(PNG)
    return tmp_path


PNG = images.png(picture(56, 84))
TEXT = os.fsdecode(b"caf\xe9.png")  # no UTF-8


def named(*inputs, **options):
    return [entry.source for entry in Listing(inputs, **options)]


def touched(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def written(name, *lines):
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return name


def tarred(name, members):
    with tarfile.open(name, "w") as archive:
        for member, content in members:
            told = tarfile.TarInfo(member)
            told.size = len(content)
            archive.addfile(told, io.BytesIO(content))
    return name


def test_a_directory_is_sorted_and_chosen_by_suffix(folder):
    touched("d/b.JPG", "d/a/z.png", "d/c.mp4", "d/notes.txt", "d/.hidden.png", "d/.git/x.png", "d/a.png", "d/out/x.png")
    assert named("d", without=(folder / "d" / "out").resolve()) == ["d/a/z.png", "d/a.png", "d/b.JPG", "d/c.mp4"]
    assert named("d/", include=("*.txt", "out/*")) == ["d/notes.txt", "d/out/x.png"]


def test_a_pattern_does_not_enter_the_results(folder):
    touched("d/a.png", "d/out/shards/0.safetensors", "d/out/x.png", "d/outside.png")
    assert named("d/**/*", without=(folder / "d" / "out").resolve()) == ["d/a.png", "d/outside.png"]


def test_patterns_lists_and_standard_input(monkeypatch):
    touched("d/b.png", "d/a.png", "d/e/c.png")
    Path("names").write_bytes(b"d/b.png\r\n\ncaf\xe9.png\nnowhere.jpg")
    assert named("d/*.png", "**/c.png") == ["d/a.png", "d/b.png", "d/e/c.png"]
    assert named("@names") == ["d/b.png", TEXT, "nowhere.jpg"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x.png\ny.png\n")))
    assert named("-") == ["x.png", "y.png"]


def test_lines_of_json():
    Path("sub").mkdir()
    written("sub/x.jsonl", {"image": "a.png"}, {"text": "none"}, {"video": "b.mp4", "image": ["/c.png", "d.png"]})
    found = [(entry.source, entry.kind) for entry in Listing(["sub/x.jsonl"])]
    want = [("sub/a.png", "image"), ("/c.png", "image"), ("sub/d.png", "image"), ("sub/b.mp4", "video")]
    assert found == want


def test_columns_of_parquet():
    paths, cells = ["a.png", None, "b.png"], [PNG, None, b"no picture"]
    structs = [{"bytes": cell, "path": "x.png"} for cell in cells]
    table = pyarrow.table({"path": paths, "image": structs, "raw": cells, "number": [1, 2, 3]})
    pyarrow.parquet.write_table(table, "x.parquet", row_group_size=2)
    assert named("x.parquet", column="path") == ["a.png", "b.png"]
    for column in ("image", "raw"):
        reader = Reader()
        read = [reader.read(entry) for entry in Listing(["x.parquet"], column=column)]
        assert [each.entry.source for each in read] == ["x.parquet#0", "x.parquet#1", "x.parquet#2"]
        assert [each.content for each in read] == cells
        said = " (x.png): there is no such file" if column == "image" else " holds no bytes"
        assert str(read[1].error) == f"x.parquet#1{said}"
    with pytest.raises(InputError, match="column 'number' is int64; expected paths or encoded bytes"):
        named("x.parquet", column="number")
    with pytest.raises(InputError, match="has no column 'nothing'; it has path, image, raw, number"):
        named("x.parquet", column="nothing")


def test_a_struct_of_datasets_may_name_a_file():
    Path("sub").mkdir()
    Path("sub/b.png").write_bytes(PNG)
    table = pyarrow.table({"image": [{"bytes": None, "path": "b.png"}, {"bytes": None, "path": None}]})
    pyarrow.parquet.write_table(table, "sub/x.parquet")
    found, empty = (Reader().read(entry) for entry in Listing(["sub/x.parquet"]))
    assert (found.content, found.sha256, found.error) == (PNG, hashlib.sha256(PNG).hexdigest(), None)
    assert str(empty.error) == "sub/x.parquet#1 holds no bytes"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"picture": [PNG]}, "the file has no column 'image' now"),
        ({"image": ["a.png"]}, "holds no bytes"),
        ({"image": [7]}, "holds no bytes"),
    ],
)
def test_a_column_that_changes_later_is_an_error_of_its_items(now, said):
    pyarrow.parquet.write_table(pyarrow.table({"image": [PNG]}), "x.parquet")
    (entry,) = Listing(["x.parquet"])
    pyarrow.parquet.write_table(pyarrow.table(now), "x.parquet")
    assert said in str(Reader().read(entry).error)


def test_members_of_a_tar():
    tarred("x.tar", [("b.png", PNG), ("b.json", b"{}"), ("c/a.jpg", b"no picture"), ("cls", b"1")])
    read = [Reader().read(entry) for entry in Listing(["x.tar"])]
    assert [(each.entry.source, each.content) for each in read] == [
        ("x.tar#b.png", PNG),
        ("x.tar#c/a.jpg", b"no picture"),
    ]
    assert named("x.tar", include=("*.json",)) == ["x.tar#b.json"]


@pytest.mark.parametrize("damage", ["cut", "header"])
def test_a_damaged_tar_is_no_shorter_tar(damage):
    content = bytearray(Path(tarred("x.tar", [("a.png", PNG), ("b.png", PNG)])).read_bytes())
    second = content.index(b"b.png")
    Path("x.tar").write_bytes(
        content[: second + 100] if damage == "cut" else content[:second] + b"?" + content[second + 1 :]
    )
    with pytest.raises(InputError, match=r"x\.tar is damaged or cut: at byte"):
        named("x.tar")


def test_a_tar_that_is_cut_later_is_an_error_of_its_item():
    entry = next(iter(Listing([tarred("x.tar", [("a.png", PNG)])])))
    Path("x.tar").write_bytes(Path("x.tar").read_bytes()[:600])
    assert "the tar at byte 600: it was cut" in str(Reader().read(entry).error)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.png", "nowhere.png: there is no such file"),
        ("@nowhere", "@nowhere: there is no such file"),
        ("nothing*.png", "names no image or video"),
        ("empty", "no file in it has a known suffix"),
        ("x.tar.gz", "is compressed"),
        ("bad.jsonl", "bad.jsonl, line 1 is not JSON"),
        ("list.jsonl", r"line 1 is \[1\]; expected an object"),
        ("number.jsonl", "image is 5; expected a path"),
        ("bad.parquet", "bad.parquet cannot be read"),
        ("bad.tar", "bad.tar cannot be read"),
    ],
)
def test_an_input_that_cannot_be_listed(given, said):
    Path("empty").mkdir()
    touched("x.tar.gz")
    for name in ("bad.jsonl", "bad.parquet", "bad.tar"):
        Path(name).write_text("no container")
    written("list.jsonl", [1])
    written("number.jsonl", {"image": 5})
    with pytest.raises(InputError, match=said):
        named(given)


def test_a_name_that_is_listed_again_counts_once():
    entries = [Entry(name) for name in ("b", TEXT, "a", "b", "c", TEXT, "b")]
    assert roster.write(entries, Path("list")) == (4, 3)
    lines = [line for _, block in roster.blocks(Path("list")) for line in block]
    assert [Entry.parse(line).source for line in lines] == ["b", TEXT, "a", "c"]


def test_two_items_of_one_name_are_refused():
    tarred("x.tar", [("a.png", PNG), ("a.png", PNG)])
    with pytest.raises(InputError, match=r"two different items have the name x\.tar#a\.png"):
        roster.write(Listing(["x.tar"]), Path("list"))


def test_a_name_may_be_listed_with_and_without_its_kind():
    touched("b.mp4")
    written("x.jsonl", {"image": "a.png"}, {"video": "b.mp4"})
    assert roster.write(Listing(["a.png", "x.jsonl", "b.mp4"]), Path("list")) == (2, 2)
    written("y.jsonl", {"video": "a.png"})
    with pytest.raises(InputError, match=r"a\.png is listed as an image and as a video"):
        roster.write(Listing(["a.png", "x.jsonl", "y.jsonl"]), Path("list"))


def test_shares_part_the_blocks():
    roster.write((Entry(str(number)) for number in range(5 * roster.BLOCK - 1)), Path("list"))
    shares = [list(roster.blocks(Path("list"), roster.Share(number, 2))) for number in range(2)]
    assert [[position // roster.BLOCK for position, _ in share] for share in shares] == [[0, 2, 4], [1, 3]]
    assert sum(len(lines) for share in shares for _, lines in share) == 5 * roster.BLOCK - 1


def test_every_kind_of_input_gives_the_same_tokens(folder):
    model = encoder()
    Path("clip.bin").write_bytes(video_files.encoded(video_files.frames(6)))
    tarred("x.tar", [("a.png", PNG), ("clip.mp4", Path("clip.bin").read_bytes())])
    pyarrow.parquet.write_table(pyarrow.table({"image": [PNG]}), "x.parquet")
    written("x.jsonl", {"video": "clip.bin"})
    summary = small_jobs.run(model, ["a.png", "x.tar", "x.parquet", "x.jsonl"])
    assert (summary.items, summary.encoded, summary.failures) == (5, 5, 0)
    results = open_job("tokens")
    for group in (("a.png", "x.tar#a.png", "x.parquet#0"), ("clip.bin", "x.tar#clip.mp4")):
        assert len({results[name].embeddings.tobytes() for name in group}) == 1


def test_a_picture_is_one_under_the_name_of_a_video():
    Path("a.mp4").write_bytes(PNG)
    pyarrow.parquet.write_table(pyarrow.table({"raw": [PNG]}), "x.parquet")
    inputs = Listing(["a.mp4", tarred("x.tar", [("a.mp4", PNG), ("b.mp4", b"neither")])], column="raw")
    assert [Reader().read(entry).kind for entry in inputs] == ["image", "image", "video"]
    small_jobs.run(encoder(), ["a.png", "a.mp4"])
    tokens = [item.embeddings.tobytes() for item in open_job("tokens")]
    assert tokens[0] == tokens[1]


def test_large_members_and_files_are_not_held(monkeypatch):
    monkeypatch.setattr("qwenvis.jobs.inputs.payloads.HELD", 100)
    clip = video_files.encoded(video_files.frames(6))
    tarred("x.tar", [("a.png", PNG), ("clip.mp4", clip)])
    Path("clip.mp4").write_bytes(clip)
    reader = Reader()
    for entry in Listing(["a.png", "clip.mp4", "x.tar"]):
        payload = reader.read(entry)
        assert not isinstance(payload.content, bytes)
        whole = PNG if entry.source.endswith(".png") else clip
        assert payload.sha256 == hashlib.sha256(whole).hexdigest()
        with opened(payload.content, "it", InputError) as file:
            assert (file.seek(-5, os.SEEK_END), file.read()) == (len(whole) - 5, whole[-5:])
    small_jobs.run(encoder(), ["a.png", "clip.mp4", "x.tar"])
    results = open_job("tokens")
    for name in ("a.png", "clip.mp4"):
        assert results[name].embeddings.tobytes() == results[f"x.tar#{name}"].embeddings.tobytes()
