"""The softmax inside of attention: scores of any size, maxima that rise from block to block; and mistakes."""

import numpy as np
import pytest

from made import segments
from made.arrays import normal
from made.tile_sizes import constant
from oracle.tolerance import UNIT_ROUNDOFF, assert_close, attention_tolerance

KEYS = constant("ops/attention_head.pxd", "KEYS")
NEAR = (-1.01, -0.99, -0.8, 0.8, 0.99, 1.01)
LIMITS = np.log(2) * np.array([64, 160])  # MOST and FARTHEST of ops/attention_head.pyx: of fixed tops
LARGE = 1e4


def still(n, head_dim=4):
    """The rope that turns nothing."""
    return np.ones((n, head_dim // 2), np.float32), np.zeros((n, head_dim // 2), np.float32)


def scored(scores, v):
    """One segment whose first three queries find these scores, but for rounding; the others find zeros."""
    n, head_dim = v.shape
    q, k = np.zeros((2, n, 1, head_dim), np.float32)
    q[:3, 0, 0], k[:, 0, 0] = np.sqrt(head_dim), scores
    return (q, k, v[:, None]), still(n, head_dim), segments.cumulated([n])


def check_queries(scores, v, want, tolerance, what="mean"):
    """The result of the first queries against one row for all of them."""
    got = segments.attend(*scored(scores, v))[:3, 0]
    assert_close(got, np.broadcast_to(want, got.shape), np.broadcast_to(tolerance, got.shape), what)


def mean_tolerance(v):
    """What remains of the tolerance where the scores are exactly what they should be."""
    (q, k, v), _, cu_seqlens = scored(np.zeros(len(v)), v)
    return attention_tolerance(q, k, v, cu_seqlens)[0, 0]


@pytest.mark.parametrize("score", [0.0, 1.0, -30.0, LARGE, -LARGE, 1e30, -1e30, *np.outer(LIMITS, NEAR).flat])
@pytest.mark.parametrize("n", [1, 3, 100, 2 * KEYS + 1])
def test_equal_scores_give_the_mean(isa, rng, n, score):
    v = normal(rng, n, 4)
    check_queries(np.full(n, score), v, v.mean(axis=0, dtype=np.float64), mean_tolerance(v))


@pytest.mark.parametrize("n", [2, 50, 3 * KEYS + 5])
@pytest.mark.parametrize(("high", "low"), [(LARGE, -LARGE), (0, -LARGE), (LARGE, 0), (-LARGE, -2 * LARGE)])
def test_one_key_takes_all(isa, rng, n, high, low):
    v = normal(rng, n, 4)
    for place in {0, 1, n // 2, n - 1, *(at for at in (KEYS - 1, KEYS, 2 * KEYS, 3 * KEYS - 1) if at < n)}:
        scores = np.full(n, low)
        scores[place] = high
        check_queries(scores, v, v[place], 0 * v[place], f"value of key {place}")


def test_the_length_of_a_key_has_a_place_of_its_own(isa, rng):
    """Behind the last value, where neither keys nor head_dim are padded."""
    v, scores = normal(rng, KEYS, 64), np.zeros(KEYS)
    scores[0] = LARGE
    check_queries(scores, v, v[0], 0 * v[0])


def test_two_keys_share(isa, rng):
    v = normal(rng, 2 * KEYS + 9, 4)
    scores = np.full(len(v), -LARGE)
    for one, other in [(0, 1), (3, KEYS), (KEYS - 1, 2 * KEYS), (5, len(v) - 1)]:
        scores[[one, other]] = LARGE
        pair = v[[one, other]]
        check_queries(
            scores, v, pair.mean(axis=0, dtype=np.float64), mean_tolerance(pair), f"mean of {one} and {other}"
        )
        scores[[one, other]] = -LARGE


@pytest.mark.parametrize("n", [40, 4 * KEYS + 3])
@pytest.mark.parametrize("span", [3, 60, 150])
def test_scores_that_rise_fall_and_wave(isa, rng, n, span):
    """Every block raises the maximum, or none but the first does, or some do."""
    v, slope = normal(rng, n, 4), np.linspace(-span, span, n)
    for scores in (slope, -slope, span * np.sin(slope), span * normal(rng, n)):
        given = scored(scores, v)
        q, k, v3 = given[0]
        want = segments.truth(*given)
        assert_close(segments.attend(*given), want, attention_tolerance(q, k, v3, given[2]))


def test_segment_of_one_row_is_its_value(isa, rng):
    qkv, rope, cu_seqlens = segments.segments_of(rng, [1] * 9, head_dim=72)
    roundings = 3 * UNIT_ROUNDOFF["f32"] * np.abs(qkv[2])  # of 1 / w, of w v, and of their product
    assert_close(segments.attend(qkv, rope, cu_seqlens), qkv[2], roundings)


def test_large_values(isa, rng):
    v = normal(rng, 300, 4) * np.float32(1e36)
    given = scored(normal(rng, 300), v)
    assert_close(segments.attend(*given), segments.truth(*given), attention_tolerance(*given[0], given[2]))


# The rest shows that the tolerance sees what it should: the op is given something else than the truth is.


def last_key_is_the_one_before(qkv, rope, cu_seqlens):
    k = qkv[1].copy()
    k[-1] = k[-2]
    return (qkv[0], k, qkv[2]), rope, cu_seqlens


def last_value_missing(qkv, rope, cu_seqlens):
    v = qkv[2].copy()
    v[-1] = 0
    return (*qkv[:2], v), rope, cu_seqlens


def scaled_for_another_head_dim(qkv, rope, cu_seqlens):
    return (qkv[0] * np.float32(np.sqrt(80 / 79)), *qkv[1:]), rope, cu_seqlens


def heads_exchanged(qkv, rope, cu_seqlens):
    q, k, v = qkv
    return (q, k[:, ::-1], v[:, ::-1]), rope, cu_seqlens


def keys_and_values_exchanged(qkv, rope, cu_seqlens):
    return (qkv[0], qkv[2], qkv[1]), rope, cu_seqlens


def one_lane_off(qkv, rope, cu_seqlens):
    return (*qkv[:2], np.roll(qkv[2], 1, axis=2)), rope, cu_seqlens


def not_turned(qkv, rope, cu_seqlens):
    return qkv, still(*qkv[0].shape[::2]), cu_seqlens


def turned_by_the_next_place(qkv, rope, cu_seqlens):
    """Only differences of places matter within a segment, so one row alone is out of place."""
    cos, sin = (table.copy() for table in rope)
    cos[-1], sin[-1] = cos[-2], sin[-2]
    return qkv, (cos, sin), cu_seqlens


def segments_joined(qkv, rope, cu_seqlens):
    return qkv, rope, np.delete(cu_seqlens, 1)


def boundary_moved(qkv, rope, cu_seqlens):
    moved = cu_seqlens.copy()
    moved[1] += 1
    return qkv, rope, moved


MISTAKES = [
    last_key_is_the_one_before,
    last_value_missing,
    scaled_for_another_head_dim,
    heads_exchanged,
    keys_and_values_exchanged,
    one_lane_off,
    not_turned,
    turned_by_the_next_place,
    segments_joined,
    boundary_moved,
]


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("lengths", [[5, 12], [40, KEYS + 200]], ids=str)
def test_mistake_is_seen(isa, rng, lengths, mistake):
    given = segments.segments_of(rng, lengths, heads=4, kv_heads=2, head_dim=80)
    want, tolerance = segments.truth(*given), attention_tolerance(*given[0], given[2])
    assert_close(segments.attend(*given), want, tolerance)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(segments.attend(*mistake(*given)), want, tolerance)
