"""Telling two sets apart: known answers, false alarms under no shift, estimates of accuracy, bad input."""

import numpy as np
import pytest
import torch
from scipy import stats

from tlutils import domains


def gauss(n, width=5, mean=0.0, seed=0):
    return np.random.default_rng(seed).normal(mean, 1, (n, width))


def test_domains_far_apart_are_told_apart_without_an_error():
    found = domains.domain_classifier(gauss(60), gauss(60, mean=8, seed=1))
    assert found.accuracy.mean == found.auc == 1 and found.distance == 2 and found.p_value < 1e-20
    assert found.accuracy.low > 0.95 and found.accuracy.high == 1


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_two_gaussians_come_near_the_best_possible_accuracy(distance):
    a, b = gauss(3000, 1), gauss(3000, 1, distance, seed=1)
    best = stats.norm.cdf(distance / 2)
    found = domains.domain_classifier(a, b)
    assert found.accuracy.low <= best <= found.accuracy.high
    assert found.auc == pytest.approx(stats.norm.cdf(distance / 2 ** 0.5), abs=0.02)
    assert domains.proxy_a_distance(a, b) == pytest.approx(2 * (2 * best - 1), abs=0.06)


def test_sets_of_different_size_are_judged_by_balanced_accuracy():
    found = domains.domain_classifier(gauss(900), gauss(60, seed=1))
    assert found.accuracy.low < 0.5 < found.accuracy.high      # a majority vote would be right 94 times in 100


def test_false_alarms_and_coverage_without_a_shift():
    results = [domains.domain_classifier(gauss(50, 3, seed=2 * s), gauss(50, 3, seed=2 * s + 1), folds=2) for s in range(150)]
    alarms = np.mean([r.p_value < 0.05 for r in results])
    assert alarms < 0.11, alarms                                # 5 % would be exact; folds share training examples
    assert abs(np.mean([r.auc for r in results]) - 0.5) < 0.03


def test_the_order_of_the_sets_changes_nothing_that_matters():
    a, b = gauss(80), gauss(80, mean=0.5, seed=1)
    assert domains.mmd(a, b).value == pytest.approx(domains.mmd(b, a).value)
    assert domains.domain_classifier(a, b).auc == pytest.approx(domains.domain_classifier(b, a).auc, abs=0.05)


def test_mmd_agrees_with_its_definition():
    a, b = gauss(7), gauss(9, mean=1, seed=1)
    found = domains.mmd(a, b, bandwidth=1.5, permutations=1)

    def k(x, y):
        return np.exp(-((x - y) ** 2).sum() / (2 * 1.5 ** 2))
    aa = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    bb = np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    ab = np.mean([k(x, y) for x in a for y in b])
    assert found.value == pytest.approx(aa + bb - 2 * ab)


def test_mmd_of_two_gaussians_is_the_closed_form():
    width, distance, s = 2, 1.0, 1.3
    pairs = [(gauss(500, width, seed=2 * i), gauss(500, width, distance / width ** 0.5, seed=2 * i + 1)) for i in range(12)]
    found = [domains.mmd(a, b, bandwidth=s, permutations=1).value for a, b in pairs]
    scale = (s ** 2 / (s ** 2 + 2)) ** (width / 2)
    truth = 2 * scale * (1 - np.exp(-distance ** 2 / (2 * (s ** 2 + 2))))
    assert np.mean(found) == pytest.approx(truth, abs=0.015) and truth > 0.1


def test_mmd_is_unbiased_and_its_test_keeps_its_level():
    results = [domains.mmd(gauss(30, 3, seed=2 * s), gauss(30, 3, seed=2 * s + 1), permutations=100, seed=s) for s in range(200)]
    values = np.array([r.value for r in results])
    assert abs(values.mean()) < 3 * values.std() / len(values) ** 0.5 and (values < 0).any()
    assert np.mean([r.p_value <= 0.05 for r in results]) < 0.09


def test_mmd_sees_a_change_of_spread_that_a_linear_classifier_can_not():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (200, 3)), rng.normal(0, 2, (200, 3))
    assert domains.mmd(a, b).p_value < 0.01
    assert domains.domain_classifier(a, b).accuracy.low < 0.55


def test_mmd_of_constant_features_is_zero():
    assert domains.mmd(np.ones((5, 2)), np.ones((6, 2))).value == pytest.approx(0)


