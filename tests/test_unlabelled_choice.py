"""tlutils.unlabelled_choice: known values, weights that find the target, and what a choice costs."""

import numpy as np
import pytest
import torch

from tlutils import unlabelled_choice as choice


def world(n=600, seed=0, shift=1.5):
    """Source around 0, target around `shift` on the first axis; a model that is right where that axis is positive."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) + [shift, 0]
    labels = np.zeros(n, int)
    return a, b, [np.where(x[:, :1] > 0, [[1.0, 0]], [[0, 1.0]]) for x in (a, b)], labels


def test_importance_weights_foretell_the_target():
    a, b, (source, target), labels = world()
    truth = choice.source_accuracy(target, labels)
    assert abs(choice.source_accuracy(source, labels) - 0.5) < 0.05 and truth > 0.9
    assert abs(choice.importance_weighted(source, labels, a, b) - truth) < 0.06
    weights = choice.importance(a, b)
    assert weights.mean() == pytest.approx(1) and np.corrcoef(np.log(weights), a[:, 0])[0, 1] > 0.95


def test_without_a_shift_every_example_counts_alike():
    a, b, (source, _), labels = world(shift=0.0)
    assert choice.effective_size(choice.importance(a, b)) > 0.9 * len(a)
    assert choice.importance_weighted(source, labels, a, b) == pytest.approx(choice.source_accuracy(source, labels), abs=0.03)
    assert choice.effective_size(choice.importance(a, b + [2.0, 0])) < 0.4 * len(a), "of domains that overlap a little, few examples decide"
    assert choice.effective_size(choice.importance(a, b + 20)) > 0.8 * len(a), "the fault that the docstring warns of"


def test_effective_size():
    assert choice.effective_size([2, 2, 2]) == pytest.approx(3) and choice.effective_size([1, 0, 0]) == 1


def test_mutual_information_by_hand():
    sure = 100 * torch.eye(4)
    assert choice.mutual_information(sure) == pytest.approx(np.log(4))
    assert choice.mutual_information(torch.zeros(5, 4)) == pytest.approx(0) == pytest.approx(choice.mutual_information(sure[[0] * 5]))
    half = choice.mutual_information(torch.tensor([[0.0, 0], [100, 0]]))
    assert half == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25) - np.log(2) / 2)


def test_regret():
    accuracies = {"a": 0.9, "b": 0.7}
    assert choice.regret({"a": 1.0, "b": 2.0}, accuracies) == pytest.approx(0.2) and choice.regret({"a": 1, "b": 0}, accuracies) == 0
    for scores, accuracies in (({}, {}), ({"a": 1}, {"b": 1}), ({"a": float("nan")}, {"a": 1})):
        with pytest.raises(ValueError, match="scores and accuracies"):
            choice.regret(scores, accuracies)


def test_bad_input():
    a, b, (source, _), labels = world(n=20)
    for call, words in ((lambda: choice.source_accuracy(source, labels[:3]), "labels: must be 20"),
                        (lambda: choice.mutual_information(source[:0]), "not empty"),
                        (lambda: choice.importance(a, b[:, :1]), "one width"), (lambda: choice.importance(a, b[:3]), "target_features: has 3"),
                        (lambda: choice.importance(a * np.nan, b), "not finite, first in example 0"),
                        (lambda: choice.importance_weighted(source[:9], labels[:9], a, b), "features: must be 9")):
        with pytest.raises(ValueError, match=words):
            call()
