"""The stored experiments of `choosing_a_base_model`: ten pretrained networks on six tasks, fine-tuned, probed and scored.

Lab: learning rates of each family, the truth (every network fine-tuned and probed on every task), the scores that are to
predict it, and three versions of `recommend`. Rates were chosen on the development tasks. The first version of `recommend` is judged
on TASKS, which suggested the second; HELD_OUT judged that one, and both suggested the third; JUDGED judges it.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from . import augmentation, datasets, domains, evaluation, finetune, real_experiments, shapes, training, transferability, zoo
from .image_experiments import TRAINING
from .methods import Pixels, Probe, Train
from .metrics import correct
from .processes import one_thread as _one_thread
from .recommend import Advice, recommend

SEEDS = range(100, 105)
TUNED_SEEDS = SEEDS                    # of the fine-tuned
BUDGETS = (50, 5)                     # labels per class
STEPS = 100                           # of fine-tuning
SCRATCH_STEPS = {5: 200, 50: 300}
TEST_PER_CLASS = 60
BASES = (*(f"resnet-mini-{variant}" for variant in ("shapes", "colours", "bits1", "bits2", "bits3", "half", "noise")),
         "vgg-mini-shapes", "inception-mini-shapes", "efficientnet-mini-shapes")
FAMILIES = ("resnet-mini", "vgg-mini", "inception-mini", "efficientnet-mini")
AUGMENT = augmentation.affine()       # no change of colour: it is what some of the tasks ask for


@dataclass(frozen=True)
class Textures(shapes.Task):
    """Name the texture (solid, striped, chequered, dotted), whatever the shape and the colour."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The four textures."""
        return shapes.TEXTURES

    def scenes(self, labels: Tensor, *, generator: torch.Generator) -> shapes.Scenes:
        """Scenes of the given textures; labels: (N,) int64, 0 to 3."""
        shape = torch.tensor([shapes.SHAPES.index(name) for name in self.shapes])
        found = shapes.sample(shape[torch.randint(0, len(shape), labels.shape, generator=generator)],
                              torch.randint(0, len(shapes.COLOURS), labels.shape, generator=generator), generator=generator)
        found.texture = labels
        return found


@dataclass(frozen=True)
class Backgrounds(shapes.Task):
    """Name the quarter of the palette that the background's colour is from, whatever lies on it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The four quarters of COLOURS."""
        return tuple("/".join(shapes.COLOURS[i:i + 4]) for i in range(0, 16, 4))

    def scenes(self, labels: Tensor, *, generator: torch.Generator) -> shapes.Scenes:
        """Scenes on backgrounds of the given quarters; labels: (N,) int64, 0 to 3."""
        shape = torch.tensor([shapes.SHAPES.index(name) for name in self.shapes])
        found = shapes.sample(shape[torch.randint(0, len(shape), labels.shape, generator=generator)],
                              torch.randint(0, len(shapes.COLOURS), labels.shape, generator=generator), generator=generator)
        found.background = 4 * labels + torch.randint(0, 4, labels.shape, generator=generator)
        return found


def _world(task: shapes.Task, **shift) -> Callable:
    return evaluation.world(task, test_per_class=TEST_PER_CLASS, **shift)


def _digits(labels: int, seed: int):
    return evaluation.pool(datasets.digits())(labels, seed)


def _named(kind: str, members: tuple[str, ...], *, shape_groups: int = 1, colour_groups: int = 1) -> shapes.Task:
    return shapes.Task(kind, members, shape_groups, colour_groups)


