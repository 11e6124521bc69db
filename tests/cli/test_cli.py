"""The command line, in process: what each command prints and writes, and what it says of what it cannot use."""

import re

import numpy as np
import pytest
from PIL import Image

import qwenvis
from made.presets import PRESETS as TINY_OF
from made.presets import materialise
from qwenvis import cli, sources
from qwenvis.models import FAMILIES
from qwenvis.sources import synthetic
from qwenvis.spec import ModelSpec

TINY = "synthetic:tiny-qwen2-vl"
PRESETS = ["tiny-qwen2-vl", "tiny-qwen2.5-vl"]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """One cache for the synthetic checkpoints of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QWENVIS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with two pictures and three files that are none."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name, (height, width) in {"wide.png": (84, 200), "small.jpg": (61, 97)}.items():
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "text.txt").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "wide.png").read_bytes()[:4000])
    (tmp_path / "empty.png").touch()
    return tmp_path


def files(folder):
    return {path.name for path in folder.iterdir()}


def test_encode_writes_what_the_encoder_gives(run, folder):
    code, lines, err = run(f"encode wide.png small.jpg --model {TINY} -o out.safetensors --threads 2")
    assert (code, err.count("\n")) == (0, 1)
    assert [" ".join(line.split()) for line in lines] == [
        "wide.png 200 x 84 grid_thw 1 6 14 21 tokens",
        "small.jpg 97 x 61 grid_thw 1 4 6 6 tokens",
    ]
    out = qwenvis.Embeddings.load("out.safetensors")
    want = qwenvis.Encoder.from_pretrained(TINY).encode(["wide.png", "small.jpg"])
    assert np.array_equal(out.embeddings.view(np.int32), want.embeddings.view(np.int32))
    assert out.grid_thw.tolist() == [[1, 6, 14], [1, 4, 6]]
    assert out.sources == ["wide.png", "small.jpg"]
    assert out.sizes.tolist() == [[84, 200], [61, 97]]
    assert out.provenance["max_pixels"] == "12845056"
    assert files(folder) == {"wide.png", "small.jpg", "text.txt", "cut.png", "empty.png", "out.safetensors"}


def test_encode_replaces_and_obeys_the_umask(run, folder):
    (folder / "embeddings.safetensors").write_text("old")
    assert run(f"encode small.jpg --model {TINY} --max-pixels 56x56")[0] == 0
    (folder / "plain").touch()
    assert qwenvis.Embeddings.load("embeddings.safetensors").provenance["max_pixels"] == "3136"
    assert (folder / "embeddings.safetensors").stat().st_mode == (folder / "plain").stat().st_mode


def test_encode_lists_all_bad_images_and_writes_nothing(run, folder):
    before = files(folder)
    code, lines, err = run(f"encode wide.png text.txt cut.png nofile.png empty.png {folder} --model {TINY}")
    assert (code, lines) == (1, [])
    first, *rest = err.splitlines()
    assert first == "qwenvis: 5 of 6 images cannot be used:"
    expected = ["'text.txt'.* is not an image", "'cut.png'.* truncated", "no such file", "is empty", "is a directory"]
    assert all(re.search(want, got) for want, got in zip(expected, rest, strict=True))
    assert files(folder) == before


def test_a_long_list_of_bad_images_is_cut(run):
    _, _, err = run(f"encode {' '.join(f'no{i}.png' for i in range(30))} --model {TINY}")
    assert err.startswith("qwenvis: 30 of 30 images")
    assert err.endswith("and 10 more\n")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("nowhere/out.safetensors", "there is no directory nowhere"),
        (".", "no job: name a new directory"),
        ("small.jpg", "is one of the images"),
        ("/dev/null", "is not a regular file"),
    ],
)
def test_encode_looks_at_the_output_first(run, folder, monkeypatch, output, said):
    monkeypatch.setattr(synthetic, "_write", pytest.fail)
    before = (folder / "small.jpg").read_bytes()
    code, lines, err = run(f"encode small.jpg --model {TINY} -o {output}")
    assert (code, lines) == (1, [])
    assert said in err
    assert (folder / "small.jpg").read_bytes() == before


def test_encode_looks_at_the_disk_before_it_computes(run, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    materialise("tiny-qwen2-vl")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    code, _, err = run(f"encode small.jpg --model {TINY} -o out.safetensors")
    assert code == 1
    assert err == "qwenvis: out.safetensors will take 2.3 kB; its disk has 100 bytes free\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("info nowhere", "names no checkpoint"),
        ("info synthetic:nothing", "there is no preset 'nothing'"),
        ("info Qwen/Qwen2-VL-2B-Instruct", "hf download Qwen/Qwen2-VL-2B-Instruct"),
        (f"encode small.jpg --model {TINY} --dtype int4", "dtype is 'int4'"),
        (f"encode small.jpg --model {TINY} --min-pixels 9000 --max-pixels 8000", "is larger than"),
        (f"encode small.jpg --model {TINY} --threads 99999", "expected an integer from 1 to"),
        (f"demo text.txt --model {TINY}", "'text.txt' is not an image"),
        (f"demo --model {TINY} --out picture.xyz", "name a .png file"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_message(run, folder, monkeypatch, line, said):
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    before = files(folder)
    code, _, err = run(line)
    assert code == 1
    assert err.startswith("qwenvis: ")
    assert said in err
    assert "Traceback" not in err
    assert files(folder) == before


@pytest.mark.parametrize(
    "line",
    [
        "",
        "sing",
        "encode",
        "encode small.jpg",
        f"encode small.jpg --model {TINY} --threads 0",
        f"encode small.jpg --model {TINY} --max-pixels many",
        f"encode small.jpg --model {TINY} --max-pixels 10x",
        f"encode small.jpg --mod {TINY}",
    ],
)
def test_usage_errors_are_2(run, line):
    code, lines, err = run(line)
    assert (code, lines) == (2, [])
    assert "usage: qwenvis" in err


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_has_examples(run, command):
    code, lines, _ = run(f"{command} --help")
    assert code == 0
    assert any(line.startswith(f"  qwenvis {command}") for line in lines[lines.index("examples") :])
    assert all(line.isascii() and len(line) <= 120 for line in lines)


def test_version(run):
    assert run("--version") == (0, [f"qwenvis {qwenvis.__version__}"], "")


@pytest.mark.parametrize("preset", PRESETS)
def test_info_says_the_same_before_and_after_a_preset_is_written(run, folder, monkeypatch, preset):
    monkeypatch.setenv("QWENVIS_CACHE", str(folder / "cache"))
    code, before, err = run(f"info synthetic:{preset}")
    assert (code, err) == (0, "")
    assert not (folder / "cache").exists()
    size = sum(tensor.nbytes for tensor in sources.open(f"synthetic:{preset}").tensors.values())
    materialise(preset)
    _, after, _ = run(f"info synthetic:{preset}")
    differ = [(a.split(), b.split()) for a, b in zip(before, after, strict=True) if a != b]
    assert len(differ) == 1
    assert "not there yet" in " ".join(differ[0][0])
    assert differ[0][1][:4] == ["on", "disk", f"{size / 1e3:.0f}", "kB"]
    _, directory, _ = run(f"info {folder}/cache/{preset}-v{synthetic.RECIPE}")
    assert after[1:] == directory[1:]


def test_info_of_every_family(run):
    """All that the registry has, and every preset."""
    code, lines, err = run("info")
    assert (code, err) == (0, "")
    rows = [line.split(None, 1) for line in lines[1:]]
    assert [family for family, _ in rows] == list(FAMILIES)
    assert {name for _, names in rows for name in names.split(", ")} == synthetic.PRESETS.keys()


def test_info_of_deepstack(run):
    lines = run("info synthetic:qwen3-vl-8b")[1]
    assert [line.split(None, 1)[1] for line in lines if "deepstack" in line] == ["after blocks 8, 16, 24"]


@pytest.mark.parametrize("preset", TINY_OF.values())
def test_a_preset_is_described_as_it_will_be_written(tmp_path, preset):
    """Every tensor with its file, offset and length, whether the preset's own tower or another one lists it."""
    described = sources.open(f"synthetic:{preset}", cache_dir=tmp_path)
    held = ModelSpec.open(f"synthetic:{preset}", cache_dir=tmp_path).checkpoint
    written = sources.open(materialise(preset, tmp_path))
    for field in ("path", "config", "vision_config", "model_type", "preprocessor", "video_preprocessor", "prefix"):
        assert getattr(described, field) == getattr(held, field) == getattr(written, field)
    assert dict(described.tensors) == dict(held.tensors) == dict(written.tensors)
    assert (described.dtypes, described.nbytes, described.files) == (written.dtypes, written.nbytes, written.files)


