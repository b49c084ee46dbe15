"""The stored experiments of `pnas`: searches on the benchmark, what they lose without their parts, and the found cell put to work.

On the benchmark (`nas_benchmark`) a search reads accuracies from the table, so that its seed decides the search and nothing
else. The settings of every search were fixed beforehand, from its paper; `nas_settings` shows what others would have done.
"""
from __future__ import annotations

import json
import math
import os
import random
import socket
import subprocess
import sys
from functools import cache, partial

import numpy as np
import torch

from . import datasets, evaluation, finetune, metrics, nas, nas_benchmark, nas_live, nas_networks, processes, shapes, training, zoo
from .methods import AUGMENT
from .nas_cells import BENCHMARK_SPACE, Cell
from .nas_predictors import Predictor

SEEDS = range(100, 150)
FEW_SEEDS = range(100, 120)
BUDGET = 350                                    # 10 cells of one block, 20 of two, all 320 children: what PNAS with K = 20 can see
CHECKPOINTS = (10, 20, 30, 50, 75, 100, 150, 200, 350)
QUANTILE = 0.99
KEEP = 20                                       # twice the first level, as in the paper (256, and 136 cells of one block)
SEARCHES = {
    "PNAS": partial(nas.pnas, keep=(KEEP,)),
    "random search": nas.random_search,
    "evolution": partial(nas.evolution, population=20, sample=5),         # in the paper 100 and 25 of 20,000
    "local search": partial(nas.local_search, initial=10),
    "one-shot predictor": partial(nas.one_shot, first=50),
}
OTHERS = {
    "PNAS": [{"keep": (k,)} for k in (5, 10, 40, 80)],
    "evolution": [{"population": 10, "sample": 3}, {"population": 50, "sample": 12}],
    "local search": [{"initial": 1}, {"initial": 30}],
    "one-shot predictor": [{"first": 20}, {"first": 100}],
}


# ---------------------------------------------------------------------------- on the benchmark
@cache
def table():
    """The stored benchmark."""
    return nas_benchmark.load()


@cache
def goal() -> float:
    """The accuracy that one cell in a hundred reaches (first seed, all cells of the space)."""
    rows = table().query("task == 'shapes' and seed == 0")
    return float(np.quantile(rows["accuracy"], QUANTILE))


@cache
def _scores(seed: int) -> dict[str, float]:
    rows = table().query("task == 'shapes' and seed == @seed")
    return dict(zip(rows["cell"], rows["accuracy"]))


def on_table(cell: Cell) -> float:
    """The accuracy in the table, first seed."""
    return _scores(0)[str(cell)]


def rows_of(trace: nas.Trace, method: str, seed: int, **columns) -> list[dict]:
    """A row for each checkpoint: method, seed, models, accuracy (best so far), again (the same cell with the table's second
    seed, None where it has none), winner, reached (models to the goal, None if never)."""
    reached, rows = trace.models_to(goal()), []
    for models in (m for m in CHECKPOINTS if m <= len(trace.cells)):
        winner = nas.Trace(trace.cells[:models], trace.accuracies[:models]).winner
        rows.append({"method": method, **columns, "seed": seed, "models": models, "accuracy": float(trace.best[models - 1]),
                     "again": _scores(1).get(str(winner)), "winner": str(winner), "reached": None if math.isinf(reached) else reached})
    return rows


def search_run(method: str, seed: int, budget: int = BUDGET, threads: int | None = None, **changes) -> list[dict]:
    """One search on the table; changes: to its settings."""
    processes.one_thread(threads)
    trace = partial(SEARCHES[method], **changes)(on_table, BENCHMARK_SPACE, budget=budget, seed=seed)
    settings = {"setting": ", ".join(f"{k}={v[0] if isinstance(v, tuple) else v}" for k, v in changes.items())} if changes else {}
    return rows_of(trace, method, seed, **settings)


def nas_searches() -> list:
    """Best accuracy so far against trained models on the benchmark: PNAS and four rivals, 50 seeds."""
    return [partial(search_run, method, seed, threads=1) for seed in SEEDS for method in SEARCHES]


def nas_settings() -> list:
    """The same searches with other settings, 10 seeds."""
    return [partial(search_run, method, seed, threads=1, **changes) for seed in FEW_SEEDS[:10] for method, list_ in OTHERS.items()
            for changes in list_]


# ---------------------------------------------------------------------------- without its parts
ELSEWHERE = ("new shapes", "textures")
ABLATIONS = ("no progression", "no predictor", "one MLP", "one LSTM", "five MLPs", "five LSTMs",
             *(f"warm from {task}" for task in ELSEWHERE), *(f"ranked by {task}" for task in ELSEWHERE))
