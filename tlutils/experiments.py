"""The stored experiments: `python -m tlutils.experiments NAME` runs one and records it under data/results.

A lab experiment is a list of jobs, each of which gives some rows. Finished jobs are kept in the cache, so a run that
was stopped goes on. `--verify` computes a few jobs of a stored grid again and, if they come out the same, notes the
present code in its card: a refactoring then needs no rerun, a change of results can't hide. Real experiments need
local photographs and weights (see data/README.md).
"""
from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from joblib import Parallel, delayed

from . import (
    augmentation,
    choosing_experiments,
    datasets,
    distillation_experiments,
    distillation_real_experiments,
    evaluation,
    extraction_experiments,
    finetune,
    freezing,
    image_experiments,
    limited_experiments,
    multimodal_experiments,
    nas_experiments,
    optimisation_experiments,
    paths,
    practice_domain_experiments,
    practice_oneshot_experiments,
    practice_real_experiments,
    practice_text_experiments,
    real_experiments,
    report,
    sentiment_experiments,
    shapes,
    shift_experiments,
    text_experiments,
    training,
    zoo,
)
from .methods import Pixels, Probe, Train, scratch_steps

BUDGETS = (1, 2, 5, 10, 20, 50, 200)
SEEDS = range(100, 105)             # what is printed comes from these; choices were made on DEV_SEEDS
DEV_SEEDS = range(0, 3)
# Learning rates; for probe and pixels the strength C of the penalty. Wide enough that no choice that matters lies at an end.
CANDIDATES = {"scratch": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), "fine-tuning": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
              "probe": (1e-3, 1e-2, 1e-1, 1.0, 10.0), "pixels": (1e-3, 1e-2, 1e-1, 1.0, 10.0)}
FINETUNE_STEPS = 300
CODE = ("shapes", "augmentation", "backbones", "batches", "loop", "inference", "training", "optim", "freezing",
        "finetune", "methods", "evaluation:world", "evaluation:pool", "evaluation:one_draw",
        "zoo:Preprocess", "zoo:MINI", "datasets:digits")
OWN = ("contestant", "field", "_jobs", "_draw_job", "BUDGETS", "SEEDS", "DEV_SEEDS", "CANDIDATES", "FINETUNE_STEPS", "DIAL",
       "OLD10", "PARITY", "LAYER_RATE")      # what every grid of this module rests on
# Sources by similarity to the ten new shapes (shapes.similarity): colour only, one, two, three, four bits of shape.
DIAL = {"colours": shapes.BITS[0], "bits1": shapes.BITS[1], "bits2": shapes.BITS[2], "bits3": shapes.BITS[3],
        "shapes": shapes.SHAPES16}
OLD10 = shapes.Task("10 of the source's own shapes", shapes.SOURCE_SHAPES[:10], 10)
PARITY = shapes.Parity("parity of shape group and colour group", shapes.SOURCE_SHAPES, 4, 4)
LAYER_RATE = 4e-3                   # the rate of the pretraining recipe, for every network of the layer experiment

Job = Callable[[], list[dict]]


# ---------------------------------------------------------------------------- the contestants and their settings
def contestant(name: str, setting: float, weights: str | None = "shapes", **more) -> Callable:
    """A contestant by name with its one setting: a learning rate, or the C of a logistic regression."""
    if name == "pixels":
        return Pixels(setting)
    if name == "probe":
        return Probe(weights, C=setting, **more)
    if name == "scratch":
        return Train(None, setting, **{"steps": scratch_steps} | more)
    return Train(weights, setting, **{"steps": FINETUNE_STEPS} | more)


@lru_cache(maxsize=None)
def chosen(name: str, labels: int) -> float:
    """The setting that did best on the development shapes, for few (up to 10) or more labels per class.

    Raises ValueError for a name that is no contestant.
    """
    if name not in CANDIDATES:
        raise ValueError(f"name: {name!r} is no contestant; {paths.did_you_mean(name, CANDIDATES)}")
    sweep = report.load("lab", "rates")
    sweep = sweep[(sweep["contestant"] == name) & (sweep["labels"] == (5 if labels <= 10 else 50))]
    return float(sweep.groupby("method")["accuracy"].mean().idxmax())


