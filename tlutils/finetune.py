"""Putting a pretrained backbone to work: linear probe, last layers, everything, LP-FT, gradual unfreezing.

A strategy says which parts learn and when; `training.fit` does the learning. All strategies start from the
same classifier, so two of them can be compared pair by pair.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from . import freezing, training

STRATEGIES = ("probe", "last-k", "full", "lp-ft", "gradual")


class Classifier(nn.Module):
    """Preprocessing, backbone and a linear head in one: pictures in [0, 1] go in, logits come out.

    loaded: a `zoo.Loaded`. The head is drawn from `seed`, so that methods can share it. forward maps
    (N, 3, H, W) to (N, classes).
    """

    def __init__(self, loaded, classes: int, *, seed: int = 0):
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes: a classifier needs at least 2, got {classes}")
        self.preprocess, self.backbone = loaded.preprocess, loaded.backbone
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.head = nn.Linear(loaded.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(self.preprocess(x)))


class Features(nn.Module):
    """Preprocessing and backbone in one: pictures (N, 3, H, W) in [0, 1] to features (N, width)."""

    def __init__(self, loaded):
        super().__init__()
        self.preprocess, self.backbone = loaded.preprocess, loaded.backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(self.preprocess(x))


def check_labelled(x, y, *, name: str = "y", of: str = "x") -> None:
    """Raise ValueError unless x and y (called `of` and `name` there) pair up, with two classes or more and no NaN."""
    if len(x) != len(y):
        raise ValueError(f"{name}: has {len(y)} labels for {len(x)} examples; give one label each")
    if len(np.unique(_numpy(y))) < 2:
        raise ValueError(f"{name}: all {len(y)} labels are the same class; a classifier needs at least two")
    if isinstance(x, Tensor) and x.is_floating_point() and not torch.isfinite(x).all():
        raise ValueError(f"{of}: has values that are not finite, first in example {int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])}")


def linear_probe(features, labels, *, C: float = 0.1) -> Pipeline:
    """Logistic regression on standardised features (Alain & Bengio 2017): what a frozen backbone offers.

    features: (N, D), labels: (N,). C is the inverse strength of the L2 penalty. Returns a fitted scikit-learn
    pipeline. Raises ValueError on mismatched lengths, a single class or values that are not finite.
    """
    features = torch.as_tensor(features)
    check_labelled(features, labels, name="labels", of="features")
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000)).fit(_numpy(features), _numpy(labels))


def _numpy(values) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def as_linear(probe: Pipeline) -> nn.Linear:
    """The probe as a torch layer, standardisation folded in: the same logits (two classes: 0 for the first)."""
    scaler, regression = probe[0], probe[-1]
    weight, bias = regression.coef_ / scaler.scale_, regression.intercept_
    bias = bias - weight @ scaler.mean_
    if len(weight) == 1:
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight))
        layer.bias.copy_(torch.as_tensor(bias))
    return layer


@dataclass
class Run:
    """A trained model and how its training went (history is None for a plain probe)."""
    model: nn.Module
    history: training.History | None

    def predict(self, x: Tensor) -> Tensor:
        """(N,) int64 class numbers."""
        return training.predict(self.model, x).argmax(1)


def finetune(loaded, x: Tensor, y: Tensor, *, strategy: str = "full", classes: int | None = None, lr: float = 1e-3,
             steps: int = 300, k: int = 1, C: float = 0.1, seed: int = 0, **options) -> Run:
    """Adapt a pretrained network to labelled pictures. The backbone in `loaded` is trained in place.

    x: (N, 3, H, W) float32 in [0, 1], y: (N,) int64 from 0. strategy:
    "probe"   the backbone frozen, a logistic regression on its features;
    "last-k"  the last k stages and the head learn;
    "full"    everything learns from the first step;
    "lp-ft"   the probe first, then everything (Kumar et al. 2022);
    "gradual" the head first, then one stage more at equal distances (ULMFiT, Howard & Ruder 2018).
    options go to `training.fit` (augment, weight_decay, batch_size, validation, groups, ...).
    Raises ValueError on a wrong strategy or k, mismatched lengths or a single class.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: must be one of {', '.join(STRATEGIES)}; got {strategy!r}")
    stages = list(loaded.backbone.stages)
    if strategy == "last-k" and not 1 <= k <= len(stages):
        raise ValueError(f"k: must be 1 to {len(stages)}, the number of stages; got {k}")
    if strategy == "gradual" and steps <= len(stages):
        raise ValueError(f"steps: gradual unfreezing of {len(stages)} stages needs at least {len(stages) + 1}, got {steps}")
    check_labelled(x, y)
    if int(y.min()) < 0 or (classes is not None and int(y.max()) >= classes):
        raise ValueError(f"y: labels must be 0 to classes - 1; they run from {int(y.min())} to {int(y.max())}, classes={classes}")
    model = Classifier(loaded, classes or int(y.max()) + 1, seed=seed)
    freezing.unfreeze(loaded.backbone)
    if strategy in ("probe", "lp-ft"):
        features = training.predict(Features(loaded), x)
        head = as_linear(linear_probe(features, y, C=C))
        if head.out_features != model.head.out_features:
            raise ValueError(f"y: has {head.out_features} classes in it, {model.head.out_features} are asked for; "
                             "a probe needs an example of each")
        model.head = head
    if strategy == "probe":
        freezing.freeze(loaded.backbone)
        return Run(model, None)
    callbacks = list(options.pop("callbacks", ()))
    if strategy == "last-k":
        for stage in stages[:-k]:
            freezing.freeze(stage)
    if strategy == "gradual":
        freezing.freeze(loaded.backbone)
        every = steps // (len(stages) + 1)
        callbacks.append(training.Unfreeze({every * (i + 1): [stage] for i, stage in enumerate(reversed(stages))}))
    history = training.fit(model, (x, y), steps=steps, lr=lr, seed=seed, callbacks=callbacks, **options)
    return Run(model, history)

