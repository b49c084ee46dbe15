"""The contestants of the learning curves: what a method does with a handful of labelled pictures.

Each is a small object called as `method(x, y, x_test, seed) -> predicted labels`, the form that
`evaluation.learning_curve` takes. x: (N, 3, H, W) float32 in [0, 1] or uint8, y: (N,) int64 from 0.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from . import augmentation, finetune, training, zoo

AUGMENT = augmentation.compose(augmentation.affine(), augmentation.colour())


def scratch_steps(labels: int) -> int:
    """How long scratch trains at so many labels per class: until its loss is flat (shown in why_transfer)."""
    return 500 if labels <= 10 else 1200 if labels <= 50 else 1500


@dataclass(frozen=True)
class Pixels:
    """Logistic regression on the raw pixels: what needs no network at all."""
    C: float = 0.01

    def __call__(self, x, y, x_test, seed) -> np.ndarray:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=self.C, max_iter=300))
        return model.fit(x.flatten(1).numpy(), np.asarray(y)).predict(x_test.flatten(1).numpy())


@dataclass(frozen=True)
class Probe:
    """A linear probe on a frozen backbone. weights=None: a random one, drawn anew from each seed."""
    weights: str | None = "shapes"
    model: str = "resnet-mini"
    C: float = 0.1

    def __call__(self, x, y, x_test, seed) -> np.ndarray:
        loaded = zoo.load(self.model, self.weights, seed=seed)
        backbone = finetune.Features(loaded)
        probe = finetune.linear_probe(training.predict(backbone, x), y, C=self.C)
        return probe.predict(training.predict(backbone, x_test).numpy())


@dataclass(frozen=True)
class Train:
    """A network trained on the labels: weights=None is training from scratch, else a strategy of `finetune`.

    steps: a number, or a function of the labels per class. Augmentation (rotation, scale, shift, colour) and
    weight decay are the same for all, so that no opponent is kept weak.
    """
    weights: str | None
    lr: float
    steps: object = 300
    strategy: str = "full"
    model: str = "resnet-mini"
    augment: Callable | None = field(default=AUGMENT, repr=False)
    weight_decay: float = 0.05
    batch_size: int = 64
    options: dict = field(default_factory=dict)

    def run(self, x: Tensor, y: Tensor, seed: int, **more) -> finetune.Run:
        """Train and return the whole run, with its history."""
        loaded = zoo.load(self.model, self.weights, seed=seed)
        steps = self.steps(len(y) // len(y.unique())) if callable(self.steps) else self.steps
        return finetune.finetune(loaded, x, y, strategy=self.strategy, lr=self.lr, steps=steps, seed=seed,
                                 weight_decay=self.weight_decay, warmup=steps // 10, batch_size=self.batch_size,
                                 augment=self.augment, **self.options, **more)

    def __call__(self, x, y, x_test, seed) -> np.ndarray:
        return self.run(x, y, seed).predict(x_test).numpy()