def test_info_of_images(run):
    code, lines, err = run("info synthetic:qwen2-vl-2b wide.png small.jpg --max-pixels 9408 --threads 1")
    assert (code, err) == (0, "")
    assert "665 million" in " ".join(lines)
    table = lines[lines.index("") + 1 :]
    assert [re.split(r"\s{2,}", line)[:5] for line in table[:3]] == [
        ["image", "width x height", "resized to", "grid_thw", "tokens"],
        ["wide.png", "200 x 84", "140 x 56", "1 4 10", "10"],
        ["small.jpg", "97 x 61", "84 x 56", "1 4 6", "6"],
    ]
    assert all(re.search(r" 2\.\d\d GB +about \d", line) for line in table[1:3])
    assert "1 thread, " in table[-1]


def test_info_lists_bad_images(run):
    code, lines, err = run(f"info {TINY} text.txt nofile.png")
    assert (code, lines) == (1, [])
    assert err.startswith("qwenvis: 2 of 2 images cannot be used:\n")


def test_info_without_a_preprocessor_config(run, folder):
    directory = materialise("tiny-qwen2-vl", folder)
    (directory / "preprocessor_config.json").unlink()
    code, lines, _ = run(f"info {directory}")
    assert code == 0
    assert "pass --min-pixels and --max-pixels" in lines[-1]
    assert run(f"info {directory} small.jpg")[0] == 1
    assert run(f"info {directory} small.jpg --min-pixels 3136 --max-pixels 9408")[0] == 0


