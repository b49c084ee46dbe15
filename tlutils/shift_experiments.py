"""The stored experiments of `domain_shift`: networks that know ten shapes on clean scenes, and five ways to spoil the scenes.

Every experiment starts from the same source model: resnet-mini, fine-tuned on 50 clean labels per class (or probed on them).
The target is the same ten shapes under a shift: 500 pictures without labels to adapt to, 500 others to be judged on, and a
few with labels. Rates are chosen on the development shapes.
"""
from __future__ import annotations

import copy
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from . import adaptation, augmentation, domains, evaluation, finetune, freezing, methods, shapes, training, zoo
from .processes import one_thread as _one_thread

SEEDS = range(100, 105)
DEV_SHIFTS = ("noise", "sketch", "night")      # rates are chosen under these, each on a draw of its own (seeds 0 to 2)
SOURCE_LABELS = 50                    # clean labels per class of the source model
SOURCE_STEPS = 300
SOURCE_RATE = 3e-3                    # what experiments.chosen says for 50 labels per class, as does the probe's C
SOURCE_C = 1.0
UNLABELLED_SEED = 2_000_000           # no draw comes near another
LABELLED_SEED = 3_000_000
CLEAN_SEED = 4_000_000
POOL = 50                             # unlabelled and test pictures per class
STRENGTH = 0.6
FAR = 0.9                             # where a page looks a second time
STRENGTHS = tuple(round(0.1 * i, 1) for i in range(11))
LABELS = (1, 5, 20)                   # labelled target pictures per class
STEPS = 100                           # of every repair that learns from labels
PARTS = ("stem", "layer1", "layer2", "layer3", "head")
WAYS = (*PARTS, "all", "gradual", "gradual upwards")
WAY_RATES = {way: (3e-3, 1e-2, 3e-2, 1e-1) if way in ("stem", "layer1") else (3e-4, 1e-3, 3e-3, 1e-2) for way in WAYS}
TENT_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
TENT_STEPS = 50
# What `shift_rates` says (a test compares): the rate of each way to learn from five labels per class, and TENT's.
CHOSEN_RATE = {"stem": 1e-2, "layer1": 1e-2, "layer2": 3e-3, "layer3": 1e-3, "head": 3e-3, "all": 1e-3, "gradual": 1e-3,
               "gradual upwards": 3e-3, "tent": 1e-3}


# ---------------------------------------------------------------------------- the source model and the target's pictures
@lru_cache(maxsize=8)
def source_model(seed: int, task: shapes.Task = shapes.TARGET10, how: str = "fine-tuned", augment: str = "colour") -> nn.Module:
    """The classifier of a task's clean scenes that all experiments of a seed share. Work on a copy.

    how: "fine-tuned" (all layers, 300 steps, augmentation as named in AUGMENTATIONS) or "probe" (a frozen backbone).
    Raises ValueError for another.
    """
    if how not in ("fine-tuned", "probe"):
        raise ValueError(f'how: must be "fine-tuned" or "probe", got {how!r}')
    x, y = task.draw(SOURCE_LABELS, seed=seed * 1000 + SOURCE_LABELS)
    if how == "probe":
        return finetune.finetune(zoo.load("resnet-mini", "shapes"), x, y, strategy="probe", C=SOURCE_C, seed=seed).model
    return methods.Train("shapes", SOURCE_RATE, SOURCE_STEPS, augment=AUGMENTATIONS[augment]).run(x, y, seed).model


@lru_cache(maxsize=16)
def target(seed: int, shift: str | None, strength: float, task: shapes.Task = shapes.TARGET10) -> tuple[Tensor, Tensor, Tensor]:
    """A seed's pictures of a shifted domain: 500 without labels, 500 others to be judged on and their labels.

    Raises ValueError for a strength outside [0, 1] or an unknown shift.
    """
    shifted = {"shift_kind": shift, "strength": strength}
    return (task.draw(POOL, seed=UNLABELLED_SEED + seed, **shifted)[0],
            *task.draw(POOL, seed=evaluation.TEST_SEED + seed, **shifted))


def few_labels(seed: int, shift: str | None, strength: float, labels: int, task: shapes.Task = shapes.TARGET10) -> tuple[Tensor, Tensor]:
    """A few labelled pictures per class of the shifted domain: (x, y). Raises as `target` does."""
    return task.draw(labels, seed=LABELLED_SEED + seed * 1000 + labels, shift_kind=shift, strength=strength)


