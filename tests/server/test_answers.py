"""What a service answers is what the encoder returns, in every form of request and of answer."""

import base64
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load

from made import video_files
from made.images import encoded, noise, png
from made.presets import same_bits
from processes.served import form
from qwenvis import Embeddings
from qwenvis.adapters.vllm import parts
from qwenvis.embeddings import picture

PICTURE, OTHER = png(noise(140, 90)), encoded(Image.fromarray(noise(70, 200, 1)), "JPEG")
FILM = video_files.encoded(video_files.frames(12))
GIF = encoded(Image.fromarray(noise(60, 60)), "GIF", save_all=True, append_images=[Image.fromarray(noise(60, 60, 1))])


def tokens(reply):
    """The result that an answer holds."""
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/octet-stream"
    return reply.body


@pytest.fixture
def same(service, encoder, tmp_path):
    """Compare the body of an answer with the file of what the encoder returns; items are named by their position."""
    name = service.ask("/v1/model").json["source"]

    def same(reply, *arguments, **options):
        out = encoder.encode(*arguments, **{key: value for key, value in options.items() if key != "dtype"})
        out = out.astype(options.get("dtype", "float32"))
        sources = [f"{source.split()[0]} {number}" for number, source in enumerate(out.sources)]
        out = out._with(provenance={**out.provenance, "source": name}, sources=sources)
        out.save(tmp_path / "expected.safetensors")
        assert tokens(reply) == (tmp_path / "expected.safetensors").read_bytes()

    return same


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", None])
def test_the_bytes_of_an_image(service, same, kind):
    reply = service.ask(body=PICTURE, headers={"Content-Type": kind} if kind else {})
    same(reply, [PICTURE])
    assert reply.headers["qwenvis-grid-thw"] == "1 10 6"
    assert reply.headers["server-timing"].startswith("queue;dur=")


