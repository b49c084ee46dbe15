"""The stored experiments of `limited_data`: what a few labels can be stretched to.

Augmentation (all of it, one kind at a time, a mirror that destroys the label), weight decay and dropout, mixed pairs,
pseudo-labels. Trained runs are paired with those of `why_transfer`: same draws, same heads, same steps.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from . import augmentation, evaluation, finetune, metrics, mixing, report, semi, shapes, training, views, zoo
from .methods import AUGMENT, scratch_steps

TUNED_SEEDS = range(100, 105)         # of what is trained, as in why_transfer
SEEDS = range(100, 110)               # of what rests on frozen features
DEV_SEEDS = range(0, 3)
FINETUNE_STEPS = 300                  # as in why_transfer
FEW, MANY = 0, 1                      # settings for up to 10 labels per class, and for more


# ---------------------------------------------------------------------------- a learner with all the knobs
@dataclass(frozen=True)
class Learner:
    """A network trained on the labels, with the knobs of this lesson; called as `learner(x, y, seed)`, gives a `finetune.Run`.

    weights=None is training from scratch. With the defaults it computes what `methods.Train` does. dropout: share of the
    features set to zero before the head. mix: "mixup" or "cutmix", after the augmentation, with `alpha`.
    """
    weights: str | None
    lr: float
    steps: object = FINETUNE_STEPS
    augment: Callable | None = field(default=AUGMENT, repr=False)
    weight_decay: float = 0.05
    dropout: float = 0.0
    mix: str | None = None
    alpha: float = 0.4
    batch_size: int = 64

    def __call__(self, x: Tensor, y: Tensor, seed: int) -> finetune.Run:
        finetune.check_labelled(x, y)
        classes = int(y.max()) + 1
        steps = self.steps(len(y) // classes) if callable(self.steps) else self.steps
        model = finetune.Classifier(zoo.load("resnet-mini", self.weights, seed=seed), classes, seed=seed)
        if self.dropout:
            model.head = nn.Sequential(nn.Dropout(self.dropout), model.head)
        data, augment = (x, y), self.augment
        if self.mix:
            data, augment = mixing.stream(x, y, kind=self.mix, alpha=self.alpha, augment=self.augment), None
        history = training.fit(model, data, steps=steps, lr=self.lr, weight_decay=self.weight_decay, warmup=steps // 10,
                               batch_size=self.batch_size, augment=augment, seed=seed)
        return finetune.Run(model, history)


# Chosen with augmentation on the development shapes for (few, many) labels per class, by `rates` (a test compares).
RATE = {"scratch": (0.03, 0.03), "fine-tuning": (3e-4, 3e-3)}
START = {"scratch": (None, scratch_steps), "fine-tuning": ("shapes", FINETUNE_STEPS)}


def learner(name: str, labels: int, **more) -> Learner:
    """"scratch" or "fine-tuning" at its chosen rate for so many labels per class; more: the knobs that are turned."""
    weights, steps = START[name]
    return Learner(**{"weights": weights, "lr": RATE[name][FEW if labels <= 10 else MANY], "steps": steps} | more)


def learn_run(method: str, learned: Learner, task: shapes.Task, labels: int, seed: int, columns: dict, threads: int | None = None) -> list[dict]:
    """One training: a row of method, labels, seed, accuracy, train_accuracy, loss (mean of the last 20 steps) and the columns."""
    if threads:
        torch.set_num_threads(threads)
    x, y, x_test, y_test = evaluation.world(task)(labels, seed)
    found = learned(x, y, seed)
    row = {"method": method, "labels": labels, "seed": seed, "accuracy": metrics.accuracy(found.predict(x_test), y_test),
           "train_accuracy": metrics.accuracy(found.predict(x), y), "loss": float(np.mean(found.history.losses[-20:]))}
    return [row | columns]


def _jobs(learners: dict[str, Learner], budgets, task=shapes.TARGET10, seeds=TUNED_SEEDS, **columns) -> list:
    return [partial(learn_run, method, made(labels), task, labels, seed, columns, threads=1)
            for labels in sorted(budgets, reverse=True) for seed in seeds for method, made in learners.items()]


# ---------------------------------------------------------------------------- augmentation
def noise(strength: float = 0.15) -> augmentation.Augmentation:
    """Gaussian noise on every pixel, its size drawn per picture from 0 to `strength`."""
    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        size = strength * torch.rand(len(images), 1, 1, 1, generator=generator)
        return (images + (size * torch.randn(images.shape, generator=generator)).to(images.device)).clamp(0, 1)
    return augment


STILL = {"rotate": 0.0, "scale": 0.0, "translate": 0.0}
KINDS = {"flip": augmentation.affine(**STILL, flip=True), "rotate": augmentation.affine(**STILL | {"rotate": 30.0}),
         "scale": augmentation.affine(**STILL | {"scale": 0.25}), "shift": augmentation.affine(**STILL | {"translate": 0.12}),
         "colour": augmentation.colour(), "noise": noise()}
FLIPPED = augmentation.compose(augmentation.affine(flip=True), augmentation.colour())


# Rates tried for scratch without augmentation, and what `limited_bare_rates` says (a test compares).
BARE_CANDIDATES = (1e-2, 3e-2, 1e-1)
BARE_RATE = 1e-1
BARE_SEEDS = range(0, 2)
BARE_TUNING_CANDIDATES = (1e-3, 3e-3, 1e-2)
ALONE_SEEDS = range(100, 103)         # draws of what is trained from scratch for minutes


def limited_bare_rates() -> list:
    """Learning rates for scratch without augmentation, tried on the development shapes at 50 labels per class."""
    return [partial(learn_run, f"{rate:g}", learner("scratch", 50, augment=None, lr=rate), shapes.DEV8, 50, seed, {"contestant": "scratch"},
                    threads=1)
            for seed in BARE_SEEDS for rate in BARE_CANDIDATES]


def limited_plain() -> list:
    """Scratch without augmentation, all else as in why_transfer: 200 labels per class."""
    return _jobs({"scratch, no augmentation": lambda labels: learner("scratch", labels, augment=None)}, [200])


def limited_curves() -> list:
    """Scratch without augmentation at 50 labels per class, at the rate chosen without it, all else as in why_transfer."""
    return _jobs({"scratch, no augmentation": lambda labels: learner("scratch", labels, augment=None, lr=BARE_RATE)}, [50])


def limited_knobs() -> list:
    """Fine-tuning with 5 labels per class: without augmentation, with dropout, with mixup (alpha 0.4), all else as in why_transfer."""
    knobs = {"no augmentation": {"augment": None}, "dropout 0.5": {"dropout": 0.5}, "mixup": {"mix": "mixup"}}
    return _jobs({name: lambda labels, knob=knob: learner("fine-tuning", labels, **knob) for name, knob in knobs.items()}, [5])


def limited_decay() -> list:
    """Fine-tuning with 5 labels per class: no weight decay, and ten times that of why_transfer (0.05), all else as there."""
    knobs = {"decay 0": {"weight_decay": 0.0}, "decay 0.5": {"weight_decay": 0.5}}
    return _jobs({name: lambda labels, knob=knob: learner("fine-tuning", labels, **knob) for name, knob in knobs.items()}, [5])


def limited_tuning_rates() -> list:
    """Learning rates for fine-tuning without augmentation, tried on the development shapes at 50 labels per class."""
    return [partial(learn_run, f"{rate:g}", learner("fine-tuning", 50, augment=None, lr=rate), shapes.DEV8, 50, seed, {"contestant": "fine-tuning"},
                    threads=1)
            for seed in BARE_SEEDS for rate in BARE_TUNING_CANDIDATES]


@lru_cache(maxsize=None)
def bare_tuning_rate() -> float:
    """Fine-tuning's rate that did best without augmentation on the development shapes."""
    return float(report.load("lab", "limited_tuning_rates").groupby("method")["accuracy"].mean().idxmax())


