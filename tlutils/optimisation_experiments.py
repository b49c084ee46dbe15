"""The stored experiments of `optimisation`: rates, schedules, what each keeps of the source, early stopping, good practices.

Every method trains the same network on the same draw for the same number of steps, at a rate of its own, searched with
seven runs on the development shapes. What it forgets is measured on the source task, both ways (`forgetting`).
"""
from __future__ import annotations

from functools import lru_cache, partial

import torch

from . import evaluation, finetune, forgetting, methods, optim, shapes, training, zoo

SEEDS = range(100, 105)
DEV_SEEDS = (0, 1)
SHORT = 40                            # steps
LONG = 200
SETTING = {"batch_size": 32, "weight_decay": 0.05}
LAYER_DECAY = 1 / 2.6                 # from one stage to the one below, as in ULMFiT
HELD_OUT = 5                          # early stopping holds out one label in five
METHODS = ("plain", "warm-up", "layer-wise", "gradual", "lp-ft", "early stopping", "sgd")
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SWEEP_RATES = (1e-4, 3e-4, 1e-3, 1e-2, 3e-2, 1e-1)      # plain at 3e-3 is in optim_schedules
SCRATCH_RATE = 3e-2                   # what `experiments.rates` chose for scratch, at both budgets
SOURCE_PROBE = (20, 77)               # source scenes per class and their seed: to fit the new probe on
SOURCE_TEST = (30, 78)                # and to score both heads on


