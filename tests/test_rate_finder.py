"""tlutils.rate_finder: the test leaves no trace, reads known curves rightly, and refuses what it can't do."""

import numpy as np
import pytest
import torch
from torch import nn

from tlutils import freezing, rate_finder


def problem(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(64, 10)
    return nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)), (x, x[:, :3].argmax(1))


@pytest.fixture(scope="module")
def tested():
    model, train = problem()
    return rate_finder.range_test(model, train, low=1e-5, high=10.0, steps=80)


# ---------------------------------------------------------------------------- the run
def test_the_rates_rise_by_one_factor_from_low_to_high(tested):
    assert tested.rates[0] == pytest.approx(1e-5) and len(tested.rates) == len(tested.losses) == len(tested.smooth) <= 80
    assert np.allclose(np.diff(np.log(tested.rates)), np.log(1e6) / 79)


def test_the_loss_falls_and_the_suggestion_lies_before_its_minimum(tested):
    assert tested.smooth.min() < tested.smooth[0] - 0.2
    assert 1e-5 < tested.suggest() <= tested.rates[tested.smooth.argmin()]


def test_the_model_is_put_back_bit_for_bit():
    model, train = problem()
    freezing.freeze(model[0])
    model[3].train()
    modes, before = [part.training for part in model.modules()], freezing.frozen_snapshot(model)
    learns = [p.requires_grad for p in model.parameters()]
    rate_finder.range_test(model, train, steps=20)
    freezing.assert_frozen(model, before)
    assert [part.training for part in model.modules()] == modes and all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == learns and freezing.is_frozen(model[0])


def test_a_loss_that_is_no_longer_finite_ends_the_test_without_an_error():
    model, train = problem()
    before = freezing.frozen_snapshot(model)
    found = rate_finder.range_test(model, train, low=1e-3, high=1e30, steps=40, optimizer="sgd")
    assert len(found.losses) < 40 and np.isfinite(found.losses).all()
    freezing.assert_frozen(model, before)


def test_the_model_is_put_back_when_a_callback_fails():
    class Fails:
        def on_step(self, state):
            if state.step == 5:
                raise RuntimeError("stop here")

    model, train = problem()
    before = freezing.frozen_snapshot(model)
    with pytest.raises(RuntimeError, match="stop here"):
        rate_finder.range_test(model, train, callbacks=[Fails()])
    freezing.assert_frozen(model, before)


# ---------------------------------------------------------------------------- reading the curve
def curve(at):
    """A loss that falls fastest at the rate `at`, and rises again from 30 times that."""
    rates = np.geomspace(1e-6, 1.0, 121)
    x = np.log(rates / at)
    return rate_finder.RangeTest(rates, (losses := -np.tanh(x) + np.exp(np.clip(x - np.log(300), None, 3))), losses)


@pytest.mark.parametrize("at", [1e-4, 1e-3, 5e-3])
def test_the_steepest_place_of_a_known_curve(at):
    assert curve(at).suggest() == pytest.approx(at, rel=0.1)
    lowest = curve(at).rates[curve(at).smooth.argmin()]
    assert curve(at).suggest("minimum/10") == pytest.approx(lowest / 10)


def test_a_loss_that_never_falls_has_no_steepest_place():
    rates = np.geomspace(1e-3, 1, 20)
    with pytest.raises(ValueError, match="never falls"):
        rate_finder.RangeTest(rates, np.arange(20.0), np.arange(20.0)).suggest()


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="rule: must be one of steepest, minimum/10; got 'valley'"):
        curve(1e-3).suggest("valley")


def test_smoothing_keeps_a_constant_and_starts_at_the_first_value():
    assert np.allclose(rate_finder.smoothed(np.full(10, 2.5)), 2.5)
    assert rate_finder.smoothed([4.0, 0.0])[0] == 4.0
    assert np.allclose(rate_finder.smoothed([3.0, 1.0, 2.0], 0.0), [3.0, 1.0, 2.0])


# ---------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("options, words", [
    ({"low": 1.0, "high": 1e-3}, "need 0 < low < high, both finite; got low=1.0, high=0.001"),
    ({"low": 0.0}, "got low=0.0"),
    ({"low": -1e-3}, "got low=-0.001"),
    ({"high": float("inf")}, "got low=1e-06, high=inf"),
    ({"steps": 9}, "at least 10 whole steps, got 9"),
    ({"steps": 20.5}, "at least 10 whole steps, got 20.5"),
    ({"beta": 1.0}, r"beta: must lie in \[0, 1\), got 1.0"),
    ({"stop_at": 1.0}, "stop_at: must be greater than 1, got 1.0"),
    ({"lr": 1e-3}, "leave lr=0.001 out"),
    ({"schedule": "linear"}, "leave schedule='linear' out"),
])
def test_what_can_not_work_is_said_in_one_sentence(options, words):
    model, train = problem()
    with pytest.raises(ValueError, match=words):
        rate_finder.range_test(model, train, **options)