def limited_bare() -> list:
    """Without augmentation, at rates chosen without it: fine-tuning at 20 and 50 labels per class, scratch at 20."""
    return (_jobs({"fine-tuning, no augmentation": lambda labels: learner("fine-tuning", labels, augment=None, lr=bare_tuning_rate())}, [20, 50])
            + _jobs({"scratch, no augmentation": lambda labels: learner("scratch", labels, augment=None, lr=BARE_RATE)}, [20]))


# One kind alone, and all of AUGMENT's kinds but one.
GEOMETRY = {"rotate": {"rotate": 30.0}, "scale": {"scale": 0.25}, "shift": {"translate": 0.12}}
ALONE = {f"only {kind}": KINDS[kind] for kind in KINDS}
WITHOUT = {**{f"all but {kind}": augmentation.compose(augmentation.affine(**{name: 0.0 for name in options}), augmentation.colour())
              for kind, options in GEOMETRY.items()}, "all but colour": augmentation.affine()}


def _with(name: str, kinds: dict) -> dict[str, Callable]:
    """Learners by the name of their augmentation."""
    return {kind: lambda labels, augment=augment: learner(name, labels, augment=augment) for kind, augment in kinds.items()}


def limited_alone() -> list:
    """Fine-tuning with one kind of augmentation at 5 labels per class, all else as in why_transfer."""
    return _jobs(_with("fine-tuning", ALONE), [5])