def test_confidence_is_the_largest_probability():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    assert domains.confidence(logits) == pytest.approx([0.7, 0.5])
    assert domains.confidence(torch.tensor([[1e4, 0.0]])) == pytest.approx([1.0])


def calibrated(n, seed, sharpness=2.0):
    """Logits whose softmax is the true chance of each class, and labels drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sharpness, (n, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return logits, (p.cumsum(1) > rng.random((n, 1))).argmax(1)


@pytest.mark.parametrize("method", domains.ESTIMATES)
def test_a_calibrated_model_knows_its_accuracy(method):
    (source, labels), (target, truth) = calibrated(4000, 0), calibrated(4000, 1)
    told = domains.estimate_accuracy(source, labels, target, method=method)
    assert told == pytest.approx((target.argmax(1) == truth).mean(), abs=0.025)


def test_threshold_estimate_by_hand():
    sure = np.array([0.9, 0.8, 0.7, 0.6])
    source = np.log(np.stack([sure, 1 - sure], 1))
    labels = [0, 0, 0, 1]                                       # three of four right: the threshold is the second lowest
    target = np.log([[0.95, 0.05], [0.65, 0.35], [0.2, 0.8]])
    assert domains.estimate_accuracy(source, labels, target) == pytest.approx(2 / 3)
    assert domains.estimate_accuracy(source, labels, source) == 0.75
    assert domains.estimate_accuracy(source, [1, 1, 1, 1], target) == 0     # never right before: nothing to expect
    assert domains.estimate_accuracy(source, labels, target, method="average") == pytest.approx((0.95 + 0.65 + 0.8) / 3)


def test_less_sure_means_a_lower_estimate_and_a_small_p_value():
    source, labels = calibrated(500, 0)
    flat = calibrated(500, 1)[0] * 0.3
    assert domains.confidence_test(source, flat) < 1e-6 < domains.confidence_test(source, calibrated(500, 2)[0])
    for method in domains.ESTIMATES:
        told = domains.estimate_accuracy(source, labels, flat, method=method)
        assert told < domains.estimate_accuracy(source, labels, source, method=method) - 0.1


def test_tensors_and_arrays_give_the_same():
    a, b = gauss(30), gauss(30, mean=1, seed=1)
    assert domains.mmd(torch.tensor(a), torch.tensor(b)) == domains.mmd(a, b)
    assert domains.proxy_a_distance(torch.tensor(a), torch.tensor(b)) == domains.proxy_a_distance(a, b)


BAD = np.array([[0.0, 1.0], [np.nan, 1.0], [2.0, 2.0]])


@pytest.mark.parametrize("call", [domains.domain_classifier, domains.proxy_a_distance, domains.mmd])
@pytest.mark.parametrize("a, b, words", [
    (gauss(10), gauss(0), r"b: is empty, shape \(0, 5\)"),
    (gauss(0), gauss(10), r"a: is empty"),
    (gauss(10), gauss(10, 4), "one width, got 5 and 4"),
    (gauss(10, 2), BAD, "b: has a value that is not finite, nan in example 1"),
    (np.full((9, 2), np.inf), gauss(9, 2), "a: has a value that is not finite, inf in example 0"),
    (np.ones(5), gauss(10), r"a: must be \(examples, width\), got shape \(5,\)"),
    (gauss(10), gauss(1), "b: (has 1 examples|MMD needs at least 2 examples, got 1)"),
])
def test_bad_sets_are_refused(call, a, b, words):
    with pytest.raises(ValueError, match=words):
        call(a, b)


@pytest.mark.parametrize("call, words", [
    (lambda: domains.domain_classifier(gauss(9), gauss(9), folds=1), "folds: must be at least 2, got 1"),
    (lambda: domains.mmd(gauss(9), gauss(9), bandwidth=0), "bandwidth: must be greater than 0, got 0"),
    (lambda: domains.mmd(gauss(9), gauss(9), permutations=0), "permutations: must be at least 1, got 0"),
    (lambda: domains.estimate_accuracy(gauss(4), [0] * 4, gauss(4), method="guess"), "method: must be one of average"),
    (lambda: domains.estimate_accuracy(gauss(4), [0] * 3, gauss(4)), r"source_labels: must be 4 labels.*\(3,\)"),
    (lambda: domains.estimate_accuracy(gauss(4), [0] * 4, gauss(4, 3)), "source_logits and target_logits: must be of one width"),
    (lambda: domains.confidence(np.array([[np.nan, 1.0]])), "logits: has a value that is not finite, nan in example 0"),
])
def test_bad_settings_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
