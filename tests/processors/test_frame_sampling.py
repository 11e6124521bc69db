"""Which frames are looked at, beside transformers' video processors and beside PyTorch's own linspace."""

import numpy as np
import pytest
import torch

from oracle.transformers_processors import VIDEO_PROCESSORS, VIDEO_TOWERS, Call, needs_torchvision, torchvision_results
from qwenvis.errors import InputError, LimitError, VideoError
from qwenvis.processors import frame_sampling
from qwenvis.processors.frame_sampling import Length, Wanted
from qwenvis.processors.video_families import TYPES

RATES = (5.0, 10, 23.976, 24, 25.0, 30000 / 1001, 60)
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 13, 24, 59, 100, 331, 1000)
ASKED = {
    "Qwen2VLVideoProcessor": [
        *({"fps": fps} for fps in (0.5, 1, 2, 2.0, 7.3, 100)),
        *({"num_frames": n} for n in (2, 3, 4, 5, 16, 64)),
        {"fps": 2, "min_frames": 8, "max_frames": 12},
    ],
    "Qwen3VLVideoProcessor": [
        {},
        *({"fps": fps} for fps in (0.5, 1, 7.3, 100)),
        *({"fps": None, "num_frames": n} for n in (1, 2, 3, 5, 16, 64)),
    ],
    "CohereCompassVideoProcessor": [{}, {"fps": 1}],
    "Glm4vVideoProcessor": [{}, {"fps": 1}, {"fps": 3.3}, {"max_duration": 3}],
    "Glm46VVideoProcessor": [{}],
    "Glm5NextVideoProcessor": [{}, {"fps": 1}, {"fps": 3.3}, {"max_frames": 6}],
}


def cases(name):
    """(frames, rate, what is asked) of many videos."""
    for number, asked in enumerate(ASKED[name]):
        for frames in LENGTHS:
            yield frames, RATES[(number + frames) % len(RATES)], asked


CONFIGURED = ("max_duration", "max_frames", "min_frames")  # transformers reads some of them in the config only


def split(asked):
    """What a config says, and what a call does."""
    config = {key: value for key, value in asked.items() if key in CONFIGURED}
    return config, {key: value for key, value in asked.items() if key not in CONFIGURED}


def call_of(name, frames, rate, asked):
    """A call of transformers: the frames are black, small and not resized."""
    config, given = split(asked)
    video = {
        "videos": [np.zeros((frames, 32, 32, 3), np.uint8)],
        "video_metadata": [{"total_num_frames": frames, "fps": rate}],
        "do_sample_frames": True,
        "return_metadata": True,
        "do_resize": False,
        "patch_size": 16,
    }
    return Call(VIDEO_PROCESSORS[name], config, video | given)


@pytest.fixture(scope="module")
def results():
    """What transformers says to every case of every processor."""
    calls = {name: [call_of(name, *case) for case in cases(name)] for name in TYPES}
    found = iter(torchvision_results([each for several in calls.values() for each in several]))
    return {name: [next(found) for _ in several] for name, several in calls.items()}


@needs_torchvision
@pytest.mark.parametrize("name", TYPES)
def test_indices_are_those_of_transformers(results, name):
    refused = 0
    for (frames, rate, asked), result in zip(cases(name), results[name], strict=True):
        config, given = split(asked)
        processor = TYPES[name].from_config(config, **VIDEO_TOWERS[name])
        processor = processor.with_sampling({key: value for key, value in given.items() if value is not None})
        if result.get("error") == f"IndexError: index {frames} is out of bounds for axis 0 with size {frames}":
            assert max(processor.indices(Length(frames, rate))) < frames  # torch.arange made one index too many
        elif "error" in result:
            refused += 1
            with pytest.raises(VideoError):
                processor.indices(Length(frames, rate))
        else:
            indices = result["video_metadata"][0].frames_indices.tolist()
            assert processor.indices(Length(frames, rate)) == indices, (frames, rate, asked)
    assert refused < len(results[name]) / 2


