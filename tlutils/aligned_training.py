"""Training on a labelled source and an unlabelled target at once, with the losses of `alignment`, in the book's own loop.

`adapt` adds any of LOSSES to the cross-entropy on the source; `self_train` goes round by round on what the model names with
confidence. Test-time methods, which need no source, are in `adaptation`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import adapters, alignment, batches, finetune, semi, training, zoo

LOSSES = ("coral", "mmd", "transport", "dann", "pseudo-labels")


@dataclass
class Run(finetune.Run):
    """A trained model, its history, and what every step (of `self_train`: every round) measured, as a list of rows."""
    trace: list[dict] = field(default_factory=list)


class _Pair(nn.Module):
    """The classifier with what the losses need beside it; gives logits and features."""

    def __init__(self, classifier: finetune.Classifier, discriminator: nn.Module | None):
        super().__init__()
        self.classifier, self.discriminator = classifier, discriminator

    def forward(self, x) -> tuple[Tensor, Tensor]:
        features = self.classifier.backbone(self.classifier.preprocess(x))
        return self.classifier.head(features), features


class _Objective:
    """Source cross-entropy and weighted losses; as a callback it knows how far the training is."""

    def __init__(self, weights: Mapping[str, float], discriminator: nn.Module | None):
        self.weights, self.discriminator, self.progress, self.trace = weights, discriminator, 0.0, []

    def on_start(self, state) -> None:
        """Where the training stands, also after a resumed run."""
        self.progress = state.step / state.steps

    on_step = on_start

    def state_dict(self) -> dict:
        """The trace, by column, for a checkpoint."""
        return {name: [row[name] for row in self.trace] for name in (self.trace or [{}])[0]}

    def load_state_dict(self, saved: dict) -> None:
        """Take up the trace of the run that was stopped."""
        self.trace = [dict(zip(saved, values, strict=True)) for values in zip(*saved.values(), strict=True)]

    def __call__(self, outputs: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        logits, features = outputs
        known = y >= 0
        value = F.cross_entropy(logits[known], y[known])
        row = {"progress": self.progress, "source": value.item()}
        a, b = features[known], features[~known]
        for name, weight in self.weights.items():
            if name == "dann":
                strength = alignment.reversal_schedule(self.progress)
                term = alignment.adversarial(self.discriminator, a, b, strength)
                with torch.no_grad():
                    right = ((self.discriminator(a) <= 0).float().mean() + (self.discriminator(b) > 0).float().mean()) / 2
                row |= {"strength": strength, "told apart": right.item()}
            else:
                term = alignment.pseudo_labels(logits[~known]) if name == "pseudo-labels" else getattr(alignment, name)(a, b)
            row[name] = term.item()
            value = value + weight * term
        self.trace.append(row)
        return value


def adapt(loaded, source: tuple, target, losses: Mapping[str, float], *, classes: int | None = None, lr: float = 1e-3, steps: int = 300,
          batch_size: int = 64, new_lr: float | None = None, start: str = "random", seed: int = 0, validation: tuple | None = None,
          **options) -> Run:
    """Train a network on labelled source examples and unlabelled target ones; `loaded` (of `zoo.load`) is trained in place.

    source: (x, y), x pictures (N, 3, H, W), features (N, D) or N texts, y (N,) int64 from 0; target: x alone, of the same kind.
    losses: LOSSES by name with their weights, {"coral": 10.0}; two of them are a mix, none is source-only training, which never
    sees the target. Half of each batch comes from either domain, in one pass: batch norm sees the mixture. DANN's reversal
    follows its schedule. What is frozen stays frozen. start: "random", or "probe" for a head fitted to the source first. new_lr: the
    rate of the head and the discriminator, if another than lr. validation: (x, y) of the target, measured without any effect on
    the training: in practice nobody has it. options: for `training.fit` (augment, weight_decay, warmup, ...).
    Raises ValueError for an unknown loss, a negative weight, an empty target, examples of different kinds, batches of fewer than 4,
    labels that don't fit the classes, or classes in `validation` that the source lacks.
    """
    x, y, classes = _checked(source, target, classes)
    if unknown := set(losses) - set(LOSSES):
        raise ValueError(f"losses: {sorted(unknown)[0]!r} is unknown; there are {', '.join(LOSSES)}")
    for name, weight in losses.items():
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"losses: the weight of {name} must be a finite number, at least 0; got {weight}")
    if batch_size < 4:
        raise ValueError(f"batch_size={batch_size}: a batch needs two examples of each domain, so at least 4")
    if validation is not None:
        alignment.check_label_sets(y, validation[1], partial=True)
    model = finetune.Classifier(loaded, classes, seed=seed)
    if start == "probe":
        model.head = finetune.as_linear(finetune.linear_probe(training.predict(finetune.Features(loaded), x), y))
    elif start != "random":
        raise ValueError(f'start: must be "random" or "probe", got {start!r}')
    discriminator = alignment.Discriminator(loaded.width, seed=seed) if "dann" in losses else None
    pair, objective = _Pair(model, discriminator), _Objective(losses, discriminator)
    groups = None
    if new_lr is not None:
        new = [*model.head.parameters(), *(discriminator.parameters() if discriminator else ())]
        groups = [{"params": list(loaded.backbone.parameters())}, {"params": new, "lr": new_lr}]
    measure = None if validation is None else lambda net: training.evaluate(net.classifier, *validation)
    stream = pairs((x, y), target if losses else None)
    history = training.fit(pair, stream, steps=steps, lr=lr, batch_size=batch_size, groups=groups, seed=seed, loss=objective,
                           validation=measure, callbacks=[objective, *options.pop("callbacks", ())], **options)
    return Run(model, history, objective.trace)


def self_train(loaded, source: tuple, target, *, rounds: int = 3, threshold: float = alignment.CONFIDENT, classes: int | None = None,
               lr: float = 1e-3, steps: int = 300, batch_size: int = 64, seed: int = 0, **options) -> Run:
    """Source-only training, then rounds on the source and on the target examples that the model named with confidence (Lee 2013).

    Arguments as in `adapt`; the first training has `steps`, each round as many again, on batches that are half and half. The trace
    has a row for each round: how many target examples were taken, and of how many classes. A round in which none is taken ends it.
    Raises ValueError as `adapt` does, and for rounds below 1 or a threshold outside (0, 1].
    """
    adapters.check_whole(rounds, "rounds")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: must lie in (0, 1], got {threshold}")
    run = adapt(loaded, source, target, {}, classes=classes, lr=lr, steps=steps, batch_size=batch_size, seed=seed, **options)
    trace, options = [], {name: value for name, value in options.items() if name not in ("start", "new_lr")}      # of the first training only
    for number in range(1, rounds + 1):
        rows, names = semi.confident(training.predict(run.model, target).double().softmax(1), threshold)
        trace.append({"round": number, "taken": len(rows), "of": len(target), "classes": len(set(names.tolist()))})
        if not len(rows):
            break
        stream = pairs(source, _pick(target, torch.as_tensor(rows)), torch.as_tensor(names))
        history = training.fit(run.model, stream, steps=steps, lr=lr, batch_size=batch_size, seed=seed + number, **options)
        run = Run(run.model, history)
    return Run(run.model, run.history, trace)


def pairs(source: tuple, target=None, target_labels: Tensor | None = None) -> Callable:
    """A stream for `training.fit`: batches in which source and target take turns; the target's label is -1 unless labels are given.

    source: (x, y). Every batch is drawn anew without replacement (with it from a set smaller than half a batch). target=None:
    the source's half alone, as large as it would be beside a target.
    """
    x, y = source
    names = torch.full((0 if target is None else len(target),), -1, dtype=torch.long) if target_labels is None else target_labels

    def stream(generator: torch.Generator, batch_size: int) -> tuple:
        half = batch_size // 2
        first = _draw(len(x), half, generator)
        if target is None:
            return _pick(x, first), y[first]
        second = _draw(len(target), half, generator)
        labels = torch.stack([y[first], names[second]], 1).flatten()
        a, b = _pick(x, first), _pick(target, second)
        if isinstance(x, Tensor):
            return torch.stack([a, b], 1).flatten(0, 1), labels
        return [text for both in zip(a, b, strict=True) for text in both], labels
    return stream


def _draw(n: int, k: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator)[:k] if n >= k else torch.randint(n, (k,), generator=generator)


def _pick(x, index: Tensor):
    return x[index] if isinstance(x, Tensor) else [x[i] for i in index.tolist()]


def on_features(width: int, hidden: int = 64, *, seed: int = 0) -> zoo.Loaded:
    """A small network for features that were computed before, in the form that `zoo.load` gives: one layer (N, width) to (N, hidden)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
    return zoo.Loaded("on_features", layers, hidden, nn.Identity())


