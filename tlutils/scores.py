"""Scores of a classifier's probabilities, each with an interval: what accuracy hides.

The definitions are scikit-learn's, under its names; calibration is ours (scikit-learn has it for two classes only).
Everything takes probabilities (N, K), rows adding up to 1, and truth (N,) whole numbers below K; no class may be absent
from the truth where a score is an average over classes.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize, special

from .metrics import Interval

SCORES = ("accuracy", "balanced_accuracy", "f1_macro", "f1_micro", "roc_auc", "average_precision", "log_loss", "ece")


def check(probabilities, truth) -> tuple[np.ndarray, np.ndarray]:
    """probabilities (N, K) float64 and truth (N,) int64 as arrays. Raises ValueError for what is not that."""
    values, labels = np.asarray(probabilities, dtype=float), np.asarray(truth)
    if values.ndim != 2 or values.shape[1] < 2 or not len(values):
        raise ValueError(f"probabilities: must be (N, K) with K of 2 or more classes, got shape {values.shape}")
    if labels.shape != (len(values),):
        raise ValueError(f"truth: must be ({len(values)},), a class for each row of probabilities, got shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"truth: must be whole numbers from 0, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(f"truth: goes from {labels.min()} to {labels.max()}, but probabilities have {values.shape[1]} classes")
    bad = ~np.isfinite(values).all(1) | (values < 0).any(1) | (np.abs(values.sum(1) - 1) > 1e-3)
    if bad.any():
        raise ValueError(f"probabilities: row {int(bad.argmax())} is not a distribution (finite, not negative, adding up to 1); "
                         "of logits take the softmax first")
    return values, labels.astype(np.int64)


def softmax(logits) -> np.ndarray:
    """Probabilities (N, K) of logits (N, K)."""
    return special.softmax(np.asarray(logits, dtype=float), axis=1)


def confusion(probabilities, truth, *, normalise: bool = False) -> np.ndarray:
    """(K, K): row = true class, column = answer. Counts, or with `normalise` shares of each row (recall on the diagonal)."""
    values, labels = check(probabilities, truth)
    counts = np.zeros((values.shape[1],) * 2, dtype=np.int64)
    np.add.at(counts, (labels, values.argmax(1)), 1)
    if not normalise:
        return counts
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def of(probabilities, truth, names: Sequence[str] = SCORES) -> dict[str, float]:
    """Name -> score.

    accuracy; balanced_accuracy: mean of the classes' recalls; f1_macro: mean of the classes' F1; f1_micro: F1 of all decisions
    together, with one answer per item the same number as accuracy; roc_auc: area under the ROC curve, one class against the
    rest, mean over classes (with two classes: of class 1); average_precision: area under the precision-recall curve, likewise;
    log_loss: mean negative log probability of the truth, in nats; ece: `calibration_error`.
    Raises ValueError for an unknown name, and where a class is absent from the truth.
    """
    values, labels = check(probabilities, truth)
    _check_all_there(values, labels)
    return {name: _score(name)(values, labels) for name in names}


def per_class(probabilities, truth, classes: Sequence[str] | None = None):
    """A DataFrame, a row per class: precision, recall, f1, roc_auc, average_precision, share of the items."""
    import pandas as pd
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    values, labels = check(probabilities, truth)
    _check_all_there(values, labels)
    count = values.shape[1]
    names = list(range(count)) if classes is None else list(classes)
    if len(names) != count:
        raise ValueError(f"classes: {len(names)} names for {count} classes")
    precision, recall, f1, support = precision_recall_fscore_support(labels, values.argmax(1), labels=range(count), zero_division=0)
    one = [(labels == k).astype(int) for k in range(count)]
    return pd.DataFrame({"class": names, "precision": precision, "recall": recall, "f1": f1,
                         "roc_auc": [roc_auc_score(one[k], values[:, k]) for k in range(count)],
                         "average_precision": [average_precision_score(one[k], values[:, k]) for k in range(count)],
                         "share": support / len(labels)})


def interval(probabilities, truth, name: str, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> Interval:
    """A score with an interval over test items, for one trained model.

    Bootstrap (percentile) within classes: each class keeps its number of items, so that no resample lacks one. It says how far
    other test items would move the score and nothing about other training draws: for those, `metrics.t_interval` over runs.
    """
    values, labels = check(probabilities, truth)
    _check_all_there(values, labels)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: must lie between 0 and 1, got {confidence}")
    score, dice = _score(name), np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == k) for k in range(values.shape[1])]
    drawn = []
    for _ in range(resamples):
        index = np.concatenate([dice.choice(group, len(group)) for group in groups])
        drawn.append(score(values[index], labels[index]))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(score(values, labels), float(low), float(high), len(labels))


def curve(probabilities, truth, kind: str, positive: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a curve of one class against the rest.

    kind: "roc" (x false positive rate, y true positive rate) or "precision_recall" (x recall, y precision).
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    values, labels = check(probabilities, truth)
    if not 0 <= positive < values.shape[1]:
        raise ValueError(f"positive={positive}: the classes are 0 to {values.shape[1] - 1}")
    hits = labels == positive
    if hits.all() or not hits.any():
        raise ValueError(f"positive={positive}: the truth holds {'nothing else' if hits.all() else 'no such item'}, so there is no curve")
    if kind == "roc":
        return roc_curve(hits, values[:, positive])[:2]
    if kind == "precision_recall":
        precision, recall, _ = precision_recall_curve(hits, values[:, positive])
        return recall[::-1], precision[::-1]
    raise ValueError(f"kind={kind!r} is unknown: use 'roc' or 'precision_recall'")


# ---------------------------------------------------------------------------- calibration
def reliability(probabilities, truth, *, bins: int = 10):
    """A DataFrame, a row per bin of confidence that holds items: confidence and accuracy (means), share of the items.

    Confidence is the largest probability. The bins are equally wide, from 0 to 1 (Guo et al. 2017, "On Calibration of Modern
    Neural Networks").
    """
    import pandas as pd

    values, labels = check(probabilities, truth)
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1")
    confidence, right = values.max(1), (values.argmax(1) == labels).astype(float)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    frame = pd.DataFrame({"bin": index, "confidence": confidence, "accuracy": right}).groupby("bin", as_index=False).agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), share=("accuracy", "size"))
    frame["share"] /= len(labels)
    return frame


def calibration_error(probabilities, truth, *, bins: int = 10) -> float:
    """ECE: the mean gap between confidence and accuracy over the bins of `reliability`, weighted by their share (0 to 1)."""
    found = reliability(probabilities, truth, bins=bins)
    return float((found["share"] * (found["confidence"] - found["accuracy"]).abs()).sum())


def fit_temperature(logits, truth) -> float:
    """The temperature T > 0 by which logits (N, K) are divided for the smallest log loss on held-out items (Guo et al. 2017).

    The order of the answers, and with it accuracy, stays. T above 1: the model was too sure. Raises ValueError for logits that
    are not finite, and where every answer is right (the loss then falls for ever as T goes to 0).
    """
    values = np.asarray(logits, dtype=float)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"logits: must be (N, K) and finite, got shape {values.shape}")
    _, labels = check(softmax(values), truth)
    if (values.argmax(1) == labels).all():
        raise ValueError("truth: every answer is right, so there is no best temperature; use items that the model did not learn from")
    rows = np.arange(len(labels))

    def loss(log_t: float) -> float:
        scaled = values / np.exp(log_t)
        return float((special.logsumexp(scaled, axis=1) - scaled[rows, labels]).mean())
    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-6}).x))


# ---------------------------------------------------------------------------- single scores
def _score(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    from sklearn import metrics as sk

    def one_against_rest(score: Callable) -> Callable:
        def mean(p: np.ndarray, y: np.ndarray) -> float:
            ks = [1] if p.shape[1] == 2 else range(p.shape[1])
            return float(np.mean([score(y == k, p[:, k]) for k in ks]))
        return mean
    known = {
        "accuracy": lambda p, y: float((p.argmax(1) == y).mean()),
        "balanced_accuracy": lambda p, y: float(sk.balanced_accuracy_score(y, p.argmax(1))),
        "f1_macro": lambda p, y: float(sk.f1_score(y, p.argmax(1), average="macro", labels=range(p.shape[1]), zero_division=0)),
        "f1_micro": lambda p, y: float(sk.f1_score(y, p.argmax(1), average="micro", labels=range(p.shape[1]))),
        "roc_auc": one_against_rest(sk.roc_auc_score),
        "average_precision": one_against_rest(sk.average_precision_score),
        "log_loss": lambda p, y: float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean()),
        "ece": calibration_error,
    }
    if name not in known:
        raise ValueError(f"score {name!r} is unknown: use one of {', '.join(known)}")
    return known[name]


def _check_all_there(values: np.ndarray, labels: np.ndarray) -> None:
    absent = sorted(set(range(values.shape[1])) - set(labels.tolist()))
    if absent:
        raise ValueError(f"truth: holds no item of class {', '.join(map(str, absent[:5]))}, so means over classes are not defined; "
                         "add items or leave the class's column out")