def tuned(name: str, labels: int, weights: str | None = "shapes", **more) -> Callable:
    """A contestant ("pixels", "probe", "scratch", "fine-tuning") with its chosen setting for this budget."""
    return contestant(name, chosen(name, labels), weights, **more)


def field(labels: int) -> dict[str, Callable]:
    """All contestants of `why_transfer` at a label budget."""
    return {"pixels": tuned("pixels", labels), "random frozen": tuned("probe", labels, None),
            "probe": tuned("probe", labels), "scratch": tuned("scratch", labels),
            "fine-tuning": tuned("fine-tuning", labels)}


# ---------------------------------------------------------------------------- the grids
def _jobs(methods: Callable[[int], dict], budgets, draw: Callable, seeds=SEEDS, **columns) -> list[Job]:
    """One job for each method, budget and seed, the longest first; columns are added to every row."""
    return [partial(_draw_job, {name: method}, draw, labels, seed, columns)
            for labels in sorted(budgets, reverse=True) for seed in seeds for name, method in methods(labels).items()]


def _draw_job(methods: dict, draw: Callable, labels: int, seed: int, columns: dict) -> list[dict]:
    return [row | columns for row in evaluation.one_draw(methods, draw, labels, seed, threads=1)]


def rates() -> list[Job]:
    """Settings tried on the development shapes, at a small and a large label budget."""
    draw, jobs = evaluation.world(shapes.DEV8), []
    for name, candidates in CANDIDATES.items():
        methods = {f"{setting:g}": contestant(name, setting) for setting in candidates}
        jobs += _jobs(lambda labels, methods=methods: methods, (5, 50), draw, DEV_SEEDS, contestant=name)
    return jobs


def why_transfer() -> list[Job]:
    """Accuracy against labels per class on ten new shapes, for every contestant."""
    draw = evaluation.world(shapes.TARGET10)
    patient = {"scratch, ten times the steps": tuned("scratch", 5, steps=10 * scratch_steps(5))}
    return _jobs(lambda labels: patient, [5], draw, SEEDS[:3]) + _jobs(field, BUDGETS, draw)


def patient() -> list[Job]:
    """Scratch with ten times its steps at 20 and 200 labels per class: was it trained long enough?"""
    def methods(labels):
        return {"scratch, ten times the steps": tuned("scratch", labels, steps=10 * scratch_steps(labels))}
    return _jobs(methods, (20, 200), evaluation.world(shapes.TARGET10))


def patient_tuning() -> list[Job]:
    """Fine-tuning with ten times scratch's steps at 200 labels per class: as patient as `patient`."""
    def methods(labels):
        return {"fine-tuning, ten times the steps": tuned("fine-tuning", labels, steps=10 * scratch_steps(labels))}
    return _jobs(methods, [200], evaluation.world(shapes.TARGET10))


def speed() -> list[Job]:
    """Test accuracy every 50 steps at 200 labels per class, for fine-tuning and scratch: who gets there sooner?"""
    return [partial(speed_run, name, seed, threads=1) for name in ("scratch", "fine-tuning") for seed in SEEDS]


def speed_run(name: str, seed: int, labels: int = 200, steps: int = 1000, every: int = 50, threads: int | None = None,
              weights: str = "shapes", method: str | None = None) -> list[dict]:
    """One training run, looked at every so many steps: rows of method, seed, step, accuracy, training loss.

    weights: the source that fine-tuning starts from; method: what the rows call it (default: `name`).
    """
    if threads:
        torch.set_num_threads(threads)
    x, y, *test = evaluation.world(shapes.TARGET10)(labels, seed)
    history = tuned(name, labels, weights, steps=steps).run(x, y, seed, validation=tuple(test), evaluate_every=every).history
    return [{"method": method or name, "labels": labels, "seed": seed, "step": row["step"], "accuracy": row["validation_accuracy"],
             "loss": row["loss"]} for row in history.rows]


def digits() -> list[Job]:
    """The same contestants on real handwriting, where pixels are already good."""
    return _jobs(field, (1, 5, 20, 50), evaluation.pool(datasets.digits()))


