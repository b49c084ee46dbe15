"""How good a start is a pretrained network for this task? Scores that answer without fine-tuning it, and plain baselines.

All are higher for a better start. Scores on features take (N, D) of the frozen network, scores on the source's answers
take what the network's own head says of the target's pictures. None of them sees a test item.
"""
from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from . import finetune

SCORES = ("LogME", "LEEP", "NCE", "H-score", "H-score, shrunken", "TransRate")
BASELINES = ("source accuracy", "size", "A-distance", "one-epoch probe", "cross-validated probe")


def check(values, labels, name: str = "features") -> tuple[np.ndarray, np.ndarray]:
    """Values (N, D) and labels (N,) as arrays: float64, and class numbers from 0 in the labels' own order.

    Raises ValueError, naming the argument and the value, for a wrong shape, lengths that differ, values that are not
    finite, a single class, and as many classes as examples.
    """
    values, labels = as_array(values), as_array(labels)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"{name}: must be (N, D), one row for each example; got shape {values.shape}")
    classes = check_labels(labels, len(values), name)
    check_finite(values, name)
    return values.astype(np.float64), classes


def check_finite(values: np.ndarray, name: str) -> None:
    """Raise ValueError naming the first of the values (N, D) that is not finite."""
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{name}: has the value {values[row, column]} in row {row}, column {column}; all must be finite")


def check_labels(labels, examples: int, name: str = "features", of: str = "labels") -> np.ndarray:
    """Labels as class numbers (N,) from 0. examples, name: how many rows the other argument has, and what it is called.

    Raises ValueError, calling the labels `of`, as `check` does.
    """
    labels = as_array(labels)
    if labels.ndim != 1 or len(labels) != examples:
        raise ValueError(f"{of}: {labels.shape} for {examples} rows of {name}; give one label each")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"{of}: label {int(np.argmin(np.isfinite(labels)))} is {labels[~np.isfinite(labels)][0]}")
    found, classes = np.unique(labels, return_inverse=True)
    if len(found) < 2:
        raise ValueError(f"{of}: all {examples} labels are {found[0] if len(found) else 'missing'}; at least two classes are needed")
    if len(found) >= examples:
        raise ValueError(f"{of}: {len(found)} classes for {examples} examples; at least one class needs a second example")
    return classes


def check_pairs(classes: np.ndarray, least: int = 2, of: str = "labels") -> int:
    """The size of the smallest class. Raises ValueError naming a class with fewer than `least` examples."""
    counts = np.bincount(classes)
    if counts.min() < least:
        raise ValueError(f"{of}: class {int(counts.argmin())} has {int(counts.min())} example; to learn from some and try on others "
                         f"every class needs at least {least}")
    return int(counts.min())


