"""The stored experiments of `extract_or_finetune`: how much of a pretrained network to train, and what each choice costs.

Seven strategies and a control, on pictures that look like the source's and on sketches, judged on pictures like those trained
on and on others; a backbone frozen by halves; k cached views against live augmentation; seconds and memory.
"""
from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from . import evaluation, features, finetune, freezing, methods, optim, report, shapes, training, views, zoo
from .processes import one_thread as _one_thread

SEEDS = range(100, 105)
DEV_SEEDS = range(0, 2)
CELLS = (("far domain", 100), ("near", 5), ("far domain", 5), ("near", 100))      # setting and labels per class
MIDDLE = (("far domain", 20), ("near", 20))       # a third budget between them, a grid of its own
RATE_BUDGETS = (5, 50)
STEPS = 300                   # of everything that is trained
BATCH = 32
FURTHER = 0.6                 # strength of the five shifts outside the training distribution
SKETCH = 0.8                  # strength of the sketches that are the far domain
VIEWS = 8


@dataclass(frozen=True)
class Setting:
    """Where the features come from, and what the target's pictures look like (training and test alike)."""
    source: str
    shift: str | None = None
    strength: float = 0.0

    def draw(self, task: shapes.Task, per_class: int, seed: int) -> tuple[Tensor, Tensor]:
        """Pictures of the target's own domain."""
        return task.draw(per_class, seed=seed, shift_kind=self.shift, strength=self.strength)

    def outside(self, task: shapes.Task, per_class: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
        """The same scenes in other domains: five shifts of plain pictures, or plain pictures where the target is shifted."""
        if self.shift:
            return {"plain": task.draw(per_class, seed=seed)}
        return {kind: task.draw(per_class, seed=seed, shift_kind=kind, strength=FURTHER) for kind in shapes.SHIFTS}


SETTINGS = {"near": Setting("shapes"), "far domain": Setting("shapes", "sketch", SKETCH)}


# ---------------------------------------------------------------------------- the strategies
Predict = Callable[[Tensor], Tensor]


def knn(loaded, x: Tensor, y: Tensor, *, k: int = 5) -> Predict:
    """The k nearest training pictures in feature space vote (cosine distance). Returns pictures -> (N,) labels.

    Raises ValueError for a k outside 1..N, lengths that differ or a single class.
    """
    finetune.check_labelled(x, y)
    if not 1 <= k <= len(x):
        raise ValueError(f"k={k} must be 1 to {len(x)}, the number of labelled examples")
    body = finetune.Features(loaded)
    vote = KNeighborsClassifier(k, metric="cosine").fit(training.predict(body, x).numpy(), y.numpy())
    return lambda new: torch.as_tensor(vote.predict(training.predict(body, new).numpy()))


def probe(loaded, x: Tensor, y: Tensor, *, C: float = 0.1, k: int = 1, seed: int = 0) -> Predict:
    """A linear probe on k cached views of each picture (k=1: the picture itself)."""
    made = views.extract_views(loaded, x, k, augment=methods.AUGMENT, seed=seed)
    body, fitted = finetune.Features(loaded), views.probe(made, y, C=C)
    return lambda new: torch.as_tensor(fitted.predict(training.predict(body, new).numpy()))


def trained(loaded, x: Tensor, y: Tensor, *, lr: float, seed: int, strategy: str = "full", pull: float = 0.0,
            augment: bool = True, steps: int = STEPS, **options) -> Predict:
    """One strategy of `finetune`, with augmentation and decay; pull > 0 is L2-SP, and takes the place of the decay."""
    penalty = optim.l2_sp(loaded.backbone, strength=pull) if pull else None
    run = finetune.finetune(loaded, x, y, strategy=strategy, lr=lr, steps=steps, seed=seed, batch_size=BATCH, warmup=steps // 10,
                            weight_decay=0.0 if pull else 0.05, penalty=penalty, augment=methods.AUGMENT if augment else None, **options)
    return run.predict


# Each strategy: what it calls, its fixed options, and three settings to choose from on the development shapes.
LAST = [{"lr": r} for r in (3e-3, 1e-2, 3e-2)]
ALL = [{"lr": r} for r in (1e-3, 3e-3, 1e-2)]
STRATEGIES: dict[str, tuple[Callable, dict, list[dict]]] = {
    "kNN": (knn, {}, [{"k": k} for k in (1, 3, 5)]),
    "probe": (probe, {}, [{"C": C} for C in (0.01, 0.1, 1.0)]),
    "last-1": (trained, {"strategy": "last-k", "k": 1}, LAST),
    "last-2": (trained, {"strategy": "last-k", "k": 2}, LAST),
    "fine-tuning": (trained, {}, ALL),
    "lp-ft": (trained, {"strategy": "lp-ft"}, ALL),
    "L2-SP": (trained, {}, [{"lr": 1e-2, "pull": pull} for pull in (0.01, 0.1, 1.0)]),
}
CONTROLS = {"probe, 8 views": ("probe", {"k": VIEWS})}
NAMES = (*STRATEGIES, *CONTROLS)


def adapt(name: str, loaded, x: Tensor, y: Tensor, seed: int, options: dict) -> Predict:
    """Put a strategy or a control to work on labelled pictures. options: its tuned setting. Raises ValueError for a wrong name."""
    if name not in NAMES:
        raise ValueError(f"name: {name!r} is no strategy; there are {', '.join(NAMES)}")
    base, more = CONTROLS.get(name, (name, {}))
    call, fixed, _ = STRATEGIES[base]
    return call(loaded, x, y, **{} if call is knn else {"seed": seed}, **fixed, **more, **options)


def words(options: dict) -> str:
    """A setting as text, to name it in a grid: "lr=0.01 pull=0.1"."""
    return " ".join(f"{key}={value:g}" for key, value in options.items())


@lru_cache(maxsize=None)
def chosen(name: str, setting: str, labels: int) -> dict:
    """The setting that did best on the development shapes, for few (up to 10) or more labels per class."""
    base = CONTROLS.get(name, (name,))[0]
    sweep = report.load("lab", "extract_rates")
    sweep = sweep[(sweep["strategy"] == base) & (sweep["setting"] == setting) & (sweep["labels"] == RATE_BUDGETS[labels > 10])]
    best = sweep.groupby("method")["accuracy"].mean().idxmax()
    return next(options for options in STRATEGIES[base][2] if words(options) == best)


def extract_rates() -> list:
    """Settings of every strategy, tried on the development shapes: near source and far domain."""
    return [partial(rate_run, setting, labels, seed, name, threads=1) for labels in reversed(RATE_BUDGETS) for setting in SETTINGS
            for seed in DEV_SEEDS[:1] for name in STRATEGIES]


def rate_run(setting: str, labels: int, seed: int, name: str, threads: int | None = None) -> list[dict]:
    """All settings of one strategy on one draw of the development shapes, judged inside the training distribution."""
    _one_thread(threads)
    where, task = SETTINGS[setting], shapes.DEV8
    x, y = where.draw(task, labels, seed * 1000 + labels)
    x_test, y_test = where.draw(task, 60, evaluation.TEST_SEED + seed)
    rows = []
    for options in STRATEGIES[name][2]:
        predict = adapt(name, zoo.load("resnet-mini", where.source), x, y, seed, options)
        rows.append({"method": words(options), "strategy": name, "setting": setting, "labels": labels, "seed": seed,
                     "accuracy": _share(predict(x_test), y_test)})
    return rows


def extract_grid() -> list:
    """Seven strategies, and a probe on eight views, on ten new shapes: accuracy inside and outside, by labels and domain."""
    return [partial(strategy_run, setting, labels, seed, threads=1) for setting, labels in CELLS for seed in SEEDS]


def extract_middle() -> list:
    """The strategies of extract_grid at 20 labels per class, near and far domain, all else as there."""
    return [partial(strategy_run, setting, labels, seed, threads=1) for setting, labels in MIDDLE for seed in SEEDS]


def strategy_run(setting: str, labels: int, seed: int, names=NAMES, threads: int | None = None) -> list[dict]:
    """Every strategy on one draw: rows of method, setting, labels, seed, accuracy, outside (mean of the other domains, and
    each), training accuracy, its tuned setting, and seconds of processor time to adapt (loading and testing left out)."""
    _one_thread(threads)
    where, task = SETTINGS[setting], shapes.TARGET10
    x, y = where.draw(task, labels, seed * 1000 + labels)
    parts = {"accuracy": where.draw(task, 60, evaluation.TEST_SEED + seed), "training": (x, y),
             **where.outside(task, 20 if where.shift is None else 60, evaluation.TEST_SEED + seed)}
    pictures, rows = torch.cat([x for x, _ in parts.values()]), []
    for name in names:
        loaded = zoo.load("resnet-mini", where.source)
        start = time.process_time()
        options = chosen(name, setting, labels)
        predict = adapt(name, loaded, x, y, seed, options)
        seconds = time.process_time() - start
        found = predict(pictures).split([len(truth) for _, truth in parts.values()])
        scores = {part: _share(guess, truth) for guess, (part, (_, truth)) in zip(found, parts.items())}
        outside = [score for part, score in scores.items() if part not in ("accuracy", "training")]
        rows.append({"method": name, "setting": setting, "labels": labels, "seed": seed, **scores,
                     "outside": float(np.mean(outside)), "seconds": seconds, "tuned": words(options)})
    return rows


def _share(predicted: Tensor, truth: Tensor) -> float:
    return float((predicted == truth).double().mean())


# ---------------------------------------------------------------------------- a backbone frozen by halves
TRAP_SEEDS = range(100, 110)
TRAP_LABELS = 20
TRAP_STEPS = 100
TRAP_RATE = 1e-2
# What the head is trained on: batch size, whether the pictures come class by class, and their shift.
TRAPS = {"shuffled, 64 a batch": (64, False, None), "shuffled, 4 a batch": (4, False, None),
         "class by class, 20 a batch": (20, True, None), "night pictures, 64 a batch": (64, False, "night")}


def half_freeze(module: nn.Module) -> nn.Module:
    """What is often called freezing: no parameter learns, but the batch norms' running statistics do. Returns the module."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def in_order(x: Tensor, y: Tensor) -> Callable:
    """Batches of an unshuffled loader, class after class, round and round."""
    order, start = y.argsort(stable=True), 0

    def batch(generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
        nonlocal start
        picked = order[(start + torch.arange(n)) % len(order)]
        start += n
        return x[picked], y[picked]
    return batch


def extract_batchnorm() -> list:
    """A head on a backbone that is frozen, and on one left in train(): four ways to feed it, ten draws."""
    return [partial(trap_run, feed, seed, threads=1) for feed in TRAPS for seed in TRAP_SEEDS]


def trap_run(feed: str, seed: int, steps: int = TRAP_STEPS, threads: int | None = None) -> list[dict]:
    """One head trained both ways: rows of method, feed, labels, seed, accuracy (pictures like those trained on), plain (plain
    pictures), source (the network's own head, put back on the source shapes)."""
    _one_thread(threads)
    size, by_class, shift = TRAPS[feed]
    where, task = Setting("shapes", shift, SKETCH if shift else 0.0), shapes.TARGET10
    x, y = where.draw(task, TRAP_LABELS, seed * 1000 + TRAP_LABELS)
    tests = [where.draw(task, 60, evaluation.TEST_SEED + seed), task.draw(60, seed=evaluation.TEST_SEED + seed)]
    old_x, old_y = shapes.SHAPES16.draw(40, seed=evaluation.TEST_SEED + seed)
    rows = []
    for method, freeze in (("frozen", freezing.freeze), ("left in train()", half_freeze)):
        loaded = zoo.load("resnet-mini", "shapes")
        model = finetune.Classifier(loaded, len(task.classes), seed=seed)
        freeze(loaded.backbone)
        training.fit(model, in_order(x, y) if by_class else (x, y), steps=steps, lr=TRAP_RATE, batch_size=size,
                     warmup=steps // 10, seed=seed)
        inside, plain = (training.evaluate(model, *test)["accuracy"] for test in tests)
        rows.append({"method": method, "feed": feed, "labels": TRAP_LABELS, "seed": seed, "accuracy": inside, "plain": plain,
                     "source": _share(loaded.logits(old_x).argmax(1), old_y)})
    return rows


# ---------------------------------------------------------------------------- cached views against live augmentation
VIEW_COUNTS = (1, 2, 4, 8, 16)
VIEW_SEEDS = range(100, 110)
VIEW_LABELS = (5, 20)
VIEW_RATES = (3e-3, 1e-2, 3e-2)
LIVE = "live"


def view_head(kind: int | str, x: Tensor, y: Tensor, lr: float, seed: int) -> tuple[Predict, float]:
    """A linear head by gradient descent on k cached views (kind: k) or live augmentation (kind: "live").

    Returns pictures -> labels, and the seconds of processor time that it took, features included.
    """
    loaded = zoo.load("resnet-mini", "shapes")
    start = time.process_time()
    model = finetune.Classifier(loaded, len(y.unique()), seed=seed)
    settings = {"steps": STEPS, "lr": lr, "batch_size": BATCH, "warmup": STEPS // 10, "seed": seed}
    if kind == LIVE:
        freezing.freeze(loaded.backbone)
        training.fit(model, (x, y), augment=methods.AUGMENT, **settings)
    else:
        made = views.extract_views(loaded, x, kind, augment=methods.AUGMENT, seed=seed)
        training.fit(model.head, views.stream(made, y), **settings)
    return lambda new: training.predict(model, new).argmax(1), time.process_time() - start


@lru_cache(maxsize=None)
def view_rate(labels: int) -> float:
    """The head's learning rate that did best with live augmentation on the development shapes."""
    sweep = report.load("lab", "extract_view_rates")
    return float(sweep[sweep["labels"] == labels].groupby("method")["accuracy"].mean().idxmax())


def extract_view_rates() -> list:
    """The rate of a head trained on live augmentation, tried on the development shapes."""
    return [partial(view_rate_run, labels, seed, threads=1) for labels in VIEW_LABELS for seed in DEV_SEEDS]


def view_rate_run(labels: int, seed: int, threads: int | None = None) -> list[dict]:
    """Every rate of VIEW_RATES on one draw: rows of method (the rate), labels, seed, accuracy."""
    _one_thread(threads)
    x, y, x_test, y_test = evaluation.world(shapes.DEV8)(labels, seed)
    return [{"method": f"{rate:g}", "labels": labels, "seed": seed, "accuracy": _share(view_head(LIVE, x, y, rate, seed)[0](x_test), y_test)}
            for rate in VIEW_RATES]


def extract_views_grid() -> list:
    """k cached views (1 to 16) against live augmentation, head only: accuracy and seconds at 5 and 20 labels, ten draws."""
    return [partial(view_run, labels, seed, threads=1) for labels in VIEW_LABELS for seed in VIEW_SEEDS]


def view_run(labels: int, seed: int, kinds=(*VIEW_COUNTS, LIVE), threads: int | None = None) -> list[dict]:
    """Every number of views on one draw: rows of method ("4 views", "live"), labels, seed, accuracy, seconds."""
    _one_thread(threads)
    x, y, x_test, y_test = evaluation.world(shapes.TARGET10)(labels, seed)
    rows = []
    for kind in kinds:
        predict, seconds = view_head(kind, x, y, view_rate(labels), seed)
        rows.append({"method": kind if kind == LIVE else f"{kind} views", "labels": labels, "seed": seed,
                     "accuracy": _share(predict(x_test), y_test), "seconds": seconds})
    return rows


# ---------------------------------------------------------------------------- what it costs
COST_SEEDS = range(100, 105)
COST_SIDE = 224
COST_STRATEGIES = {"probe": None, "last-1": 1, "last-2": 2, "fine-tuning": 0}      # stages that learn; 0: all
CACHE_SIZES = {"mobilenet_v2": (8, 128), "resnet-mini": (1000,)}


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes of intermediate results that the forward pass of x keeps for the backward pass (parameters not counted).

    model: as it will be trained, frozen parts included; it is left in its mode. x: (N, ...). Exact, and the same on every
    machine. A result kept twice counts once.
    """
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor      # held, so that its place is not used again
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(x).logsumexp(1).sum()
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss
    return size


def freeze_below(loaded, top: int | None) -> None:
    """Freeze all but the last `top` stages of the backbone; None freezes everything, 0 nothing. Raises ValueError for others."""
    stages = list(loaded.backbone.stages)
    if top is not None and not 0 <= top <= len(stages):
        raise ValueError(f"top={top} must be 0 to {len(stages)}, the number of stages, or None")
    for stage in stages[:None if top is None else len(stages) - top if top else 0]:
        freezing.freeze(stage)


def cost_pictures(seed: int, n: int = 32, side: int = COST_SIDE) -> tuple[Tensor, Tensor]:
    """n random pictures (n, 3, side, side) uint8 and labels of two classes: what they show does not matter for the costs."""
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=made), torch.arange(n) % 2


def extract_cache() -> list:
    """What the cache of features saves, one thread: MobileNetV2 at 224 pixels and resnet-mini at 32, by number of pictures."""
    return [partial(cache_run, network, n, seed, threads=1) for network, sizes in CACHE_SIZES.items() for n in sizes for seed in COST_SEEDS]


def cache_run(network: str, n: int, seed: int, threads: int | None = None) -> list[dict]:
    """Features of n pictures through a fresh cache, twice: rows of method (network), pictures, seed, first, second (seconds of
    processor time) and value (their ratio)."""
    _one_thread(threads)
    loaded = zoo.load(network, None, seed=seed)
    x, _ = cost_pictures(seed, n, COST_SIDE if network == "mobilenet_v2" else shapes.RESOLUTION)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            start = time.process_time()
            features.extract(loaded, x, batch_size=64, cache=Path(folder))
            seconds.append(time.process_time() - start)
    return [{"method": network, "pictures": n, "seed": seed, "first": seconds[0], "second": seconds[1],
             "value": seconds[0] / seconds[1]}]


# ---------------------------------------------------------------------------- what the command finds
LAB: dict = {f.__name__: f for f in (extract_rates, extract_grid, extract_middle, extract_batchnorm, extract_view_rates,
                                     extract_views_grid, extract_cache)}
REAL: dict = {}
_BELOW = ("shapes", "augmentation", "backbones", "batches", "loop", "inference", "training", "optim", "freezing", "finetune", "features",
          "methods:AUGMENT", "zoo:Preprocess", "zoo:MINI")
_STRATEGY = ("views", "Setting", "SETTINGS", "SKETCH", "FURTHER", "STEPS", "BATCH", "VIEWS", "knn", "probe", "trained", "STRATEGIES", "CONTROLS",
             "LAST", "ALL", "NAMES", "adapt", "_share")
_HERE = {
    "extract_rates": (*_STRATEGY, "extract_rates", "rate_run", "RATE_BUDGETS", "DEV_SEEDS"),
    "extract_grid": (*_STRATEGY, "extract_grid", "strategy_run", "chosen", "CELLS", "SEEDS"),
    "extract_middle": (*_STRATEGY, "extract_middle", "strategy_run", "chosen", "MIDDLE", "SEEDS"),
    "extract_batchnorm": ("Setting", "SKETCH", "TRAPS", "TRAP_SEEDS", "TRAP_LABELS", "TRAP_STEPS", "TRAP_RATE", "half_freeze", "in_order",
                          "extract_batchnorm", "trap_run", "_share"),
    "extract_view_rates": ("views", "VIEW_LABELS", "VIEW_RATES", "STEPS", "BATCH", "DEV_SEEDS", "view_head", "extract_view_rates", "view_rate_run"),
    "extract_views_grid": ("views", "VIEW_COUNTS", "VIEW_SEEDS", "VIEW_LABELS", "STEPS", "BATCH", "view_head", "extract_views_grid", "view_run",
                           "view_rate"),
    "extract_cache": ("COST_SEEDS", "COST_SIDE", "CACHE_SIZES", "cost_pictures", "extract_cache", "cache_run"),
}
CODE: dict[str, tuple[str, ...]] = {
    name: (*_BELOW, *(part if part == "views" else f"extraction_experiments:{part}" for part in parts)) for name, parts in _HERE.items()}
WEIGHTS: dict[str, tuple[str, ...]] = {name: ("resnet-mini-shapes",) for name in LAB if name != "extract_cache"}


def provenance(name: str, rows: list[dict]) -> dict:
    """Nothing here is measured on real data."""
    raise ValueError(f"name: {name!r} is no real experiment; there are none in this module")