def test_even_steps_are_those_of_torch(rng):
    """``torch.arange`` in float32, whose roundings show in videos of more than 20,000 frames."""
    for _ in range(3000):
        total = int(10 ** rng.uniform(0.5, 6))
        asked = min(int(rng.integers(2, 770)), total // 2 * 2)
        count = 2 * round(asked / 2)  # 3 and 5 frames are 4
        want = torch.arange(0, total, total / count).int().tolist()
        got = frame_sampling.even(Length(total, 24), Wanted(num_frames=asked))
        assert got == [index for index in want if index < total]
        assert len(got) == count


def test_the_reference_is_that_of_torch(rng):
    """``torch.linspace(0, total - 1, nframes).round()``, as qwen-vl-utils has it."""
    for _ in range(3000):
        total = int(10 ** rng.uniform(0.5, 6))
        count = 2 * int(rng.integers(1, min(384, total // 2) + 1))
        want = torch.linspace(0, total - 1, count).round().long().tolist()
        assert frame_sampling.reference(Length(total, 24), Wanted(num_frames=count)) == want


@pytest.mark.parametrize(
    ("length", "wanted", "count"),
    [
        (Length(100, 10), Wanted(), 20),
        (Length(20, 10), Wanted(), 4),
        (Length(20, 10), Wanted(fps=0.1), 4),
        (Length(100000, 25), Wanted(), 768),
        (Length(3, 30), Wanted(fps=30), 2),
        (Length(100, 10), Wanted(num_frames=7), 8),
        (Length(100, 10), Wanted(fps=1, min_frames=15, max_frames=31), 16),
        (Length(100, 10), Wanted(fps=10, min_frames=5, max_frames=31), 30),
    ],
)
def test_how_many_frames_the_reference_takes(length, wanted, count):
    """``smart_nframes`` of qwen-vl-utils 0.0.14."""
    assert len(frame_sampling.reference(length, wanted)) == count


@pytest.mark.parametrize(
    ("sampler", "length", "wanted", "words"),
    [
        (frame_sampling.even, Length(9, 10), Wanted(num_frames=10), "has 9 frames, of which 10 would be chosen"),
        (frame_sampling.even, Length(9, 10), Wanted(num_frames=1), "of which 0 would be chosen"),
        (frame_sampling.even, Length(9, None), Wanted(fps=1, min_frames=4, max_frames=8), "pass video_fps"),
        (
            frame_sampling.reference,
            Length(1, 10),
            Wanted(),
            "of which 0 would be chosen, a multiple of 2; expected 2 to 1",
        ),
        (
            frame_sampling.seconds,
            Length(9, None),
            Wanted(fps=1, max_duration=9),
            "the frame rate of this video is unknown",
        ),
        (frame_sampling.clock, Length(9, 3), Wanted(), "does not state a sampling rate"),
    ],
)
def test_what_cannot_be_is_refused(sampler, length, wanted, words):
    with pytest.raises(VideoError, match=words):
        sampler(length, wanted)


def test_all_frames():
    assert frame_sampling.every(Length(3, None), Wanted()) == [0, 1, 2]
    assert frame_sampling.even(Length(3, None), Wanted()) == [0, 1, 2]


# Counts are bounded before a list is made.

LONG, SHORT = Length(5_000_000, 25.0), Length(240, 24.0)
HUGE = 2**31 - 1


@pytest.mark.timeout(20)
@pytest.mark.parametrize("length", [SHORT, LONG, Length(10**8, 25.0), Length(1, 1e-9), Length(3, 2.0**30, 1e-9)])
@pytest.mark.parametrize(
    "wanted",
    [
        {"num_frames": HUGE},
        {"fps": 2.0**30},
        {"fps": 2.0**30, "min_frames": HUGE, "max_frames": HUGE},
        {"fps": 1e-9},
        {"fps": 1e-9, "min_frames": HUGE, "max_frames": HUGE},
        {"fps": 2.0**30, "max_duration": HUGE},
        {},
    ],
)
@pytest.mark.parametrize("sampler", ["every", "even", "ends", "reference", "seconds", "dynamic", "clock"])
def test_counts_are_bounded(sampler, length, wanted):
    """A list of at most so many, or an error of ours, and soon."""
    defaults = {"min_frames": 4, "max_frames": 768, "max_duration": 300}
    try:
        taken = len(getattr(frame_sampling, sampler)(length, Wanted(**{**defaults, **wanted})))
    except (LimitError, VideoError):
        taken = 0
    assert taken <= frame_sampling.MAX_TAKEN + 1


@pytest.mark.parametrize("name", ["ends", "seconds", "clock", "every"])
def test_a_count_that_is_too_large(name):
    counts = {"num_frames": HUGE if name == "ends" else None, "min_frames": 4, "max_frames": HUGE}
    wanted = Wanted(fps=2.0**30, max_duration=HUGE, **counts)
    with pytest.raises(
        LimitError, match=r"[\d,]+ frames would be examined; at most 1,048,576 are allowed: lower num_frames"
    ):
        getattr(frame_sampling, name)(Length(4 * 10**6, 25.0), wanted)


NO_NUMBERS = [float("nan"), float("inf"), -1, 1e-12, pytest.param(10**5000, id="long"), "2", [2], 2j, np.float64("nan")]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("name", ["fps", "video_fps", "num_frames", "min_frames", "max_frames"])
def test_numbers_that_are_none(name, value):
    check = frame_sampling.checked_rate if name.endswith("fps") else frame_sampling.checked_count
    with pytest.raises(InputError, match=f"{name} is .*; expected"):
        check(value, name)
