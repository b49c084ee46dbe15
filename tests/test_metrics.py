"""tlutils.metrics: scores, intervals against SciPy's own numbers, and how often the intervals catch the truth."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tlutils import metrics
from tlutils.metrics import Interval, bootstrap_interval, coverage, crossed_interval, paired_interval, t_interval

runs = st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=2, max_size=12)


# ---------------------------------------------------------------------------- scores
def test_accuracy_is_the_share_of_right_names():
    assert metrics.accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75
    assert metrics.accuracy(torch.tensor([1, 1]), np.array([1, 1])) == 1.0
    assert metrics.correct(["a", "b"], ["a", "c"]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "predicted, truth, message",
    [
        ([1, 2], [1], r"predicted and truth must be of one length; got \(2,\) and \(1,\)"),
        ([[1], [2]], [[1], [2]], "must be of one length"),
        ([], [], "predicted and truth are empty"),
    ],
)
def test_scores_that_can_not_be_taken_are_refused(predicted, truth, message):
    with pytest.raises(ValueError, match=message):
        metrics.accuracy(predicted, truth)


# ---------------------------------------------------------------------------- Interval
def test_an_interval_writes_itself():
    interval = Interval(3.14159, -1.0, 7.25, 5)
    assert str(interval) == "3.1 [-1.0, 7.2]" and f"{interval:+.2f}" == "+3.14 [-1.00, +7.25]"
    assert f"{interval:.0%}" == "314% [-100%, 725%]"
    assert interval.half_width == 4.125


@pytest.mark.parametrize(
    "low, high, shown", [(0.1, 2, True), (-2, -0.1, True), (-1, 1, False), (0, 1, False), (-1, 0, False)]
)
def test_an_effect_is_shown_when_its_interval_excludes_zero(low, high, shown):
    assert Interval((low + high) / 2, low, high, 5).excludes_zero is shown


def test_scaling_changes_the_units_and_keeps_low_below_high():
    interval = Interval(0.1, -0.2, 0.4, 7)
    assert interval.scaled(100) == Interval(10.0, -20.0, 40.0, 7)
    turned = interval.scaled(-1)
    assert (turned.mean, turned.low, turned.high) == (-0.1, -0.4, 0.2)


# ---------------------------------------------------------------------------- t intervals
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_t_interval_is_scipys(confidence):
    values = np.random.default_rng(0).normal(70, 5, 6)
    ours = t_interval(values, confidence)
    low, high = stats.t.interval(confidence, 5, loc=values.mean(), scale=stats.sem(values))
    assert (ours.mean, ours.low, ours.high) == pytest.approx((values.mean(), low, high), rel=1e-12) and ours.n == 6


def test_a_t_interval_by_hand():
    interval = t_interval([1.0, 2.0, 3.0])  # s = 1, t(0.975; 2) = 4.3027
    assert interval.mean == 2 and interval.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_equal_runs_give_an_interval_of_no_width():
    assert t_interval([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5, 3)


@given(runs, st.floats(-50, 50), st.floats(0.1, 10))
@settings(deadline=None)
def test_the_t_interval_moves_and_scales_with_its_values(values, shift, factor):
    a, b = t_interval(values), t_interval([v * factor + shift for v in values])
    assert a.low <= a.mean <= a.high
    assert (b.mean, b.low, b.high) == pytest.approx(
        tuple(v * factor + shift for v in (a.mean, a.low, a.high)), abs=1e-6, rel=1e-6
    )


@given(runs)
@settings(deadline=None)
def test_more_confidence_is_never_narrower(values):
    assert t_interval(values, 0.99).half_width >= t_interval(values, 0.9).half_width


def test_pairing_takes_out_what_both_have_in_common():
    rng = np.random.default_rng(1)
    common, gap = rng.normal(0, 10, 8), rng.normal(2, 0.1, 8)
    interval = paired_interval(common + gap, common)
    found = stats.ttest_rel(common + gap, common).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((found.low, found.high))
    assert interval.excludes_zero and interval.half_width < 0.2 < t_interval(common).half_width


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: t_interval([1.0]), r"values: an interval needs at least two runs, got shape \(1,\)"),
        (lambda: t_interval([[1.0, 2.0]]), r"values: .*got shape \(1, 2\)"),
        (lambda: t_interval([1.0, math.nan, 2.0]), "values: has a value that is not finite at run 1"),
        (lambda: t_interval([math.inf, 1.0]), "values: has a value that is not finite at run 0"),
        (lambda: paired_interval([1, 2], [1, 2, 3]), "a and b must be paired run by run; got 2 and 3 runs"),
        (lambda: paired_interval([1, 2], [1]), "b: an interval needs at least two runs"),
        (lambda: bootstrap_interval([1]), "values: an interval needs at least two runs"),
        (
            lambda: crossed_interval([0, 1, 1]),
            r"scores: must be \(runs, items\) with at least 2 of each, got shape \(3,\)",
        ),
        (lambda: crossed_interval([[0, 1, 1]]), r"got shape \(1, 3\)"),
        (lambda: crossed_interval([[0], [1]]), r"got shape \(2, 1\)"),
        (lambda: crossed_interval([[0, math.nan], [1, 1]]), "scores: has a value that is not finite"),
        (lambda: t_interval([1, 2, 3], confidence=95), r"confidence: must lie between 0 and 1, got 95"),
        (lambda: crossed_interval([[0, 1], [1, 1]], confidence=0), r"confidence: must lie between 0 and 1, got 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------------------- crossed runs and items
def crossed(rng, *, runs=5, items=60, mean=0.0, run=1.0, item=1.0, rest=1.0):
    """Scores (runs, items) with random effects of the run and of the item."""
    return (
        mean
        + run * rng.normal(size=(runs, 1))
        + item * rng.normal(size=(1, items))
        + rest * rng.normal(size=(runs, items))
    )


def test_without_item_effects_the_crossed_interval_is_near_the_t_interval():
    scores = crossed(np.random.default_rng(0), items=2000, item=0.0, rest=0.1)
    assert crossed_interval(scores).half_width == pytest.approx(t_interval(scores.mean(1)).half_width, rel=0.05)


def test_without_run_effects_it_is_near_the_t_interval_over_items():
    scores = crossed(np.random.default_rng(0), runs=200, items=40, run=0.0, rest=0.1)
    assert crossed_interval(scores).half_width == pytest.approx(t_interval(scores.mean(0)).half_width, rel=0.05)


def test_the_variance_by_hand():
    scores = np.array([[1.0, 0.0], [1.0, 1.0]])
    # MS_runs = MS_items = MS_rest = 0.25, so the total is 0.25; Satterthwaite gives 1/3 of a degree, 1 is the least
    interval = crossed_interval(scores)
    assert interval.mean == 0.75 and interval.n == 2
    assert interval.half_width == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(0.25 / 4))


def test_scores_that_never_vary_give_no_width():
    assert crossed_interval(np.ones((5, 10))) == Interval(1.0, 1.0, 1.0, 5)


@given(st.integers(2, 6), st.integers(2, 20), st.integers(0, 10**6))
@settings(deadline=None)
def test_the_order_of_runs_and_items_does_not_matter(n_runs, n_items, seed):
    rng = np.random.default_rng(seed)
    scores = (rng.random((n_runs, n_items)) < 0.7).astype(float)
    a, b = crossed_interval(scores), crossed_interval(rng.permutation(rng.permutation(scores), axis=1))
    assert (a.mean, a.low, a.high) == pytest.approx((b.mean, b.low, b.high)) and a.low <= a.mean <= a.high


def test_it_is_wider_than_either_source_alone():
    scores = crossed(np.random.default_rng(3))
    both = crossed_interval(scores).half_width
    # the items' part has many degrees of freedom, the runs' part few: compare with the normal limits of each
    by_run, by_item = (1.96 * scores.mean(axis).std(ddof=1) / math.sqrt(n) for axis, n in ((1, 5), (0, 60)))
    assert both > by_run and both > by_item


# ---------------------------------------------------------------------------- coverage, simulated
def test_coverage_counts_the_hits():
    assert coverage(
        lambda v: Interval(0, v - 1, v + 1, 2), lambda rng: rng.uniform(-2, 2), 0.0, repeats=4000
    ) == pytest.approx(0.5, abs=0.03)
    assert coverage(lambda v: Interval(0, -1, 1, 2), lambda rng: 0, 0.0, repeats=3) == 1
    assert coverage(lambda v: Interval(0, 1, 2, 2), lambda rng: 0, 0.0, repeats=3) == 0


def five_runs(rng):
    return rng.normal(0.8, 0.05, 5)


def test_with_five_runs_the_t_interval_covers_95_percent():
    assert 0.93 < coverage(t_interval, five_runs, 0.8, repeats=3000) < 0.97


def test_with_five_runs_the_percentile_bootstrap_covers_far_too_little():
    covered = coverage(lambda v: bootstrap_interval(v, resamples=600), five_runs, 0.8, repeats=600)
    assert 0.75 < covered < 0.9


@pytest.mark.parametrize("run, item, rest", [(1, 1, 1), (0.3, 1, 1), (1, 0.2, 1)])
def test_the_crossed_interval_covers_95_percent(run, item, rest):
    covered = coverage(crossed_interval, lambda rng: crossed(rng, run=run, item=item, rest=rest), 0.0, repeats=1500)
    assert 0.93 < covered < 0.98


def test_the_crossed_interval_covers_right_and_wrong_answers_too():
    truth = stats.norm.cdf(0.8 / math.sqrt(1 + 0.3**2 + 1))
    covered = coverage(
        crossed_interval,
        lambda rng: (crossed(rng, items=100, mean=0.8, run=0.3) > 0).astype(float),
        truth,
        repeats=1500,
    )
    assert 0.93 < covered < 0.98


def test_ignoring_the_items_covers_too_little():
    covered = coverage(lambda s: t_interval(s.mean(1)), lambda rng: crossed(rng, run=0.1), 0.0, repeats=1000)
    assert covered < 0.85


def test_the_bootstrap_repeats_from_its_seed_and_knows_equal_runs():
    values = [0.1, 0.4, 0.2, 0.9]
    assert (
        bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    )
    assert bootstrap_interval([0.3, 0.3]) == Interval(0.3, 0.3, 0.3, 2)


def test_an_interval_is_never_minus_zero():
    interval = metrics.Interval(-0.2, -6.4, 0.3, 5)
    assert f"{interval:+.0f}" == "+0 [-6, +0]" and f"{interval:.0f}" == "0 [-6, 0]" and str(interval) == "-0.2 [-6.4, 0.3]"