def score(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of right answers."""
    return training.evaluate(model, x, y)["accuracy"]


# ---------------------------------------------------------------------------- repairs that learn from a few labels
def adapt(model: nn.Module, x: Tensor, y: Tensor, way: str, *, lr: float, steps: int = STEPS, seed: int = 0) -> nn.Module:
    """A copy of a `finetune.Classifier` that has learned on from x and y; `way` says which parts learn.

    One of the backbone's stages or "head": that part alone (surgical fine-tuning, Lee et al. 2023), the others frozen with
    their batch-norm statistics. "all": everything from the first step. "gradual": the head first, then one stage more at
    equal distances, from the last to the first (Howard & Ruder 2018). "gradual upwards": the first stage first, the head last.
    Raises ValueError for another way.
    """
    model = copy.deepcopy(model)
    parts = dict(model.backbone.stages.named_children()) | {"head": model.head}
    if way not in (*parts, "all", "gradual", "gradual upwards"):
        raise ValueError(f"way: must be one of {', '.join(parts)}, all, gradual or gradual upwards; got {way!r}")
    finetune.check_labelled(x, y)
    freezing.unfreeze(model)
    callbacks = []
    if way in parts:
        for name in parts.keys() - {way}:
            freezing.freeze(parts[name])
    elif way != "all":
        order = list(parts.values()) if way == "gradual upwards" else list(reversed(parts.values()))
        for part in order[1:]:
            freezing.freeze(part)
        every = max(1, steps // len(order))
        callbacks = [training.Unfreeze({every * (i + 1): [part] for i, part in enumerate(order[1:])})]
    training.fit(model, (x, y), steps=steps, lr=lr, weight_decay=0.05, batch_size=64, warmup=steps // 10, augment=methods.AUGMENT,
                 callbacks=callbacks, seed=seed)
    freezing.unfreeze(model)
    return model.eval()


def shift_rates() -> list:
    """Learning rates of every way to learn from five labels per class, and of TENT, on the development shapes under three shifts."""
    return [partial(rate_run, way, shift, seed, threads=1) for seed, shift in enumerate(DEV_SHIFTS) for way in (*WAYS, "tent")]


def rate_run(way: str, shift: str, seed: int, threads: int | None = None) -> list[dict]:
    """All rates of one way under one shift at strength 0.6: rows of method, way, shift, seed, rate, accuracy."""
    _one_thread(threads)
    task, rows = shapes.DEV8, []
    model = source_model(seed, task)
    unlabelled, x, y = target(seed, shift, STRENGTH, task)
    for rate in TENT_RATES if way == "tent" else WAY_RATES[way]:
        if way == "tent":
            adapted = adaptation.tent(model, unlabelled, lr=rate, steps=TENT_STEPS, seed=seed)
        else:
            adapted = adapt(model, *few_labels(seed, shift, STRENGTH, 5, task), way, lr=rate, seed=seed)
        rows.append({"method": f"{way}, {rate:g}", "way": way, "shift": shift, "seed": seed, "rate": rate, "accuracy": score(adapted, x, y)})
    return rows


def shift_repairs() -> list:
    """Each repair under each shift: nothing, AdaBN, TENT, and a few labels (plain, gradual, with AdaBN after it)."""
    return [partial(repair_run, shift, STRENGTH, seed, threads=1) for seed in SEEDS for shift in shapes.SHIFTS]


def repair_run(shift: str, strength: float, seed: int, budgets=LABELS, threads: int | None = None) -> list[dict]:
    """Every repair on one draw: rows of method, shift, strength, labels (per class; 0: none), seed, accuracy.

    budgets: labels per class of the target; gradual unfreezing is run at 5. The rows at no labels come
    first. "clean" is the source model on the same scenes without the shift.
    """
    _one_thread(threads)
    model = source_model(seed)
    unlabelled, x, y = target(seed, shift, strength)
    tent = adaptation.tent(model, unlabelled, lr=CHOSEN_RATE["tent"], steps=TENT_STEPS, seed=seed)
    found = [("clean", 0, score(model, *target(seed, None, 0.0)[1:])), ("nothing", 0, score(model, x, y)),
             ("AdaBN", 0, score(adaptation.adabn(model, unlabelled), x, y)), ("TENT", 0, score(tent, x, y))]
    for labels in budgets:
        pair = few_labels(seed, shift, strength, labels)
        for way in ("all", "gradual") if labels == 5 else ("all",):
            tuned = adapt(model, *pair, way, lr=CHOSEN_RATE[way], seed=seed)
            found += [(way, labels, score(tuned, x, y)), (f"{way} + AdaBN", labels, score(adaptation.adabn(tuned, unlabelled), x, y))]
    return [{"method": method, "shift": shift, "strength": strength, "labels": labels, "seed": seed, "accuracy": accuracy}
            for method, labels, accuracy in found]


def shift_layers() -> list:
    """Which part to tune for which shift, with five labels per class: each part alone (all of them: in shift_repairs)."""
    return [partial(layer_run, shift, seed, threads=1) for seed in SEEDS for shift in shapes.SHIFTS]


def layer_run(shift: str, seed: int, ways=PARTS, labels: int = 5, threads: int | None = None) -> list[dict]:
    """Every way on one draw at strength 0.6: rows of method (the way), shift, labels, seed, accuracy."""
    _one_thread(threads)
    _, x, y = target(seed, shift, STRENGTH)
    model, pair = source_model(seed), few_labels(seed, shift, STRENGTH, labels)
    return [{"method": way, "shift": shift, "labels": labels, "seed": seed,
             "accuracy": score(adapt(model, *pair, way, lr=CHOSEN_RATE[way], seed=seed), x, y)} for way in ways]


# ---------------------------------------------------------------------------- augmentation that covers the shift, and that does not
def random_blur(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures blurred, all of a batch by one random width up to the dial's 0.8."""
    strength = 0.05 + 0.75 * float(torch.rand(1, generator=generator))
    return torch.where(_half(images, generator), shapes.shift(images, "blur", strength), images)


def random_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures with Gaussian grain, each of its own strength up to 0.25."""
    sigma = 0.25 * torch.rand(len(images), 1, 1, 1, generator=generator)
    noisy = (images + (sigma * torch.randn(images.shape, generator=generator)).to(images.device)).clamp(0, 1)
    return torch.where(_half(images, generator), noisy, images)


def random_grey(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures in shades of grey, half of those in negative."""
    grey = images.mean(1, keepdim=True).expand_as(images)
    grey = torch.where(_half(images, generator), 1 - grey, grey)
    return torch.where(_half(images, generator), grey, images)


def _half(images: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5).to(images.device)


AUGMENTATIONS = {"none": augmentation.affine(), "colour": methods.AUGMENT,
                 "blur": augmentation.compose(augmentation.affine(), random_blur),
                 "noise": augmentation.compose(augmentation.affine(), random_noise),
                 "grey": augmentation.compose(augmentation.affine(), random_grey),
                 "all four": augmentation.compose(methods.AUGMENT, random_grey, random_blur, random_noise)}


def shift_augmentation() -> list:
    """The source trained with one augmentation more than rotation, scale and position, and judged under every shift."""
    return [partial(augmentation_run, augment, seed, threads=1) for seed in SEEDS for augment in AUGMENTATIONS]


def augmentation_run(augment: str, seed: int, strengths=(0.0, STRENGTH), threads: int | None = None) -> list[dict]:
    """One source model under every shift, as it is and after AdaBN: rows of method (the augmentation), adabn, shift, strength, seed, accuracy."""
    _one_thread(threads)
    model, rows = source_model(seed, augment=augment), []
    for strength in strengths:
        for shift in shapes.SHIFTS if strength else ("clean",):
            unlabelled, x, y = target(seed, shift if strength else None, strength)
            for after, judged in ((False, model), (True, adaptation.adabn(model, unlabelled))):
                rows.append({"method": augment, "adabn": after, "shift": shift, "strength": strength, "labels": 0, "seed": seed,
                             "accuracy": score(judged, x, y)})
    return rows


# ---------------------------------------------------------------------------- the dial, and what can be read off without labels
def shift_dial() -> list:
    """Accuracy against the dial for a fine-tuned and a probed network, with every estimate that needs no label."""
    return [partial(dial_run, how, seed, threads=1) for how in ("fine-tuned", "probe") for seed in SEEDS]


def dial_run(how: str, seed: int, kinds=shapes.SHIFTS, strengths=STRENGTHS, signals: bool = True, threads: int | None = None) -> list[dict]:
    """One model along every dial: rows of method, shift, strength, labels (0), seed, accuracy, and the signals.

    The signals: `average`, `difference`, `threshold` (estimates of the accuracy, `domains.estimate_accuracy`), `distance`
    (proxy A-distance) and `mmd` of the features, against 500 clean pictures that the model has not seen.
    """
    _one_thread(threads)
    model = source_model(seed, how=how)
    clean, labels = shapes.TARGET10.draw(POOL, seed=CLEAN_SEED + seed)
    clean_logits, clean_features = training.predict(model, clean), _features(model, clean)
    rows = []
    for shift in kinds:
        for strength in strengths:
            _, x, y = target(seed, shift, strength)
            logits = training.predict(model, x)
            row = {"method": how, "shift": shift, "strength": strength, "labels": 0, "seed": seed,
                   "accuracy": float((logits.argmax(1) == y).double().mean())}
            if signals:
                features = _features(model, x)
                row |= {name: domains.estimate_accuracy(clean_logits, labels, logits, method=name) for name in domains.ESTIMATES}
                row |= {"distance": domains.proxy_a_distance(clean_features, features, folds=2),
                        "mmd": domains.mmd(clean_features, features, permutations=1).value}
            rows.append(row)
    return rows


def _features(model: nn.Module, x: Tensor) -> Tensor:
    return training.predict(nn.Sequential(_Prepare(model), model.backbone), x)


class _Prepare(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.preprocess = model.preprocess

    def forward(self, x: Tensor) -> Tensor:
        return self.preprocess(x)


SIZES = (10, 30, 100)                 # unlabelled pictures of the new domain
REFERENCE = 300                       # clean pictures that a test compares them with
REPEATS = 10
LEVEL = 0.05
DETECTED = (0.1, 0.3)
DETECTED_SHIFTS = (None, "blur", "noise", "night")      # None: no shift, so that every alarm is false


def shift_detection() -> list:
    """How often three tests raise the alarm, by shift, strength and number of unlabelled pictures; without a shift: false alarms."""
    return [partial(detection_run, seed, threads=1) for seed in SEEDS]


def detection_run(seed: int, kinds=DETECTED_SHIFTS, strengths=DETECTED, sizes=SIZES, repeats: int = REPEATS,
                  threads: int | None = None) -> list[dict]:
    """Shares of alarms at level 0.05: rows of method, shift ("none": no shift), strength, pictures, seed, value, repeats.

    Each repeat draws 300 clean pictures and the new ones from large pools. "domain classifier" and "MMD" see the features of
    the fine-tuned network, "confidence" the largest probability.
    """
    _one_thread(threads)
    model = source_model(seed)
    clean = _seen(model, shapes.TARGET10.draw(100, seed=CLEAN_SEED + seed)[0])
    rows = []
    for kind in kinds:
        for strength in strengths if kind else (0.0,):
            new = _seen(model, shapes.TARGET10.draw(POOL, seed=UNLABELLED_SEED + seed, shift_kind=kind, strength=strength)[0])
            for size in sizes:
                rng = np.random.default_rng([seed, size])
                alarms = np.zeros(3)
                for repeat in range(repeats):
                    a, b = (tuple(part[index] for part in pool) for pool, index in (
                        (clean, rng.permutation(len(clean[0]))[:REFERENCE]), (new, rng.permutation(len(new[0]))[:size])))
                    alarms += np.array([domains.domain_classifier(a[0], b[0], folds=2, seed=repeat).p_value,
                                        domains.mmd(a[0], b[0], permutations=99, seed=repeat).p_value,
                                        domains.confidence_test(a[1], b[1])]) <= LEVEL
                rows += [{"method": name, "shift": kind or "none", "strength": strength, "pictures": size, "seed": seed,
                          "value": share / repeats, "repeats": repeats}
                         for name, share in zip(("domain classifier", "MMD", "confidence"), alarms)]
    return rows


def _seen(model: nn.Module, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return _features(model, x).numpy(), training.predict(model, x).numpy()


# ---------------------------------------------------------------------------- where a repair hurts
FEW = (2, 8, 32, 500)                 # unlabelled pictures that AdaBN gets
MIXES = (10, 2, 1)                    # classes among the pictures that arrive
HOT = (1e-3, 1e-2, 1e-1)              # TENT's rates, up to the harmful
HARM_SHIFTS = (None,)
SOURCE_COUNT = 16                     # the source's statistics count as so many pictures where they are mixed in


def shift_harm() -> list:
    """AdaBN with very few pictures or few classes, TENT with a high rate: where a repair does damage."""
    return [partial(harm_run, shift, seed, threads=1) for shift in HARM_SHIFTS for seed in SEEDS]


def harm_run(shift: str | None, seed: int, few=FEW, mixes=MIXES, hot=HOT, threads: int | None = None) -> list[dict]:
    """Repairs under hard conditions at strength 0.6: rows of method, condition, level, shift, seed, accuracy, largest.

    condition "pictures": AdaBN sees `level` pictures, alone or mixed with the source's statistics. "classes": the pictures that
    arrive, seen and judged, come from `level` classes only. "rate": TENT at that rate. largest: the share of the most frequent
    answer.
    """
    _one_thread(threads)
    model = source_model(seed)
    unlabelled, x, y = target(seed, shift, STRENGTH if shift else 0.0)
    order = torch.randperm(len(unlabelled), generator=torch.Generator().manual_seed(seed))
    found = []

    def judge(method, condition, level, judged, x=x, y=y):
        predicted = training.predict(judged, x).argmax(1)
        found.append({"method": method, "condition": condition, "level": level, "shift": shift or "none", "seed": seed, "labels": 0,
                      "accuracy": float((predicted == y).double().mean()),
                      "largest": float(predicted.bincount().max() / len(predicted))})

    for n in few:
        seen = unlabelled[order[:n]]
        judge("nothing", "pictures", n, model)
        judge("AdaBN", "pictures", n, adaptation.adabn(model, seen))
        judge("AdaBN, mixed", "pictures", n, adaptation.adabn(model, seen, source_weight=SOURCE_COUNT / (SOURCE_COUNT + n)))
    pool_labels = torch.arange(10).repeat(POOL)
    start = seed % 10
    for classes in mixes:
        kept = torch.tensor([(start + i) % 10 for i in range(classes)])
        here, there = torch.isin(pool_labels, kept), torch.isin(y, kept)
        judge("nothing", "classes", classes, model, x[there], y[there])
        judge("AdaBN", "classes", classes, adaptation.adabn(model, unlabelled[here]), x[there], y[there])
        judge("TENT", "classes", classes, adaptation.tent(model, unlabelled[here], lr=CHOSEN_RATE["tent"], steps=TENT_STEPS, seed=seed),
              x[there], y[there])
    for rate in hot:
        judge("TENT", "rate", rate, adaptation.tent(model, unlabelled, lr=rate, steps=TENT_STEPS, seed=seed))
    return found


# ---------------------------------------------------------------------------- what the command finds
LAB: dict = {f.__name__: f for f in (shift_rates, shift_repairs, shift_layers, shift_augmentation, shift_dial, shift_detection, shift_harm)}
REAL: dict = {}
_BELOW = ("shapes", "augmentation", "backbones", "batches", "loop", "inference", "training", "optim", "freezing", "finetune", "methods",
          "zoo:Preprocess", "zoo:MINI", "evaluation:TEST_SEED", "adaptation:adabn", "adaptation:tent", "adaptation:_Meter",
          "adaptation:entropy", "adaptation:batch_norms")
_SOURCE = ("source_model", "target", "score", "SOURCE_LABELS", "SOURCE_STEPS", "SOURCE_RATE", "SOURCE_C", "UNLABELLED_SEED", "POOL",
           "AUGMENTATIONS", "STRENGTH", "FAR")
_ADAPT = ("adapt", "few_labels", "LABELLED_SEED", "STEPS")
_CHOSEN = ("CHOSEN_RATE", "SEEDS", "TENT_STEPS")
_HERE = {
    "shift_rates": (*_ADAPT, "shift_rates", "DEV_SHIFTS", "rate_run", "PARTS", "WAYS", "WAY_RATES", "TENT_RATES", "TENT_STEPS"),
    "shift_repairs": (*_ADAPT, *_CHOSEN, "shift_repairs", "repair_run", "LABELS"),
    "shift_layers": (*_ADAPT, *_CHOSEN, "shift_layers", "layer_run", "PARTS", "WAYS"),
    "shift_augmentation": ("SEEDS", "shift_augmentation", "augmentation_run", "random_blur", "random_noise", "random_grey", "_half"),
    "shift_dial": ("SEEDS", "shift_dial", "dial_run", "STRENGTHS", "CLEAN_SEED", "_features", "_Prepare"),
    "shift_detection": ("SEEDS", "shift_detection", "detection_run", "SIZES", "REFERENCE", "REPEATS", "LEVEL", "DETECTED", "DETECTED_SHIFTS",
                        "CLEAN_SEED", "_seen", "_features", "_Prepare"),
    "shift_harm": (*_CHOSEN, "shift_harm", "harm_run", "FEW", "MIXES", "HOT", "HARM_SHIFTS", "SOURCE_COUNT"),
}
_MORE = {"shift_dial": ("domains",), "shift_detection": ("domains",)}
CODE: dict[str, tuple[str, ...]] = {name: (*_BELOW, *_MORE.get(name, ()), *(f"shift_experiments:{part}" for part in (*_SOURCE, *parts)))
                                    for name, parts in _HERE.items()}
WEIGHTS: dict[str, tuple[str, ...]] = {name: ("resnet-mini-shapes",) for name in LAB}


def provenance(name: str, rows: list[dict]) -> dict:
    """What stands behind a real experiment of this module: there is none."""
    raise ValueError(f"name: {name!r} is no real experiment of the shift lesson")