def as_array(values) -> np.ndarray:
    """A tensor, list or array as an array on the CPU."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


# ---------------------------------------------------------------------------- scores on features
def logme(features, labels, *, rounds: int = 100) -> float:
    """Log evidence of a Bayesian linear model per example, averaged over one-against-rest labels (LogME, You et al. 2021).

    features: (N, D), labels: (N,). The precisions of weights and noise are set to their most likely values by fixed-point
    iteration. Unchanged when the features are rotated or scaled. Raises ValueError as `check` does.
    """
    features, classes = check(features, labels)
    n = len(features)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    power = singular ** 2
    found = []
    for target in np.eye(classes.max() + 1)[classes].T:
        along = (left.T @ target) ** 2
        rest = max(float(target @ target - along.sum()), 0.0)
        found.append(_evidence(power, along, rest, n, rounds) / n)
    return float(np.mean(found))


def _evidence(power: np.ndarray, along: np.ndarray, rest: float, n: int, rounds: int) -> float:
    alpha, beta, tiny = 1.0, 1.0, 1e-12
    for _ in range(rounds):
        ratio = alpha / beta
        gamma = (power / (power + ratio)).sum()
        weights = (power * along / (power + ratio) ** 2).sum()
        error = (along * (ratio / (power + ratio)) ** 2).sum() + rest
        alpha, beta = np.clip(gamma / (weights + tiny), 1e-9, 1e12), np.clip((n - gamma) / (error + tiny), 1e-9, 1e12)
        if abs(alpha / beta / ratio - 1) < 1e-6:
            break
    ratio = alpha / beta
    weights = (power * along / (power + ratio) ** 2).sum()
    error = (along * (ratio / (power + ratio)) ** 2).sum() + rest
    return 0.5 * (n * np.log(beta / (2 * np.pi)) - np.log1p(power / ratio).sum() - beta * error - alpha * weights)


def h_score(features, labels, *, shrinkage: bool = False) -> float:
    """How much of the features' variance lies between classes: tr(cov(f)^-1 cov(E[f | y])) (H-score, Bao et al. 2019).

    features: (N, D), labels: (N,). From 0 to the number of classes less one; with no more examples than features it is
    that limit for any network. shrinkage: the covariance is shrunken towards a sphere (Ledoit & Wolf) and the score
    with it (Ibrahim et al. 2021), which cures that. Raises ValueError as `check` does.
    """
    features, classes = check(features, labels)
    centred = features - features.mean(0)
    means = np.stack([centred[classes == c].mean(0) for c in range(classes.max() + 1)])[classes]
    between = means.T @ means / len(features)
    if not shrinkage:
        return float(np.trace(np.linalg.pinv(centred.T @ centred / len(features), rcond=1e-10, hermitian=True) @ between))
    fitted = LedoitWolf(assume_centered=True).fit(centred)
    return float((1 - fitted.shrinkage_) * np.trace(np.linalg.pinv(fitted.covariance_, hermitian=True) @ between))


def transrate(features, labels, *, eps: float = 1e-4) -> float:
    """Bits (in nats) that the features need less once the class is known: R(f) - R(f | y) (TransRate, Huang et al. 2022).

    features: (N, D), labels: (N,). R is the coding rate at distortion eps of the features, centred and scaled to a total
    variance of one, so that networks of other scales compare. Never negative. Raises ValueError as `check` does.
    """
    features, classes = check(features, labels)
    if eps <= 0:
        raise ValueError(f"eps: must be greater than 0, got {eps}")
    centred = features - features.mean(0)
    centred /= np.sqrt((centred ** 2).sum() / len(centred)) or 1.0
    parts = [centred[classes == c] for c in range(classes.max() + 1)]
    return float(_rate(centred, eps) - sum(len(part) / len(centred) * _rate(part, eps) for part in parts))


def _rate(values: np.ndarray, eps: float) -> float:
    n, d = values.shape
    small = values @ values.T if n < d else values.T @ values
    return 0.5 * np.linalg.slogdet(np.eye(len(small)) + small / (n * eps))[1]


# ---------------------------------------------------------------------------- scores on what the source's head says
def leep(probabilities, labels) -> float:
    """Mean log-likelihood of the labels when they are guessed from the source's answers (LEEP, Nguyen et al. 2020).

    probabilities: (N, Z), what the source's head gives for the target's examples, rows that sum to 1; labels: (N,).
    At most 0. Raises ValueError as `check` does, and for rows that are no probabilities.
    """
    theta, classes = check(probabilities, labels, "probabilities")
    wrong = (theta < -1e-6).any(1) | (np.abs(theta.sum(1) - 1) > 1e-3)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"probabilities: row {row} sums to {theta[row].sum():.3f}; take the softmax of the logits first")
    joint = np.stack([theta[classes == c].sum(0) for c in range(classes.max() + 1)]) / len(theta)
    marginal = joint.sum(0)
    given = joint / np.where(marginal > 0, marginal, 1.0)
    return float(np.log((given[classes] * theta).sum(1)).mean())


def nce(source_labels, labels) -> float:
    """Minus the entropy of the labels that is left when the source's answers are known: -H(y | z) (NCE, Tran et al. 2019).

    source_labels: (N,) the source's class for every target example; labels: (N,). At most 0; LEEP of one-hot
    probabilities. Raises ValueError for lengths that differ, a single class, or as many classes as examples.
    """
    z = as_array(source_labels)
    if z.ndim != 1:
        raise ValueError(f"source_labels: must be (N,), one class number each; got shape {z.shape}")
    classes, z = check_labels(labels, len(z), "source_labels"), np.unique(z, return_inverse=True)[1]
    joint = np.zeros((classes.max() + 1, z.max() + 1))
    np.add.at(joint, (classes, z), 1 / len(z))
    given = joint / joint.sum(0)
    return float((joint[joint > 0] * np.log(given[joint > 0])).sum())


# ---------------------------------------------------------------------------- plain baselines
def right_by_folds(features, labels, fit: Callable | None = None, *, C: float = 0.1, folds: int = 5, seed: int = 0) -> np.ndarray:
    """(N,) 1.0 where a probe that has not seen the example names it rightly, by cross-validation.

    fit(features, classes) -> anything with `predict`; default: `finetune.linear_probe`. As many folds as the smallest class
    has examples, at most `folds`. Raises ValueError as `check` does, and for a class with a single example.
    """
    features, classes = check(features, labels)
    folds = min(folds, check_pairs(classes))
    fit = fit or (lambda x, y: finetune.linear_probe(x, y, C=C))
    right = np.zeros(len(classes))
    for train, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, classes):
        right[held] = fit(features[train], classes[train]).predict(features[held]) == classes[held]
    return right


def cross_validated_probe(features, labels, *, C: float = 0.1, folds: int = 5, seed: int = 0) -> float:
    """Accuracy of a linear probe, learned from some of the labelled examples and tried on the others, in turn."""
    return float(right_by_folds(features, labels, C=C, folds=folds, seed=seed).mean())


def one_epoch_probe(features, labels, *, folds: int = 5, seed: int = 0) -> float:
    """As `cross_validated_probe`, with a linear layer that sees every example once (Adam, 16 at a time)."""
    return float(right_by_folds(features, labels, lambda x, y: _OneEpoch(x, y, seed), folds=folds, seed=seed).mean())


class _OneEpoch:
    """A linear layer on standardised features after one pass over the data."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int, rate: float = 0.01, size: int = 16):
        self.mean, self.scale = x.mean(0), x.std(0) + 1e-8
        x, y = self._prepared(x), torch.as_tensor(y)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.layer = nn.Linear(x.shape[1], int(y.max()) + 1)
            order = torch.randperm(len(y))
        optimiser = torch.optim.Adam(self.layer.parameters(), rate)
        for part in order.split(size):
            optimiser.zero_grad()
            nn.functional.cross_entropy(self.layer(x[part]), y[part]).backward()
            optimiser.step()

    def _prepared(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor((x - self.mean) / self.scale, dtype=torch.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.layer(self._prepared(x)).argmax(1).numpy()


def parameters(loaded) -> int:
    """How many numbers a backbone holds."""
    return sum(p.numel() for p in loaded.backbone.parameters())


def source_accuracy(loaded) -> float:
    """What the network's card says of it on its own task (NaN if the card is silent); by heart counts as well."""
    scores = loaded.card.get("scores", {})
    return float(scores.get("source_accuracy", scores.get("training_accuracy", np.nan)))


# ---------------------------------------------------------------------------- all of them
def of_features(features, labels, *, C: float = 0.1) -> dict[str, tuple[float, float]]:
    """Every score that needs features only: name -> (value, seconds of processor time)."""
    return {name: timed(score, features, labels) for name, score in {
        "LogME": logme, "H-score": h_score, "H-score, shrunken": lambda f, y: h_score(f, y, shrinkage=True), "TransRate": transrate,
        "one-epoch probe": one_epoch_probe, "cross-validated probe": lambda f, y: cross_validated_probe(f, y, C=C)}.items()}


def of_answers(logits, labels) -> dict[str, tuple[float, float]]:
    """LEEP and NCE from the source head's logits (N, Z) for the target's examples: name -> (value, seconds)."""
    logits = torch.as_tensor(logits)
    return {"LEEP": timed(lambda z, y: leep(z.double().softmax(1), y), logits, labels),
            "NCE": timed(lambda z, y: nce(z.argmax(1), y), logits, labels)}


def timed(score: Callable, *arguments) -> tuple[float, float]:
    """A score's value and the seconds of processor time that it took."""
    started = time.process_time()
    value = score(*arguments)
    return float(value), time.process_time() - started