def phase() -> list[Job]:
    """Fine-tuning at scratch's number of steps, and probes, from sources near and far, over label budgets."""
    def trained(labels):
        return {name: tuned("fine-tuning", labels, name, steps=scratch_steps) for name in ("colours", "bits2", "shapes")}

    def probes(labels):
        return {f"probe {name}": tuned("probe", labels, name) for name in DIAL}

    def old_shapes(labels):
        return {"scratch": tuned("scratch", labels), "probe shapes": tuned("probe", labels, "shapes"),
                "shapes": tuned("fine-tuning", labels, "shapes", steps=scratch_steps)}
    new, old = evaluation.world(shapes.TARGET10), evaluation.world(OLD10)      # scratch on new shapes: in why_transfer
    return (_jobs(trained, (1, 5, 20, 200), new, target="new") + _jobs(old_shapes, (1, 5, 20), old, target="old")
            + _jobs(probes, BUDGETS, new, target="new"))


def plenty() -> list[Job]:
    """A thousand labels per class and 6,000 steps: scratch against fine-tuning from the right and from the wrong source."""
    curve = partial(speed_run, labels=1000, steps=6000, every=500, threads=1)
    return [partial(curve, name, seed, weights=weights or "shapes", method=weights or name)
            for seed in SEEDS for name, weights in (("scratch", None), ("fine-tuning", "shapes"), ("fine-tuning", "colours"))]


def parity() -> list[Job]:
    """A two-class problem that hides two factors at once: scratch against a source that knows both."""
    shape_only = augmentation.affine()      # colour is half of the label: changing it would change the class

    def methods(labels):
        return {"scratch": tuned("scratch", labels, steps=1500, augment=shape_only),
                "probe": tuned("probe", labels, "bits2"),
                "fine-tuning": tuned("fine-tuning", labels, "bits2", augment=shape_only),
                "random frozen": tuned("probe", labels, None)}
    return _jobs(methods, (200, 2000), evaluation.world(PARITY, test_per_class=500))


def layers() -> list[Job]:
    """Yosinski's AnB, BnB and their fine-tuned versions: how general is each stage?"""
    plain = [partial(layer_run, seed, "B", 0, True, threads=1) for seed in SEEDS]
    return plain + [partial(layer_run, seed, source, n, tune, threads=1)
                    for seed in SEEDS for source in "BAS" for n in (4, 3, 2, 1) for tune in (False, True) if source != "S" or not tune]


def layer_run(seed: int, source: str, n: int, tune: bool, steps: int = 400, threads: int | None = None) -> list[dict]:
    """Train on endless target scenes with the first n stages copied from a trained network (Yosinski et al. 2014).

    source: "B", a network trained on the target itself (with another seed), "A", one trained as long on the source
    shapes, or "S", the bundled network of the source shapes, trained for much longer. n: stages copied; 0 is the plain
    network. tune: whether the copied stages learn on.
    """
    if threads:
        torch.set_num_threads(threads)
    task = shapes.TARGET10
    loaded = zoo.load("resnet-mini", None, seed=seed)
    if n:
        donor = (zoo.load("resnet-mini", "shapes") if source == "S"
                 else _trained_on(shapes.SHAPES16 if source == "A" else task, seed + 1000, steps))
        for mine, theirs in list(zip(loaded.backbone.stages, donor.backbone.stages))[:n]:
            mine.load_state_dict(theirs.state_dict())
            if not tune:
                freezing.freeze(mine)
    model = _learn(loaded, task, seed, steps)
    scores = training.evaluate(model, *task.draw(100, seed=evaluation.TEST_SEED + seed))
    return [{"method": f"{source}{n}B{'+' if tune else ''}", "source": source, "n": n, "tuned": tune, "seed": seed,
             "accuracy": scores["accuracy"]}]


def own_layers() -> list[Job]:
    """What does freezing the last stage cost on the donor's own shapes? The control of `layers`."""
    return [partial(own_layer_run, seed, n, threads=1) for seed in SEEDS for n in (3, 4)]


