"""Transferability scores: closed forms, direct maximisation, invariances, and what is refused."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, ortho_group

from tlutils import transferability as t
from tlutils import zoo

ON_FEATURES = {"logme": t.logme, "h_score": t.h_score, "h_score, shrunken": lambda f, y: t.h_score(f, y, shrinkage=True),
               "transrate": t.transrate, "cross_validated_probe": t.cross_validated_probe, "one_epoch_probe": t.one_epoch_probe}


def blobs(n=60, d=6, classes=3, distance=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return rng.normal(size=(n, d)) + distance * rng.normal(size=(classes, d))[y], y


# ---------------------------------------------------------------------------- LogME
@pytest.mark.parametrize(("n", "d"), [(30, 3), (12, 20)])
def test_logme_is_the_largest_evidence_found_by_trying_all_precisions(n, d):
    f, y = blobs(n, d, 2)
    best = []
    for target in np.eye(2)[y].T:
        grid = [(a, b) for a in np.logspace(-3, 3, 61) for b in np.logspace(-2, 4, 61)]
        # the density of y with covariance I/beta + F F'/alpha, through the eigenvalues of F F'
        values, vectors = np.linalg.eigh(f @ f.T)
        along = (vectors.T @ target) ** 2
        logs = []
        for a, b in grid:
            variance = 1 / b + np.clip(values, 0, None) / a
            logs.append(-0.5 * (np.log(2 * np.pi * variance) + along / variance).sum())
        a, b = grid[int(np.argmax(logs))]
        assert max(logs) == pytest.approx(multivariate_normal(np.zeros(n), np.eye(n) / b + f @ f.T / a).logpdf(target), abs=1e-4)
        best.append(max(logs) / n)
    assert t.logme(f, y) == pytest.approx(np.mean(best), abs=2e-3)
    assert t.logme(f, y) >= np.mean(best) - 1e-6


def test_logme_does_not_care_for_rotation_and_scale():
    f, y = blobs()
    turned = f @ ortho_group.rvs(6, random_state=1) * 37.0
    assert t.logme(turned, y) == pytest.approx(t.logme(f, y), abs=1e-4)


# ---------------------------------------------------------------------------- H-score
def test_h_score_of_two_classes_on_one_feature_is_the_share_of_variance_between_them():
    f, y = np.array([[0.0], [1.0], [4.0], [7.0]]), np.array([0, 0, 1, 1])
    between = np.var([0.5, 0.5, 5.5, 5.5])
    assert t.h_score(f, y) == pytest.approx(between / np.var(f))


def test_h_score_of_perfect_features_is_the_number_of_classes_less_one():
    y = np.arange(20) % 4
    assert t.h_score(np.eye(4)[y], y) == pytest.approx(3)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_h_score_does_not_change_under_any_invertible_map(seed):
    f, y = blobs(seed=seed)
    mixed = f @ np.random.default_rng(seed).normal(size=(6, 6)) + 5.0
    assert t.h_score(mixed, y) == pytest.approx(t.h_score(f, y), rel=1e-4)


def test_with_fewer_examples_than_features_h_score_says_the_same_of_noise_and_of_the_best():
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    noise, good = rng.normal(size=(30, 64)), rng.normal(size=(30, 64)) + 5 * rng.normal(size=(3, 64))[y]
    assert t.h_score(noise, y) == pytest.approx(2) == t.h_score(good, y)
    assert t.h_score(good, y, shrinkage=True) > t.h_score(noise, y, shrinkage=True) + 0.5


# ---------------------------------------------------------------------------- TransRate
def test_transrate_by_hand():
    """Two classes on two axes: everything is diagonal, so the determinants are products."""
    f, y, eps = np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]]), np.array([0, 0, 1, 1]), 0.1
    scaled = f ** 2 / ((f ** 2).sum() / 4)
    whole = 0.5 * (np.log1p(scaled[:, 0].sum() / 0.4) + np.log1p(scaled[:, 1].sum() / 0.4))
    parts = 0.25 * np.log1p(scaled[:2].sum() / 0.2) + 0.25 * np.log1p(scaled[2:].sum() / 0.2)
    assert t.transrate(f, y, eps=eps) == pytest.approx(whole - parts)


def test_transrate_is_zero_when_all_classes_scatter_alike_and_never_negative():
    one = np.random.default_rng(0).normal(size=(20, 5))
    assert t.transrate(np.concatenate([one, one]), np.repeat([0, 1], 20)) == pytest.approx(0, abs=1e-9)
    for seed in range(10):
        f, y = blobs(distance=0.1 * seed, seed=seed)
        assert t.transrate(f, y) >= 0
        assert t.transrate(100 * f, y) == pytest.approx(t.transrate(f, y))
    with pytest.raises(ValueError, match="eps: must be greater than 0, got 0"):
        t.transrate(*blobs(), eps=0)


# ---------------------------------------------------------------------------- LEEP and NCE
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=8, max_size=60))
@settings(max_examples=50, deadline=None)
def test_leep_of_one_hot_answers_is_nce(pairs):
    z, y = map(np.array, zip(*pairs))
    if len(set(y)) < 2:
        return
    assert t.leep(np.eye(5)[z], y) == pytest.approx(t.nce(z, y), abs=1e-9)


def test_nce_by_hand():
    """z = 0 holds labels 0, 0, 1; z = 1 holds a single 1: three quarters times the entropy of (2/3, 1/3)."""
    entropy = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    assert t.nce([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx(-0.75 * entropy)


def test_answers_that_tell_the_label_give_zero_and_answers_that_say_nothing_its_entropy():
    y = np.arange(12) % 3
    assert t.nce((y + 1) % 3, y) == pytest.approx(0) == t.leep(np.eye(3)[y], y)
    assert t.nce(np.zeros(12, int), y) == pytest.approx(-np.log(3)) == pytest.approx(t.leep(np.full((12, 4), 0.25), y))
    assert t.leep(0.8 * np.eye(3)[y] + 0.2 / 3, y) < 0


# ---------------------------------------------------------------------------- baselines
def test_every_score_prefers_classes_that_lie_apart():
    (near, y), (far, _) = blobs(120, distance=0.3), blobs(120, distance=4.0)
    for name, score in ON_FEATURES.items():
        assert score(far, y) > score(near, y), name
    assert t.cross_validated_probe(far, y) > 0.95


def test_a_cross_validated_probe_is_near_chance_on_noise_where_the_training_accuracy_is_not():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    assert t.cross_validated_probe(rng.normal(size=(60, 80)), y) < 0.55


def test_cards_know_source_accuracy_and_size():
    loaded = zoo.load("resnet-mini", "colours")
    assert t.source_accuracy(loaded) == loaded.card["scores"]["source_accuracy"] and t.parameters(loaded) == 77392
    assert t.source_accuracy(zoo.load("resnet-mini", "noise")) == 1.0
    assert np.isnan(t.source_accuracy(zoo.load("resnet-mini", None)))


def test_all_scores_at_once_with_their_seconds():
    f, y = blobs()
    found = t.of_features(torch.tensor(f), torch.tensor(y)) | t.of_answers(torch.randn(60, 5), torch.tensor(y))
    assert set(found) == {*t.SCORES, "one-epoch probe", "cross-validated probe"}
    assert found["LogME"][0] == pytest.approx(t.logme(f, y)) and all(seconds >= 0 for _, seconds in found.values())


# ---------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("score", ON_FEATURES.values(), ids=ON_FEATURES)
def test_what_is_refused_says_the_argument_and_the_value(score):
    f, y = blobs(12, 4, 3)
    broken = f.copy()
    broken[3, 1] = np.nan
    for features, labels, words in (
            (f, y[:10], r"labels: \(10,\) for 12 rows of features"),
            (f, np.zeros(12, int), "labels: all 12 labels are 0"),
            (broken, y, "features: has the value nan in row 3, column 1"),
            (f, np.arange(12), "labels: 12 classes for 12 examples"),
            (f, np.where(y == 0, np.nan, y), "labels: label 0 is nan"),
            (f[:, 0], y, r"features: must be \(N, D\)"),
            (f[:0], y[:0], "labels: all 0 labels are missing")):
        with pytest.raises(ValueError, match=words):
            score(features, labels)


def test_a_probe_can_not_be_tried_on_a_class_of_one_but_the_other_scores_can():
    f, y = blobs(13, 4, 3)
    y = np.where(np.arange(13) == 12, 7, y)
    for score in (t.cross_validated_probe, t.one_epoch_probe):
        with pytest.raises(ValueError, match="labels: class 3 has 1 example"):
            score(f, y)
    assert np.isfinite([t.logme(f, y), t.h_score(f, y), t.transrate(f, y)]).all()


def test_answers_of_the_source_are_checked_too():
    y = np.arange(8) % 2
    with pytest.raises(ValueError, match="probabilities: row 0 sums to 3.000"):
        t.leep(np.ones((8, 3)), y)
    with pytest.raises(ValueError, match=r"labels: \(7,\) for 8 rows of source_labels"):
        t.nce(y, y[:7])
    with pytest.raises(ValueError, match="labels: all 8 labels are 1"):
        t.nce(y, np.ones(8, int))
    with pytest.raises(ValueError, match="probabilities: has the value nan"):
        t.leep(np.full((8, 2), np.nan), y)