KINDS = {"one MLP": (("mlp",), 1), "one LSTM": (("lstm",), 1), "five MLPs": (("mlp",), 5), "five LSTMs": (("lstm",), 5),
         "both": (("mlp", "lstm"), 5)}


def learned_on(task: str, seed: int) -> Predictor:
    """A predictor that has seen all cells of up to two blocks on another task."""
    rows = table()[(table()["task"] == task) & (table()["seed"] == 0)]
    return Predictor(seed=seed).fit([Cell.parse(text) for text in rows["cell"]], rows["accuracy"])


def ablation_run(variant: str, seed: int, budget: int = BUDGET, threads: int | None = None) -> list[dict]:
    """PNAS without one of its parts, or with a predictor from another task; "ranked by" trains its favourites, first to last."""
    processes.one_thread(threads)
    search = partial(nas.pnas, on_table, BENCHMARK_SPACE, budget=budget, keep=(KEEP,), seed=seed)
    if variant == "no progression":
        trace = search(progression=False)
    elif variant == "no predictor":
        trace = search(predictor=None)
    elif variant in KINDS:
        kinds, members = KINDS[variant]
        trace = search(predictor=Predictor(kinds, members=members, seed=seed))
    elif variant.startswith("warm from "):
        trace = search(predictor=learned_on(variant.removeprefix("warm from "), seed), warm=True)
    else:
        predictor = learned_on(variant.removeprefix("ranked by "), seed)
        trace = nas.one_shot(on_table, BENCHMARK_SPACE, budget=budget, first=0, predictor=predictor, seed=seed)
    return rows_of(trace, variant, seed)


def nas_ablations() -> list:
    """PNAS without progression, predictor or ensemble, and with a predictor from another task, 20 seeds."""
    return [partial(ablation_run, variant, seed, threads=1) for seed in FEW_SEEDS for variant in ABLATIONS]


# ---------------------------------------------------------------------------- what the predictor knows
SEEN = (10, 10 + KEEP, 170)                     # cells learned from: all of one block, 20 of two besides, all of two


def rank_run(seed: int, threads: int | None = None) -> list[dict]:
    """Spearman correlation of guess and table on all cells one block larger than those seen: rows of method, seen, blocks,
    seed, value, and best_tenth (the correlation among the tenth that the table ranks first)."""
    from scipy.stats import spearmanr

    processes.one_thread(threads)
    one, two, three = (BENCHMARK_SPACE.cells(blocks) for blocks in (1, 2, 3))
    picked, rows = random.Random(seed).sample(two, KEEP), []
    for seen, larger in zip((one, one + picked, one + two), (two, three, three)):
        truth = np.array([on_table(cell) for cell in larger])
        best = truth >= np.quantile(truth, 0.9)
        guesses = {name: Predictor(kinds, members=members, seed=seed).fit(seen, [on_table(c) for c in seen]).predict(larger)
                   for name, (kinds, members) in KINDS.items()}
        for name, guess in guesses.items():
            rows.append({"method": name, "seen": len(seen), "blocks": len(larger[0]), "seed": seed, "value": float(spearmanr(guess, truth)[0]),
                         "best_tenth": float(spearmanr(guess[best], truth[best])[0])})
    return rows


def nas_ranks() -> list:
    """How well predictors rank cells one block larger than all that they have seen, 10 seeds."""
    return [partial(rank_run, seed, threads=1) for seed in FEW_SEEDS[:10]]


# ---------------------------------------------------------------------------- really trained: in two processes
LIVE_SEEDS = range(100, 105)


PAIR = {"budget": 24, "steps": 40, "seed": 0}


