"""tlutils.evaluation: paired draws, known answers, and refusals where a number would mislead."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlutils import datasets, evaluation, metrics, shapes
from tlutils.evaluation import (
    SliceDisagrees,
    area_between,
    assert_agrees,
    choose_rate,
    compare,
    difference,
    labels_needed,
    learning_curve,
    log2_ratio,
    paired_log2,
    pool,
    steps_to,
    summary,
    transfer_efficiency,
    world,
)


# ---------------------------------------------------------------------------- tiny methods
@dataclass
class Nearest:
    """The class whose mean is nearest; the share `spoil` of the answers is replaced by class 0."""

    spoil: float = 0.0

    def __call__(self, x, y, x_test, seed):
        x, y, x_test = (np.asarray(v, float).reshape(len(v), -1) for v in (x, y, x_test))
        means = np.stack([x[y[:, 0] == c].mean(0) for c in range(int(y.max()) + 1)])
        predicted = ((x_test[:, None] - means[None]) ** 2).sum(-1).argmin(1)
        rng = np.random.default_rng(seed)
        return np.where(rng.random(len(predicted)) < self.spoil, 0, predicted)


def always_zero(x, y, x_test, seed):
    return np.zeros(len(x_test), int)


def blobs(labels, seed):
    """Three classes in the plane, 20 test items each; fresh for every seed."""
    rng = np.random.default_rng([seed, labels])
    y, y_test = np.repeat(np.arange(3), labels), np.repeat(np.arange(3), 20)
    centres = np.array([[0, 0], [2, 0], [0, 2]])
    return centres[y] + rng.normal(size=(len(y), 2)), y, centres[y_test] + rng.normal(size=(60, 2)), y_test


def frame_of(curves, budgets=(1, 10, 100), seeds=(0, 1)):
    """A frame with the given accuracies: {method: [[one per budget] per seed]}; one list is used for all seeds."""
    rows = [
        {"method": m, "labels": n, "seed": s, "accuracy": (values[i] if isinstance(values[0], list) else values)[j]}
        for m, values in curves.items()
        for i, s in enumerate(seeds)
        for j, n in enumerate(budgets)
    ]
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------- learning_curve
def test_every_method_sees_the_same_draws_and_every_run_has_its_row():
    seen = {"a": [], "b": []}

    def spy(name):
        def method(x, y, x_test, seed):
            seen[name].append((len(y), seed, x.tobytes(), x_test.tobytes()))
            return always_zero(x, y, x_test, seed)

        return method

    frame = learning_curve({"a": spy("a"), "b": spy("b")}, [2, 5], range(3), draw=blobs)
    assert seen["a"] == seen["b"] and len({call[2] for call in seen["a"]}) == 6
    assert frame[["method", "labels", "seed"]].drop_duplicates().shape[0] == len(frame) == 12
    assert list(frame["labels"]) == sorted(frame["labels"])
    assert (frame["accuracy"] == 1 / 3).all() and (frame["seconds"] >= 0).all()


def test_workers_change_nothing_but_the_time():
    methods = {"nearest": Nearest(), "spoiled": Nearest(0.5), "zero": always_zero}
    alone, together = (
        learning_curve(methods, [1, 4], [0, 1], draw=blobs, workers=w, items=True).drop(columns="seconds")
        for w in (1, 2)
    )
    pd.testing.assert_frame_equal(alone, together)


def test_seeds_may_be_an_iterator():
    frame = learning_curve({"zero": always_zero}, [1, 2], iter([0, 1, 2]), draw=blobs)
    assert len(frame) == 6


def test_items_are_written_digit_by_digit():
    frame = learning_curve({"nearest": Nearest()}, [5], [0, 1], draw=blobs, items=True)
    scores = evaluation.item_scores(frame)
    assert scores.shape == (2, 60) and set(np.unique(scores)) <= {0, 1}
    assert scores.mean(1).tolist() == pytest.approx(frame["accuracy"].tolist())
    assert "correct" not in learning_curve({"zero": always_zero}, [1], [0], draw=blobs)


@pytest.mark.parametrize(
    "methods, budgets, seeds", [({}, [1], [0]), ({"z": always_zero}, [], [0]), ({"z": always_zero}, [1], [])]
)
def test_a_curve_of_nothing_is_refused(methods, budgets, seeds):
    with pytest.raises(ValueError, match="methods, budgets and seeds: give at least one of each"):
        learning_curve(methods, budgets, seeds, draw=blobs)


def test_a_method_that_answers_too_few_items_is_found():
    with pytest.raises(ValueError, match="predicted and truth must be of one length"):
        learning_curve({"short": lambda x, y, x_test, seed: [0]}, [1], [0], draw=blobs)


def test_the_best_rate_wins():
    rate, sweep = choose_rate(lambda r: Nearest(spoil=r), [0.9, 0.0, 0.5], draw=blobs, labels=10, seeds=[0, 1])
    assert rate == 0.0 and set(sweep["method"]) == {"0.9", "0", "0.5"} and len(sweep) == 6


# ---------------------------------------------------------------------------- where data come from
def test_a_world_draws_fresh_training_and_test_scenes_for_each_seed():
    draw = world(shapes.TARGET10, test_per_class=2)
    x, y, x_test, y_test = draw(3, 0)
    assert len(x) == 30 and len(x_test) == 20 and y_test.bincount().tolist() == [2] * 10
    again = draw(3, 0)
    assert all(torch.equal(a, b) for a, b in zip((x, y, x_test, y_test), again, strict=True))
    pictures = [p.numpy().tobytes() for n in (1, 3) for s in range(3) for p in draw(n, s)[0]]
    tests = [p.numpy().tobytes() for s in range(3) for p in draw(1, s)[2]]
    assert len(set(pictures)) == len(pictures) and len(set(tests)) == len(tests) and not set(pictures) & set(tests)
    assert torch.equal(draw(1, 1)[2], draw(3, 1)[2])  # one test set for all budgets of a seed


def test_a_shifted_world_is_shifted_in_training_and_test():
    plain, shifted = (
        world(shapes.TARGET10, test_per_class=1),
        world(shapes.TARGET10, test_per_class=1, shift_kind="night", strength=0.8),
    )
    for a, b in zip(plain(1, 0)[::2], shifted(1, 0)[::2], strict=True):
        assert b.mean() < 0.6 * a.mean()


@dataclass
class Numbers:
    """A data set whose items are numbers, so that each can be recognised."""

    name: str = "numbers"
    x_train: np.ndarray = None
    y_train: np.ndarray = None
    x_test: np.ndarray = None
    y_test: np.ndarray = None


def numbers(sizes=(30, 20, 25)):
    y = np.repeat(np.arange(len(sizes)), sizes)
    return Numbers(
        x_train=np.arange(len(y)), y_train=y, x_test=np.arange(1000, 1040), y_test=np.arange(40) % len(sizes)
    )


@given(st.integers(1, 20), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_a_pool_gives_balanced_training_items_and_never_test_items(labels, seed):
    dataset = numbers()
    x, y, x_test, y_test = pool(dataset)(labels, seed)
    assert len(set(x.tolist())) == len(x) == 3 * labels and x.max() < 1000
    assert np.bincount(y).tolist() == [labels] * 3 and (dataset.y_train[x] == y).all()
    assert x_test is dataset.x_test and y_test is dataset.y_test
    assert pool(dataset)(labels, seed)[0].tolist() == x.tolist()


def test_a_pool_draws_other_items_for_another_seed():
    draw = pool(numbers())
    assert len({tuple(draw(5, seed)[0]) for seed in range(10)}) == 10


def test_a_pool_refuses_budgets_that_it_does_not_have():
    draw = pool(numbers())
    assert len(draw(20, 0)[0]) == 60
    with pytest.raises(
        ValueError, match="labels_per_class: 21 asked for, but numbers has only 20 training examples of its smallest"
    ):
        draw(21, 0)
    with pytest.raises(ValueError, match="labels_per_class: must be at least 1, got 0"):
        draw(0, 0)


def test_digits_pool_has_no_test_picture_in_training():
    dataset = datasets.digits()
    draw = pool(dataset)
    test = {p.numpy().tobytes() for p in torch.as_tensor(dataset.x_test)}
    assert not any(p.numpy().tobytes() in test for p in torch.as_tensor(draw(50, 0)[0]))


# ---------------------------------------------------------------------------- summaries and differences
def test_a_summary_gives_the_t_interval_of_every_group():
    frame = frame_of({"a": [[0.1, 0.2, 0.3], [0.3, 0.4, 0.5], [0.2, 0.6, 0.4]]}, seeds=(0, 1, 2))
    table = summary(frame)
    expected = metrics.t_interval([0.1, 0.3, 0.2])
    first = table.iloc[0]
    assert (first["mean"], first["low"], first["high"], first["n"]) == pytest.approx(
        (expected.mean, expected.low, expected.high, 3)
    )
    assert len(table) == 3 and list(table.columns) == ["method", "labels", "mean", "low", "high", "n"]


def items_frame():
    rng = np.random.default_rng(0)
    item = rng.normal(size=80)
    rows = []
    for seed in range(4):
        for method, mean in (("a", 0.8), ("b", 0.2)):
            right = mean + item + 0.3 * rng.normal() + rng.normal(size=80) > 0
            rows.append(
                {
                    "method": method,
                    "labels": 5,
                    "seed": seed,
                    "accuracy": right.mean(),
                    "correct": "".join(str(int(r)) for r in right),
                }
            )
    return pd.DataFrame(rows)


def test_where_items_are_recorded_they_are_crossed():
    frame = items_frame()
    scores = {m: evaluation.item_scores(frame[frame["method"] == m]) for m in "ab"}
    found = difference(frame, "a", "b", 5)
    assert found == metrics.crossed_interval(scores["a"] - scores["b"])
    assert found != metrics.paired_interval(scores["a"].mean(1), scores["b"].mean(1))
    assert found.mean == pytest.approx((scores["a"] - scores["b"]).mean())
    crossed = metrics.crossed_interval(scores["a"])
    assert evaluation.interval(frame[frame["method"] == "a"]) == crossed
    assert summary(frame).iloc[0]["high"] == crossed.high


def test_items_are_paired_by_seed_whatever_the_order_and_only_where_both_ran():
    frame = items_frame()
    expected = difference(frame, "a", "b", 5)
    assert difference(frame.sample(frac=1, random_state=1), "a", "b", 5) == expected
    longer = pd.concat([frame, frame[frame["method"] == "a"].head(1).assign(seed=-1)])
    assert difference(longer, "a", "b", 5) == expected


def test_without_recorded_items_the_t_interval_is_used():
    frame = items_frame()
    plain = frame.drop(columns="correct")
    expected = metrics.paired_interval(*(plain[plain["method"] == m]["accuracy"] for m in "ab"))
    assert difference(plain, "a", "b", 5) == expected
    partly = frame.assign(
        correct=[None if m == "a" else c for m, c in zip(frame["method"], frame["correct"], strict=True)]
    )
    assert difference(partly, "a", "b", 5) == expected


def test_a_difference_is_paired_by_seed():
    frame = frame_of({"a": [[0.9], [0.5], [0.7]], "b": [[0.8], [0.42], [0.59]]}, budgets=[5], seeds=(0, 1, 2))
    found = difference(frame, "a", "b", 5)
    assert found == metrics.paired_interval([0.9, 0.5, 0.7], [0.8, 0.42, 0.59]) and found.excludes_zero
    turned = difference(frame, "b", "a", 5)
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-found.mean, -found.high, -found.low))
    extra = pd.concat([frame, frame_of({"a": [0.0]}, budgets=[5], seeds=(3,))])
    assert difference(extra, "a", "b", 5) == found  # a seed that only one method has is left out


def test_compare_says_what_is_shown():
    frame = frame_of({"a": [[0.5, 0.3, 0.1], [0.52, 0.1, 0.12]], "b": [[0.1, 0.2, 0.5], [0.11, 0.21, 0.53]]})
    assert list(compare(frame, "a", "b")["shown"]) == ["+", "not shown", "-"]


def test_a_method_without_runs_is_named():
    frame = frame_of({"a": [0.1, 0.2, 0.3], "b": [0.1, 0.2, 0.3]})
    with pytest.raises(ValueError, match="'c' has no runs at 10 labels; methods there: a, b"):
        difference(frame, "a", "c", 10)
    with pytest.raises(ValueError, match="labels: no runs at 7 labels per class; there are 1, 10, 100$"):
        difference(frame, "a", "b", 7)
    for function in (
        lambda: transfer_efficiency(frame, "a", "scrtch", 0.2),
        lambda: area_between(frame, "scrtch", "a"),
    ):
        with pytest.raises(ValueError, match="'scrtch' has no runs; there are a, b"):
            function()


# ---------------------------------------------------------------------------- stored against live
def test_a_slice_that_agrees_passes_and_one_that_does_not_is_named():
    stored = frame_of({"a": [[0.5, 0.7, 0.9], [0.52, 0.72, 0.91], [0.48, 0.69, 0.9]]}, seeds=(0, 1, 2))
    live = stored[(stored["seed"] == 0) & (stored["labels"] == 10)]
    assert_agrees(stored, live)
    half = metrics.t_interval([0.7, 0.72, 0.69]).half_width
    centre = np.mean([0.7, 0.72, 0.69])
    assert_agrees(stored, live.assign(accuracy=centre + half + 0.019))
    for off in (half + 0.021, -half - 0.021):
        with pytest.raises(SliceDisagrees, match=r"a at 10 labels: stored .* \(run python -m tlutils.experiments\)"):
            assert_agrees(stored, live.assign(accuracy=centre + off))


def test_a_slice_that_the_grid_lacks_is_named():
    stored = frame_of({"a": [0.5, 0.7, 0.9]})
    with pytest.raises(ValueError, match="the stored grid has no runs of 'b' at 1 labels"):
        assert_agrees(stored, stored.assign(method="b"))


# ---------------------------------------------------------------------------- labels needed, efficiency, area
@pytest.mark.parametrize(
    "goal, expected", [(0.5, 10.0), (0.3, 1.0), (0.2, 1.0), (0.4, math.sqrt(10)), (0.9, 100.0), (0.91, math.inf)]
)
def test_labels_needed_on_a_known_curve(goal, expected):
    assert labels_needed([1, 10, 100], [0.3, 0.5, 0.9], goal) == pytest.approx(expected)


def test_labels_needed_takes_the_first_crossing_and_any_order():
    assert labels_needed([100, 1, 10], [0.9, 0.3, 0.5], 0.5) == pytest.approx(10)
    assert labels_needed([1, 10, 100, 1000], [0.3, 0.8, 0.4, 0.9], 0.8) == pytest.approx(10)


@pytest.mark.parametrize(
    "budgets, accuracies, message",
    [
        ([10, 1], [0.5], "one accuracy for each budget; got 2 and 1"),
        ([], [], "one accuracy for each budget; got 0 and 0"),
        (10, 0.5, "one accuracy for each budget"),
        ([0, 1], [0.1, 0.2], r"positive and different.*\[0.0, 1.0\]"),
        ([1, 1], [0.1, 0.2], "positive and different"),
        ([1, 2], [0.1, math.nan], "accuracies finite"),
    ],
)
def test_labels_needed_refuses_what_is_no_curve(budgets, accuracies, message):
    with pytest.raises(ValueError, match=message):
        labels_needed(budgets, accuracies, 0.5)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_a_higher_goal_never_needs_fewer_labels(accuracies, goal, other):
    budgets = [2**i for i in range(len(accuracies))]
    low, high = sorted((goal, other))
    assert labels_needed(budgets, accuracies, low) <= labels_needed(budgets, accuracies, high) * (1 + 1e-9)
    needed = labels_needed(budgets, accuracies, goal)
    assert math.isinf(needed) == (goal > max(accuracies)) and (
        math.isinf(needed) or 1 <= needed <= budgets[-1] * (1 + 1e-9)
    )


def test_transfer_efficiency_of_known_curves():
    # at 80 %: transfer needs 1 label, scratch 10 in one seed and 100 in the other: sqrt(1000) times as many
    frame = frame_of({"probe": [0.8, 0.9, 0.95], "scratch": [[0.1, 0.8, 0.9], [0.1, 0.3, 0.8]]})
    found = transfer_efficiency(frame, "probe", "scratch", 0.8)
    assert found.ratio.mean == pytest.approx(math.sqrt(1000)) and found.at_least is False and found.ratio.n == 2
    expected = metrics.t_interval([math.log(10), math.log(100)])
    assert (found.ratio.low, found.ratio.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    assert log2_ratio(found).mean == pytest.approx(math.log2(1000) / 2)
    assert str(found).startswith("32x [") and str(found).endswith("for 80%")


def test_a_scratch_that_never_gets_there_gives_a_lower_limit():
    frame = frame_of({"probe": [0.8, 0.9, 0.95], "scratch": [[0.1, 0.2, 0.3], [0.1, 0.8, 0.9]]})
    found = transfer_efficiency(frame, "probe", "scratch", 0.8)
    assert (
        found.at_least is True
        and found.ratio.mean == pytest.approx(math.sqrt(100 * 10))
        and str(found).startswith("> ")
    )
    # its own largest budget counts, not the other method's
    more = pd.concat([frame, frame_of({"probe": [0.99]}, budgets=[10000])])
    assert transfer_efficiency(more, "probe", "scratch", 0.8).ratio.mean == pytest.approx(math.sqrt(1000))


def test_a_transfer_that_never_gets_there_has_no_efficiency():
    frame = frame_of({"probe": [0.1, 0.2, 0.3], "scratch": [0.1, 0.8, 0.9]})
    with pytest.raises(ValueError, match="goal: 'probe' never reaches 80% in seed 0; choose a lower goal"):
        transfer_efficiency(frame, "probe", "scratch", 0.8)


def test_the_area_between_known_curves():
    frame = frame_of({"a": [[0.5, 0.7, 0.9], [0.6, 0.8, 1.0]], "b": [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]})
    # gaps 0, 0.2, 0.4 and 0.1, 0.3, 0.5 at equal steps of log labels: means 0.2 and 0.3
    found = area_between(frame, "a", "b")
    assert found.mean == pytest.approx(0.25) and found.half_width == pytest.approx(
        metrics.t_interval([0.2, 0.3]).half_width
    )
    constant = frame_of({"a": [0.7, 0.7, 0.7], "b": [0.4, 0.4, 0.4]}, budgets=(1, 2, 200))
    assert area_between(constant, "a", "b").mean == pytest.approx(0.3)  # wherever the budgets lie
    with pytest.raises(ValueError, match="area_between needs at least two label budgets"):
        area_between(frame[frame["labels"] == 1], "a", "b")


# ---------------------------------------------------------------------------- steps
def test_steps_to_a_goal():
    frame = pd.DataFrame(
        [
            {"method": m, "seed": s, "step": t, "accuracy": a}
            for m, s, curve in (("a", 0, (0.1, 0.6, 0.9)), ("a", 1, (0.7, 0.5, 0.9)), ("b", 0, (0.1, 0.2, 0.3)))
            for t, a in zip((50, 100, 150), curve, strict=True)
        ]
    )
    table = steps_to(frame, 0.6).set_index(["method", "seed"])["steps"]
    assert table[("a", 0)] == 100 and table[("a", 1)] == 50 and table[("b", 0)] == math.inf


def test_steps_are_compared_in_doublings_and_pairs():
    steps = pd.DataFrame(
        [("a", 0, 400.0), ("a", 1, 800.0), ("b", 0, 100.0), ("b", 1, 100.0)], columns=["method", "seed", "steps"]
    )
    found = paired_log2(steps, "a", "b")
    assert found == metrics.t_interval([2.0, 3.0])
    late = steps.replace(800.0, math.inf)
    with pytest.raises(ValueError, match="steps: a run never reached the goal"):
        paired_log2(late, "a", "b")
    assert paired_log2(late, "a", "b", limit=1600) == metrics.t_interval([2.0, 4.0])  # at least this much
    with pytest.raises(ValueError, match="steps: a run never reached the goal"):
        paired_log2(late, "b", "a", limit=1600)  # who never got there can't count as the faster one


# ---------------------------------------------------------------------------- rows of a stored grid, run by run
def shifted_rows(accuracy=0.5, **columns):
    return pd.DataFrame([{"method": m, "seed": s, "strength": 0.6, "shift": "blur", "accuracy": accuracy, "extra": s / 7} | columns
                         for m in ("a", "b") for s in (1, 2)])


def test_rows_are_compared_run_by_run():
    stored = pd.concat([shifted_rows(), shifted_rows(0.9, strength=0.9)])
    assert evaluation.assert_rows_agree(stored, shifted_rows(0.52).iloc[:3]) == 3
    with pytest.raises(SliceDisagrees, match="method a, seed 1, strength 0.9, shift blur: stored 0.900, this run 0.500"):
        evaluation.assert_rows_agree(stored, shifted_rows(strength=0.9))


def test_a_row_that_the_grid_lacks_is_named():
    with pytest.raises(ValueError, match="no run with method a, seed 1, strength 0.6, shift night"):
        evaluation.assert_rows_agree(shifted_rows(), shifted_rows(shift="night"))
