"""Choosing among adapted models without a label of the target: three scores, each larger for the better model, and what each assumes.

Source accuracy assumes that what helps there helps here. Importance weighting assumes that only the inputs' distribution has changed and
that the two domains overlap. Mutual information assumes that certainty and a full use of the classes are signs of being right. None
is free: compare their choice with the one that target labels would have made (`regret`).
"""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import special


def source_accuracy(logits, labels) -> float:
    """Accuracy on held-out source examples. logits: (N, K), labels: (N,) int from 0. Raises ValueError for lengths that differ."""
    return float(_right(logits, labels).mean())


def importance_weighted(logits, labels, features, target_features, *, C: float = 0.1, folds: int = 5, seed: int = 0) -> float:
    """Source accuracy in which an example counts as much more as it looks like the target (Sugiyama, Krauledat & Mueller 2007).

    logits: (N, K), labels: (N,), features: (N, D) of held-out source examples; target_features: (M, D). The weights are the odds of a
    domain classifier, a logistic regression that has not seen the example, and are scaled to the mean 1. As in You et al. (2019)
    the classifier sees features; without their control variate, so a few large weights can decide: see `effective_size`.
    Raises ValueError for lengths or widths that differ, and sets with fewer examples than folds.
    """
    right = _right(logits, labels)
    weights = importance(features, target_features, C=C, folds=folds, seed=seed)
    if len(weights) != len(right):
        raise ValueError(f"features: must be {len(right)} rows, one for each row of logits; got {len(weights)}")
    return float((weights * right).mean())


def importance(features, target_features, *, C: float = 0.1, folds: int = 5, seed: int = 0) -> np.ndarray:
    """(N,) weights of the source examples, mean 1: how much likelier each is in the target than in the source.

    Where the domains hardly overlap there is nothing to weight, and the weights don't say so: far from the border a penalised
    classifier has all but the same odds for every source example. Look at `domains.domain_classifier` first.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    a, b = _rows(features, "features"), _rows(target_features, "target_features")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features and target_features: must be of one width, got {a.shape[1]} and {b.shape[1]}")
    for name, rows in (("features", a), ("target_features", b)):
        if len(rows) < folds:
            raise ValueError(f"{name}: has {len(rows)} examples, too few for folds={folds}")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))
    domain = np.repeat([0, 1], [len(a), len(b)])
    score = cross_val_predict(model, np.concatenate([a, b]), domain, cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
                              method="decision_function")[:len(a)]
    odds = np.exp(score - score.max())          # the shares of the domains are a common factor, and go with the mean
    return odds / odds.mean()


def effective_size(weights) -> float:
    """How many equally weighted examples carry as much: (sum w)^2 / sum w^2 (Kish 1965)."""
    weights = np.asarray(weights, dtype=float)
    return float(weights.sum() ** 2 / (weights ** 2).sum())


def mutual_information(logits) -> float:
    """Entropy of the mean prediction less the mean entropy of the predictions, in nats, 0 to log K (Shi & Sha 2012).

    logits: (M, K) on the unlabelled target. High where single predictions are certain and the classes are used alike, so it prefers
    models that spread their answers, also where the target's classes are not balanced.
    """
    p = special.softmax(_rows(logits, "logits"), axis=1)
    return float(special.entr(p.mean(0)).sum() - special.entr(p).sum(1).mean())


def regret(scores: Mapping, accuracies: Mapping) -> float:
    """What choosing by a score costs: the best target accuracy less that of the model with the largest score.

    Both by the same names; of equal scores the first counts. Raises ValueError for names that differ or values that are not finite.
    """
    if not scores or scores.keys() != accuracies.keys():
        raise ValueError(f"scores and accuracies: must have the same names, got {list(scores)} and {list(accuracies)}")
    if not np.isfinite([*scores.values(), *accuracies.values()]).all():
        raise ValueError("scores and accuracies: must be finite")
    return float(max(accuracies.values()) - accuracies[max(scores, key=scores.get)])


# ---------------------------------------------------------------------------- checks
def _rows(values, name: str) -> np.ndarray:
    values = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name}: must be (examples, width) and not empty, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: has values that are not finite, first in example {int((~np.isfinite(values)).any(1).argmax())}")
    return values


def _right(logits, labels) -> np.ndarray:
    logits, labels = _rows(logits, "logits"), np.asarray(labels.cpu() if isinstance(labels, torch.Tensor) else labels)
    if labels.shape != (len(logits),):
        raise ValueError(f"labels: must be {len(logits)}, one for each row of logits; got shape {labels.shape}")
    return logits.argmax(1) == labels