@dataclass(frozen=True)
class Aligned:
    """A contestant: `adapt` on one network of the zoo. target: a function of the seed that gives the unlabelled target examples,
    which should not be those of the test. settings: for `adapt`. losses: an empty dict is source-only training."""
    losses: dict
    lr: float
    target: Callable = field(repr=False)
    steps: int = 300
    model: str = "resnet-mini"
    weights: str | None = "shapes"
    weight_decay: float = 0.05
    settings: dict = field(default_factory=dict)

    def run(self, x, y: Tensor, seed: int, **more) -> Run:
        """Train and return the whole run, with its trace."""
        return adapt(zoo.load(self.model, self.weights, seed=seed), (x, y), self.target(seed), self.losses, lr=self.lr, steps=self.steps,
                     weight_decay=self.weight_decay, warmup=self.steps // 10, seed=seed, **self.settings, **more)

    def __call__(self, x, y, x_test, seed) -> np.ndarray:
        return self.run(x, y, seed).predict(x_test).numpy()


# ---------------------------------------------------------------------------- checks
def _checked(source: tuple, target, classes: int | None) -> tuple:
    x, y = batches.check_pair(source, "source")
    finetune.check_labelled(x, y)
    if int(y.min()) < 0 or (classes is not None and int(y.max()) >= classes):
        raise ValueError(f"source: labels must be 0 to classes - 1; they run from {int(y.min())} to {int(y.max())}, classes={classes}")
    if not len(target):
        raise ValueError("target: is empty; give at least two unlabelled examples")
    if isinstance(x, Tensor) != isinstance(target, Tensor) or (isinstance(x, Tensor) and (x.shape[1:], x.dtype) != (target.shape[1:], target.dtype)):
        raise ValueError(f"source and target: must be of one kind, got {_kind(x)} and {_kind(target)}")
    if isinstance(target, Tensor) and target.is_floating_point() and not torch.isfinite(target).all():
        first = int((~torch.isfinite(target)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"target: has values that are not finite, first in example {first}")
    return x, y, classes or int(y.max()) + 1


def _kind(x) -> str:
    return f"{tuple(x.shape[1:])} {x.dtype}" if isinstance(x, Tensor) else "texts"
