"""Trials: nobody is judged on what it learned from, the better learner wins, the weaker ones are dropped."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from tlutils import shapes, trials, zoo
from tlutils.trials import race

Y = torch.arange(80) % 4
X = torch.nn.functional.one_hot(Y, 4).float()[:, :, None, None].expand(-1, -1, 2, 2) + 0.01 * torch.arange(80)[:, None, None, None]


def right(share, seen=None):
    """A learner that names so many of each hundred items rightly, whatever it learned; `seen` collects what it was given."""
    def fit(x, y, seed):
        if seen is not None:
            seen.append((len(x), seed))

        def predict(items):
            truth = (items[:, :, 0, 0] - items[:, :, 0, 0].min(1, keepdim=True).values).argmax(1)
            number = (100 * items.amin((1, 2, 3))).round().long()
            return torch.where(number % 10 < 10 * share, truth, (truth + 1) % 4)
        return predict
    return fit


def test_the_better_learner_comes_in_first_and_only_two_are_judged_further():
    order, hits = race({"poor": right(0.2), "good": right(0.9), "fair": right(0.6)}, X, Y)
    assert order[0] == "good" and order[1] == "fair" and order[2] == "poor"
    judged = {name: int((~np.isnan(one)).sum()) for name, one in hits.items()}
    assert judged == {"good": 60, "fair": 60, "poor": 20}
    assert 0.8 < np.nanmean(hits["good"]) < 1


def test_a_learner_learns_from_three_quarters_and_gets_the_seed():
    seen = []
    race({"only": right(1.0, seen)}, X, Y, seed=7)
    assert seen == [(60, 7)] * 3


def test_nobody_sees_the_items_that_judge_it():
    by_heart = {}

    def fit(x, y, seed):
        known = {float(one.sum()) for one in x}

        def predict(items):
            by_heart.setdefault("seen", []).append(sum(float(one.sum()) in known for one in items))
            return torch.zeros(len(items))
        return predict
    race({"by heart": fit}, X, Y)
    assert by_heart["seen"] == [0, 0, 0]


def test_a_rival_that_was_judged_before_runs_with_the_others_and_may_win():
    order, hits = race({"fair": right(0.6), "poor": right(0.2)}, X, Y, known={"probe": np.ones(80)})
    assert order == ["probe", "fair", "poor"] and not np.isnan(hits["probe"]).any()


def test_of_equals_the_earlier_one_wins():
    assert race({"one": right(0.5), "two": right(0.5)}, X, Y)[0] == ["one", "two"]


def test_the_network_that_is_tried_stays_as_it_is_and_learns():
    loaded = zoo.load("resnet-mini", "shapes")
    before = {name: value.clone() for name, value in loaded.backbone.state_dict().items()}
    x, y = shapes.Task("two", ("square", "ring"), 2).draw(20, seed=1)
    predict = trials.learner(loaded)(x, y, 0)
    assert (predict(x) == y).float().mean() > 0.8
    assert all(torch.equal(value, before[name]) for name, value in loaded.backbone.state_dict().items())


def test_pictures_are_counted():
    assert trials.trained_pictures(2, scratch=0) == 64 * 100 * (2 + 2 * 2)
    assert trials.trained_pictures(4) > trials.trained_pictures(3) > trials.trained_pictures(3, scratch=0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="learners: nobody runs"):
        race({}, X, Y)
    with pytest.raises(ValueError, match=r"y: class 3 has 3 examples; trials in 4 parts need 4"):
        race({"one": right(1.0)}, X[:15], Y[:15])
