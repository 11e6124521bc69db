"""Byte ranges over HTTP: what is asked for, and what becomes of a transfer that breaks."""

import random
import time
from email.utils import formatdate

import httpx2
import pytest
from huggingface_hub.utils import get_session

from processes import hub_repos, hub_server
from processes.programs import output
from qwenvis.checkpoints.stored import StoredFile, StoredTensor
from qwenvis.errors import CheckpointError, SourceError
from qwenvis.sources import ranges
from qwenvis.sources.ranges import GAP, PIECE, pieces_of
from qwenvis.spec import ModelSpec

REPO = "Some/Model"
HEADERS = 1 << 17  # bytes of a shard's first request


@pytest.fixture(scope="module")
def published():
    """The files of a repo, and the bytes of its tower."""
    return hub_repos.repo()


@pytest.fixture(scope="module")
def local(tmp_path_factory, published):
    """The tower of the same files, extracted from a directory."""
    folder = tmp_path_factory.mktemp("local")
    return tower_of(hub_repos.write(folder / "model", published[0]), folder / "tower")


@pytest.fixture
def hub(tmp_path, monkeypatch, published):
    """A Hub with that repo, which this process may ask."""
    monkeypatch.setattr(ranges, "PIECE", 1 << 20)
    with hub_server.running() as found, hub_server.allowed(found, tmp_path, monkeypatch):
        found.repos[REPO] = dict(published[0])
        yield found


def tower_of(source, place):
    """The bytes of the tensors of an extract, which has them in one order whatever their source."""
    ModelSpec.open(source, tower_only=True).extract(place)
    content = (place / "model.safetensors").read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_only_the_towers_bytes_are_sent(hub, published, local, tmp_path):
    assert tower_of(REPO, tmp_path / "tower") == local
    assert hub.large <= 1.03 * published[1]
    assert not list((tmp_path / "hf").rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_only_the_towers_bytes_are_sent_of_a_published_size(hub, tmp_path, monkeypatch):
    """Qwen2-VL-2B: 1.33 GB of a shard of 3.99 GB."""
    monkeypatch.setattr(ranges, "PIECE", PIECE)
    hub.repos[REPO], nbytes = hub_repos.repo({}, language=1_330_000_000)
    spec = ModelSpec.open(REPO, tower_only=True)
    assert nbytes == 1_330_542_592 == spec.checkpoint.nbytes
    assert hub.sent < 1_000_000
    spec.checkpoint.prepare()
    assert hub.sent <= 1.03 * nbytes


def test_cut_at_random_places(hub, published, local, tmp_path):
    nbytes = published[1]
    hub.cuts = sorted(random.Random(0).sample(range(HEADERS, nbytes), 20))
    assert tower_of(REPO, tmp_path / "tower") == local
    assert not hub.cuts
    assert hub.large <= 1.2 * nbytes


def test_cut_while_a_shard_is_downloaded(hub, published):
    """The client resumes, but for what it has buffered: up to 10 MiB of each connection that is cut."""
    size = len(published[0]["model-00001-of-00002.safetensors"])
    spec = ModelSpec.open(REPO)
    hub.cuts = sorted(hub.large + place for place in random.Random(0).sample(range(size), 4))
    spec.checkpoint.prepare()
    assert not hub.cuts
    assert hub.large <= size + HEADERS + 4 * (10 << 20)


def test_a_line_that_breaks_again_and_again_is_given_up(hub, tmp_path):
    spec = ModelSpec.open(REPO, tower_only=True)
    hub.cuts = [hub.large + 10 * number for number in range(200)]
    with pytest.raises(SourceError, match=r"Some/Model: the transfer from 127\.0\.0\.1 broke off .*, 6 times in a row"):
        spec.checkpoint.prepare()
    assert not (tmp_path / "qwenvis" / "towers" / "models--Some--Model" / hub_server.COMMIT).exists()
    hub.cuts = []
    spec.checkpoint.prepare()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_answers_that_may_pass(hub, local, tmp_path, status):
    spec = ModelSpec.open(REPO, tower_only=True)
    dates = [formatdate(0), f"Mon, 01 Jan 2024 00:00:00 +{10**20}"]  # the zone of the second is too large for a date
    hub.answers = [(status, {})] * 2 + [(status, {"Retry-After": text}) for text in ("0", *dates)]
    spec.extract(tmp_path / "tower")
    assert not hub.answers


def test_a_server_that_tells_when_to_come_again(hub, tmp_path):
    spec = ModelSpec.open(REPO, tower_only=True)
    hub.answers = [(429, {"Retry-After": "1"})]
    start = time.monotonic()
    spec.extract(tmp_path / "tower")
    assert time.monotonic() - start >= 1
    hub.answers = [(503, {"Retry-After": "3600"})] * 4
    with pytest.raises(SourceError, match=r"127\.0\.0\.1 answers 503, and to try again in 3600 seconds"):
        spec.extract(tmp_path / "other")


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (416, {}, "changed on the server between two requests"),
        (412, {}, "changed on the server between two requests"),
        (404, {}, "127.0.0.1 answers 404"),
        (418, {}, "127.0.0.1 answers 418, expected a range of bytes"),
        (206, {}, "127.0.0.1 answers 206, expected a range of bytes"),
        (206, {"Content-Range": "bytes 0-9/10"}, "changed on the server"),
        (206, {"Content-Range": f"bytes 0-9/{'9' * 5000}"}, "answers 206, expected a range of bytes"),
        (206, {"Content-Encoding": "gzip"}, "sends compressed bytes"),
        (200, {"Content-Encoding": "gzip"}, "sends compressed bytes"),
    ],
)
def test_answers_that_do_not_pass(hub, tmp_path, status, headers, message):
    spec = ModelSpec.open(REPO, tower_only=True)
    hub.answers = [(status, headers)] * 50
    with pytest.raises(SourceError, match=message):
        spec.extract(tmp_path / "tower")
    assert not (tmp_path / "tower").exists()


