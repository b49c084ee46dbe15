"""tlutils.scores: known answers, scikit-learn's numbers, what each score must not notice, and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tlutils import scores


def made(n: int = 300, classes: int = 3, skill: float = 1.5, seed: int = 0):
    dice = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    return dice.normal(size=(n, classes)) + skill * np.eye(classes)[truth], truth


# ---------------------------------------------------------------------------- known answers
def test_a_rare_class_shows_in_everything_but_accuracy():
    truth = np.array([0] * 95 + [1] * 5)
    always_zero = np.tile([0.9, 0.1], (100, 1))
    found = scores.of(always_zero, truth)
    assert found["accuracy"] == 0.95 and found["balanced_accuracy"] == 0.5 and found["roc_auc"] == 0.5
    assert found["average_precision"] == pytest.approx(0.05)
    assert found["f1_macro"] == pytest.approx((2 * 95 / (2 * 95 + 5)) / 2)
    assert found["log_loss"] == pytest.approx(-(0.95 * np.log(0.9) + 0.05 * np.log(0.1)))
    assert found["ece"] == pytest.approx(0.05)


def test_perfect_answers():
    found = scores.of(np.eye(3)[[0, 1, 2, 2]], [0, 1, 2, 2])
    assert all(found[name] == 1 for name in ("accuracy", "balanced_accuracy", "f1_macro", "f1_micro", "roc_auc", "average_precision"))
    assert found["log_loss"] == 0 and found["ece"] == 0


def test_the_names_mean_what_scikit_learn_means():
    logits, truth = made()
    p = scores.softmax(logits)
    found = scores.of(p, truth)
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, p, multi_class="ovr", average="macro"))
    assert found["f1_macro"] == pytest.approx(sk.f1_score(truth, p.argmax(1), average="macro"))
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, p))
    assert np.array_equal(scores.confusion(p, truth), sk.confusion_matrix(truth, p.argmax(1)))


def test_micro_f1_is_accuracy_where_each_item_gets_one_answer():
    logits, truth = made(seed=3)
    found = scores.of(scores.softmax(logits), truth, ("accuracy", "f1_micro"))
    assert found["accuracy"] == pytest.approx(found["f1_micro"])


def test_per_class_and_the_confusion_matrix_agree():
    logits, truth = made(seed=4)
    p = scores.softmax(logits)
    table = scores.per_class(p, truth, ["a", "b", "c"])
    assert list(table["class"]) == ["a", "b", "c"] and table["share"].sum() == pytest.approx(1)
    assert np.allclose(table["recall"], np.diag(scores.confusion(p, truth, normalise=True)))
    assert table["recall"].mean() == pytest.approx(scores.of(p, truth)["balanced_accuracy"])
    assert table["average_precision"].mean() == pytest.approx(scores.of(p, truth)["average_precision"])


def test_curves_end_where_they_must_and_hold_the_area():
    logits, truth = made(classes=2)
    p = scores.softmax(logits)
    x, y = scores.curve(p, truth, "roc")
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(scores.of(p, truth)["roc_auc"])
    recall, precision = scores.curve(p, truth, "precision_recall")
    assert recall[0] == 0 and recall[-1] == 1 and precision[-1] == pytest.approx(0.5, abs=0.2)


# ---------------------------------------------------------------------------- invariants
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 5))
def test_temperature_moves_calibration_and_nothing_that_ranks(seed, t):
    logits, truth = made(60, 2, seed=seed)
    names = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "average_precision")
    cold, warm = (scores.of(scores.softmax(z), truth, names) for z in (logits, logits / t))
    assert cold == pytest.approx(warm)


def test_renaming_the_classes_changes_no_mean():
    logits, truth = made(seed=5)
    order = np.array([2, 0, 1])
    a, b = scores.of(scores.softmax(logits), truth), scores.of(scores.softmax(logits[:, order]), np.argsort(order)[truth])
    assert a == pytest.approx(b)


# ---------------------------------------------------------------------------- calibration
def test_drawn_from_its_own_probabilities_a_model_is_calibrated():
    dice = np.random.default_rng(0)
    p = scores.softmax(dice.normal(size=(20000, 4)))
    truth = (p.cumsum(1) > dice.random((len(p), 1))).argmax(1)
    assert scores.calibration_error(p, truth) < 0.015
    assert scores.fit_temperature(np.log(p), truth) == pytest.approx(1, abs=0.05)
    assert scores.calibration_error(scores.softmax(3 * np.log(p)), truth) > 0.1


def test_the_temperature_that_was_put_in_is_found_and_mends():
    dice = np.random.default_rng(1)
    logits = 2 * dice.normal(size=(20000, 3))
    p = scores.softmax(logits)
    truth = (p.cumsum(1) > dice.random((len(p), 1))).argmax(1)
    assert scores.fit_temperature(2.5 * logits, truth) == pytest.approx(2.5, rel=0.05)


def test_bins_hold_their_upper_edge_and_every_item_once():
    p = np.array([[0.6, 0.4], [0.61, 0.39], [1.0, 0.0], [0.5, 0.5]])
    table = scores.reliability(p, [0, 0, 0, 0], bins=10)
    assert table["bin"].tolist() == [4, 5, 6, 9] and table["share"].tolist() == [0.25] * 4
    assert table["confidence"].tolist() == [0.5, 0.6, 0.61, 1.0]


# ---------------------------------------------------------------------------- intervals
def test_an_interval_holds_its_score_shrinks_with_items_and_repeats():
    wide = scores.interval(scores.softmax(made(90)[0]), made(90)[1], "f1_macro", resamples=300)
    narrow = scores.interval(scores.softmax(made(3000)[0]), made(3000)[1], "f1_macro", resamples=300)
    assert wide.low <= wide.mean <= wide.high and narrow.half_width < wide.half_width / 3
    assert wide == scores.interval(scores.softmax(made(90)[0]), made(90)[1], "f1_macro", resamples=300)


def test_the_interval_of_accuracy_covers_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        logits, truth = made(120, 2, 1.0, seed)
        found = scores.interval(scores.softmax(logits), truth, "accuracy", resamples=200)
        hits += found.low <= 0.7602 <= found.high                       # P(N(1, 2) > 0), the chance that the right logit is larger
    assert hits >= 180


# ---------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("p, truth, message", [
    ([[0.5, 0.5]], [0, 1], r"truth: must be \(1,\), a class for each row"),
    ([0.5, 0.5], [0], r"probabilities: must be \(N, K\)"),
    ([[2.0, 3.0]], [0], "row 0 is not a distribution .* of logits take the softmax first"),
    ([[0.5, 0.5], [np.nan, 1]], [0, 1], "row 1 is not a distribution"),
    ([[0.5, 0.5]], [2], "goes from 2 to 2, but probabilities have 2 classes"),
    ([[0.5, 0.5]], [0.0], "whole numbers from 0, got float64"),
    ([[0.5, 0.5]], [0], "holds no item of class 1"),
])
def test_what_can_not_be_scored_is_refused(p, truth, message):
    with pytest.raises(ValueError, match=message):
        scores.of(np.array(p), np.array(truth))


def test_unknown_names_are_refused():
    p, truth = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
    with pytest.raises(ValueError, match="score 'f1' is unknown: use one of accuracy"):
        scores.of(p, truth, ["f1"])
    with pytest.raises(ValueError, match="kind='pr' is unknown"):
        scores.curve(p, truth, "pr")
    with pytest.raises(ValueError, match="positive=7: the classes are 0 to 1"):
        scores.curve(p, truth, "roc", positive=7)
    with pytest.raises(ValueError, match="no such item, so there is no curve"):
        scores.curve(p, truth * 0, "roc", positive=1)
    with pytest.raises(ValueError, match="every answer is right"):
        scores.fit_temperature(np.log(p), truth)
    with pytest.raises(ValueError, match="3 names for 2 classes"):
        scores.per_class(p, truth, "abc")
    with pytest.raises(ValueError, match="confidence: must lie between 0 and 1"):
        scores.interval(p, truth, "ece", confidence=95)
