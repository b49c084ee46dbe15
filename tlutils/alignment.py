"""Losses that draw the features of two domains together: CORAL, MMD, optimal transport, gradient reversal, pseudo-labels.

Every loss compares the features of two batches, source and target, each (N, D), or looks at the target's logits. No label of the
target is used. The losses do not know classes: where the classes' shares differ between the domains, drawing the features together
moves one class onto another. `aligned_training` trains a network with them.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNELS = (0.25, 0.5, 1.0, 2.0, 4.0)      # of `mmd`: squared bandwidths, as multiples of the median squared distance
CONFIDENT = 0.9                           # the probability from which "pseudo-labels" believes the model


# ---------------------------------------------------------------------------- the losses
def coral(source: Tensor, target: Tensor) -> Tensor:
    """Squared distance of the two covariance matrices over 4 D^2 (Deep CORAL, Sun & Saenko 2016).

    source: (N, D), target: (M, D), float; N, M >= 2. Returns a scalar >= 0, zero when the covariances agree; means don't count.
    Raises ValueError if the widths differ or a set has fewer than two rows.
    """
    _check_sets(source, target)
    return (source.T.cov() - target.T.cov()).square().sum() / (4 * source.shape[1] ** 2)


def mmd(source: Tensor, target: Tensor, *, kernels=KERNELS, scale: float | None = None) -> Tensor:
    """Squared maximum mean discrepancy under a mean of Gaussian kernels (Gretton et al. 2012; as a loss: Long et al. 2015).

    source: (N, D), target: (M, D); N, M >= 2. Each kernel is exp(-d^2 / (2 k scale)), k from `kernels`; scale: a squared distance,
    None for the median over pairs of different rows of both sets (no gradient flows through it). Returns a scalar in [0, 2], the
    biased form: zero for equal sets, positive by chance for two samples of one distribution.
    Raises ValueError as `coral` does, and for kernels that are not positive.
    """
    _check_sets(source, target)
    if not len(kernels) or not all(k > 0 for k in kernels):
        raise ValueError(f"kernels: must be numbers greater than 0, got {kernels}")
    x = torch.cat([source, target])
    x = x - x.detach().mean(0)              # distances of far-away points would be lost to rounding
    squares = x.square().sum(1)
    distance = (squares[:, None] + squares - 2 * x @ x.T).clamp_min(0)
    if scale is None:
        above = torch.triu_indices(len(x), len(x), 1)
        scale = float(distance.detach()[above[0], above[1]].median()) or 1.0
    similar = sum(torch.exp(-distance / (2 * k * scale)) for k in kernels) / len(kernels)
    n = len(source)
    return (similar[:n, :n].mean() + similar[n:, n:].mean() - 2 * similar[:n, n:].mean()).clamp_min(0)


def transport(source: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance under the best one-to-one matching: the squared 2-Wasserstein distance of the two batches.

    source, target: (N, D), as many rows each, for which the optimal transport plan is a matching (by SciPy's linear assignment); the
    gradient takes it as fixed, as in DeepJDOT (Damodaran et al. 2018), which adds the labels to the cost. Returns a scalar >= 0.
    Raises ValueError as `coral` does, and for sets of different length.
    """
    from scipy.optimize import linear_sum_assignment

    _check_sets(source, target)
    if len(source) != len(target):
        raise ValueError(f"source and target: transport matches one to one, so give as many rows of each; got {len(source)} and {len(target)}")
    rows, columns = linear_sum_assignment(torch.cdist(source.detach(), target.detach()).square().cpu().numpy())
    return (source[rows] - target[columns]).square().sum(1).mean()


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context, x: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple:
        return -context.strength * gradient, None


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """x itself on the way forward; on the way back its gradient is multiplied by -strength (Ganin et al. 2016)."""
    return _Reverse.apply(x, strength)


def reversal_schedule(progress: float, gamma: float = 10.0) -> float:
    """The reversal's strength at a share of the training, 0 to 1: 2 / (1 + exp(-gamma progress)) - 1 (Ganin et al. 2016).

    It rises from 0, so that the features are not bent by a discriminator that knows nothing yet. Raises ValueError outside [0, 1].
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress={progress} must lie in [0, 1]: it is the share of the training that is done")
    return float(2 / (1 + np.exp(-gamma * progress)) - 1)


class Discriminator(nn.Module):
    """Which domain is a feature from? Two layers: (N, width) to (N,) logits, positive for the target. Drawn from `seed`."""

    def __init__(self, width: int, hidden: int = 64, *, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)[:, 0]


def adversarial(discriminator: nn.Module, source: Tensor, target: Tensor, strength: float = 1.0) -> Tensor:
    """The discriminator's cross-entropy on both sets, its gradient reversed on the way to the features (DANN, Ganin et al. 2016).

    Minimising it trains the discriminator to tell the domains apart, and the features so that it can't. log 2 = 0.69 is the value
    where it can't, or has not learned to. Raises ValueError as `coral` does.
    """
    _check_sets(source, target)
    logits = discriminator(reverse_gradient(torch.cat([source, target]), strength))
    domain = (torch.arange(len(logits), device=logits.device) >= len(source)).to(logits)
    each = F.binary_cross_entropy_with_logits(logits, domain, reduction="none")
    return (each[:len(source)].mean() + each[len(source):].mean()) / 2


def pseudo_labels(logits: Tensor, threshold: float = CONFIDENT) -> Tensor:
    """Cross-entropy of target logits (N, K) with their own likeliest class, where its probability reaches the threshold (Lee 2013).

    A mean over all N, so few confident examples count little. Zero where nobody is confident. Raises ValueError for a threshold
    outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: must lie in (0, 1], got {threshold}")
    sure, names = logits.detach().softmax(1).max(1)
    return (F.cross_entropy(logits, names, reduction="none") * (sure >= threshold)).mean()


# ---------------------------------------------------------------------------- checks
def check_label_sets(source_labels, target_labels, *, partial: bool = False) -> None:
    """Raise ValueError unless both domains have the same classes (partial=True: unless the source has all of the target's).

    For those who build a pair of domains and know both: alignment itself can't see it, and moves what has no counterpart.
    """
    a, b = (set(np.unique(np.asarray(labels)).tolist()) for labels in (source_labels, target_labels))
    if b - a:
        raise ValueError(f"target: has the classes {_few(b - a)}, which the source lacks; leave them out, or no method can name them")
    if a - b and not partial:
        raise ValueError(f"target: lacks the classes {_few(a - b)} of the source; alignment would move other classes there. Leave them out of "
                         "the source, or pass partial=True to try it all the same")


def _few(values: set) -> str:
    values = sorted(values)
    return ", ".join(map(str, values[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")


def _check_sets(source: Tensor, target: Tensor) -> None:
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise ValueError(f"source and target: must be (N, D) and (M, D), got {tuple(source.shape)} and {tuple(target.shape)}")
    for name, rows in (("source", source), ("target", target)):
        if len(rows) < 2:
            raise ValueError(f"{name}: has {len(rows)} rows, alignment compares sets of at least 2")
