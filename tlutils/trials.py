"""Trials: networks trained on some of the labels and judged on the others, the weaker ones dropped on the way.

A score guesses how well a network will learn; a trial lets it learn. The race is a small successive halving (Jamieson &
Talwalkar 2016): everybody is judged on the first quarter of the labels, the best two on two quarters more.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from . import augmentation, finetune
from .metrics import correct

FOLDS = 4            # a trial learns from three quarters of the labels
KEPT = 2             # of the first round's learners
MORE = 2             # quarters on which those are judged as well
STEPS, SCRATCH_STEPS = 100, 300
# What the development tasks of `choosing_experiments` said (`choose_rates`); another network gets OTHER_RATE.
RATES = {"resnet-mini": 0.01, "vgg-mini": 0.01, "inception-mini": 0.03, "efficientnet-mini": 0.03}
SCRATCH_RATE, OTHER_RATE = 0.03, 3e-4
AUGMENT = augmentation.affine()      # no change of colour: it may be what is asked for
BATCH = 64

Fit = Callable[[Tensor, Tensor, int], Callable[[Tensor], Tensor]]


def learner(loaded, *, scratch: bool = False) -> Fit:
    """fit(x, y, seed) -> predict(x): all layers of a copy of the network trained, a hundred steps (three hundred from scratch).

    loaded: what `zoo.load` gives (for scratch one without weights); it stays as it is.
    """
    steps = SCRATCH_STEPS if scratch else STEPS
    rate = SCRATCH_RATE if scratch else RATES.get(loaded.name, OTHER_RATE)

    def fit(x: Tensor, y: Tensor, seed: int):
        return finetune.finetune(copy.deepcopy(loaded), x, y, lr=rate, steps=steps, seed=seed, weight_decay=0.05, warmup=steps // 10,
                                 batch_size=BATCH, augment=AUGMENT).predict
    return fit


def trained_pictures(networks: int, scratch: int = 1) -> float:
    """How many pictures the race of so many networks takes through a training step at the most."""
    longest = max(SCRATCH_STEPS if scratch else 0, STEPS)
    return BATCH * (networks * STEPS + scratch * SCRATCH_STEPS + MORE * (longest + (KEPT - 1) * STEPS))


def race(learners: Mapping[str, Fit], x: Tensor, y: Tensor, *, known: Mapping[str, np.ndarray] | None = None,
         seed: int = 0) -> tuple[list[str], dict[str, np.ndarray]]:
    """The order in which learners come in, the best first, and which items each named rightly.

    learners: name -> fit(x, y, seed) -> predict(x). y: (N,) int64 from 0. known: name -> (N,) 0 or 1 of rivals that were judged
    before (a frozen probe by cross-validation): they run with the others, for nothing. Returns hits by name, (N,), NaN where an
    item has not judged a learner. Raises ValueError for no learners, or a class of fewer than 4 examples.
    """
    known, y = dict(known or {}), y.long()
    if not learners:
        raise ValueError("learners: nobody runs; give at least one")
    if int((counts := np.bincount(y)).min()) < FOLDS:
        raise ValueError(f"y: class {int(counts.argmin())} has {int(counts.min())} examples; trials in {FOLDS} parts need {FOLDS}")
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(y)), y))
    hits = {name: np.full(len(y), np.nan) for name in learners} | {name: np.asarray(one, float) for name, one in known.items()}

    def judge(names, parts):
        for train, held in parts:
            for name in names:
                hits[name][held] = correct(np.asarray(learners[name](x[train], y[train], seed)(x[held])), np.asarray(y[held]))

    def by_merit(names, judged):
        return sorted(names, key=lambda name: -hits[name][judged].mean())      # stable: of equals the earlier one
    judge(learners, folds[:1])
    first = folds[0][1]
    order = by_merit(hits, first)
    final = order[:KEPT]
    judge([name for name in final if name in learners], folds[1:1 + MORE])
    return by_merit(final, np.concatenate([held for _, held in folds[:1 + MORE]])) + order[KEPT:], hits
