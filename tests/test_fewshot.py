"""tlutils.fewshot: prototypes with known answers, episodes that keep support and query apart, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid

from tlutils import fewshot


def clouds(classes=4, each=20, width=6, spread=0.3, seed=0):
    draws = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=draws) * 3
    labels = torch.arange(classes).repeat(each)
    return centres[labels] + spread * torch.randn(classes * each, width, generator=draws), labels


# ---------------------------------------------------------------------------- prototypes
def test_class_means_by_hand():
    features = torch.tensor([[0.0, 0], [2, 0], [5, 5]])
    assert fewshot.class_means(features, torch.tensor([0, 0, 1]), 2).tolist() == [[1, 0], [5, 5]]


def test_prototypes_are_the_nearest_centroid():
    x, y = clouds(spread=3.0)
    mine = fewshot.Prototypes().fit(x[:40], y[:40]).predict(x[40:])
    assert (mine == NearestCentroid().fit(x[:40].numpy(), y[:40].numpy()).predict(x[40:].numpy())).all()


def test_cosine_looks_at_directions_only():
    x, y = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([3, 7])
    far = torch.tensor([[100.0, 1], [0.01, 0.9]])
    assert fewshot.Prototypes("cosine").fit(x, y).predict(far).tolist() == [3, 7]
    scaled = fewshot.Prototypes("cosine").fit(x * 50, y).scores(far / 9)
    assert torch.allclose(scaled, fewshot.Prototypes("cosine").fit(x, y).scores(far), atol=1e-5)


def test_labels_may_be_any_numbers_and_arrays():
    x, y = clouds(2)
    assert set(fewshot.Prototypes().fit(x.numpy(), (y * 10 + 5).numpy()).predict(x.numpy())) == {5, 15}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5))
def test_moving_all_features_changes_nothing(seed, shift):
    x, y = clouds(3, spread=2.0, seed=seed)
    before = fewshot.Prototypes().fit(x, y).scores(x)
    after = fewshot.Prototypes().fit(x + shift, y).scores(x + shift)
    assert torch.allclose(before, after, atol=1e-2)


# ---------------------------------------------------------------------------- episodes
@settings(max_examples=30, deadline=None)
@given(ways=st.integers(2, 5), shots=st.integers(1, 4), queries=st.integers(1, 6), seed=st.integers(0, 99))
def test_support_and_query_never_meet(ways, shots, queries, seed):
    labels = torch.arange(5).repeat(10)
    for e in fewshot.episodes(labels, ways=ways, shots=shots, queries=queries, n=3, seed=seed):
        assert len(set(e.classes.tolist())) == ways
        assert len({*e.support.tolist(), *e.query.tolist()}) == ways * (shots + queries)
        assert torch.equal(labels[e.support], e.classes[e.support_labels])
        assert torch.equal(labels[e.query], e.classes[e.query_labels])
        assert e.support_labels.bincount().tolist() == [shots] * ways and e.query_labels.bincount().tolist() == [queries] * ways


def test_a_seed_fixes_the_episodes():
    labels = np.arange(4).repeat(9)
    first, again, other = ([e.support.tolist() for e in fewshot.episodes(labels, ways=3, shots=2, queries=3, n=4, seed=s)] for s in (1, 1, 2))
    assert first == again != other


def test_apart_is_right_and_noise_is_chance():
    x, y = clouds(spread=0.01)
    found = fewshot.episode_accuracy(x, y, ways=4, shots=1, queries=5, n=20)
    assert found.mean == 1 and found.n == 20
    noise = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    found = fewshot.episode_accuracy(noise, torch.arange(5).repeat(40), ways=5, shots=1, n=200)
    assert abs(found.mean - 0.2) < 0.03 and 0 < found.half_width < 0.02


def test_another_method_sees_the_same_episodes():
    x, y = clouds()
    seen = []

    def method(support, labels, query):
        seen.append((support, labels))
        return torch.zeros(len(query), dtype=torch.long)
    scores = fewshot.episode_scores(x, y, ways=4, shots=2, queries=5, n=3, method=method)
    assert scores.tolist() == [0.25] * 3 and seen[0][0].shape == (8, 6)
    expected = [e.support for e in fewshot.episodes(y, ways=4, shots=2, queries=5, n=3)]
    assert all(torch.equal(x[rows], support) for rows, (support, _) in zip(expected, seen))


# ---------------------------------------------------------------------------- bad input
X, Y = clouds(3, 6)
HOLE = torch.where(torch.arange(18)[:, None] == 3, torch.nan, X)
BAD = [
    ("all 18 labels are the same class", lambda: fewshot.Prototypes().fit(X, torch.zeros(18))),
    ("labels: has 5 labels for 18 examples", lambda: fewshot.Prototypes().fit(X, Y[:5])),
    ("features: has values that are not finite, first in example 3", lambda: fewshot.Prototypes().fit(HOLE, Y)),
    ("features: must be", lambda: fewshot.Prototypes().fit(X[0], Y)),
    ("metric: must be one of euclidean, cosine; got 'manhattan'", lambda: fewshot.Prototypes("manhattan")),
    ("classes: 19 classes can't have an example each among 18 examples", lambda: fewshot.Prototypes().fit(X, Y, classes=19)),
    ("labels: class 3 of 4 has no example", lambda: fewshot.Prototypes().fit(X, Y, classes=4)),
    ("labels: must be 0 to classes - 1, got 2 with classes=2", lambda: fewshot.Prototypes().fit(X, Y, classes=2)),
    ("features: have 3 columns, the prototypes have 6", lambda: fewshot.Prototypes().fit(X, Y).predict(X[:, :3])),
    ("all 4 labels are the same class", lambda: fewshot.episodes([1, 1, 1, 1], ways=2, shots=1)),
    ("ways: 4 asked for, but there are only 3 classes", lambda: fewshot.episodes(Y, ways=4, shots=1, queries=2)),
    ("ways: must be a whole number, at least 2; got 1", lambda: fewshot.episodes(Y, ways=1, shots=1)),
    ("shots: must be a whole number, at least 1; got 0", lambda: fewshot.episodes(Y, ways=2, shots=0)),
    ("queries: must be a whole number", lambda: fewshot.episodes(Y, ways=2, shots=1, queries=1.5)),
    (r"shots \+ queries: 5 \+ 2 asked for, but class 0 has only 6 examples", lambda: fewshot.episodes(Y, ways=2, shots=5, queries=2)),
    (r"1 \+ 1 asked for, but class 2 has only 1 example$", lambda: fewshot.episodes([0, 0, 1, 1, 2], ways=2, shots=1, queries=1)),
    ("labels: has 17 labels for 18 examples", lambda: fewshot.episode_scores(X, Y[:-1], ways=2, shots=1)),
    ("features: has values that are not finite", lambda: fewshot.episode_scores(X / 0, Y, ways=2, shots=1)),
    ("all 18 labels are the same class", lambda: fewshot.episode_scores(X, torch.ones(18), ways=2, shots=1)),
]


@pytest.mark.parametrize("message, call", BAD, ids=[m[:40] for m, _ in BAD])
def test_bad_input_is_named(message, call):
    with pytest.raises(ValueError, match=message):
        call()