@pytest.mark.parametrize("conditions_ignored", [False, True])
def test_p25_a_shard_that_changes_between_two_requests(hub, tmp_path, published, conditions_ignored):
    hub.conditions_ignored = conditions_ignored
    spec = ModelSpec.open(REPO, tower_only=True)
    hub.epoch = 1
    with pytest.raises(SourceError, match="changed on the server between two requests; try again"):
        spec.extract(tmp_path / "tower")
    assert hub.large < published[1]


def test_p25_a_header_that_changes_is_seen(hub, published, tmp_path):
    """Of a shard that is replaced before its header is read again, by one of the same size."""
    spec = ModelSpec.open(REPO)
    name = "model-00001-of-00002.safetensors"
    content = published[0][name]
    hub.repos[REPO][name] = hub_repos.Drawn(content.header.replace(b"blocks.0.", b"blocks.9."), content.nbytes)
    with pytest.raises((CheckpointError, SourceError)):
        spec.checkpoint.load(spec.weights.requests)


def test_a_signed_url_that_expires(hub, local, tmp_path):
    spec = ModelSpec.open(REPO, tower_only=True)
    hub.expired = {str(number) for number in range(hub.signature + 1)}
    spec.extract(tmp_path / "tower")
    located = hub.paths("hub").count("HEAD model-00001-of-00002.safetensors")
    assert located == 2


def test_a_server_without_ranges(hub, tmp_path):
    """Its headers can be read, and whole shards; the tower alone cannot."""
    hub.ranges_ignored = True
    spec = ModelSpec.open(REPO, tower_only=True)
    with pytest.raises(SourceError, match=r"127\.0\.0\.1 sends no byte ranges, only whole files"):
        spec.checkpoint.prepare()
    ModelSpec.open(REPO).checkpoint.prepare()


def test_a_session_that_another_thread_closes(hub, local, tmp_path, monkeypatch):
    spec = ModelSpec.open(REPO, tower_only=True)
    closed = httpx2.Client()
    closed.close()
    sessions = [closed, closed]
    monkeypatch.setattr(ranges, "get_session", lambda: sessions.pop() if sessions else get_session())
    spec.extract(tmp_path / "tower")
    assert not sessions


def test_a_location_that_is_no_url():
    remote = ranges.RemoteFile("file", lambda: ranges.Location("http://[::1", 10, "", {}, ""))
    with pytest.raises(ranges.TransferError, match="file: the Hub redirects to an invalid URL"):
        remote.fetch(0, 10)


