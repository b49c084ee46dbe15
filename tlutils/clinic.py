"""Sick runs on purpose: a run of transfer learning with one named fault, and healthy ones, for `diagnosis` and its lesson.

`sick_run(ward, fault, seed)` trains for some seconds and returns the `symptoms.Case` that a practitioner would hand over. How strong
the fault is differs from seed to seed (rates, shares of duplicates, classes), so that no threshold fits a single number.
"""
from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from . import augmentation, evaluation, finetune, freezing, inference, shapes, training, zoo
from .diagnosis import HEALTHY
from .symptoms import Case


@dataclass(frozen=True)
class Ward:
    """Where the runs lie: a network, a world, and the settings of a healthy run in it.

    draw(labels, seed) -> (x, y, x_validation, y_validation): a task with so many labels per class. labels: of a healthy run; few: so few
    that it overfits. lr, steps: healthy ones, of fine-tuning everything. source(seed) -> (x, y): labelled examples of the task that the
    network was pretrained on. bad: weights of a source that hurts here. high, low: what the rate is multiplied by to be too high, too low.
    """
    model: str
    draw: Callable[[int, int], tuple]
    lr: float
    steps: int = 150
    labels: int = 50
    few: int = 4
    weights: str = "bundled"
    bad: str | None = None
    source: Callable[[int], tuple] | None = None
    augment: Callable | None = field(default=None, repr=False)
    high: tuple[float, float] = (30.0, 300.0)
    low: tuple[float, float] = (1e-3, 1e-2)


def shapes_ward(model: str = "resnet-mini", task: shapes.Task = shapes.DEV8, lr: float = 3e-3, **settings) -> Ward:
    """By default the ward that the thresholds of `diagnosis` were set in: development classes of the shapes world, resnet-mini."""
    return Ward(model, evaluation.world(task, test_per_class=40), lr, source=lambda seed: shapes.SHAPES16.draw(20, seed=9_000_000 + seed),
                augment=augmentation.compose(augmentation.affine(), augmentation.colour()), **{"bad": "noise", **settings})


class _Losses:
    """A callback that keeps the losses of a run, should it break."""

    def __init__(self):
        self.seen: list[float] = []

    def on_step(self, state) -> None:
        self.seen.extend(state.history.losses[len(self.seen):])


