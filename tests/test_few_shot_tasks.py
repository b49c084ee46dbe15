"""tlutils.few_shot_tasks: stacks in the right order, classes that never meet twice, sine curves, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlutils import batches, few_shot_tasks, fewshot

LABELS = torch.arange(60) // 6                    # ten classes of six
X = torch.arange(60.0)[:, None] + torch.zeros(60, 2)


def test_a_stack_holds_episodes_support_first():
    episodes = list(fewshot.episodes(LABELS, ways=3, shots=2, queries=4, n=5, seed=1))
    x, y = few_shot_tasks.stacked(X, episodes)
    assert x.shape == (5, 18, 2) and y.shape == (5, 18)
    for rows, labels, e in zip(x, y, episodes, strict=True):
        assert labels[:6].tolist() == [0, 0, 1, 1, 2, 2] and labels[6:].bincount().tolist() == [4, 4, 4]
        assert torch.equal(LABELS[rows[:, 0].long()], e.classes[labels]) and len(rows[:, 0].unique()) == 18


def test_a_stream_follows_its_generator():
    stream = few_shot_tasks.task_stream(X, LABELS, ways=2, shots=1, queries=3)
    a, b, c = (stream(batches.generator(0, "stream", step), 4)[0] for step in (0, 0, 1))
    assert a.shape == (4, 8, 2) and torch.equal(a, b) and not torch.equal(a, c)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 50), ways=st.integers(2, 5))
def test_disjoint_episodes_share_nothing(seed, ways):
    found = few_shot_tasks.disjoint_episodes(LABELS, ways=ways, shots=2, queries=3, seed=seed)
    classes, rows = torch.cat([e.classes for e in found]), torch.cat([torch.cat([e.support, e.query]) for e in found])
    assert len(found) == 10 // ways and len(classes.unique()) == len(classes) and len(rows.unique()) == len(rows)
    for e in found:
        assert torch.equal(LABELS[e.support], e.classes[e.support_labels]) and torch.equal(LABELS[e.query], e.classes[e.query_labels])


def test_classes_are_split_without_overlap():
    parts = few_shot_tasks.split_classes(LABELS, (0.5, 0.2, 0.3), seed=3)
    assert [len(LABELS[p].unique()) for p in parts] == [5, 2, 3] and len(torch.cat(parts).unique()) == 60
    assert torch.equal(parts[0], few_shot_tasks.split_classes(LABELS, (0.5, 0.2, 0.3), seed=3)[0])
    assert not torch.equal(LABELS[parts[0]].unique(), LABELS[few_shot_tasks.split_classes(LABELS, (0.5, 0.2, 0.3), seed=4)[0]].unique())


def test_sinusoids_are_sine_curves():
    x, y = few_shot_tasks.sinusoids(torch.Generator().manual_seed(0), 50, points=12)
    assert x.shape == y.shape == (50, 12, 1) and -5 <= x.min() and x.max() <= 5 and 4 < y.abs().max() <= 5
    for rows, values in zip(x[:5, :, 0], y[:5, :, 0], strict=True):       # A sin(x + b) is a sum of sin x and cos x: two numbers explain all
        basis = torch.stack([rows.sin(), rows.cos()], 1)
        assert np.allclose(basis @ torch.linalg.lstsq(basis, values).solution, values, atol=1e-4)


def test_bad_input():
    with pytest.raises(ValueError, match="ways: 11 asked for, but there are only 10"):
        few_shot_tasks.task_stream(X, LABELS, ways=11, shots=1, queries=1)
    with pytest.raises(ValueError, match="5 . 3 asked for"):
        few_shot_tasks.disjoint_episodes(LABELS, ways=2, shots=5, queries=3)
    for shares in ((0.5, 0.6), (0.5, 0.0), (-0.2, 0.5)):
        with pytest.raises(ValueError, match="shares"):
            few_shot_tasks.split_classes(LABELS, shares)
    with pytest.raises(ValueError, match="fewer than two"):
        few_shot_tasks.split_classes(LABELS, (0.9, 0.1))
