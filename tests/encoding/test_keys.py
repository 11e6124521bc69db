"""Keys are equal for equal pixels, whatever the file, batch, order and threads; any change that may matter is seen."""

import gc
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from made import video_files
from made.presets import checkpoint, encoder, picture, pixels
from made.resaved import config_of, save, tensors_of
from made.tile_sizes import ISAS, using_isa
from qwenvis import Encoder, ModelSpec, version
from qwenvis.checkpoints.packed import FILE

CLIP = video_files.frames(9, 70, 100)


def keys_of(found, *images, **options):
    """The keys of items, while their encoder exists."""
    return found.encode(*images, **options).keys


def key_of(found, image=None, **options):
    (key,) = keys_of(found, picture(61, 97) if image is None else image, **options)
    return key


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


# Equal.


def test_the_same_pixels_have_one_key(tmp_path):
    found, image = encoder(), picture(61, 97)
    (tmp_path / "a.png").write_bytes(png(image))
    sources = [image, Image.fromarray(image), png(image), io.BytesIO(png(image)), tmp_path / "a.png"]
    assert len(set(found.encode(sources).keys)) == 1


@pytest.mark.parametrize("budget", [1, 130, 10_000])
def test_keys_do_not_depend_on_the_call(monkeypatch, budget):
    images, videos = [picture(56, 84, seed) for seed in range(3)], [CLIP, picture(56, 56), video_files.encoded(CLIP)]
    want = [key_of(encoder(), image) for image in images]
    want += [keys_of(encoder(), videos=[video, CLIP], sampling="all")[0] for video in videos]
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", budget)
    found = encoder(threads=2)
    assert found.encode(images, videos=videos, sampling="all").keys == want
    assert found.encode(images[::-1], videos=videos[::-1], sampling="all").keys == want[2::-1] + want[:2:-1]
    stream = found.encode_iter(images, videos=videos, sampling="all", patch_budget=budget)
    assert [item.keys[0] for item in stream] == want
    assert found.encode(images, videos=videos, sampling="all", hidden_states=True).keys == want
    assert len({*want}) == 6


def test_an_image_has_its_key_among_videos():
    assert key_of(encoder()) == keys_of(encoder(), videos=[CLIP, picture(61, 97)])[1]


@pytest.mark.parametrize("budget", [1, 10_000])
def test_keys_of_patches(monkeypatch, budget):
    monkeypatch.setattr("qwenvis.encoding.runner.PATCH_BUDGET", budget)
    found = encoder()
    values, grid_thw = pixels(found.config, [[1, 4, 6], [3, 2, 4], [1, 4, 6]])
    values[-24:] = values[:24]
    first, second, third = found(values, grid_thw).keys
    assert first == third != second
    assert found(values[24:48], grid_thw[1:2]).keys == [second]
    assert found(values[24:48], [[1, 6, 4]]).keys != found(values[24:48], [[1, 4, 6]]).keys
    values[30, 5] = np.nextafter(values[30, 5], np.inf)
    assert found(values, grid_thw).keys[:2] != [first, second]


@pytest.mark.parametrize("isa", ISAS)
def test_one_checkpoint_in_every_layout(isa, tmp_path):
    tensors = {f"visual.{name}": array for name, array in tensors_of("qwen2_5_vl").items()}
    single = save(tmp_path / "single", tensors, config_of("qwen2_5_vl"))
    shutil.copy(checkpoint("qwen2_5_vl") / "preprocessor_config.json", single)
    shards = tmp_path / "shards"
    shutil.copytree(single, shards)
    halves = [dict(list(tensors.items())[half::2]) for half in (0, 1)]
    (shards / "model.safetensors").unlink()
    for half, part in enumerate(halves):
        save_file(part, shards / f"{half}.safetensors")
    index = {name: f"{half}.safetensors" for half, part in enumerate(halves) for name in part}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with using_isa(isa):
        found = Encoder.from_pretrained(single, threads=2)
        want = key_of(found)
        found.save_packed(tmp_path / "packed")
        assert key_of(Encoder.from_pretrained(single, threads=1)) == want
        assert key_of(Encoder.from_pretrained(shards)) == want
        assert key_of(Encoder.from_pretrained(tmp_path / "packed")) == want


def test_a_packed_file_is_not_hashed(tmp_path, monkeypatch):
    want = key_of(encoder())
    encoder().save_packed(tmp_path / "packed")
    old = tmp_path / "old"
    shutil.copytree(tmp_path / "packed", old)
    text = (old / FILE).read_bytes()
    place = text.index(b'"sha256":"')
    (old / FILE).write_bytes(text[:place] + b'"unused":"' + text[place + 10 :])  # of an earlier version
    assert key_of(Encoder.from_pretrained(old)) == want
    monkeypatch.setattr("qwenvis.weights._sha256", None)
    assert key_of(Encoder.from_pretrained(tmp_path / "packed")) == want
    with pytest.raises(TypeError):
        key_of(Encoder.from_pretrained(old))