# Held out from the rates and the first `recommend`; they suggested the second.
TASKS: dict[str, Callable] = {
    "new shapes": _world(shapes.TARGET10),
    "sketches": _world(shapes.TARGET10, shift_kind="sketch", strength=0.8),
    "colours": _world(_named("16 colours", shapes.TARGET_SHAPES, colour_groups=16)),
    "shape and colour": _world(_named("5 pairs of shapes x 2 halves of the colours", shapes.TARGET_SHAPES, shape_groups=5, colour_groups=2)),
    "textures": _world(Textures("4 textures", shapes.TARGET_SHAPES, 1)),
    "digits": _digits,
}
# For choosing rates and for making `recommend`: other shapes, other seeds, other questions.
DEV_TASKS: dict[str, Callable] = {
    "dev shapes": _world(shapes.DEV8),
    "dev blurred": _world(shapes.DEV8, shift_kind="blur", strength=0.6),
    "dev colours": _world(_named("4 groups of colours", shapes.DEV_SHAPES, colour_groups=4)),
}
# New to the second version of `recommend`, which the six tasks above suggested: fixed before any of these was run.
HELD_OUT: dict[str, Callable] = {
    "at night": _world(shapes.TARGET10, shift_kind="night", strength=0.6),
    "pairs of shapes": _world(_named("5 pairs of shapes", shapes.TARGET_SHAPES, shape_groups=5)),
    "halves and quarters": _world(_named("2 halves of the shapes x 4 quarters of the colours", shapes.TARGET_SHAPES,
                                         shape_groups=2, colour_groups=4)),
    "noisy textures": _world(Textures("4 textures", shapes.TARGET_SHAPES, 1), shift_kind="noise", strength=0.6),
    "digits again": _digits,
}
HELD_SEEDS = {50: range(200, 201), 5: range(200, 202)}
# New to the third version, which TASKS and HELD_OUT suggested: fixed, and committed, before any of these was run.
JUDGED_TEST_PER_CLASS = 150
JUDGED: dict[str, Callable] = {
    "underwater": evaluation.world(shapes.TARGET10, test_per_class=JUDGED_TEST_PER_CLASS, shift_kind="underwater", strength=0.6),
    "blurred": evaluation.world(shapes.TARGET10, test_per_class=JUDGED_TEST_PER_CLASS, shift_kind="blur", strength=0.5),
    "pairs of colours": evaluation.world(_named("8 pairs of colours", shapes.TARGET_SHAPES, colour_groups=8),
                                         test_per_class=JUDGED_TEST_PER_CLASS),
    "halves of both": evaluation.world(_named("2 halves of the shapes x 2 halves of the colours", shapes.TARGET_SHAPES, shape_groups=2,
                                              colour_groups=2), test_per_class=JUDGED_TEST_PER_CLASS),
    "pairs in sketches": evaluation.world(_named("5 pairs of shapes", shapes.TARGET_SHAPES, shape_groups=5),
                                          test_per_class=JUDGED_TEST_PER_CLASS, shift_kind="sketch", strength=0.5),
    "backgrounds": evaluation.world(Backgrounds("4 quarters of the backgrounds", shapes.TARGET_SHAPES, 1), test_per_class=JUDGED_TEST_PER_CLASS),
    "digits, third time": _digits,
}
JUDGED_SEEDS = {50: range(300, 301), 5: range(300, 302)}
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
HIGHER = 3e-2                         # tried with 50 labels per class, where the best of RATES was the last
RATE_TASKS = ("dev shapes", "dev colours")


def load(base: str, seed: int = 0):
    """A network of BASES by the name of its weights; "resnet-mini-random" for one that was never trained."""
    model, variant = base.rsplit("-", 1)
    return zoo.load(model, None if variant == "random" else variant, seed=seed)


def penalty(labels: int) -> float:
    """C of every probe for so many labels per class: what `rates` found on the development shapes."""
    return 0.1 if labels <= 10 else 1.0


# What `choose_rates` says (a test compares): the fine-tuning rate of each family with 5 and with 50 labels per class.
CHOSEN_RATES = {"resnet-mini": (0.001, 0.01), "vgg-mini": (0.003, 0.01), "inception-mini": (0.003, 0.03), "efficientnet-mini": (0.003, 0.03)}
SCRATCH_RATE = 0.03                   # `rates`: the best for both budgets


def rate(base: str, labels: int) -> float:
    """The fine-tuning rate of a base model's family, for few (up to 10) or more labels per class."""
    return CHOSEN_RATES[base.rsplit("-", 1)[0]][0 if labels <= 10 else 1]


