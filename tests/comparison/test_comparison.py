"""Comparisons of tiny towers, against NumPy on what the encoders of both formats return."""

import gc
import weakref
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from comparison.formulas import close, formulas, rounding
from comparison.perturbing import perturb
from made import video_files
from made.presets import SMALL, checkpoint, picture
from qwenvis import Encoder, ImageError, InputError, ModelSpec, NumericalError
from qwenvis.checkpoints.checkpoint import Checkpoint
from qwenvis.comparison import compare, comparison
from qwenvis.models import qwen2_vl

IMAGES = [picture(84, 140), picture(60, 90, seed=1)]
VIDEO = video_files.frames(6)


def spec(family="qwen2_vl", dtype="bfloat16"):
    return ModelSpec.open(checkpoint(family), dtype=dtype, **SMALL)


def encoded(family, dtype, **inputs):
    model = Encoder.from_pretrained(checkpoint(family), dtype=dtype, threads=1, **SMALL)
    return model.encode(IMAGES, hidden_states=True, **inputs)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "paddleocr_vl"])
def test_all_outputs_are_compared(family, monkeypatch):
    """Of towers without and with windows, deepstack and a projector; of two images and, in most families, a video."""
    videos = {} if family == "paddleocr_vl" else {"videos": [VIDEO]}
    found = compare(spec(family), IMAGES, threads=1, **videos)
    got, want = (encoded(family, dtype, **videos) for dtype in ("bfloat16", "float32"))
    pairs = [
        (found.tokens, got.embeddings, want.embeddings),
        *zip(found.deepstack, got.deepstack, want.deepstack, strict=True),
        *zip(found.layers, got.hidden_states, want.hidden_states, strict=True),
    ]
    for item, a, b in zip(found.items, got, want, strict=True):
        pairs.append((item.tokens, a.embeddings, b.embeddings))
        pairs += zip(item.deepstack, a.deepstack, b.deepstack, strict=True)
        lengths = np.linalg.norm(np.float64(a.embeddings) - b.embeddings, axis=1)
        size = np.sqrt((np.float64(b.embeddings) ** 2).sum(axis=1).mean())
        t, h, w = item.grid_thw
        assert item.token_errors.shape == (t, h // 2, w // 2)
        assert np.allclose(item.token_errors.ravel(), lengths / size, rtol=rounding(b.embeddings.size), atol=0)
        assert item.relative_rms == max(each.relative_rms for each in (item.tokens, *item.deepstack))
    assert [item.source for item in found.items] == want.sources
    assert [item.grid_thw for item in found.items] == list(map(tuple, want.grid_thw.tolist()))
    assert (found.dtype, found.against) == ("bfloat16", "float32")
    assert len(pairs) == (1 + len(want.deepstack)) * (1 + len(want)) + spec(family).config.depth + 1
    for measured, a, b in pairs:
        assert close(measured, formulas(a, b), a.size)
        assert 0 < measured.relative_rms < 0.1


def test_formats_in_either_order():
    narrow, wide = (compare(spec(dtype=d), IMAGES, against=a, threads=1) for d, a in (("bf16", "f32"), ("f32", "bf16")))
    assert (wide.dtype, wide.against) == ("float32", "bfloat16")
    assert narrow.tokens.smallest_cosine == wide.tokens.smallest_cosine
    assert narrow.tokens.relative_rms != wide.tokens.relative_rms


def test_groups_of_items_change_nothing(monkeypatch):
    together = compare(spec("qwen3_vl"), IMAGES, videos=[VIDEO], threads=1)
    fills, fill = [], Checkpoint.fill
    monkeypatch.setattr(Checkpoint, "fill", lambda self, weights: fills.append(weights.format) or fill(self, weights))
    monkeypatch.setattr(comparison, "RECORDED", 1)
    found = compare(spec("qwen3_vl"), IMAGES, videos=[VIDEO], threads=1)
    assert fills == ["f32", "bf16"] * 3
    for a, b in zip(found.items, together.items, strict=True):
        assert (a.tokens, a.deepstack) == (b.tokens, b.deepstack)
    for a, b in zip((found.tokens, *found.layers), (together.tokens, *together.layers), strict=True):
        assert close(a, b, 1000)


def test_memory_holds_one_set_of_weights(monkeypatch):
    filled, fill = [], Checkpoint.fill

    def fill_alone(self, weights):
        gc.collect()
        assert not [each for each in filled if each() is not None]
        fill(self, weights)
        filled.append(weakref.ref(weights))

    monkeypatch.setattr(Checkpoint, "fill", fill_alone)
    monkeypatch.setattr(comparison, "RECORDED", 1)
    compare(spec(), IMAGES, threads=1)
    assert len(filled) == 4


def test_the_error_of_one_token_is_in_its_place(monkeypatch):
    row = 2 * 5 + 3  # of 3 x 5 tokens

    def change(tokens):
        tokens[row] *= 2

    perturb(monkeypatch, change)
    found = compare(spec(), IMAGES[:1], threads=1)
    (item,) = found.items
    assert np.unravel_index(item.token_errors.argmax(), (1, 3, 5)) == (0, 2, 3)
    assert found.tokens.largest_error > 0.1 > found.layers[-1].largest_error
    assert np.sqrt((item.token_errors**2).mean()) == pytest.approx(item.tokens.relative_rms, rel=rounding(15 * 96))


def test_worst_item(monkeypatch):
    def change(tokens):
        tokens[-1] = 0  # of the second image

    perturb(monkeypatch, change)
    found = compare(spec(), IMAGES, threads=1)
    assert found.worst is found.items[1]
    assert found.worst.source == "image 1"
    assert found.tokens.smallest_cosine == found.worst.tokens.smallest_cosine == 0


@pytest.mark.parametrize("against", ["float32", "transformers"])
def test_progress(against):
    made, told = spec(), []
    compare(made, IMAGES, against=against, threads=1, progress=lambda *numbers: told.append(numbers))
    work = 2 * (60 + 24) * (made.config.depth + 1)
    assert told == sorted(told)
    assert told[-1] == (work, work)


@pytest.mark.parametrize("bad", ["float32", "bfloat16"])
def test_not_finite_is_an_error_that_names_item_and_format(bad, monkeypatch):
    forward = qwen2_vl.Tower.forward

    def broken(self, patches, grid_thw, ws, out, watch):
        forward(self, patches, grid_thw, ws, out, watch)
        if self.blocks[0].mlp.fc2.format == {"float32": "f32", "bfloat16": "bf16"}[bad]:
            out.tokens[-1, 0] = np.nan

    monkeypatch.setattr(qwen2_vl.Tower, "forward", broken)
    with pytest.raises(NumericalError, match=rf"^image 1 is NaN or infinite after the merger.* \(in {bad}\)$") as error:
        compare(spec(), IMAGES, threads=1)
    assert (error.value.argument, error.value.index) == ("images", 1)


def test_a_reference_of_zeros(monkeypatch):
    def change(tokens):
        tokens[:] = 0

    perturb(monkeypatch, change)
    with pytest.raises(NumericalError, match="tokens of all items: the reference is zero in all 21 rows"):
        compare(spec(dtype="float32"), IMAGES, against="bfloat16", threads=1)


def refused(words, error=InputError, **options):
    """No weight may be read before the error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "fill", lambda *_: pytest.fail("weights were read"))
        with pytest.raises(error, match=words):
            compare(**{"spec": spec(), "images": IMAGES, "threads": 1, **options})


def test_refusals(tmp_path, monkeypatch):
    refused(r"against is 'float64'; expected float32, bfloat16.* or transformers$", against="float64")
    refused("against is None", against=None)
    refused("dtype and against are both bfloat16", against="bf16")
    refused("dtype and against are both float32", spec=spec(dtype="float32"))
    refused("neither images nor videos", images=None)
    refused("there is nothing to compare", images=[])
    refused("'no.png'", images=[IMAGES[0], "no.png"], error=ImageError)
    refused("fps would choose the frames", fps=2)
    Encoder.from_spec(spec(), threads=1).save_packed(tmp_path / "packed")
    packed = ModelSpec.open(tmp_path / "packed", dtype="auto")
    refused("packed in bf16, and no others.*pass the checkpoint that was packed", spec=packed)
    refused("packed in bf16", spec=packed, against="transformers")
    monkeypatch.setattr(comparison, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    refused("take .* GB in a temporary file, .*set TMPDIR", images=IMAGES)


def test_an_image_that_turns_out_to_be_damaged(tmp_path):
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:5000])
    with pytest.raises(ImageError, match=r"cut\.png"):
        compare(spec(), [tmp_path / "a.png", tmp_path / "cut.png"], threads=1)
