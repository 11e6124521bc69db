"""An encode worker of vLLM: what the proxy of its examples asks, and what it and the engine read of the answer."""

import base64

import pytest
from safetensors.numpy import load_file

from made import video_files
from made.images import noise, png
from made.presets import checkpoint, encoder, same_bits
from processes.served import served

PICTURES = [png(noise(140, 90)), png(noise(70, 200, 1))]
FILM = video_files.encoded(video_files.frames(12))


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """A worker of the tiny Qwen3-VL, whose tokens have deepstack and whose videos have times; and its directory."""
    place = tmp_path_factory.mktemp("cache")
    with served("--threads", 1, "--vllm-cache", place / "new", model=checkpoint("qwen3_vl")) as running:
        yield running, place / "new"


def part(kind, data, **more):
    """A part of a chat message."""
    url = f"data:{'image/png' if kind == 'image' else 'video/mp4'};base64,{base64.b64encode(data).decode()}"
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}, **more}


def asked(parts, **fields):
    """A request of the proxy: the items that it gives to this worker, and no text."""
    return {"model": "m", "messages": [{"role": "user", "content": parts}], "stream": False, **fields}


def rewritten(reply, identifiers, kinds):
    """The parts of the request that the proxy then sends to the engine."""
    params, by_index = reply.json["ec_transfer_params"], {}
    for name, reported in params.items():
        for index in reported["item_indices"]:
            assert index not in by_index
            by_index[index] = name, reported["metadata"]
    for number, kind in enumerate(kinds):
        name, metadata = by_index[number]
        assert all(isinstance(value, list) for value in metadata.values())
        yield {"type": f"{kind}_embeds", f"{kind}_embeds": metadata, "uuid": identifiers[number] or name}


def test_images(worker):
    service, place = worker
    names = ["a" * 64, None]
    reply = service.ask_json(
        asked([part("image", PICTURES[0], uuid=names[0]), part("image", PICTURES[1])]), "/v1/chat/completions"
    )
    assert reply.status == 200, reply.body
    assert reply.json["object"] == "chat.completion"
    found = encoder("qwen3_vl")
    out = found.encode(PICTURES)
    sent = list(rewritten(reply, names, ["image", "image"]))
    assert [each["uuid"] for each in sent] == [names[0], out.keys[1]]
    for each, item in zip(sent, out, strict=True):
        assert each["image_embeds"] == {"image_grid_thw": item.grid_thw[0].tolist()}
        tensors = load_file(place / each["uuid"] / "encoder_cache.safetensors")
        assert same_bits(tensors["ec_cache"], item.wide())


def test_a_video(worker):
    service, place = worker
    reply = service.ask_json(asked([part("video", FILM, uuid="film")], max_tokens=1), "/v1/chat/completions")
    (sent,) = rewritten(reply, ["film"], ["video"])
    item = encoder("qwen3_vl").encode(videos=[FILM])
    assert sent["video_embeds"] == {
        "video_grid_thw": item.grid_thw[0].tolist(),
        "timestamps": item.timestamps[0].tolist(),
    }
    assert same_bits(load_file(place / "film" / "encoder_cache.safetensors")["ec_cache"], item.wide())


def test_the_same_item_twice(worker):
    same = part("image", PICTURES[0], uuid="same")
    reply = worker[0].ask_json(asked([same, {"type": "text", "text": "x"}, same]), "/v1/chat/completions")
    assert reply.json["ec_transfer_params"]["same"]["item_indices"] == [0, 1]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (asked([part("image", PICTURES[0], uuid="../up")]), "cannot name a file"),
        (asked([part("image", PICTURES[0], uuid="/etc")]), "cannot name a file"),
        (asked([part("image", PICTURES[0], uuid=".")]), "cannot name a file"),
        (asked([part("image", PICTURES[0], uuid="a" * 129)]), "cannot name a file"),
        (asked([part("image", PICTURES[0], uuid=7)]), "uuid is 7"),
        (asked([part("image", PICTURES[n], uuid="one") for n in (0, 1)]), "names different items"),
        (asked([part("image", PICTURES[0])], mm_processor_kwargs={"max_pixels": 1}), "mm_processor_kwargs: the engine"),
        (asked([part("image", PICTURES[0])], ec_transfer_params={"consumer_zmq": "x"}), "sends tokens to nobody"),
        (asked([{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x"}}]), "the only kind of URL"),
        (asked([{"type": "image_url", "image_url": "data:,"}]), "expected {"),
        (asked([{"type": "audio_url", "audio_url": {"url": "data:,"}}]), "a part of a message is 'audio_url'"),
        (asked([{"type": "text", "text": "x"}]), "hold no images or videos"),
        (asked("x"), "hold no images or videos"),
        ({"model": "m"}, "messages is None; expected a list of objects"),
        (asked([part("image", b"x")]), "image 0"),
    ],
)
def test_refusals(worker, request_, words):
    service, place = worker
    before = sorted(place.rglob("*"))
    reply = service.ask_json(request_, "/v1/chat/completions")
    assert (reply.status, words in reply.error["message"]) == (400, True), reply.body
    assert sorted(place.rglob("*")) == before


def test_a_service_without_a_cache_is_no_worker(service):
    assert service.ask_json(asked([part("image", PICTURES[0])]), "/v1/chat/completions").status == 404