# ---------------------------------------------------------------------------- the grids
def choose_rates() -> list:
    """Fine-tuning rates of the four families, tried on two development tasks."""
    jobs = [partial(rate_run, model, labels, task, threads=1) for labels in BUDGETS for model in FAMILIES for task in RATE_TASKS]
    return jobs + [partial(rate_run, model, BUDGETS[0], task, rates=(HIGHER,), threads=1) for model in FAMILIES for task in RATE_TASKS]


def rate_run(model: str, labels: int, task: str, seed: int = 0, rates=RATES, threads: int | None = None) -> list[dict]:
    """One family fine-tuned at every rate on one draw: rows of method (the rate), model, task, labels, seed, accuracy."""
    _one_thread(threads)
    x, y, x_test, y_test = DEV_TASKS[task](labels, seed)
    rows = []
    for one in rates:
        found = tuned(f"{model}-shapes", one)(x, y, x_test, seed)
        rows.append({"method": f"{one:g}", "model": model, "task": task, "labels": labels, "seed": seed,
                     "accuracy": float(correct(found, y_test).mean())})
    return rows


def tuned(base: str, lr: float) -> Train:
    """Fine-tuning of all layers from a base model."""
    model, variant = base.rsplit("-", 1)
    return Train(variant, lr, STEPS, model=model, augment=AUGMENT)


def choose_truth() -> list:
    """Ten base models fine-tuned and probed on six held-out tasks, 50 labels per class, beside scratch, a random network and pixels."""
    return [partial(truth_run, task, BUDGETS[0], seed, threads=1) for seed in TUNED_SEEDS for task in TASKS]


def choose_few() -> list:
    """Probes of the ten base models with 5 labels per class on the six tasks, beside a random network and pixels."""
    return [partial(few_run, task, seed, threads=1) for seed in SEEDS for task in TASKS]


def few_run(task: str, seed: int, labels: int = 5, bases=BASES, threads: int | None = None) -> list[dict]:
    """Every base model probed on one draw: rows as of `truth_run`, with the strategies "probe" and "pixels"."""
    _one_thread(threads)
    draw = (TASKS | DEV_TASKS)[task](labels, seed)
    rows = []
    for base in (*bases, "resnet-mini-random", "pixels"):
        name, variant = base.rsplit("-", 1) if "-" in base else (base, "")
        method = Pixels(10.0) if base == "pixels" else Probe(None if variant == "random" else variant, model=name, C=penalty(labels))
        strategy = "pixels" if base == "pixels" else "probe"
        rows.append({"method": "pixels" if base == "pixels" else f"probe {base}", "strategy": strategy, "base": "" if base == "pixels" else base,
                     "task": task, "labels": labels, "seed": seed} | _judged(method, *draw, seed))
    return rows


def truth_run(task: str, labels: int, seed: int, bases=BASES, threads: int | None = None) -> list[dict]:
    """Every base model, fine-tuned and probed, on one draw: rows of method, strategy, base, task, labels, seed, accuracy, seconds.

    seconds: processor time of learning and predicting. Trained networks have their accuracy on what they learned from.
    """
    _one_thread(threads)
    draw = (TASKS | DEV_TASKS)[task](labels, seed)
    options = {("fine-tune", base): tuned(base, rate(base, labels)) for base in bases}
    model = {base: base.rsplit("-", 1) for base in bases}
    options |= {("probe", base): Probe(variant, model=name, C=penalty(labels)) for base, (name, variant) in model.items()}
    if bases is BASES:
        options[("scratch", "resnet-mini")] = Train(None, SCRATCH_RATE, SCRATCH_STEPS[labels], augment=AUGMENT)
        options[("probe", "resnet-mini-random")] = Probe(None, C=penalty(labels))
        options[("pixels", "")] = Pixels(10.0)
    return [{"method": f"{strategy} {base}".strip(), "strategy": strategy, "base": base, "task": task, "labels": labels, "seed": seed}
            | _judged(method, *draw, seed) for (strategy, base), method in options.items()]