def test_a_file_that_goes_before_it_is_downloaded(hub):
    spec = ModelSpec.open(REPO)
    del hub.repos[REPO]["model-00001-of-00002.safetensors"]
    with pytest.raises(SourceError, match=f"{REPO} has no such file at {hub_server.COMMIT}"):
        spec.checkpoint.prepare()


def test_a_proxy_that_needs_a_package(hub, monkeypatch):
    def missing():
        raise ImportError("a package for SOCKS is missing")

    monkeypatch.setattr("huggingface_hub.utils._http.get_session", missing)
    with pytest.raises(SourceError, match="cannot be downloaded: a package for SOCKS is missing"):
        ModelSpec.open(REPO)


def test_offline_mode_that_begins_later_shows_no_signature(hub, tmp_path, monkeypatch):
    spec = ModelSpec.open(REPO, tower_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="OfflineModeIsEnabled") as caught:
        spec.extract(tmp_path / "tower")
    assert "signature" not in str(caught.value)


def test_an_interrupt_ends_the_transfers(hub, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ModelSpec.open(REPO, tower_only=True).extract(tmp_path / "tower", interrupt)
    assert not (tmp_path / "tower").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_closed_file_does_not_wait(hub):
    spec = ModelSpec.open(REPO, tower_only=True)
    hub.answers = [(503, {"Retry-After": "60"})] * 50
    path = spec.checkpoint.files[0]
    file = spec.checkpoint.streamed().open_file(path)
    tensor = next(iter(spec.checkpoint.tensors.values())).parts[0].stored
    file.seek(tensor.offset)
    raw, start = file.raw, time.monotonic()
    task = ranges.run_ahead([lambda: raw.read(10)], 2)
    time.sleep(0.1)
    raw._closing.set()
    with pytest.raises(OSError, match="closed"):
        list(task) or raw.read(10)
    assert time.monotonic() - start < 20


FILE = StoredFile.of("file", b"")


def stored(*spans):
    return [StoredTensor(str(begin), FILE, "BF16", (), begin, end - begin) for begin, end in spans]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([(5, 5)], []),
        ([(0, 1 << 20), (1 << 20, 2 << 20)], [(0, 2 << 20)]),
        ([(1 << 20, 2 << 20), (0, 1 << 20)], [(0, 2 << 20)]),
        ([(0, 1 << 20), ((1 << 20) + 100, 2 << 20)], [(0, 2 << 20)]),
        ([(0, 64), (66, 130)], [(0, 130)]),
        ([(0, 64), (67, 130)], [(0, 64), (67, 130)]),  # more than a 64th
        ([(0, PIECE + 1)], [(0, PIECE), (PIECE, PIECE + 1)]),
        ([(0, 64 * GAP), (65 * GAP + 1, 66 * GAP)], None),
    ],
)
def test_ranges_are_merged_where_they_are_near(spans, expected):
    found = pieces_of(stored(*spans))
    assert found == expected if expected is not None else len(found) == 64 * GAP // PIECE + 1
    assert all(end - begin <= PIECE for begin, end in found)


def test_merged_ranges_hold_little_else():
    """However the tensors lie."""
    for seed in range(50):
        draw = random.Random(seed)
        place, spans = 0, []
        for _ in range(200):
            place += draw.choice([0, 1, 100, 10_000, GAP, GAP + 1, 10**7])
            spans.append((place, place := place + draw.choice([0, 1, 1000, 100_000, 10**7])))
        pieces = pieces_of(stored(*spans))
        wanted = sum(end - begin for begin, end in spans)
        assert wanted <= sum(end - begin for begin, end in pieces) <= wanted * 65 / 64
        assert all(any(b <= begin and begin < e for b, e in pieces) for begin, end in spans if end > begin)


def test_an_encoder_of_a_repo_asks_the_store_without_a_token(hub, tmp_path):
    hub.private = True
    program = f'from qwenvis import Encoder; print(Encoder.from_pretrained("{REPO}", tower_only=True).family)'
    variables = {**hub_server.environment(hub, tmp_path), "HF_TOKEN": hub_server.TOKEN}
    assert output(program, **variables) == "qwen2_vl"
    assert hub.tokens("store") == {None}