# ---------------------------------------------------------------------------- one run
def tune(method: str, x, y, *, lr: float, steps: int, seed: int, source: str | None = "shapes", augment=methods.AUGMENT,
         **options) -> tuple:
    """Fine-tune resnet-mini with one of METHODS. Returns (zoo.Loaded, finetune.Run); the loaded backbone is the tuned one.

    "plain" trains everything at one rate from the first step (AdamW, cosine, no warm-up); each other method changes one
    thing: "warm-up" a linear rise over the first fifth of the steps; "layer-wise" a rate 2.6 times lower for each stage
    further down; "gradual" one stage more at equal distances; "lp-ft" a probe's head to start with; "early stopping" every
    fifth label held out, the weights of the lowest validation loss kept; "sgd" momentum in place of AdamW.
    Raises ValueError for another method, or fewer than two labels per class with early stopping.
    """
    if method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}; got {method!r}")
    loaded = zoo.load("resnet-mini", source, seed=seed)
    options = SETTING | {"augment": augment, "seed": seed} | options
    if method == "layer-wise":
        model = finetune.Classifier(loaded, int(y.max()) + 1, seed=seed)
        groups = optim.layerwise(model.backbone, model.head, lr=lr, decay=LAYER_DECAY)
        return loaded, finetune.Run(model, training.fit(model, (x, y), steps=steps, lr=lr, groups=groups, **options))
    if method == "early stopping":
        x, y, validation = hold_out(x, y)
        options |= {"validation": validation, "evaluate_every": max(steps // 25, 1),
                    "callbacks": [training.EarlyStopping(patience=5, metric="validation_loss")]}
    if method == "warm-up":
        options["warmup"] = steps // 5
    if method == "sgd":
        options["optimizer"] = "sgd"
    strategy = method if method in ("gradual", "lp-ft") else "full"
    return loaded, finetune.finetune(loaded, x, y, strategy=strategy, lr=lr, steps=steps, **options)


def hold_out(x, y, share: int = HELD_OUT) -> tuple:
    """Keep one label in `share` of every class apart (at least one): x, y without them, and the pair kept apart.

    Raises ValueError where a class has a single label.
    """
    kept = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        members = (y == label).nonzero()[:, 0]
        if len(members) < 2:
            raise ValueError(f"y: class {int(label)} has a single label; early stopping must hold one out and needs at least two")
        kept[members[:max(len(members) // share, 1)]] = True
    return x[~kept], y[~kept], (x[kept], y[kept])


@lru_cache(maxsize=2)
def source_scenes(source: str) -> tuple:
    """Scenes of a source's own task: a pair to fit a new probe on, and a pair to score on."""
    task = {"shapes": shapes.SHAPES16, "colours": shapes.COLOUR16}[source]
    return tuple(task.draw(n, seed=seed) for n, seed in (SOURCE_PROBE, SOURCE_TEST))


def scored(loaded, run, x_test, y_test, source: str | None) -> dict:
    """Accuracy on the target and, for a pretrained network, on the source with its old head and with a new probe."""
    found = {"accuracy": training.evaluate(run.model, x_test, y_test)["accuracy"]}
    return found | (forgetting.source_kept(loaded, *source_scenes(source)) if source else {})


def one_run(method: str, labels: int, steps: int, lr: float, seed: int, source: str | None = "shapes", name: str | None = None,
            threads: int | None = None, **options) -> list[dict]:
    """One run on ten new shapes: a row of method (or `name`), source, labels, steps, rate, seed, accuracy and what was kept."""
    if threads:
        torch.set_num_threads(threads)
    x, y, *test = evaluation.world(shapes.TARGET10)(labels, seed)
    loaded, run = tune(method, x, y, lr=lr, steps=steps, seed=seed, source=source, **options)
    train = float((run.predict(x) == y).float().mean())
    return [{"method": name or method, "source": source or "scratch", "labels": labels, "steps": steps, "rate": lr, "seed": seed,
             "train": train} | scored(loaded, run, *test, source)]


# ---------------------------------------------------------------------------- choosing the rates
CASES = tuple([("shapes", labels, steps) for steps in (LONG, SHORT) for labels in (50, 5)]
              + [("colours", 50, steps) for steps in (LONG, SHORT)])


def tried(source: str, labels: int, steps: int) -> tuple[str, ...]:
    """Which methods are run on a case: all on the near source and many steps, fewer elsewhere."""
    left_out = {"early stopping", "sgd"} if steps == SHORT or source != "shapes" else {"sgd"} if labels == 5 else set()
    return tuple(m for m in METHODS if m not in left_out and not (source != "shapes" and m == "warm-up"))


def optim_rates() -> list:
    """Every method's learning rate, for every source, budget and number of steps: seven runs each, on the development shapes."""
    return [partial(search, method, *case, threads=1) for case in CASES for method in tried(*case)]


def search(method: str, source: str, labels: int, steps: int, rates=None, threads: int | None = None) -> list[dict]:
    """Five rates on one draw of the development shapes, the best two on a second: rows of method, rate, seed, accuracy."""
    if threads:
        torch.set_num_threads(threads)
    rates = rates or (tuple(10 * rate for rate in RATES) if method == "sgd" else RATES)
    rows = []
    for seed in DEV_SEEDS:
        x, y, *test = evaluation.world(shapes.DEV8)(labels, seed)
        for rate in rates:
            _, run = tune(method, x, y, lr=rate, steps=steps, seed=seed, source=source)
            rows.append({"method": method, "source": source, "labels": labels, "steps": steps, "rate": rate, "seed": seed,
                         "accuracy": training.evaluate(run.model, *test)["accuracy"]})
        rates = sorted(rates, key=lambda rate: -next(r["accuracy"] for r in rows if r["rate"] == rate))[:2]
    return rows


def best_rates(frame) -> dict:
    """(method, source, labels, steps) -> the rate with the best mean accuracy among those tried on every draw."""
    found = {}
    for key, runs in frame.groupby(["method", "source", "labels", "steps"], sort=False):
        means = runs.groupby("rate")["accuracy"].agg(["mean", "size"])
        found[key] = float(means[means["size"] == means["size"].max()]["mean"].idxmax())
    return found


# What `optim_rates` says (a test compares).
CHOSEN: dict = {
    ("plain", "shapes", 50, 200): 0.003, ("warm-up", "shapes", 50, 200): 0.003, ("layer-wise", "shapes", 50, 200): 0.003,
    ("gradual", "shapes", 50, 200): 0.01, ("lp-ft", "shapes", 50, 200): 0.001, ("early stopping", "shapes", 50, 200): 0.003,
    ("sgd", "shapes", 50, 200): 0.01,
    ("plain", "shapes", 5, 200): 0.003, ("warm-up", "shapes", 5, 200): 0.003, ("layer-wise", "shapes", 5, 200): 0.001,
    ("gradual", "shapes", 5, 200): 0.001, ("lp-ft", "shapes", 5, 200): 0.0003, ("early stopping", "shapes", 5, 200): 0.001,
    ("plain", "shapes", 50, 40): 0.003, ("warm-up", "shapes", 50, 40): 0.003, ("layer-wise", "shapes", 50, 40): 0.01,
    ("gradual", "shapes", 50, 40): 0.01, ("lp-ft", "shapes", 50, 40): 0.001,
    ("plain", "shapes", 5, 40): 0.003, ("warm-up", "shapes", 5, 40): 0.003, ("layer-wise", "shapes", 5, 40): 0.003,
    ("gradual", "shapes", 5, 40): 0.01, ("lp-ft", "shapes", 5, 40): 0.0003,
    ("plain", "colours", 50, 200): 0.003, ("layer-wise", "colours", 50, 200): 0.03, ("gradual", "colours", 50, 200): 0.03,
    ("lp-ft", "colours", 50, 200): 0.003,
    ("plain", "colours", 50, 40): 0.003, ("layer-wise", "colours", 50, 40): 0.03, ("gradual", "colours", 50, 40): 0.01,
    ("lp-ft", "colours", 50, 40): 0.001,
}


# ---------------------------------------------------------------------------- the grids
def optim_sweep() -> list:
    """Plain fine-tuning over learning rates, at two label budgets: accuracy, and what is left of the source."""
    return [partial(one_run, "plain", labels, LONG, rate, seed, threads=1) for seed in SEEDS for labels in (50, 5) for rate in SWEEP_RATES]


def optim_schedules() -> list:
    """Every method at its own rate: target accuracy and what is left of the source, by source, labels and steps."""
    return [partial(one_run, method, labels, steps, CHOSEN[method, source, labels, steps], seed, source, threads=1)
            for source, labels, steps in CASES for seed in SEEDS for method in tried(source, labels, steps)]


def optim_overfit() -> list:
    """Plain fine-tuning watched on two separate halves of the test scenes, with and without augmentation and decay."""
    return [partial(watched_run, labels, augmented, seed, threads=1)
            for labels, augmented in ((5, False), (50, False), (5, True)) for seed in SEEDS]


def watched_run(labels: int, augmented: bool, seed: int, steps: int = LONG, threads: int | None = None) -> list[dict]:
    """One run looked at 25 times: rows of step, accuracy and loss on one half of the test scenes, the same on the other.

    The halves are there so that the best step can be chosen on one and scored on the other.
    """
    if threads:
        torch.set_num_threads(threads)
    x, y, x_test, y_test = evaluation.world(shapes.TARGET10)(labels, seed)
    half = len(y_test) // 2                       # the classes take turns, so both halves hold all of them

    def look(model):
        mine, other, train = (training.evaluate(model, *pair) for pair in (
            (x_test[:half], y_test[:half]), (x_test[half:], y_test[half:]), (x, y)))
        return {"accuracy": mine["accuracy"], "loss": mine["loss"], "other_accuracy": other["accuracy"],
                "other_loss": other["loss"], "train": train["accuracy"]}
    _, run = tune("plain", x, y, lr=CHOSEN["plain", "shapes", labels, steps], steps=steps, seed=seed, validation=look,
                  evaluate_every=max(steps // 25, 1), **({} if augmented else {"augment": None, "weight_decay": 0.0}))
    method = "augmented" if augmented else "as it is"
    return [{"method": method, "labels": labels, "seed": seed, "step": row["step"]}
            | {key.removeprefix("validation_"): value for key, value in row.items() if key.startswith("validation_")}
            for row in run.history.rows]


PRACTICES = ("augmentation", "weight decay", "lower rate", "gradual unfreezing")


def optim_practices() -> list:
    """Good practices left out one at a time, and all of them, at 5 labels per class.

    All on is gradual unfreezing in `optim_schedules`; without gradual unfreezing it is plain fine-tuning there.
    """
    return _practices(5)


def _practices(labels: int) -> list:
    sets = {**{f"without {name}": (name,) for name in PRACTICES[:-1]}, "all off": PRACTICES}
    return [partial(practice_run, name, left_out, labels, seed, threads=1) for seed in SEEDS for name, left_out in sets.items()]


def practice_run(name: str, left_out: tuple, labels: int, seed: int, threads: int | None = None) -> list[dict]:
    """One run with some of PRACTICES left out. The lower rate is the method's own, the higher one is scratch's."""
    method = "plain" if "gradual unfreezing" in left_out else "gradual"
    rate = SCRATCH_RATE if "lower rate" in left_out else CHOSEN[method, "shapes", labels, LONG]
    return one_run(method, labels, LONG, rate, seed, name=name, threads=threads,
                   augment=None if "augmentation" in left_out else methods.AUGMENT,
                   weight_decay=0.0 if "weight decay" in left_out else SETTING["weight_decay"])


# ---------------------------------------------------------------------------- what the command finds
LAB: dict = {f.__name__: f for f in (optim_rates, optim_sweep, optim_schedules, optim_overfit, optim_practices)}
REAL: dict = {}
_TRAINING = ("shapes", "backbones", "inference", "zoo:Preprocess", "zoo:MINI", "evaluation:world", "augmentation", "batches", "loop",
             "callbacks", "training", "optim", "freezing", "finetune", "methods:AUGMENT")
_SETTINGS = ("tune", "METHODS", "SETTING", "LAYER_DECAY", "SHORT", "LONG")
_RUN = (*_SETTINGS, "SEEDS", "one_run", "scored", "source_scenes", "SOURCE_PROBE", "SOURCE_TEST", "hold_out", "HELD_OUT")
_HERE = {
    "optim_rates": (*_SETTINGS, "search", "tried", "CASES", "RATES", "DEV_SEEDS", "hold_out", "HELD_OUT"),
    "optim_sweep": (*_RUN, "optim_sweep", "SWEEP_RATES"),
    "optim_schedules": (*_RUN, "optim_schedules", "tried", "CASES", "CHOSEN"),
    "optim_overfit": (*_SETTINGS, "optim_overfit", "watched_run", "SEEDS", "CHOSEN"),
    "optim_practices": (*_RUN, "optim_practices", "_practices", "practice_run", "PRACTICES", "SCRATCH_RATE", "CHOSEN"),
}
_MORE = dict.fromkeys(("optim_sweep", "optim_schedules", "optim_practices"), ("forgetting",))
CODE: dict[str, tuple[str, ...]] = {
    name: (*_TRAINING, *_MORE.get(name, ()), *(f"optimisation_experiments:{part}" for part in parts)) for name, parts in _HERE.items()}
_BOTH = ("resnet-mini-shapes", "resnet-mini-colours")
WEIGHTS: dict[str, tuple[str, ...]] = {name: _BOTH if name in ("optim_rates", "optim_schedules") else _BOTH[:1] for name in LAB}