def _judged(method, x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, seed: int) -> dict:
    started = time.process_time()
    if not isinstance(method, Train):
        found, learned = method(x, y, x_test, seed), None
        seconds = time.process_time() - started
    else:
        run = method.run(x, y, seed)
        found = run.predict(x_test).numpy()
        seconds = time.process_time() - started
        learned = float(correct(run.predict(x).numpy(), np.asarray(y)).mean())
    return {"accuracy": float(correct(found, np.asarray(y_test)).mean()), "seconds": seconds, "learned": learned}


def choose_held_out() -> list:
    """The truth on five tasks that nobody had looked at: as `choose_truth` with 50 labels per class, as `choose_few` with 5."""
    return [partial(held_out_run, task, labels, seed, threads=1) for labels in BUDGETS for task in HELD_OUT for seed in HELD_SEEDS[labels]]


def held_out_run(task: str, labels: int, seed: int, bases=BASES, threads: int | None = None) -> list[dict]:
    """Every base model on one draw of HELD_OUT or JUDGED: rows as of `truth_run`; with few labels (up to 10) nothing is trained in full."""
    _one_thread(threads)
    draw = (HELD_OUT | JUDGED)[task](labels, seed)
    options = {("pixels", ""): Pixels(10.0)}
    for base in (*bases, "resnet-mini-random"):
        name, variant = base.rsplit("-", 1)
        options["probe", base] = Probe(None if variant == "random" else variant, model=name, C=penalty(labels))
        if labels > 10 and variant != "random":
            options["fine-tune", base] = tuned(base, rate(base, labels))
    if labels > 10:
        options["scratch", "resnet-mini"] = Train(None, SCRATCH_RATE, SCRATCH_STEPS[labels], augment=AUGMENT)
    return [{"method": f"{strategy} {base}".strip(), "strategy": strategy, "base": base, "task": task, "labels": labels, "seed": seed}
            | _judged(method, *draw, seed) for (strategy, base), method in options.items()]


def choose_judged() -> list:
    """The truth on seven tasks that came after the third version of `recommend`: as `choose_held_out`, with larger test sets."""
    return [partial(held_out_run, task, labels, seed, threads=1) for labels in BUDGETS for task in JUDGED for seed in JUDGED_SEEDS[labels]]


def choose_scores() -> list:
    """Every transferability score of ten base models on six held-out tasks, with its cost in processor time."""
    return [partial(score_run, task, labels, seed, threads=1) for seed in SEEDS for labels in BUDGETS for task in TASKS]