def test_info_asks_for_fewer_pixels_where_an_image_takes_long(run, folder):
    Image.new("L", (4000, 3000)).save(folder / "large.png")
    lines = run("info synthetic:qwen2-vl-2b large.png")[1]
    assert re.search(r"about \d+ (min|h)", " ".join(lines))
    assert lines[-1].startswith("A smaller --max-pixels")


def test_demo_paints_the_picture_that_ships(run, folder):
    code, lines, err = run(f"demo --model {TINY}")
    assert (code, err) == (0, "")
    text = "\n".join(lines)
    assert "random" in text
    assert "1008 patches, 252 tokens" in text
    assert re.search(
        r"252 tokens of 96 numbers in \S+ m?s on \d+ threads?, \w+, f32: \d+ GFLOP/s, \d+% of the peak", text
    )
    with Image.open(folder / "qwenvis-demo.png") as page:
        assert (page.format, page.mode) == ("PNG", "RGB")
        assert page.width > 2 * 700


def test_demo_of_an_image_and_a_directory(run, folder):
    directory = materialise("tiny-qwen2.5-vl")
    code, lines, _ = run(f"demo small.jpg --model {directory} --out tokens.webp --max-pixels 56x56")
    assert code == 0
    assert "random" not in "\n".join(lines)
    with Image.open(folder / "tokens.webp") as page:
        assert page.format == "WEBP"