@pytest.mark.parametrize("query", ["max_pixels=3136", "min_pixels=40000&max_pixels=60000"])
def test_limits_of_pixels(service, same, query):
    options = {name: int(value) for name, value in (pair.split("=") for pair in query.split("&"))}
    same(service.ask(f"/v1/encode?{query}", PICTURE), [PICTURE], **options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes(service, same, dtype):
    same(service.ask(f"/v1/encode?dtype={dtype}", PICTURE), [PICTURE], dtype=dtype)


def test_a_video_by_its_bytes(service, same):
    reply = service.ask(body=FILM, headers={"Content-Type": "video/mp4"})
    same(reply, videos=[FILM])
    assert reply.headers["qwenvis-grid-thw"].startswith("2 ")


def test_an_animated_image_is_a_video_if_frames_are_chosen(service, same):
    same(service.ask(body=GIF), [GIF])
    same(service.ask("/v1/encode?num_frames=2", GIF), videos=[GIF], num_frames=2)


def test_json(service, same):
    texts = [base64.b64encode(data).decode() for data in (PICTURE, OTHER, FILM)]
    images = [{"data": texts[0]}, {"data": f"data:image/jpeg;base64,{texts[1]}"}]
    videos = [{"data": f"data:video/mp4;base64,{texts[2]}"}]
    reply = service.ask_json({"images": images, "videos": videos, "num_frames": 4, "max_pixels": 10_000})
    same(reply, [PICTURE, OTHER], videos=[FILM], num_frames=4, max_pixels=10_000)
    same(service.ask_json({"videos": videos}), videos=[FILM])


def test_forms(service, same):
    files = [("image", "a.png", PICTURE), ("file", "b", OTHER), ("videos", "c.mp4", FILM)]
    reply = service.ask("/v1/encode?max_pixels=10000", *form([*files, ("num_frames", None, b"4")]))
    same(reply, [PICTURE, OTHER], videos=[FILM], num_frames=4, max_pixels=10_000)


def test_items_stay_in_the_order_of_the_form(service):
    reply = service.ask("/v1/encode", *form([("file", "c.mp4", FILM), ("file", "a.png", PICTURE)]))
    assert json.loads(load_metadata(tokens(reply))["sources"]) == ["video 0", "image 1"]


def load_metadata(body):
    length = int.from_bytes(body[:8], "little")
    return json.loads(body[8 : 8 + length])["__metadata__"]


def test_colours(service, encoder):
    body, headers = form([("image", "a", PICTURE), ("image", "b", OTHER)])
    found = load(tokens(service.ask("/v1/encode?colors=true", body, headers)))
    items = encoder.encode([PICTURE, OTHER]).split()
    assert same_bits(found["colors"], np.concatenate([picture.colours(item)[0] for item in items]))
    assert found["content"].tolist() == [[140, 84], [56, 196]]


def test_results_with_colours_load(service, tmp_path):
    (tmp_path / "t.safetensors").write_bytes(tokens(service.ask("/v1/encode?colors=true", PICTURE)))
    assert Embeddings.load(tmp_path / "t.safetensors").counts.tolist() == [15]


def test_npy(service, encoder, tmp_path):
    (tmp_path / "t.npy").write_bytes(tokens(service.ask("/v1/encode?format=npy&dtype=float16", PICTURE)))
    assert same_bits(np.load(tmp_path / "t.npy"), encoder.encode([PICTURE]).embeddings.astype(np.float16))


def test_parts_for_vllm(service, encoder):
    texts = [{"data": base64.b64encode(data).decode()} for data in (PICTURE, OTHER)]
    reply = service.ask_json({"images": texts, "format": "vllm"})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == parts(encoder.encode([PICTURE, OTHER]))


def test_the_model(service, encoder):
    found = service.ask("/v1/model").json
    assert (found["family"], found["dtype"], found["isa"]) == ("qwen2_vl", "float32", encoder.isa)
    assert (found["width"], found["patch_size"], found["merge_size"]) == (96, 14, 2)
    assert (found["limits"]["max_body"], found["limits"]["max_items"]) == (3_000_000, 8)
    assert "/" not in found["source"]


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_states(service, path):
    assert service.ask(path).json == {"status": "ok"}


def test_metrics(service):
    names = ("qwenvis_items_total", "qwenvis_tokens_total", "qwenvis_encode_seconds_count")
    before = [service.metric(name) for name in names]
    service.ask(body=PICTURE)
    service.ask(body=b"not an image")
    assert [service.metric(name) - count for name, count in zip(names, before, strict=True)] == [1, 15, 1]
    assert (service.metric("qwenvis_queue_items"), service.metric("qwenvis_held_bytes")) == (0, 0)
    text = service.ask("/metrics").body.decode()
    assert 'qwenvis_requests_total{path="/v1/encode",status="400"}' in text


@pytest.mark.parametrize(
    ("query", "body", "status", "kind", "words"),
    [
        ("", b"not an image", 400, "ImageError", "image 0 (12 bytes) is not an image"),
        ("", PICTURE[:-200], 400, "ImageError", "truncated"),
        ("", FILM[:200], 400, "VideoError", "video 0"),
        ("", b"", 400, "ImageError", "image 0 (0 bytes) is empty"),
        ("?num_frames=4", PICTURE, 400, "InputError", "all items are still images"),
        ("?fps=nan", FILM, 400, "InputError", "fps"),
        ("?max_pixels=0", PICTURE, 400, "InputError", "max_pixels"),
        ("?format=pt", PICTURE, 400, "InputError", "format is 'pt'; expected safetensors, npy or vllm"),
        ("?dtype=bfloat16&format=npy", PICTURE, 400, "InputError", "no bfloat16"),
        ("?model=x", PICTURE, 400, "InputError", "unknown option 'model'; there are format,"),
        ("?colors=true&format=npy", PICTURE, 400, "InputError", "format is 'npy': colours go into safetensors only"),
        ("?colors=1", PICTURE, 400, "InputError", "colors is '1'; expected true or false"),
        ("?fps=1&fps=2", FILM, 400, "InputError", "'fps' is given twice"),
    ],
)
def test_errors_are_in_words(service, query, body, status, kind, words):
    reply = service.ask(f"/v1/encode{query}", body)
    assert (reply.status, reply.error["type"]) == (status, kind)
    assert words in reply.error["message"]


def test_an_option_of_the_query_and_of_the_body(service):
    reply = service.ask_json({"images": [{"data": ""}], "dtype": "float32"}, "/v1/encode?dtype=float16")
    assert (reply.status, reply.error["message"]) == (400, "'dtype' is given twice, in the query and in the body")


@pytest.mark.parametrize("body", [b'{"images": [], "images": []}', b'{"images": [{"data": "", "data": ""}]}'])
def test_a_name_that_is_twice_in_json(service, body):
    """The parser would leave out what comes first."""
    reply = service.ask("/v1/encode", body, {"Content-Type": "application/json"})
    assert (reply.status, reply.error["type"]) == (400, "RequestError")
    assert "is given twice in the body" in reply.error["message"]


def test_a_format_of_one_item(service):
    """It is refused before anything is read."""
    reply = service.ask("/v1/encode?format=npy", *form([("image", "a", PICTURE), ("image", "b", b"x")]))
    assert reply.error["message"] == "a .npy file holds the tokens of one item, not of 2: ask for safetensors"


def test_errors_name_the_item(service):
    reply = service.ask("/v1/encode", *form([("image", "a", PICTURE), ("image", "b", b"x"), ("image", "c", OTHER)]))
    assert (reply.status, reply.error["item"]) == (400, 1)