def test_a_piece_of_a_weight_is_hashed_by_each_thread(monkeypatch):
    monkeypatch.setattr("qwenvis.weights.HASHED", 1000)
    assert encoder(threads=3).spec.weights.sha256(3) == encoder(threads=1).spec.weights.sha256(1)


# Different.


def test_pixels_and_grids():
    found = encoder()
    image = picture(56, 84)
    other = image.copy()
    other[55, 83, 2] ^= 1
    turned = np.ascontiguousarray(image.reshape(84, 56, 3))
    limits = {"min_pixels": 28 * 28, "max_pixels": 28 * 56}
    keys = [key_of(found, each) for each in (image, other, turned)] + [key_of(found, image, **limits)]
    keys += [found.encode(videos=[np.stack([image] * count)], sampling="all").keys[0] for count in (1, 2, 3, 4)]
    assert len({*keys}) == len(keys)


def test_times_of_a_video():
    found = encoder("qwen2_5_vl")
    keys = [found.encode(videos=[CLIP], sampling="all", video_fps=fps).keys[0] for fps in (10, 12.5, None)]
    keys += found.encode(videos=[CLIP], num_frames=4).keys
    assert len({*keys}) == 4


def copied(tmp_path, family="qwen2_5_vl"):
    """A copy of the preset's checkpoint, in float32."""
    tensors = {f"visual.{name}": array for name, array in tensors_of(family).items()}
    place = save(tmp_path / str(len(list(tmp_path.iterdir()))), tensors, config_of(family))
    shutil.copy(checkpoint(family) / "preprocessor_config.json", place)
    return place


def changed(tmp_path, change):
    """The key by a copy that ``change(directory)`` has edited."""
    place = copied(tmp_path)
    change(place)
    return key_of(Encoder.from_pretrained(place, threads=1))


def edited(name, **values):
    def change(directory):
        config = json.loads((directory / name).read_text())
        config.get("vision_config", config).update(values)
        (directory / name).write_text(json.dumps(config, indent=1))

    return change


def one_bit(name):
    def change(directory):
        tensors = load_file(directory / "model.safetensors")
        tensors[f"visual.{name}"].reshape(-1).view(np.uint32)[-1] ^= 1
        save_file(tensors, directory / "model.safetensors")

    return change


def test_weights_and_configs(tmp_path):
    names = list(tensors_of("qwen2_5_vl"))
    changes = [
        lambda directory: None,
        *map(one_bit, names),
        edited("config.json", window_size=56),
        edited("preprocessor_config.json", image_mean=[0.5, 0.4, 0.4]),
        edited("preprocessor_config.json", min_pixels=100 * 28 * 28),
    ]
    keys = [changed(tmp_path, change) for change in changes]
    assert len({*keys}) == len(keys)
    assert changed(tmp_path, edited("config.json")) == keys[0]


def test_format_isa_and_version_of_the_numbers(monkeypatch):
    keys = [key_of(encoder()), key_of(encoder(dtype="bfloat16"))]
    for isa in ISAS:
        with using_isa(isa):
            keys.append(key_of(encoder()))
    assert len({*keys}) == 1 + len(ISAS)  # the first ISA is among them
    monkeypatch.setattr("qwenvis.encoding.keying.NUMBERS", version.NUMBERS + 1)
    assert key_of(encoder()) not in keys


def test_weights_that_are_read_again(tmp_path):
    """Encoders of one spec share its weights, which another encoder reads from the files as they are by then."""
    place, (name, *_) = copied(tmp_path), tensors_of("qwen2_5_vl")
    one_bit(name)(place)  # first, because the header is written in another order
    spec = ModelSpec.open(place)
    before = Encoder.from_spec(spec)
    first = key_of(before)
    one_bit(name)(place)
    after = Encoder.from_spec(spec)
    assert key_of(before) == key_of(after) != first


def test_families_of_one_config_and_one_set_of_weights():
    spec = ModelSpec.open("synthetic:tiny-qwen2-vl")
    want = key_of(Encoder.from_spec(spec))
    spec.family = "another"
    assert key_of(Encoder.from_spec(spec)) != want


def test_a_video_that_changes_between_two_readings():
    """The key is that of the frames of the last reading alone."""
    found, frames = encoder(), video_files.frames(4, 56, 56)
    inputs = found._runner.inputs({"sampling": "all"}, None, None, found._runner.keying())
    item, out = inputs.video(frames, 0), np.empty((2 * 16, inputs.columns), np.float32)
    item.fill(0, 2, out)
    assert [str(item.key)] == keys_of(found, videos=[frames], sampling="all")
    frames[:] = 7
    item.fill(0, 1, out[:16])
    assert item.key is None
    item.fill(1, 2, out[16:])
    assert [str(item.key)] == keys_of(found, videos=[frames], sampling="all")


def test_a_packed_checkpoint_knows_its_keys(tmp_path):
    want = key_of(encoder())
    encoder().save_packed(tmp_path / "packed")
    out = Encoder.from_pretrained(tmp_path / "packed").encode(picture(61, 97))
    gc.collect()
    assert out.keys == [want]
