"""A learning-rate range test: raise the rate step by step, watch the loss, and read off where it falls fastest (Smith 2017)."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import nn

from . import freezing, training

RULES = ("steepest", "minimum/10")


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw. rates, losses: (S,) of the steps that were taken, the rates rising; smooth: (S,) averaged losses."""
    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray

    def suggest(self, rule: str = "steepest") -> float:
        """The rate to start with.

        "steepest": where the smoothed loss falls fastest per factor of the rate, before its minimum. The slope is taken over a
        tenth of the steps, and the first tenth is left out: there the average still follows single batches.
        "minimum/10": a tenth of the rate at the smoothed loss's minimum (a rule of thumb).
        Raises ValueError for another rule, and for "steepest" where the loss never falls.
        """
        if rule not in RULES:
            raise ValueError(f"rule: must be one of {', '.join(RULES)}; got {rule!r}")
        lowest, count = int(self.smooth.argmin()), len(self.smooth)
        if rule == "minimum/10":
            return float(self.rates[lowest] / 10)
        places = np.arange(max(count // 10, 1), lowest + 1)
        if not len(places):
            raise ValueError("rule: the loss never falls in this test, so it has no steepest place; start from a lower rate, or "
                             "look at the data and the labels")
        reach = max(count // 20, 1)
        before, after = np.clip(places - reach, 0, None), np.clip(places + reach, None, count - 1)
        slope = (self.smooth[after] - self.smooth[before]) / np.log(self.rates[after] / self.rates[before])
        return float(self.rates[places[slope.argmin()]])


class _Watch:
    """A callback that keeps the losses and ends the run once the smoothed loss has risen far above its best."""

    def __init__(self, beta: float, factor: float):
        self.beta, self.factor, self.losses, self.average, self.best = beta, factor, [], 0.0, math.inf

    def on_step(self, state) -> None:
        self.losses = state.history.losses
        self.average = self.beta * self.average + (1 - self.beta) * self.losses[-1]
        smooth = self.average / (1 - self.beta ** len(self.losses))
        self.best = min(self.best, smooth)
        state.stop = smooth > self.factor * self.best and len(self.losses) > 10


def range_test(model: nn.Module, train, *, low: float = 1e-6, high: float = 1.0, steps: int = 100, beta: float = 0.9,
               stop_at: float = 4.0, **options) -> RangeTest:
    """Train for `steps` steps while the rate grows from low to high by the same factor a step, then put the model back.

    model, train, options: as for `training.fit` (groups, schedule and warmup are the test's own). The test ends early once
    the smoothed loss is `stop_at` times its lowest, or no longer finite. beta: of the exponential average. Afterwards
    parameters, buffers, modes and freezing are what they were, and no gradients are left.
    Raises ValueError for a range that is reversed or not positive, fewer than 10 steps, a beta outside [0, 1), a stop_at
    of 1 or less, or options that fix the rate.
    """
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
        raise ValueError(f"low and high: need 0 < low < high, both finite; got low={low}, high={high}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 10:
        raise ValueError(f"steps: a range test needs at least 10 whole steps, got {steps!r}")
    if not 0 <= beta < 1:
        raise ValueError(f"beta: must lie in [0, 1), got {beta}")
    if not stop_at > 1:
        raise ValueError(f"stop_at: must be greater than 1, got {stop_at}")
    for name in ("lr", "groups", "schedule", "warmup"):
        if name in options:
            raise ValueError(f"{name}: the range test sets the rates itself; leave {name}={options[name]!r} out")
    rates = np.geomspace(low, high, steps)
    before, modes = freezing.frozen_snapshot(model), [(part, part.training) for part in model.modules()]
    watch = _Watch(beta, stop_at)
    try:
        training.fit(model, train, steps=steps, lr=high, schedule=lambda done: rates[round(done * steps)] / high,
                     **options | {"callbacks": [*options.get("callbacks", ()), watch]})
    except training.NonFiniteLoss:
        pass                                    # the end of the range, not an error
    finally:
        freezing.restore(model, before)
        for part, mode in modes:
            part.training = mode
        for parameter in model.parameters():
            parameter.grad = None
    losses = np.array(watch.losses)
    if len(losses) < 2:
        raise ValueError(f"low: the loss was not finite after {len(losses)} steps at a rate of {low}; start lower, or look at the data")
    return RangeTest(rates[:len(losses)], losses, smoothed(losses, beta))


def smoothed(losses, beta: float = 0.9) -> np.ndarray:
    """The exponential average of a sequence, corrected for its start (as in Adam). losses: (S,). Returns (S,)."""
    average, found = 0.0, []
    for i, value in enumerate(np.asarray(losses, dtype=float), 1):
        average = beta * average + (1 - beta) * value
        found.append(average / (1 - beta ** i))
    return np.array(found)