def pair_run(count: int, repeat: int, budget: int = PAIR["budget"], steps: int = PAIR["steps"]) -> list[dict]:
    """The live search in so many processes: a row of method, seed (the repeat), value (seconds from first cell to last), cells."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [] if count == 1 else ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", str(port)]
    command = [sys.executable, *launch, "-m", "tlutils.nas_live", "--budget", str(budget), "--steps", str(steps), "--seed", str(PAIR["seed"])]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(said.stdout.strip().splitlines()[-1])
    return [{"method": f"{found['processes']} process{'es' if count > 1 else ''}", "seed": repeat, "models": len(found["cells"]),
             "value": found["seconds"], "cells": json.dumps(found["cells"])}]


def nas_two_processes() -> list:
    """The live search in one process and in two, five times each: seconds and what was found."""
    return [partial(pair_run, count, repeat) for repeat in range(5) for count in (1, 2)]


# ---------------------------------------------------------------------------- the found cell, pretrained and transferred
FOUND = "h1 sep5 + h1 sep5; h1 sep3 + b1 sep3"      # what the live search of the page finds with seed 0
STACK = {"reductions": (False, True, True), "stem_stride": 2}
CONTESTANTS = ("found cell", "random cell", "resnet-mini")
TUNED = ("found cell", "resnet-mini")
PRETRAIN_STEPS = 600
TUNE_STEPS = 100
DEV_SEEDS = range(0, 1)
SOURCE_RATES = (4e-3, 1e-2, 2.5e-2)
TUNE_RATES = (1e-3, 3e-3, 1e-2)
SOURCE_RATE = {"found cell": 2.5e-2, "random cell": 2.5e-2, "resnet-mini": 4e-3}         # chosen by `nas_transfer_rates` (a test compares)
TUNE_RATE = {"found cell": 1e-2, "random cell": 1e-2, "resnet-mini": 1e-2}           # by `nas_tune_rates`


def network(contestant: str, seed: int) -> zoo.Loaded:
    """An untrained network of resnet-mini's number of parameters. "random cell" is another cell for each seed."""
    resnet = zoo.load("resnet-mini", None, seed=seed)
    if contestant == "resnet-mini":
        return resnet
    cell = Cell.parse(FOUND) if contestant == "found cell" else nas_live.SPACE.random(random.Random(seed))
    width = nas_networks.width_for(cell, nas_networks.count_parameters(resnet.backbone), **STACK)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = nas_networks.CellBackbone(cell, width=width, **STACK).eval()
    return zoo.Loaded(contestant, backbone, backbone.width, zoo.MINI, {"cell": str(cell)})