def limited_without() -> list:
    """Fine-tuning with all kinds of augmentation but one at 5 labels per class, all else as in why_transfer."""
    return _jobs(_with("fine-tuning", WITHOUT), [5])


def limited_scratch_alone() -> list:
    """Scratch with one of AUGMENT's four kinds at 20 labels per class, three draws, all else as in why_transfer."""
    return _jobs(_with("scratch", {name: kind for name, kind in ALONE.items() if name not in ("only flip", "only noise")}), [20], seeds=ALONE_SEEDS)


# Mixed pairs, each with the alpha of its paper for small pictures: mixup 0.4 as in limited_knobs, CutMix 1.
MIXED = {"mixup": {"mix": "mixup", "alpha": 0.4}, "CutMix": {"mix": "cutmix", "alpha": 1.0}}


def limited_mixed() -> list:
    """Fine-tuning with CutMix at 5 labels per class, with mixup and CutMix at 50, beside the augmentation, all else as in why_transfer."""
    def mixed(*kinds):
        return {kind: lambda labels, kind=kind: learner("fine-tuning", labels, **MIXED[kind]) for kind in kinds}
    return _jobs(mixed(*MIXED), [50]) + _jobs(mixed("CutMix"), [5])


def limited_scratch_mixed() -> list:
    """Scratch with mixup and with CutMix at 20 labels per class beside the augmentation, three draws, all else as in why_transfer."""
    return _jobs({kind: lambda labels, kind=kind: learner("scratch", labels, **MIXED[kind]) for kind in MIXED}, [20], seeds=ALONE_SEEDS)


@dataclass(frozen=True)
class Mirrored(shapes.Task):
    """Every shape twice, as it is and in the mirror: 2 x shapes classes, label = 2 x shape + (1 if mirrored)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """"... right" and "... left" for each shape."""
        return tuple(f"{shape} {side}" for shape in self.shapes for side in ("right", "left"))

    def scenes(self, labels: Tensor, *, generator: torch.Generator) -> shapes.Scenes:
        """Scenes of the shapes, not yet mirrored."""
        return super().scenes(labels // 2, generator=generator)

    def draw(self, per_class: int, **options) -> tuple[Tensor, Tensor]:
        """As `shapes.Task.draw`, the odd labels mirrored left to right."""
        return self._mirrored(*super().draw(per_class, **options))

    def stream(self, generator: torch.Generator, n: int, device="cpu") -> tuple[Tensor, Tensor]:
        """As `shapes.Task.stream`, the odd labels mirrored left to right."""
        return self._mirrored(*super().stream(generator, n, device))

    @staticmethod
    def _mirrored(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where((labels % 2 == 1)[:, None, None, None], images.flip(3), images), labels


# Shapes that point to the right, however they are turned within 75 degrees: scenes turn them by 45, augmentation by 30 more.
SIGNS = Mirrored("which shape, and which way does it point?", ("chevron", "comb", "cee", "flag"), 4)
FLIPS = {"no augmentation": None, "augmentation": AUGMENT, "augmentation with flip": FLIPPED}


# ---------------------------------------------------------------------------- frozen features
VIEWS = (0, 4, 16)                    # augmented versions of each picture, beside the picture itself
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# What `limited_view_rates` says: C for (few, many) labels, by views.
VIEW_C = {0: (0.1, 0.1), 4: (0.1, 0.1), 16: (0.1, 0.1)}


def backbone(weights: str = "shapes") -> finetune.Features:
    """resnet-mini without its head, frozen features of pictures in [0, 1]."""
    return finetune.Features(zoo.load("resnet-mini", weights))


def view_run(labels: int, seed: int, task: shapes.Task = shapes.TARGET10, chosen: bool = True, threads: int | None = None) -> list[dict]:
    """Probes on 0, 4 and 16 cached views of each picture: rows of method, views, labels, seed, C, accuracy.

    chosen: take C from VIEW_C; else try all of PENALTIES.
    """
    if threads:
        torch.set_num_threads(threads)
    x, y, x_test, y_test = evaluation.world(task)(labels, seed)
    test, rows = training.predict(backbone(), x_test).numpy(), []
    cached = views.extract_views(zoo.load("resnet-mini", "shapes"), x, 1 + max(VIEWS), augment=AUGMENT, seed=seed)
    for count in VIEWS:
        for C in (VIEW_C[count][FEW if labels <= 10 else MANY],) if chosen else PENALTIES:
            predicted = finetune.linear_probe(cached[:count + 1].flatten(0, 1), y.repeat(count + 1), C=C).predict(test)
            rows.append({"method": f"probe, {count} views", "views": count, "labels": labels, "seed": seed, "C": C,
                         "accuracy": metrics.accuracy(predicted, y_test)})
    return rows


def limited_view_rates() -> list:
    """The probe's penalty with cached views, tried on the development shapes."""
    return [partial(view_run, labels, seed, shapes.DEV8, False, threads=1) for labels in (20, 5) for seed in DEV_SEEDS]


