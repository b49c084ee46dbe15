"""Are these two sets of examples from one domain? Tests for a shift, its size, and the accuracy to expect after it.

All work on features or logits and none asks for a label of the new domain. a and b: (N, D) and (M, D), tensors or
arrays, one row per example; a is what the model was made for, b is what arrives now.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import special, stats

from .metrics import Interval

ESTIMATES = ("average", "difference", "threshold")


@dataclass(frozen=True)
class DomainTest:
    """What a domain classifier found: balanced accuracy with its interval, area under the ROC curve, p-value."""
    accuracy: Interval
    auc: float
    p_value: float

    @property
    def distance(self) -> float:
        """Proxy A-distance, 2 (1 - 2 error) (Ben-David et al. 2007): 0 for one domain, 2 where every example is told apart."""
        return max(0.0, 2 * (1 - 2 * (1 - self.accuracy.mean)))


@dataclass(frozen=True)
class MMD:
    """Squared maximum mean discrepancy (unbiased, so it may be below zero), its p-value and the kernel's bandwidth."""
    value: float
    p_value: float
    bandwidth: float


def domain_classifier(a, b, *, folds: int = 5, C: float = 0.1, seed: int = 0, confidence: float = 0.95) -> DomainTest:
    """How well a logistic regression tells the two sets apart, on examples that it was not fitted on.

    Every example is judged by the one of `folds` classifiers that has not seen it. The accuracy is balanced (the mean of
    the two sets' shares named rightly), so chance is 1/2 whatever the sizes; it is a difference of two shares in another
    dress, and its interval is that of Agresti & Caffo (2000). p_value: Fisher's exact test, one-sided, of "is an example
    of b called b more often than one of a?" (a classifier two-sample test, Lopez-Paz & Oquab 2017). The folds share
    training examples, which both leave out; the tests measure the false alarms.
    folds=2 is quickest. Raises ValueError for empty sets, other widths, values that are not finite, or a set with
    fewer examples than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    a, b = _two_sets(a, b)
    if folds < 2:
        raise ValueError(f"folds: must be at least 2, got {folds}")
    for name, rows in (("a", a), ("b", b)):
        if len(rows) < folds:
            raise ValueError(f"{name}: has {len(rows)} examples, too few for folds={folds}")
    x, domain = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, class_weight="balanced", max_iter=500))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    score = cross_val_predict(model, x, domain, cv=split, method="decision_function")
    called = score > 0
    right_a, right_b = int((~called[domain == 0]).sum()), int(called[domain == 1].sum())
    table = [[right_b, len(b) - right_b], [len(a) - right_a, right_a]]
    rank = stats.rankdata(score)[domain == 1].sum() - len(b) * (len(b) + 1) / 2
    return DomainTest(_balanced(right_a, len(a), right_b, len(b), confidence), float(rank / (len(a) * len(b))),
                      float(stats.fisher_exact(table, alternative="greater").pvalue))


def _balanced(right_a: int, n_a: int, right_b: int, n_b: int, confidence: float) -> Interval:
    """Interval of (right_a / n_a + right_b / n_b) / 2, with one success and one failure added to each (Agresti & Caffo)."""
    centre, variance = 0.0, 0.0
    for right, n in ((right_a, n_a), (right_b, n_b)):
        share = (right + 1) / (n + 2)
        centre, variance = centre + share / 2, variance + share * (1 - share) / (n + 2) / 4
    half = stats.norm.ppf((1 + confidence) / 2) * variance ** 0.5
    mean = (right_a / n_a + right_b / n_b) / 2
    return Interval(mean, max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half)), n_a + n_b)


def proxy_a_distance(a, b, **options) -> float:
    """2 (1 - 2 error) of a domain classifier, 0 to 2 (Ben-David et al. 2007). options: those of `domain_classifier`.

    An error above one half counts as one half. Raises ValueError as `domain_classifier` does.
    """
    return domain_classifier(a, b, **options).distance


def mmd(a, b, *, bandwidth: float | None = None, permutations: int = 200, seed: int = 0) -> MMD:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel, and a permutation test (Gretton et al. 2012).

    bandwidth: the kernel's, exp(-d^2 / (2 bandwidth^2)); None takes the median distance between different examples of
    both sets together. p_value: the share of `permutations` random relabellings (the true one counted in) with a value
    at least as large; it can't fall below 1 / (permutations + 1). It holds (N + M)^2 numbers: draw a sample of large
    sets. Raises ValueError for fewer than two examples in a set, other widths or values that are not finite.
    """
    a, b = _two_sets(a, b)
    for name, rows in (("a", a), ("b", b)):
        if len(rows) < 2:
            raise ValueError(f"{name}: MMD needs at least 2 examples, got {len(rows)}")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth: must be greater than 0, got {bandwidth}")
    if permutations < 1:
        raise ValueError(f"permutations: must be at least 1, got {permutations}")
    x = np.concatenate([a, b])
    squared = ((x ** 2).sum(1)[:, None] + (x ** 2).sum(1)[None] - 2 * x @ x.T).clip(min=0)
    if bandwidth is None:
        bandwidth = float(np.sqrt(np.median(squared[np.triu_indices(len(x), 1)]))) or 1.0
    kernel = np.exp(-squared / (2 * bandwidth ** 2))
    np.fill_diagonal(kernel, 0)
    rng, n, m = np.random.default_rng(seed), len(a), len(b)
    member = np.zeros((permutations + 1, n + m))             # row 0 the true sets, then the relabellings: 1 belongs to a
    member[0, :n] = 1
    for row in member[1:]:
        row[rng.permutation(n + m)[:n]] = 1
    to_a = member @ kernel
    within_a = (to_a * member).sum(1)
    across = to_a.sum(1) - within_a
    within_b = kernel.sum() - within_a - 2 * across
    values = within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * across / (n * m)
    return MMD(float(values[0]), float((values >= values[0] - 1e-12).mean()), float(bandwidth))


