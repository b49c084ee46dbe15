"""Scores, and how far they can be trusted.

Two sources of chance stand behind every score of this book: the draw of the training data (the seed) and
the choice of test items. In the lab each seed draws its own test items, so a t interval over seeds covers
both. On real data all seeds share one test set, and `crossed_interval` counts both sources. The coverage of
both is simulated in the tests and shown in the book; the percentile bootstrap over five seeds, which covers
far too little, is kept here for that comparison only.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits, in the units of what was averaged."""
    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """True when the whole interval lies on one side of zero: the effect is shown."""
        return self.low > 0 or self.high < 0

    @property
    def half_width(self) -> float:
        """Half the distance between the limits."""
        return (self.high - self.low) / 2

    def __format__(self, spec: str) -> str:
        def shown(value: float) -> str:
            text = f"{value:{spec or '.1f'}}"
            return text if text.strip("-0.") else f"{0.0:{spec or '.1f'}}"      # never "-0"
        return f"{shown(self.mean)} [{shown(self.low)}, {shown(self.high)}]"

    def __str__(self) -> str:
        return format(self)

    def scaled(self, factor: float) -> "Interval":
        """The same interval in other units (100 turns shares into points)."""
        low, high = sorted((self.low * factor, self.high * factor))
        return Interval(self.mean * factor, low, high, self.n)


def accuracy(predicted, truth) -> float:
    """Share of items named rightly. predicted, truth: (N,) labels. Raises ValueError when lengths differ."""
    return float(correct(predicted, truth).mean())


def correct(predicted, truth) -> np.ndarray:
    """(N,) float, 1 where the prediction is right."""
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape or predicted.ndim != 1:
        raise ValueError(f"predicted and truth must be of one length; got {predicted.shape} and {truth.shape}")
    if not len(truth):
        raise ValueError("predicted and truth are empty: there is nothing to score")
    return (predicted == truth).astype(float)


def _values(values, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"{name}: an interval needs at least two runs, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: has a value that is not finite at run {int(np.argmin(np.isfinite(values)))}")
    return values


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: must lie between 0 and 1, got {confidence}")


def t_interval(values, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent runs. values: (S,), S >= 2."""
    values = _values(values, "values")
    _check_confidence(confidence)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return Interval(float(mean), float(mean - half), float(mean + half), len(values))


def paired_interval(a, b, confidence: float = 0.95) -> Interval:
    """t interval for the mean of a - b, run by run: same seed, same data, same initialisation. a, b: (S,)."""
    a, b = _values(a, "a"), _values(b, "b")
    if len(a) != len(b):
        raise ValueError(f"a and b must be paired run by run; got {len(a)} and {len(b)} runs")
    return t_interval(a - b, confidence)


def crossed_interval(scores, confidence: float = 0.95) -> Interval:
    """Interval for the mean score when S runs share the same N test items.

    scores: (S, N), for instance 1 where run s names item i rightly, or the difference of two methods' scores
    (paired). Runs and items are crossed random effects: the variance of the grand mean is estimated by
    (MS_runs + MS_items - MS_rest) / (S N), never below either part, with Satterthwaite's degrees of freedom.
    Raises ValueError unless S >= 2 and N >= 2, all finite.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise ValueError(f"scores: must be (runs, items) with at least 2 of each, got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: has a value that is not finite in run {int(np.argwhere(~np.isfinite(scores))[0, 0])}")
    _check_confidence(confidence)
    runs, items = scores.shape
    mean = scores.mean()
    by_run, by_item = scores.mean(1) - mean, scores.mean(0) - mean
    ms_run = items * (by_run ** 2).sum() / (runs - 1)
    ms_item = runs * (by_item ** 2).sum() / (items - 1)
    rest = scores - mean - by_run[:, None] - by_item[None]
    ms_rest = (rest ** 2).sum() / ((runs - 1) * (items - 1))
    total = max(ms_run + ms_item - ms_rest, ms_run, ms_item)
    if total == 0:
        return Interval(float(mean), float(mean), float(mean), runs)
    freedom = total ** 2 / (ms_run ** 2 / (runs - 1) + ms_item ** 2 / (items - 1)
                            + ms_rest ** 2 / ((runs - 1) * (items - 1)))
    half = stats.t.ppf((1 + confidence) / 2, max(freedom, 1)) * np.sqrt(total / (runs * items))
    return Interval(float(mean), float(mean - half), float(mean + half), runs)


def bootstrap_interval(values, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile bootstrap over runs (SciPy). With five runs it covers about 84 % instead of 95 %: don't use it there."""
    values = _values(values, "values")
    if np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]), float(values[0]), len(values))
    result = stats.bootstrap((values,), np.mean, confidence_level=confidence, n_resamples=resamples,
                             method="percentile", rng=np.random.default_rng(seed))
    limits = result.confidence_interval
    return Interval(float(values.mean()), float(limits.low), float(limits.high), len(values))


def coverage(interval, draw, truth: float, *, repeats: int = 1000, seed: int = 0) -> float:
    """How often an interval method catches the truth: the share of `repeats` data sets from `draw(rng)`."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(repeats):
        found = interval(draw(rng))
        hits += found.low <= truth <= found.high
    return hits / repeats