def limited_views() -> list:
    """A probe on augmented views of each picture, computed once: accuracy by labels per class and views."""
    return [partial(view_run, labels, seed, threads=1) for labels in (20, 5, 1) for seed in SEEDS]


HEAD_RATE = 1e-2
HEAD_STEPS = 300
STRENGTHS = {"none": (0.0, 0.0), "decay 0.05": (0.05, 0.0), "decay 0.5": (0.5, 0.0), "decay 5": (5.0, 0.0),
             "dropout 0.2": (0.05, 0.2), "dropout 0.5": (0.05, 0.5), "dropout 0.8": (0.05, 0.8)}


def limited_heads() -> list:
    """Weight decay and dropout on frozen features: a linear head trained with several strengths of each."""
    return [partial(head_run, labels, seed, threads=1) for labels in (50, 5) for seed in SEEDS]


def head_run(labels: int, seed: int, threads: int | None = None) -> list[dict]:
    """Linear heads on standardised frozen features of one draw: rows of method (the strength), labels, seed, accuracy, train_accuracy."""
    if threads:
        torch.set_num_threads(threads)
    x, y, x_test, y_test = evaluation.world(shapes.TARGET10)(labels, seed)
    train, test = (training.predict(backbone(), part) for part in (x, x_test))
    mean, spread = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / spread, (test - mean) / spread
    rows = []
    for name, (decay, dropout) in STRENGTHS.items():
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            head = nn.Sequential(nn.Dropout(dropout), nn.Linear(train.shape[1], 10))
        training.fit(head, (train, y), steps=HEAD_STEPS, lr=HEAD_RATE, weight_decay=decay, warmup=HEAD_STEPS // 10, batch_size=64, seed=seed)
        rows.append({"method": name, "labels": labels, "seed": seed, "accuracy": training.evaluate(head, test, y_test)["accuracy"],
                     "train_accuracy": training.evaluate(head, train, y)["accuracy"]})
    return rows


# ---------------------------------------------------------------------------- pseudo-labels
UNLABELLED = 100                      # pictures of each class without labels
UNLABELLED_SEED = 2_000_000           # seed s draws them from this + s
THRESHOLDS = (0.1, 0.5, 0.8, 0.95)                  # 0.1 takes all ten classes' pictures
C_FEW = 0.1                           # the probe's penalty, as chosen in why_transfer
C_MANY = 1.0


def unlabelled(seed: int, task: shapes.Task = shapes.TARGET10) -> tuple[Tensor, Tensor]:
    """1,000 pictures and their labels, which only a judge may use."""
    return task.draw(UNLABELLED, seed=UNLABELLED_SEED + seed)


def limited_pseudo() -> list:
    """Pseudo-labels on frozen features: two sources, 1 to 20 labels per class, four thresholds."""
    return [partial(pseudo_run, source, labels, seed, threads=1) for source in ("shapes", "bits2") for labels in (20, 5, 1) for seed in SEEDS]


def pseudo_run(source: str, labels: int, seed: int, threads: int | None = None) -> list[dict]:
    """One draw: rows of method, source, labels, threshold, seed, accuracy, taken and pure (share of the taken that is right).

    method: "labels only", "pseudo 0.5" and so on, and "true labels" for the same 1,000 pictures with all their labels.
    """
    if threads:
        torch.set_num_threads(threads)
    x, y, x_test, y_test = evaluation.world(shapes.TARGET10)(labels, seed)
    more, truth = unlabelled(seed)
    few, many, test = (training.predict(backbone(source), part).numpy() for part in (x, more, x_test))
    y, truth, common = y.numpy(), truth.numpy(), {"source": source, "labels": labels, "seed": seed}
    C = C_FEW if labels <= 10 else C_MANY
    rows = []
    for threshold in THRESHOLDS:
        first, second = semi.self_training(few, y, many, threshold=threshold, C=C, C_more=C_MANY)
        pure = float((truth[second.rows] == second.labels).mean()) if len(second.rows) else None
        rows.append({"method": f"pseudo {threshold:g}", **common, "threshold": threshold, "taken": len(second.rows), "pure": pure,
                     "accuracy": metrics.accuracy(second.probe.predict(test), y_test)})
    best = finetune.linear_probe(np.concatenate([few, many]), np.concatenate([y, truth]), C=C_MANY)
    return [{"method": "labels only", **common, "accuracy": metrics.accuracy(first.probe.predict(test), y_test)}, *rows,
            {"method": "true labels", **common, "accuracy": metrics.accuracy(best.predict(test), y_test)}]


# ---------------------------------------------------------------------------- what the command finds
LAB: dict = {f.__name__: f for f in (limited_bare_rates, limited_tuning_rates, limited_curves, limited_plain, limited_bare, limited_knobs,
                                     limited_decay, limited_alone, limited_without, limited_scratch_alone, limited_mixed, limited_scratch_mixed,
                                     limited_view_rates, limited_views, limited_heads, limited_pseudo)}
REAL: dict = {}
_BELOW = ("shapes", "augmentation", "backbones", "batches", "loop", "inference", "training", "optim", "freezing", "finetune",
          "methods", "evaluation:world", "zoo:Preprocess", "zoo:MINI", "metrics:accuracy")
_LEARN = ("Learner", "learner", "learn_run", "_jobs", "RATE", "START", "FINETUNE_STEPS", "TUNED_SEEDS")
_FROZEN = ("backbone", "SEEDS")
_HERE = {
    "limited_bare_rates": (*_LEARN, "BARE_CANDIDATES", "BARE_SEEDS"),
    "limited_curves": (*_LEARN, "BARE_RATE"),
    "limited_tuning_rates": (*_LEARN, "BARE_TUNING_CANDIDATES", "BARE_SEEDS"),
    "limited_plain": _LEARN,
    "limited_bare": (*_LEARN, "BARE_RATE", "bare_tuning_rate"),
    "limited_alone": (*_LEARN, "_with", "noise", "STILL", "KINDS", "ALONE"),
    "limited_without": (*_LEARN, "_with", "GEOMETRY", "WITHOUT"),
    "limited_scratch_alone": (*_LEARN, "_with", "noise", "STILL", "KINDS", "ALONE", "ALONE_SEEDS"),
    "limited_mixed": (*_LEARN, "MIXED"),
    "limited_scratch_mixed": (*_LEARN, "MIXED", "ALONE_SEEDS"),
    "limited_knobs": _LEARN,
    "limited_decay": _LEARN,
    "limited_view_rates": (*_FROZEN, "view_run", "VIEWS", "PENALTIES", "DEV_SEEDS"),
    "limited_views": (*_FROZEN, "view_run", "VIEWS", "VIEW_C"),
    "limited_heads": (*_FROZEN, "head_run", "STRENGTHS", "HEAD_RATE", "HEAD_STEPS"),
    "limited_pseudo": (*_FROZEN, "pseudo_run", "unlabelled", "UNLABELLED", "UNLABELLED_SEED", "THRESHOLDS", "C_FEW", "C_MANY"),
}
_MORE = {"limited_pseudo": ("semi",), **dict.fromkeys(("limited_knobs", "limited_mixed", "limited_scratch_mixed"), ("mixing",)),
         **dict.fromkeys(("limited_views", "limited_view_rates"), ("views:extract_views",))}
CODE: dict[str, tuple[str, ...]] = {
    name: (*_BELOW, *_MORE.get(name, ()), f"limited_experiments:{name}", *(f"limited_experiments:{part}" for part in parts))
    for name, parts in _HERE.items()}
WEIGHTS: dict[str, tuple[str, ...]] = {
    name: ("resnet-mini-shapes", *(("resnet-mini-bits2",) if name == "limited_pseudo" else ())) for name in LAB}


def provenance(name: str, rows: list[dict]) -> dict:
    """For the card of a real experiment; this module has none."""
    raise ValueError(f"name: {name!r} is no real experiment; limited_experiments has lab grids only")