def score_run(task: str, labels: int, seed: int, bases=BASES, threads: int | None = None) -> list[dict]:
    """All scores of every base model on one draw: one row each, with a column for each score and one for its seconds.

    "s features" is the one pass through the network that every score but the card's needs. value: the cross-validated probe.
    """
    _one_thread(threads)
    x, y, *_ = (TASKS | DEV_TASKS)[task](labels, seed)
    scenes = shapes.SHAPES16.draw(-(-len(x) // 16), seed=seed)[0][:len(x)]        # what all ten sources have seen
    rows = []
    for base in bases:
        loaded = load(base)
        (features,), seconds = _timed(lambda net: [training.predict(finetune.Features(net), x)], loaded)
        seen = training.predict(finetune.Features(loaded), scenes)
        found = transferability.of_features(features, y, C=penalty(labels))
        with torch.no_grad():
            found |= transferability.of_answers(loaded.head[-1](features), y)
        distance, took = _timed(lambda a, b: domains.proxy_a_distance(a, b, folds=2, seed=seed), seen, features)
        found |= {"A-distance": (-distance, took), "source accuracy": (transferability.source_accuracy(loaded), 0.0),
                  "size": (transferability.parameters(loaded), 0.0)}
        rows.append({"method": base, "task": task, "labels": labels, "seed": seed, "value": found["cross-validated probe"][0],
                     "s features": _short(seconds)} | {name: _short(value) for name, (value, _) in found.items()}
                    | {f"s {name}": _short(spent) for name, (_, spent) in found.items()})
    return rows


def _timed(score: Callable, *arguments):
    started = time.process_time()
    value = score(*arguments)
    return value, time.process_time() - started


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def choose_advice() -> list:
    """What the first version of `recommend` said on the six tasks, and how long it takes to say it."""
    return [partial(advice_run, task, labels, seed, threads=1)
            for labels, seeds in zip(BUDGETS, (TUNED_SEEDS, SEEDS), strict=True) for seed in seeds for task in TASKS]


def advice_run(task: str, labels: int, seed: int, threads: int | None = None) -> list[dict]:
    """One call of the first `recommend` on the training part of a draw: a row of method (of `truth_run`), sure, rivals, value (seconds)."""
    _one_thread(threads)
    x, y, *_ = (TASKS | DEV_TASKS)[task](labels, seed)
    said = recommend(x, y, by="probe")
    return [{"method": option(said), "task": task, "labels": labels, "seed": seed, "sure": said.sure, "rivals": len(said.rivals),
             "value": said.seconds}]


def choose_held_out_advice() -> list:
    """What the second version of `recommend` said on the tasks of `choose_held_out`."""
    return [partial(held_out_advice, task, labels, seed, threads=1) for labels in BUDGETS for task in HELD_OUT for seed in HELD_SEEDS[labels]]


def held_out_advice(task: str, labels: int, seed: int, by: str | None = "score", threads: int | None = None) -> list[dict]:
    """One call of a version of `recommend` on a draw of HELD_OUT or JUDGED: a row as of `advice_run`."""
    _one_thread(threads)
    x, y, *_ = (HELD_OUT | JUDGED)[task](labels, seed)
    said = recommend(x, y, by=by)
    return [{"method": option(said), "task": task, "labels": labels, "seed": seed, "sure": said.sure, "rivals": len(said.rivals),
             "value": said.seconds}]


VERSIONS = {"second": "score", "third": None}


def choose_judged_advice() -> list:
    """What the second and the third version of `recommend` say on the tasks of `choose_judged`."""
    return [partial(judged_advice, task, labels, seed, threads=1)
            for labels in BUDGETS for task in JUDGED for seed in JUDGED_SEEDS[labels]]


def judged_advice(task: str, labels: int, seed: int, threads: int | None = None) -> list[dict]:
    """Both versions on one draw: rows as of `advice_run`, with the version."""
    return [{"version": version} | row for version, by in VERSIONS.items() for row in held_out_advice(task, labels, seed, by, threads)]


def option(said: Advice) -> str:
    """An advice under the name that `truth_run` gives to what it recommends."""
    return {"pixels": "pixels", "scratch": "scratch resnet-mini"}.get(said.strategy, f"{said.strategy} {said.base}")


# ---------------------------------------------------------------------------- photographs
def choosing_photographs() -> list[dict]:
    """What `recommend` says of six sets of real pictures, beside all that it could have said: five networks, frozen, and pixels."""
    rows = []
    for target, name in real_experiments.TARGETS.items():
        domain = target.removeprefix("PACS ") if name == "pacs" else None
        dataset = real_experiments.thinned(datasets.load(name, size=real_experiments.SIZE, domain=domain) if domain else
                                           real_experiments._load(name))
        probes, pictures = real_experiments.probes(dataset), real_experiments.small(dataset)
        for labels, seed in product((5, 20), real_experiments.DRAWS):
            index, y, *_ = evaluation.pool(real_experiments.by_index(dataset))(labels, seed)
            rows += [row | {"target": target, "labels": labels, "seed": seed} for row in photograph_rows(dataset, pictures, probes, index, y)]
        print(target, flush=True)
    return rows


def photograph_rows(dataset, pictures, probes, index: Tensor, y: Tensor) -> list[dict]:
    """One draw: a row for each network and for pixels, and one for what `recommend` chose (method "recommend").

    dataset: its test labels are used; pictures: the same at 32 pixels; probes: name -> `real_experiments.FeatureProbe`;
    index, y: which training pictures are labelled, and how.
    """
    truth = dataset.y_test.numpy()
    found = {base: probe(index, y, torch.arange(len(truth)), 0) for base, probe in probes.items()}
    found["pixels"] = Pixels()(pictures.x_train[index], y, pictures.x_test, 0)
    reached = {base: float(correct(said, truth).mean()) for base, said in found.items()}
    said = recommend(pictures.x_train[index], y, candidates={base: probe.train[index] for base, probe in probes.items()})
    chosen = "pixels" if said.strategy == "pixels" else said.base
    return [*({"method": base, "accuracy": accuracy} for base, accuracy in reached.items()),
            {"method": "recommend", "chosen": chosen, "strategy": said.strategy, "sure": said.sure, "seconds": said.seconds,
             "accuracy": reached[chosen]}]


# ---------------------------------------------------------------------------- what the command finds
LAB: dict = {f.__name__: f for f in (choose_rates, choose_truth, choose_few, choose_scores, choose_advice, choose_held_out,
                                             choose_held_out_advice, choose_judged, choose_judged_advice)}
REAL: dict = {"choosing_photographs": choosing_photographs}
_SHARED = ("Textures", "_world", "_named", "_digits", "TASKS", "DEV_TASKS", "TEST_PER_CLASS", "STEPS", "AUGMENT", "tuned", "BUDGETS")
_TRUTH = (*_SHARED, "truth_run", "_judged", "BASES", "SCRATCH_STEPS", "SCRATCH_RATE", "CHOSEN_RATES", "rate", "penalty")
_HERE = {"choose_rates": (*_SHARED, "choose_rates", "rate_run", "FAMILIES", "RATES", "HIGHER", "RATE_TASKS"),
         "choose_truth": (*_TRUTH, "choose_truth", "TUNED_SEEDS"),
         "choose_few": (*_SHARED, "choose_few", "few_run", "_judged", "penalty", "SEEDS", "BASES"),
         "choose_held_out": (*_TRUTH, "choose_held_out", "held_out_run", "HELD_OUT", "HELD_SEEDS"),
         "choose_judged": (*_TRUTH, "choose_judged", "held_out_run", "Backgrounds", "JUDGED_TEST_PER_CLASS", "JUDGED", "JUDGED_SEEDS"),
         "choose_scores": (*_SHARED, "choose_scores", "score_run", "load", "penalty", "SEEDS", "BASES"),
         "choose_held_out_advice": (*_SHARED, "choose_held_out_advice", "held_out_advice", "HELD_OUT", "HELD_SEEDS", "option"),
         "choose_judged_advice": (*_SHARED, "choose_judged_advice", "judged_advice", "held_out_advice", "Backgrounds", "JUDGED_TEST_PER_CLASS",
                                  "JUDGED", "JUDGED_SEEDS", "VERSIONS", "option"),
         "choose_advice": (*_SHARED, "choose_advice", "advice_run", "option", "SEEDS", "TUNED_SEEDS")}
_BELOW = (*TRAINING, "methods", "evaluation:pool", "datasets:digits")
CODE: dict[str, tuple[str, ...]] = {name: (*_BELOW, *(f"choosing_experiments:{part}" for part in parts)) for name, parts in _HERE.items()}
WEIGHTS: dict[str, tuple[str, ...]] = {name: BASES for name in ("choose_truth", "choose_few", "choose_scores", "choose_advice", "choose_held_out",
                                                               "choose_held_out_advice", "choose_judged", "choose_judged_advice")}
for _name in ("choose_advice", "choose_held_out_advice", "choose_judged_advice"):
    CODE[_name] += ("transferability", "trials", "recommend")
CODE["choose_scores"] += ("transferability", "domains")
WEIGHTS["choose_rates"] = tuple(f"{family}-shapes" for family in FAMILIES)


def provenance(name: str, rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind a real experiment, for its card."""
    networks = {base: zoo.load(*source).card.get("sha256", "random initialisation") for base, source in real_experiments.NETWORKS.items()}
    data = {one: datasets.load(one, size=real_experiments.SIZE).card["sha256"] for one in sorted(set(real_experiments.TARGETS.values()))}
    return {"weights_sha256": networks, "data_sha256": data}