def pretrained(contestant: str, seed: int, steps: int = PRETRAIN_STEPS, lr: float | None = None) -> tuple[zoo.Loaded, float]:
    """The network after so many steps on the 16 source shapes, and its accuracy there."""
    loaded = network(contestant, seed)
    model = finetune.Classifier(loaded, 16, seed=seed)
    training.fit(model, shapes.SHAPES16.stream, steps=steps, lr=lr or SOURCE_RATE[contestant], weight_decay=0.01, batch_size=32,
                 warmup=steps // 10, seed=seed)
    return loaded, training.evaluate(model, *shapes.SHAPES16.draw(50, seed=evaluation.TEST_SEED + seed))["accuracy"]


def probe_accuracy(loaded: zoo.Loaded, x, y, x_test, y_test) -> float:
    """A linear probe on the frozen features."""
    features = finetune.Features(loaded)
    probe = finetune.linear_probe(training.predict(features, x), y)
    return metrics.accuracy(probe.predict(training.predict(features, x_test).numpy()), y_test)


def tuned_accuracy(loaded: zoo.Loaded, x, y, x_test, y_test, lr: float, seed: int) -> float:
    """Fine-tuning of everything; the network that is passed stays as it is."""
    before = {name: value.clone() for name, value in loaded.backbone.state_dict().items()}
    run = finetune.finetune(loaded, x, y, strategy="full", lr=lr, steps=TUNE_STEPS, seed=seed, weight_decay=0.05, warmup=TUNE_STEPS // 10,
                            batch_size=32, augment=AUGMENT)
    accuracy = metrics.accuracy(run.predict(x_test), y_test)
    loaded.backbone.load_state_dict(before)
    return accuracy


def transfer_run(contestant: str, seed: int, threads: int | None = None) -> list[dict]:
    """Pretrain, then probe on ten new shapes (5 and 50 labels per class) and on digits (10), and fine-tune from the 50: rows of
    method, target, how, labels, seed, accuracy."""
    processes.one_thread(threads)
    loaded, source = pretrained(contestant, seed)
    common = {"method": contestant, "seed": seed, "parameters": nas_networks.count_parameters(loaded.backbone), "cell": loaded.card.get("cell", "")}
    rows = [{**common, "target": "source", "how": "itself", "labels": 0, "accuracy": source}]
    for target, labels in (("new shapes", 5), ("new shapes", 50), ("digits", 10)):
        draw = evaluation.world(shapes.TARGET10) if target == "new shapes" else evaluation.pool(datasets.digits())
        data = draw(labels, seed)
        found = {"probe": probe_accuracy(loaded, *data)}
        if labels == 50:
            found["fine-tuning"] = tuned_accuracy(loaded, *data, TUNE_RATE[contestant], seed)
        rows += [{**common, "target": target, "how": how, "labels": labels, "accuracy": value} for how, value in found.items()]
    return rows


def nas_transfer() -> list:
    """The found cell, random cells and resnet-mini at equal parameters: pretrained alike, probed and fine-tuned, five seeds."""
    return [partial(transfer_run, contestant, seed, threads=1) for seed in LIVE_SEEDS for contestant in CONTESTANTS]


def source_rate_run(contestant: str, rate: float, seed: int, threads: int | None = None) -> list[dict]:
    """Source accuracy after pretraining at one rate."""
    processes.one_thread(threads)
    return [{"method": f"{rate:g}", "stage": "pretraining", "contestant": contestant, "labels": 0, "seed": seed,
             "accuracy": pretrained(contestant, seed, lr=rate)[1]}]


def tune_rate_run(contestant: str, seed: int, threads: int | None = None) -> list[dict]:
    """Fine-tuning on the development shapes at each rate, from 50 labels per class."""
    processes.one_thread(threads)
    loaded, _ = pretrained(contestant, seed)
    return [{"method": f"{rate:g}", "stage": "fine-tuning", "contestant": contestant, "labels": 50, "seed": seed,
             "accuracy": tuned_accuracy(loaded, *evaluation.world(shapes.DEV8)(50, seed), rate, seed)} for rate in TUNE_RATES]


def nas_source_rates() -> list:
    """Rates for pretraining the found cell and resnet-mini, chosen by accuracy on the source shapes; random cells take the found one's."""
    return [partial(source_rate_run, contestant, rate, seed, threads=1) for seed in DEV_SEEDS for rate in SOURCE_RATES for contestant in TUNED]


def nas_tune_rates() -> list:
    """Rates for fine-tuning the found cell and resnet-mini, on the development shapes; random cells take the found one's."""
    return [partial(tune_rate_run, contestant, seed, threads=1) for seed in DEV_SEEDS for contestant in TUNED]


# ---------------------------------------------------------------------------- what the command finds
LAB: dict = {f.__name__: f for f in (nas_searches, nas_settings, nas_ablations, nas_ranks, nas_two_processes, nas_source_rates,
                                     nas_tune_rates, nas_transfer)}
REAL: dict = {}
_SEARCH = ("nas_cells", "nas_predictors", "nas", "nas_benchmark:load", *(f"nas_experiments:{name}" for name in (
    "SEEDS", "FEW_SEEDS", "BUDGET", "CHECKPOINTS", "QUANTILE", "KEEP", "SEARCHES", "goal", "on_table", "rows_of")))
_TRAINED = ("nas_cells", "nas_networks", "shapes", "backbones", "batches", "loop", "inference", "training", "optim", "zoo:MINI")
_LIVE = (*_TRAINED, "nas_predictors", "nas", "nas_live:SPACE", "nas_live:accuracy", "nas_live:search",
         *(f"nas_benchmark:{name}" for name in ("TRAIN", "TEST", "NETWORK", "TRAINING", "TASKS", "_plain", "pictures", "train_cell")))
_PUT_TO_WORK = (*_TRAINED, "augmentation", "freezing", "finetune", "methods:AUGMENT", "evaluation:world", "nas_live:SPACE",
                *(f"nas_experiments:{name}" for name in ("FOUND", "STACK", "CONTESTANTS", "TUNED", "PRETRAIN_STEPS", "network", "pretrained")))
_TUNED = ("TUNE_STEPS", "tuned_accuracy")
_HERE = {
    "nas_searches": (_SEARCH, ("search_run",)),
    "nas_settings": (_SEARCH, ("search_run", "OTHERS")),
    "nas_ablations": (_SEARCH, ("ablation_run", "ABLATIONS", "KINDS", "ELSEWHERE", "learned_on")),
    "nas_ranks": (_SEARCH, ("rank_run", "KINDS", "SEEN")),
    "nas_two_processes": (_LIVE, ("pair_run", "PAIR")),
    "nas_source_rates": (_PUT_TO_WORK, ("source_rate_run", "SOURCE_RATES", "DEV_SEEDS")),
    "nas_tune_rates": (_PUT_TO_WORK, ("tune_rate_run", "SOURCE_RATE", "TUNE_RATES", "DEV_SEEDS", *_TUNED)),
    "nas_transfer": (_PUT_TO_WORK, ("transfer_run", "probe_accuracy", "SOURCE_RATE", "TUNE_RATE", "LIVE_SEEDS", *_TUNED)),
}
CODE: dict[str, tuple[str, ...]] = {
    name: (*below, f"nas_experiments:{name}", *(f"nas_experiments:{part}" for part in parts)) for name, (below, parts) in _HERE.items()}
WEIGHTS: dict[str, tuple[str, ...]] = {}


def provenance(name: str, rows: list[dict]) -> dict:
    """For the card of a real experiment; this module has none."""
    raise ValueError(f"name: {name!r} is no real experiment; nas_experiments has lab grids only")