def own_layer_run(seed: int, n: int, steps: int = 400, threads: int | None = None) -> list[dict]:
    """As `layer_run` with the bundled network and frozen stages, but the target is ten of the shapes that it learned."""
    if threads:
        torch.set_num_threads(threads)
    loaded, donor = zoo.load("resnet-mini", None, seed=seed), zoo.load("resnet-mini", "shapes")
    for mine, theirs in list(zip(loaded.backbone.stages, donor.backbone.stages))[:n]:
        mine.load_state_dict(theirs.state_dict())
        freezing.freeze(mine)
    model = _learn(loaded, OLD10, seed, steps)
    scores = training.evaluate(model, *OLD10.draw(100, seed=evaluation.TEST_SEED + seed))
    return [{"method": f"S{n}A", "source": "S", "n": n, "tuned": False, "seed": seed, "accuracy": scores["accuracy"]}]


def _learn(loaded, task, seed: int, steps: int):
    model = finetune.Classifier(loaded, len(task.classes), seed=seed)
    training.fit(model, task.stream, steps=steps, lr=LAYER_RATE, weight_decay=0.01, batch_size=64, warmup=steps // 10, seed=seed)
    return model


@lru_cache(maxsize=2)
def _trained_on(task: shapes.Task, seed: int, steps: int):
    loaded = zoo.load("resnet-mini", None, seed=seed)
    _learn(loaded, task, seed, steps)
    return loaded


# The experiments of the other parts stand in modules of their own. Each has LAB and REAL (name -> function), CODE and
# WEIGHTS (what decides a grid's results: parts for `report.code_hash`, bundled weights) and `provenance(name, rows)`.
PARTS = (image_experiments, text_experiments, sentiment_experiments, multimodal_experiments, practice_domain_experiments,
         practice_oneshot_experiments, practice_real_experiments, practice_text_experiments, choosing_experiments,
         optimisation_experiments, limited_experiments, extraction_experiments, shift_experiments, nas_experiments,
         distillation_experiments, distillation_real_experiments)
FUNDAMENTALS = {f.__name__: f for f in (rates, why_transfer, patient, patient_tuning, speed, digits, phase, plenty, parity, layers,
                                          own_layers)}
LAB = FUNDAMENTALS | {name: grid for part in PARTS for name, grid in part.LAB.items()}
REAL = real_experiments.EXPERIMENTS | {name: experiment for part in PARTS for name, experiment in part.REAL.items()}


# ---------------------------------------------------------------------------- running and recording
def _part(name: str):
    """The module that holds the experiment, or None for those of the Fundamentals."""
    return next((part for part in PARTS if name in part.LAB or name in part.REAL), None)


def current_code(name: str) -> str:
    """Hash of all that decides a lab experiment's results: its function, the code below it, settings, weights."""
    if part := _part(name):
        weights = json.dumps({w: zoo.cards()[w]["sha256"] for w in part.WEIGHTS.get(name, ())}, sort_keys=True)
        return hashlib.sha256((report.code_hash(*part.CODE[name]) + weights).encode()).hexdigest()[:16]
    own = {"speed": ["speed_run"], "plenty": ["speed_run"], "layers": ["layer_run", "_learn", "_trained_on"],
           "own_layers": ["own_layer_run", "_learn"]}.get(name, [])
    parts = [f"experiments:{part}" for part in (name, *OWN, *own)]
    weights = json.dumps({v: zoo.load("resnet-mini", v).card["sha256"] for v in zoo.variants("resnet-mini")}, sort_keys=True)
    settings = "" if name in ("rates", "layers", "own_layers") else json.dumps({c: [chosen(c, 5), chosen(c, 50)] for c in CANDIDATES})
    return hashlib.sha256((report.code_hash(*CODE, *parts) + weights + settings).encode()).hexdigest()[:16]


def is_current(name: str) -> bool:
    """Was the stored grid made by, or verified against, the code as it stands?"""
    card = report.load("lab", name).attrs["card"]
    return current_code(name) in [card["code"], *(entry["code"] for entry in card.get("verified", []))]


def run(name: str, *, workers: int = 2) -> None:
    """Run one experiment and record it. Raises ValueError for a wrong name."""
    if name not in LAB and name not in REAL:
        raise ValueError(f"name: {name!r} is no experiment; there are {', '.join([*LAB, *REAL])}")
    started = time.time()
    if name in REAL:
        kind, rows = "real", REAL[name]()
        made_from = part.provenance(name, rows) if (part := _part(name)) else real_experiments.provenance(rows)
        card = {"what": REAL[name].__doc__.splitlines()[0], **made_from}
    else:
        card = {"what": LAB[name].__doc__.splitlines()[0], "code": current_code(name)}   # before the run: files may change
        kind, rows = "lab", _run_jobs(name, LAB[name](), workers)
    seeds = len({row["seed"] for row in rows})
    target = report.save(kind, name, rows, started=started, seeds=seeds, **card)
    print(f"{name}: {len(rows)} rows in {time.time() - started:.0f} s -> {target.name}", flush=True)


def _run_jobs(name: str, jobs: list[Job], workers: int) -> list[dict]:
    """All jobs in `workers` processes; finished ones are read back from the cache of this very code."""
    folder = paths.cache_dir() / "experiments" / f"{name}-{current_code(name)}"
    folder.mkdir(parents=True, exist_ok=True)
    left = [i for i in range(len(jobs)) if not (folder / f"{i}.json").exists()]
    print(f"{name}: {len(jobs)} jobs, {len(jobs) - len(left)} of them done before", file=sys.stderr, flush=True)
    Parallel(n_jobs=workers)(delayed(_kept)(jobs[i], str(folder / f"{i}.json")) for i in left)
    return [row for i in range(len(jobs)) for row in json.loads((folder / f"{i}.json").read_text())]


def _kept(job: Job, file: str) -> None:
    paths.atomic_write(file, json.dumps([{k: report.plain(v) for k, v in row.items()} for row in job()]))


def verify(name: str, *, sample: int = 4, tolerance: float = 0.03) -> None:
    """Compute some jobs of a stored grid again; note the present code in its card if they agree, else raise.

    The sample leaves out the longest third of the jobs. tolerance: how far an accuracy may be off (rounding differs
    between machines). Raises SliceDisagrees naming the row that differs.
    """
    code, stored = current_code(name), report.load("lab", name)
    jobs, rows = LAB[name](), stored.to_dict("records")
    value = "accuracy" if "accuracy" in stored else "value"
    keys = [c for c in stored if c in ("labels", "step") or (stored[c].dtype.kind != "f" and c != "correct")]
    picked = random.Random(0).sample(jobs[len(jobs) // 3:], sample)
    for row in (row for job in picked for row in job()):
        before = next((r for r in rows if all(r[k] == row[k] for k in keys if k in row)), None)
        if before is None:
            raise evaluation.SliceDisagrees(f"{name}: the stored grid has no run {[row.get(k) for k in keys]}; run python -m "
                                            f"tlutils.experiments {name}")
        if abs(before[value] - row[value]) > tolerance:
            raise evaluation.SliceDisagrees(f"{name}, {[row.get(k) for k in keys]}: stored {before[value]:.3f}, now "
                                            f"{row[value]:.3f}; run python -m tlutils.experiments {name}")
    card = stored.attrs["card"]
    note = {"code": code, "jobs": sample, "tolerance": tolerance, "date": report.environment()["date"]}
    report.rewrite_card("lab", name, card | {"verified": [*card.get("verified", []), note]})
    print(f"{name}: {sample} jobs agree with the stored grid", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """The command: run the named experiments, or verify their stored grids."""
    parser = argparse.ArgumentParser(prog="python -m tlutils.experiments", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"lab: {', '.join(LAB)}; real: {', '.join(REAL)}")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (lab grids)")
    parser.add_argument("--verify", action="store_true", help="compute a sample of a stored lab grid again")
    chosen_options = parser.parse_args(arguments)
    if not chosen_options.names:
        parser.print_help()
    for name in chosen_options.names:
        if chosen_options.verify:
            verify(name)
        else:
            run(name, workers=chosen_options.workers)


if __name__ == "__main__":
    # Run as a script this module is __main__, whose functions other processes can't import: use its real name.
    from tlutils import experiments

    experiments.main()
