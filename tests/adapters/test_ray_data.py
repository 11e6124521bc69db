"""The columns of Ray Data, without Ray: a row for each row, tokens of its own item or an error."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
from PIL import Image

from made.presets import cache, encoder, materialise, picture
from qwenvis import InputError
from qwenvis.adapters.ray_cluster import cpus_of_an_actor
from qwenvis.adapters.ray_data import Encode

SOURCE = materialise("tiny-qwen2-vl", cache())
ENCODER = encoder()
COLUMNS = ["key", "height", "width", "grid_thw", "tokens", "error"]


def png(number):
    file = io.BytesIO()
    Image.fromarray(picture(28 * number, 84, seed=number)).save(file, "png")
    return file.getvalue()


def rows(table):
    return table.drop_columns(["image"]).to_pylist()


def equal(row, image, encoder=ENCODER, dtype="float32"):
    want = encoder.encode(image).astype(dtype)
    assert (row["error"], row["key"]) == (None, want.keys[0])
    assert ([row["height"], row["width"]], row["grid_thw"]) == (want.sizes[0].tolist(), want.grid_thw[0].tolist())
    np.testing.assert_array_equal(np.array(row["tokens"], dtype), want.wide())


def test_a_row_has_its_tokens_or_its_error():
    table = pyarrow.table({"id": range(5), "image": [png(2), b"no image", None, png(3), png(4)[:200]]})
    found = Encode(SOURCE, threads=1)(table)
    assert found.column_names == ["id", "image", *COLUMNS]
    assert found["tokens"].type == pyarrow.list_(pyarrow.list_(pyarrow.float32(), 96))
    for number, row in enumerate(rows(found)):
        assert row["id"] == number
        if number in (0, 3):
            equal(row, table["image"][number].as_py())
        else:
            assert row["error"].startswith("image (")
            assert {row[name] for name in COLUMNS[:-1]} == {None}


def test_a_value_outside_the_range_is_the_error_of_its_row(monkeypatch):
    encode = Encode(SOURCE, threads=1, dtype_out="float16")
    stream = encode.encoder.encode_iter(images=[png(2), png(3)])
    quiet, loud = next(stream), next(stream)
    loud = loud._with(embeddings=loud.embeddings * np.float32(1e9))
    monkeypatch.setattr(type(encode.encoder), "encode_iter", lambda *_, **__: iter([loud, quiet]))
    found = encode(pyarrow.table({"image": [png(3), png(2)]}))
    assert found["error"][0].as_py().startswith("token 0, of item 0 (image), has the value ")
    assert [each is None for each in found["tokens"].to_pylist()] == [True, False]


def test_no_row_can_be_used():
    found = Encode(SOURCE, threads=1)(pyarrow.table({"image": [b"no image", b""]}))
    assert found["tokens"].null_count == found["key"].null_count == 2
    assert found["tokens"].type == pyarrow.list_(pyarrow.list_(pyarrow.float32(), 96))
    assert None not in found["error"].to_pylist()


def test_paths_and_columns_of_datasets(tmp_path):
    (tmp_path / "a.png").write_bytes(png(2))
    cells = [{"bytes": None, "path": str(tmp_path / "a.png")}, {"bytes": png(3), "path": "b.png"}]
    found = rows(Encode(SOURCE, threads=1)(pyarrow.table({"image": cells})))
    equal(found[0], png(2))
    equal(found[1], png(3))
    found = Encode(SOURCE, threads=1)(pyarrow.table({"image": [str(tmp_path / "a.png"), str(tmp_path / "none.png")]}))
    equal(rows(found)[0], png(2))
    assert "none.png" in rows(found)[1]["error"]


def test_videos_deepstack_and_float16():
    clip = np.stack([picture(56, 84, seed=n) for n in range(4)])
    frames = [Image.fromarray(each) for each in clip]
    file = io.BytesIO()
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:], duration=500)
    source = materialise("tiny-qwen3-vl", cache())
    table = pyarrow.table({"clip": [file.getvalue()]})
    encode = Encode(source, column="clip", kind="video", dtype_out="float16", limits={"fps": 2}, threads=1)
    row = encode(table).to_pylist()[0]
    want = encode.encoder.encode(videos=[file.getvalue()], fps=2).astype("float16")
    assert row["key"] == want.keys[0]
    np.testing.assert_array_equal(np.array(row["tokens"], "float16"), want.wide())


def test_limits():
    found = Encode(SOURCE, threads=1, limits={"max_pixels": 56 * 56})(pyarrow.table({"image": [png(6)]}))
    assert rows(found)[0]["grid_thw"] == ENCODER.encode(png(6), max_pixels=56 * 56).grid_thw[0].tolist()


def test_refusals(monkeypatch):
    with pytest.raises(InputError, match="dtype_out is 'bfloat16'"):
        Encode(SOURCE, dtype_out="bfloat16")
    with pytest.raises(InputError, match="kind is 'sound'"):
        Encode(SOURCE, kind="sound")
    encode = Encode(SOURCE, threads=1)
    with pytest.raises(InputError, match="no column image; it has picture"):
        encode(pyarrow.table({"picture": [png(2)]}))
    monkeypatch.setattr(encode, "encoder", None)  # nothing is encoded
    with pytest.raises(InputError, match="the columns key, tokens already"):
        encode(pyarrow.table({"image": [png(2)], "tokens": [0], "key": [0]}))
    with pytest.raises(InputError, match="max_pixels"):  # not about one item
        Encode(SOURCE, threads=1, limits={"max_pixels": -1})(pyarrow.table({"image": [png(2)]}))


@pytest.mark.parametrize(("machines", "actors", "share"), [((0,), 1, 0), ((1,), 1, 0), ((4,), 2, 1), ((4, 2), 1, 4)])
def test_actors_share_all_cpus_but_one(machines, actors, share, monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": float(count)} if count else {}} for count in machines]
    ray = SimpleNamespace(nodes=lambda: nodes, cluster_resources=lambda: {"CPU": float(sum(machines))})
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert cpus_of_an_actor(actors, None) == share
