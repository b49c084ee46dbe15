"""A few labels and many pictures without: pseudo-labels (Lee 2013) on frozen features.

A model trained on the few names the many. What it names with confidence joins the training set, and a new model is
trained on both. Where the first model is mostly right, the second learns from many; where it is wrong, the second
learns the error.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import finetune


def confident(probabilities, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose largest probability reaches the threshold, and the class that it belongs to: (M,), (M,) int64.

    probabilities: (N, K), K >= 2, each row adding up to 1. threshold in (0, 1]: up to 1 / K it takes all.
    Raises ValueError for another threshold, and for rows that are no probabilities.
    """
    probabilities = np.asarray(probabilities, dtype=float)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: must lie in (0, 1], got {threshold}")
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(f"probabilities: must be (N, K) with at least 2 classes, got shape {probabilities.shape}")
    wrong = ~((probabilities >= 0).all(1) & (np.abs(probabilities.sum(1) - 1) < 1e-4))
    if wrong.any():
        raise ValueError(f"probabilities: row {int(wrong.argmax())} is no distribution (negative, not finite, or its sum is not 1)")
    rows = np.flatnonzero(probabilities.max(1) >= threshold)
    return rows, probabilities[rows].argmax(1)


@dataclass(frozen=True)
class Round:
    """One round of self-training. probe: fitted on the labels and the pseudo-labels of this round; rows, labels: which of
    the unlabelled examples were taken, as what."""
    probe: object
    rows: np.ndarray
    labels: np.ndarray


def self_training(features, labels, unlabelled, *, threshold: float = 0.9, rounds: int = 1, C: float = 0.1,
                  C_more: float | None = None) -> list[Round]:
    """A probe on the few, then `rounds` probes on the few and on what the one before named with confidence.

    features: (N, D), labels: (N,), unlabelled: (M, D). C: the penalty of `finetune.linear_probe` for the first probe, C_more
    for the others (default: C). Returns 1 + rounds Rounds; the first took nothing. Raises ValueError for bad labels or
    features as `linear_probe` does, a threshold outside (0, 1], rounds below 1, and other widths.
    """
    features, labels, unlabelled = (np.asarray(part) for part in (features, labels, unlabelled))
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: must lie in (0, 1], got {threshold}")
    if isinstance(rounds, bool) or rounds != int(rounds) or rounds < 1:
        raise ValueError(f"rounds: must be a whole number, at least 1; got {rounds}")
    if features.ndim != 2 or unlabelled.shape[1:] != features.shape[1:]:
        raise ValueError(f"unlabelled: must have the width of features, {features.shape[1:]}; got {unlabelled.shape[1:]}")
    if not np.isfinite(unlabelled).all():
        raise ValueError(f"unlabelled: has values that are not finite, first in example {int((~np.isfinite(unlabelled)).any(1).argmax())}")
    none = np.zeros(0, int)
    done = [Round(finetune.linear_probe(features, labels, C=C), none, none)]
    for _ in range(rounds):
        rows, picked = confident(done[-1].probe.predict_proba(unlabelled), threshold)
        named = done[-1].probe.classes_[picked]
        probe = finetune.linear_probe(np.concatenate([features, unlabelled[rows]]), np.concatenate([labels, named]), C=C_more or C)
        done.append(Round(probe, rows, named))
    return done
