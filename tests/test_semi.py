"""tlutils.semi: what is taken as confident, and that self-training helps and harms where it must."""

import numpy as np
import pytest

from tlutils import semi


def clouds(each=60, gap=4.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(3).repeat(each)
    return rng.normal(size=(3 * each, 5)) + gap * np.eye(5)[labels], labels


def test_what_counts_as_confident():
    p = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.0, 1.0]])
    assert [part.tolist() for part in semi.confident(p, 0.8)] == [[0, 2, 3], [0, 1, 1]]
    assert semi.confident(p, 0.4)[0].tolist() == [0, 1, 2, 3] and semi.confident(p, 1)[0].tolist() == [3]
    assert all(len(part) == 0 for part in semi.confident(p[:2], 0.95))


def test_self_training_learns_from_what_it_named():
    x, y = clouds(gap=6.0)
    few = np.array([0, 60, 120])
    rounds = semi.self_training(x[few], y[few], x, threshold=0.9, rounds=2, C=1.0)
    assert len(rounds) == 3 and len(rounds[0].rows) == 0
    for before, after in zip(rounds, rounds[1:]):
        assert (before.probe.predict(x[after.rows]) == after.labels).all()
    assert rounds[-1].probe.score(x, y) > rounds[0].probe.score(x, y)


def test_a_threshold_that_nothing_reaches_changes_nothing():
    x, y = clouds(gap=0.1)
    before, after = semi.self_training(x[::30], y[::30], x, threshold=1.0)
    assert len(after.rows) == 0 and (before.probe.predict(x) == after.probe.predict(x)).all()


def test_labels_keep_their_names_and_each_probe_its_penalty():
    x, y = clouds()
    _, after = semi.self_training(x[::20], y[::20] * 7 + 1, x, threshold=0.4, C=0.1, C_more=2.0)
    assert set(after.labels) <= {1, 8, 15} and after.probe[-1].C == 2.0


X, Y = clouds(4)
BAD = [
    ("threshold: must lie in .0, 1., got 0", lambda: semi.confident([[0.5, 0.5]], 0)),
    ("threshold: must lie in .0, 1., got 1.2", lambda: semi.self_training(X, Y, X, threshold=1.2)),
    ("threshold: must lie in .0, 1., got nan", lambda: semi.confident([[0.5, 0.5]], float("nan"))),
    ("probabilities: must be", lambda: semi.confident([[1.0], [1.0]], 0.5)),
    ("probabilities: row 1 is no distribution", lambda: semi.confident([[0.5, 0.5], [2.0, 1.0]], 0.5)),
    ("probabilities: row 0 is no distribution", lambda: semi.confident([[np.nan, 1.0]], 0.5)),
    ("rounds: must be a whole number, at least 1; got 0", lambda: semi.self_training(X, Y, X, rounds=0)),
    ("unlabelled: must have the width of features", lambda: semi.self_training(X, Y, X[:, :2])),
    ("unlabelled: has values that are not finite, first in example 0", lambda: semi.self_training(X, Y, X * np.nan)),
    ("labels: all 12 labels are the same class", lambda: semi.self_training(X, Y * 0, X)),
    ("labels: has 3 labels for 12 examples", lambda: semi.self_training(X, Y[:3], X)),
]


@pytest.mark.parametrize("message, call", BAD, ids=[m[:40] for m, _ in BAD])
def test_bad_input_is_named(message, call):
    with pytest.raises(ValueError, match=message):
        call()