class _Plan:
    """A healthy run, piece by piece, for a fault to spoil."""

    def __init__(self, ward: Ward, seed: int, labels: int | None = None):
        self.ward, self.seed, self.dice = ward, seed, np.random.default_rng([seed, 77])
        self.x, self.y, self.xv, self.yv = ward.draw(labels or ward.labels, seed)
        self.lr, self.steps, self.decay, self.augment = ward.lr * self.between(0.5, 2), ward.steps, 0.05, ward.augment
        self.weights, self.with_source, self.with_rival = ward.weights, self.dice.random() < 0.5, self.dice.random() < 0.5

    def between(self, low: float, high: float) -> float:
        """A number between the two, drawn evenly on a log scale."""
        return float(np.exp(self.dice.uniform(np.log(low), np.log(high))))

    def model(self, preprocess: Callable | None = None, weights: str | None = "") -> finetune.Classifier:
        loaded = zoo.load(self.ward.model, self.weights if weights == "" else weights, seed=self.seed)
        if preprocess is not None:
            loaded = replace(loaded, preprocess=preprocess)
        return finetune.Classifier(loaded, int(max(self.y.max(), self.yv.max())) + 1, seed=self.seed)

    def fit(self, model: nn.Module, **changes) -> training.History:
        """Train; a run that breaks leaves the losses that it had."""
        losses = _Losses()
        options = {"steps": self.steps, "lr": self.lr, "weight_decay": self.decay, "augment": self.augment, "batch_size": 32, "seed": self.seed,
                   "warmup": self.steps // 10, "validation": (self.xv, self.yv), "channels_last": isinstance(self.x, Tensor),
                   "evaluate_every": max(1, self.steps // 10)} | changes
        try:
            return training.fit(model, (self.x, self.y), callbacks=[losses], **options)
        except training.NonFiniteLoss:
            model.eval()
            return training.History(losses=[*losses.seen, float("nan")])

    def case(self, model: nn.Module, **changes) -> Case:
        """Train the model and hand everything over."""
        before = copy.deepcopy(model)
        history = self.fit(model, **changes)
        return Case(model, before, history, (self.x, self.y), (self.xv, self.yv), reported=self.accuracy(model),
                    baseline=self.rival() if self.with_rival else None,
                    source=self.ward.source(self.seed) if self.with_source and self.ward.source else None)

    def accuracy(self, model: nn.Module) -> float:
        """On validation, in evaluation mode."""
        return float((inference.predict(model, self.xv).argmax(1) == self.yv).float().mean())

    def rival(self) -> float:
        """The same network from random weights, as long, at a rate that suits it."""
        model = self.model(weights=None)
        self.fit(model, lr=self.ward.lr)
        return self.accuracy(model)


# ---------------------------------------------------------------------------- one function per fault
def _healthy(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    model = plan.model()
    if seed % 3 == 2:                                   # a third are probes: frozen as it should be
        freezing.freeze(model.backbone)
        return plan.case(model, lr=max(plan.lr, 1e-2))
    return plan.case(model)


def _leak(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    index = torch.as_tensor(plan.dice.permutation(len(plan.yv))[: int(len(plan.yv) * plan.between(0.1, 0.6))])
    plan.x, plan.y = _joined(plan.x, _rows(plan.xv, index)), torch.cat([plan.y, plan.yv[index]])
    return plan.case(plan.model())


def _normalise(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    right = plan.model().preprocess
    wrong = (lambda x: 255 * right(x), lambda x: right(x) * 0.05, lambda x: right(right(x)), lambda x: right(x) + 4 * plan.between(0.5, 2))[seed % 4]
    return plan.case(plan.model(preprocess=wrong))


def _shuffle(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    plan.y = plan.y[torch.as_tensor(plan.dice.permutation(len(plan.y)))]
    return plan.case(plan.model())


def _dead_head(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    model = plan.model()
    model.head.requires_grad_(False)
    return plan.case(model)


def _mode(ward: Ward, seed: int) -> Case:
    """The project scored its model in training mode, in small batches, class after class."""
    plan = _Plan(ward, seed)
    case = plan.case(plan.model())
    copied, order = copy.deepcopy(case.model).train(), plan.yv.argsort(stable=True)
    with torch.no_grad():
        hits = [(copied(_rows(plan.xv, part)).argmax(1) == plan.yv[part]).float() for part in order.split(int(plan.between(8, 32)))]
    return replace(case, reported=float(torch.cat(hits).mean()))


def _bn_drift(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    model = plan.model()
    model.backbone.requires_grad_(False)                # no gradient, and yet in training mode
    return plan.case(model, lr=max(plan.lr, 1e-2))


def _too_high(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    return plan.case(plan.model(), lr=ward.lr * plan.between(*ward.high), warmup=0)


def _too_low(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    return plan.case(plan.model(), lr=ward.lr * plan.between(*ward.low))


def _imbalance(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    ratio, classes = plan.between(8, 25), int(plan.y.max()) + 1
    order = plan.dice.permutation(classes)
    keep = [max(2, round(int((plan.y == k).sum()) * ratio ** (-place / (classes - 1)))) for place, k in enumerate(order)]
    index = torch.cat([(plan.y == int(k)).nonzero()[:count, 0] for k, count in zip(order, keep)])
    plan.x, plan.y = _rows(plan.x, index), plan.y[index]
    return plan.case(plan.model())


def _forget(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed)
    plan.with_source = True
    return plan.case(plan.model(), lr=ward.lr * plan.between(4, 12), steps=2 * plan.steps, augment=None)


def _hurt(ward: Ward, seed: int) -> Case:
    """A probe on a source that does not fit, where a network from scratch does better."""
    plan = _Plan(ward, seed)
    plan.with_rival, plan.weights = True, ward.bad
    model = plan.model()
    freezing.freeze(model.backbone)
    return plan.case(model, lr=1e-2)


def _overfit(ward: Ward, seed: int) -> Case:
    plan = _Plan(ward, seed, labels=ward.few + seed % 4)
    plan.decay, plan.augment = 0.0, None
    return plan.case(plan.model())


MAKERS: dict[str, Callable[[Ward, int], Case]] = {
    HEALTHY: _healthy, "train/test leakage": _leak, "wrong normalisation": _normalise, "shuffled labels": _shuffle, "head not training": _dead_head,
    "train/eval mode mix-up": _mode, "frozen batch-norm drift": _bn_drift, "learning rate too high": _too_high, "learning rate too low": _too_low,
    "class imbalance": _imbalance, "catastrophic forgetting": _forget, "negative transfer": _hurt, "overfitting": _overfit,
}


def sick_run(ward: Ward, fault: str, seed: int) -> Case:
    """A run with this fault, or a healthy one (`diagnosis.HEALTHY`); the same ward, fault and seed give the same run.

    Raises ValueError for a fault that has no run, and for negative transfer in a ward that names no bad source.
    """
    if fault not in MAKERS:
        raise ValueError(f"fault: {fault!r} has no run; they are {', '.join(MAKERS)}")
    if fault == "negative transfer" and ward.bad is None:
        raise ValueError("ward: names no `bad` weights, so there is no source that hurts")
    return MAKERS[fault](ward, seed)


def _rows(x, index: Tensor):
    return x[index] if isinstance(x, Tensor) else [x[int(i)] for i in index]


def _joined(a, b):
    return torch.cat([a, b]) if isinstance(a, Tensor) else [*a, *b]