def confidence(logits) -> np.ndarray:
    """(N,) the largest of the softmax probabilities of each row. logits: (N, K), K >= 2, finite."""
    return special.softmax(_rows(logits, "logits"), axis=1).max(1)


def confidence_test(source_logits, target_logits) -> float:
    """p-value of "the confidences of both sets have one distribution": two-sided Kolmogorov-Smirnov (Rabanser et al. 2019).

    source_logits: (N, K) on held-out examples of the old domain, target_logits: (M, K) on the new ones.
    """
    return float(stats.ks_2samp(*map(confidence, _two_sets(source_logits, target_logits, "source_logits", "target_logits"))).pvalue)


def estimate_accuracy(source_logits, source_labels, target_logits, *, method: str = "threshold") -> float:
    """The accuracy to expect on unlabelled examples of the new domain, from the model's confidence: 0 to 1.

    source_logits: (N, K) and source_labels: (N,) of held-out examples of the old domain, not those trained on.
    target_logits: (M, K). method:
    "average"    the mean confidence on the target (Hendrycks & Gimpel 2017);
    "difference" the source accuracy less the fall of mean confidence (Guillory et al. 2021);
    "threshold"  the share of target examples above the confidence that as many source examples exceed as are right
                 (ATC, Garg et al. 2022).
    Raises ValueError for another method, empty sets, other widths or lengths, values that are not finite.
    """
    if method not in ESTIMATES:
        raise ValueError(f"method: must be one of {', '.join(ESTIMATES)}; got {method!r}")
    source, target = _two_sets(source_logits, target_logits, "source_logits", "target_logits")
    labels = np.asarray(source_labels.cpu() if isinstance(source_labels, torch.Tensor) else source_labels)
    if labels.shape != (len(source),):
        raise ValueError(f"source_labels: must be {len(source)} labels, one for each row of source_logits; got shape {labels.shape}")
    accuracy, sure, now = (source.argmax(1) == labels).mean(), confidence(source), confidence(target)
    if method == "average":
        return float(now.mean())
    if method == "difference":
        return float(np.clip(accuracy - (sure.mean() - now.mean()), 0, 1))
    wrong = len(source) - round(accuracy * len(source))       # so many source examples lie below the threshold
    ranked = np.sort(sure)
    threshold = ranked[wrong] if wrong < len(ranked) else np.inf
    return float((now >= threshold).mean())


# ---------------------------------------------------------------------------- checks
def _rows(values, name: str) -> np.ndarray:
    values = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype=float)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"{name}: must be (examples, width), got shape {values.shape}")
    if not len(values):
        raise ValueError(f"{name}: is empty, shape {values.shape}; give at least one example")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{name}: has a value that is not finite, {values[row, column]} in example {row}")
    return values


def _two_sets(a, b, name_a: str = "a", name_b: str = "b") -> tuple[np.ndarray, np.ndarray]:
    a, b = _rows(a, name_a), _rows(b, name_b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{name_a} and {name_b}: must be of one width, got {a.shape[1]} and {b.shape[1]}")
    return a, b
