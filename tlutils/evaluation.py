"""Comparisons that can be trusted: learning curves over label budgets and seeds, paired, with intervals.

A method is a function `method(x, y, x_test, seed) -> predicted labels`. A source of data is a function
`draw(labels_per_class, seed) -> (x, y, x_test, y_test)`. Every method sees the same draws, so differences are
taken pair by pair; in the lab each seed brings its own test items, so an interval over seeds covers both.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import metrics
from .metrics import Interval

TEST_SEED = 1_000_000     # test scenes of seed s are drawn from TEST_SEED + s: no training draw comes near


def world(task, *, test_per_class: int = 100, shift_kind: str | None = None, strength: float = 0.0) -> Callable:
    """Draws from a task of the shapes world: fresh training and test scenes for each seed."""
    def draw(labels_per_class: int, seed: int):
        shifted = {"shift_kind": shift_kind, "strength": strength}
        return (*task.draw(labels_per_class, seed=seed * 1000 + labels_per_class, **shifted),
                *task.draw(test_per_class, seed=TEST_SEED + seed, **shifted))
    return draw


def pool(dataset) -> Callable:
    """Draws from a data set: the given number of labels per class from its training part, its whole test part."""
    labels = np.asarray(dataset.y_train)
    smallest = int(np.bincount(labels).min())

    def draw(labels_per_class: int, seed: int):
        if labels_per_class < 1:
            raise ValueError(f"labels_per_class: must be at least 1, got {labels_per_class}")
        if labels_per_class > smallest:
            raise ValueError(f"labels_per_class: {labels_per_class} asked for, but {dataset.name} has only {smallest} "
                             "training examples of its smallest class")
        rng = np.random.default_rng([seed, labels_per_class])
        index = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:labels_per_class] for c in np.unique(labels)])
        return dataset.x_train[index], dataset.y_train[index], dataset.x_test, dataset.y_test
    return draw


def learning_curve(methods: dict[str, Callable], budgets: Sequence[int], seeds: Iterable[int], *,
                   draw: Callable, workers: int = 1, progress: bool = False, items: bool = False) -> pd.DataFrame:
    """Accuracy of every method at every label budget and seed.

    Returns one row per run: method, labels (per class), seed, accuracy (share), seconds (fitting and predicting), and
    with items=True the column `correct` (one digit per test item), for data sets whose seeds share their test items.
    workers > 1 runs jobs in as many processes of one thread each (joblib): on small networks two processes of
    one thread do a third more than one process of two.
    """
    seeds = list(seeds)       # an iterator would be empty after the first budget
    if not methods or not len(budgets) or not seeds:
        raise ValueError("methods, budgets and seeds: give at least one of each")
    jobs = [(n, s) for n in sorted(budgets, reverse=True) for s in seeds]
    if workers == 1:
        parts = [one_draw(methods, draw, n, s, None, items) for n, s in _watched(jobs, progress)]
    else:
        from joblib import Parallel, delayed
        parts = Parallel(n_jobs=workers, return_as="generator")(delayed(one_draw)(methods, draw, n, s, 1, items) for n, s in jobs)
        parts = list(_watched(parts, progress, len(jobs)))
    frame = pd.DataFrame([row for part in parts for row in part])
    return frame.sort_values(["labels", "seed"], kind="stable").reset_index(drop=True)


def _watched(items, progress: bool, total: int | None = None):
    if not progress:
        return items
    from tqdm import tqdm
    return tqdm(items, total=total)


def one_draw(methods: dict[str, Callable], draw: Callable, labels: int, seed: int, threads: int | None = None,
             items: bool = False) -> list[dict]:
    """Every method on one draw: the rows of `learning_curve` for one budget and seed. threads: set torch to so many."""
    if threads:
        import torch
        torch.set_num_threads(threads)
    x, y, x_test, y_test = draw(labels, seed)
    rows = []
    for name, method in methods.items():
        start = time.perf_counter()
        predicted = method(x, y, x_test, seed)
        seconds, right = time.perf_counter() - start, metrics.correct(predicted, y_test)
        rows.append({"method": name, "labels": labels, "seed": seed, "accuracy": float(right.mean()), "seconds": seconds})
        if items:
            rows[-1]["correct"] = "".join(str(int(r)) for r in right)
    return rows


def choose_rate(method: Callable[[float], Callable], rates: Sequence[float], *, draw: Callable, labels: int,
                seeds: Sequence[int], workers: int = 1) -> tuple[float, pd.DataFrame]:
    """The learning rate with the best mean accuracy on development data, and the whole sweep.

    method(rate) must give a method. draw must come from development classes, never from those reported.
    """
    sweep = learning_curve({f"{rate:g}": method(rate) for rate in rates}, [labels], seeds, draw=draw, workers=workers)
    means = sweep.groupby("method")["accuracy"].mean()
    return float(means.idxmax()), sweep


def item_scores(runs: pd.DataFrame) -> np.ndarray:
    """(runs, items) of 0 and 1 from the column `correct`, which writes one digit per test item."""
    return np.array([[digit == "1" for digit in text] for text in runs.sort_values("seed")["correct"]], dtype=float)


def interval(runs: pd.DataFrame, value: str = "accuracy") -> Interval:
    """Interval of the mean of some runs: crossed over runs and items where items are recorded, else t over runs."""
    if value == "accuracy" and "correct" in runs and runs["correct"].notna().all():
        return metrics.crossed_interval(item_scores(runs))
    return metrics.t_interval(runs[value])


def summary(frame: pd.DataFrame, value: str = "accuracy", by: Sequence[str] = ("method", "labels")) -> pd.DataFrame:
    """Mean and 95 % interval (see `interval`) for each group: columns mean, low, high, n."""
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        found = interval(group, value)
        rows.append(dict(zip(by, key)) | {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n})
    return pd.DataFrame(rows)


def difference(frame: pd.DataFrame, a: str, b: str, labels: int, *, value: str = "accuracy") -> Interval:
    """Paired interval of method a minus method b at one label budget (crossed with items where they are recorded).

    Raises ValueError for a budget or a method without runs.
    """
    if labels not in (budgets := sorted(frame["labels"].unique())):
        raise ValueError(f"labels: no runs at {labels} labels per class; there are {', '.join(map(str, budgets)) or 'none'}")
    table = _paired(frame, labels, value)
    missing = [m for m in (a, b) if m not in table]
    if missing:
        raise ValueError(f"{missing[0]!r} has no runs at {labels} labels; methods there: {', '.join(map(str, table.columns))}")
    pairs = table[[a, b]].dropna()
    if value == "accuracy" and "correct" in frame:
        paired = frame[(frame["labels"] == labels) & frame["method"].isin([a, b]) & frame["seed"].isin(pairs.index)]
        if paired["correct"].notna().all():
            scores_a, scores_b = (item_scores(paired[paired["method"] == m]) for m in (a, b))
            return metrics.crossed_interval(scores_a - scores_b)
    return metrics.paired_interval(pairs[a], pairs[b])


def compare(frame: pd.DataFrame, a: str, b: str, *, value: str = "accuracy") -> pd.DataFrame:
    """`difference` at every label budget: columns labels, mean, low, high, shown ("+", "-" or "not shown")."""
    rows = []
    for labels in sorted(frame["labels"].unique()):
        found = difference(frame, a, b, labels, value=value)
        shown = ("+" if found.mean > 0 else "-") if found.excludes_zero else "not shown"
        rows.append({"labels": labels, "mean": found.mean, "low": found.low, "high": found.high, "shown": shown})
    return pd.DataFrame(rows)


def _paired(frame: pd.DataFrame, labels: int, value: str) -> pd.DataFrame:
    return frame[frame["labels"] == labels].pivot_table(index="seed", columns="method", values=value)


def _check_methods(frame: pd.DataFrame, *names: str) -> None:
    known = frame["method"].unique()
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} has no runs; there are {', '.join(map(str, known))}")


class SliceDisagrees(AssertionError):
    """A part of a stored grid, computed again, came out differently."""


def assert_agrees(stored: pd.DataFrame, live: pd.DataFrame, *, value: str = "accuracy", slack: float = 0.02) -> None:
    """Prove that a slice computed on this machine agrees with the stored grid.

    For every method and budget in `live`: the two means may differ by the stored interval's half width plus
    `slack` (rounding differs between machines, and training amplifies it). Raises SliceDisagrees naming the first
    that does not, ValueError if the grid lacks a method or budget.
    """
    for (method, labels), runs in live.groupby(["method", "labels"]):
        before = stored[(stored["method"] == method) & (stored["labels"] == labels)]
        if len(before) < 2:
            raise ValueError(f"the stored grid has no runs of {method!r} at {labels} labels")
        found, now = metrics.t_interval(before[value]), runs[value].mean()
        if abs(now - found.mean) > found.half_width + slack:
            raise SliceDisagrees(f"{method} at {labels} labels: stored {found:.3f}, this run {now:.3f}; the stored grid "
                                 "is out of date (run python -m tlutils.experiments) or this machine computes differently")


def assert_rows_agree(stored: pd.DataFrame, live: pd.DataFrame, *, value: str = "accuracy", tolerance: float = 0.05) -> int:
    """Prove that rows computed on this machine agree, run by run, with those of the stored grid; returns how many there were.

    A row is found again by all columns that both have and that hold no measured numbers: text, whole numbers, and the settings
    `strength`, `rate` and `level`. tolerance: how far a value may be off (rounding differs between machines, and training
    amplifies it). Raises SliceDisagrees naming the first that is, ValueError for a row that the grid lacks.
    """
    keys = [c for c in live if c in stored and c != value and (live[c].dtype.kind != "f" or c in ("strength", "rate", "level"))]
    settings = {c: float for c in ("strength", "rate", "level") if c in keys}
    live, stored = live.astype(settings), stored.astype(settings)
    both = live.merge(stored[[*keys, value]].drop_duplicates(keys), on=keys, how="left", suffixes=("", " stored"))
    for row in both.to_dict("records"):
        name = ", ".join(f"{k} {row[k]}" for k in keys)
        if np.isnan(row[f"{value} stored"]):
            raise ValueError(f"the stored grid has no run with {name}")
        if abs(row[value] - row[f"{value} stored"]) > tolerance:
            raise SliceDisagrees(f"{name}: stored {row[f'{value} stored']:.3f}, this run {row[value]:.3f}; the stored grid is out of date "
                                 "(run python -m tlutils.experiments) or this machine computes differently")
    return len(both)


@dataclass(frozen=True)
class Efficiency:
    """How many times the labels scratch needs. `at_least` is True where scratch never got there in the range."""
    accuracy: float
    ratio: Interval
    at_least: bool

    def __str__(self) -> str:
        mark = "> " if self.at_least else ""
        return f"{mark}{self.ratio.mean:.0f}x [{self.ratio.low:.0f}, {self.ratio.high:.0f}] for {self.accuracy:.0%}"


def labels_needed(budgets, accuracies, goal: float) -> float:
    """Labels per class at which a curve first reaches `goal`, linear in log labels; inf if it never does.

    budgets, accuracies: pairs, in any order. Where the smallest budget is already enough, that budget is returned: an
    upper limit. Raises ValueError unless there is one finite accuracy for each budget, and every budget is positive
    and given once.
    """
    n, a = np.asarray(budgets, float), np.asarray(accuracies, float)
    if n.ndim != 1 or n.shape != a.shape or not len(n):
        raise ValueError(f"budgets and accuracies: give one accuracy for each budget; got {n.size} and {a.size}")
    if not (n > 0).all() or len(np.unique(n)) < len(n) or not np.isfinite([n, a]).all():
        raise ValueError(f"budgets must be positive and different, accuracies finite; got {n.tolist()} and {a.tolist()}")
    order = np.argsort(n)
    n, a = n[order], a[order]
    above = np.flatnonzero(a >= goal)
    if not len(above):
        return math.inf
    i = above[0]
    if i == 0:
        return float(n[0])
    share = (goal - a[i - 1]) / (a[i] - a[i - 1])
    return float(np.exp(np.log(n[i - 1]) + share * np.log(n[i] / n[i - 1])))


def transfer_efficiency(frame: pd.DataFrame, transfer: str, scratch: str, goal: float) -> Efficiency:
    """n_scratch(a) / n_transfer(a): the labels that each needs to reach accuracy a = `goal`.

    Computed seed by seed, averaged on the log scale, with a t interval there. Seeds in which scratch never gets
    to the goal count with its largest budget, and the result is marked as a lower limit. Raises ValueError if the
    transfer method itself never gets there.
    """
    _check_methods(frame, transfer, scratch)
    logs, censored = [], False
    largest = float(frame.loc[frame["method"] == scratch, "labels"].max())
    for seed, runs in frame.groupby("seed"):
        need = {}
        for name in (transfer, scratch):
            curve = runs[runs["method"] == name]
            need[name] = labels_needed(curve["labels"], curve["accuracy"], goal)
        if math.isinf(need[transfer]):
            raise ValueError(f"goal: {transfer!r} never reaches {goal:.0%} in seed {seed}; choose a lower goal")
        if math.isinf(need[scratch]):
            censored, need[scratch] = True, largest
        logs.append(math.log(need[scratch] / need[transfer]))
    found = metrics.t_interval(logs)
    return Efficiency(goal, Interval(math.exp(found.mean), math.exp(found.low), math.exp(found.high), found.n), censored)


def log2_ratio(efficiency: Efficiency) -> Interval:
    """A transfer efficiency in doublings: 1 means twice the labels, 3 eight times."""
    ratio = efficiency.ratio
    return Interval(math.log2(ratio.mean), math.log2(ratio.low), math.log2(ratio.high), ratio.n)


def steps_to(frame: pd.DataFrame, goal: float) -> pd.DataFrame:
    """The first recorded step at which each run reached accuracy `goal` (inf if never): method, seed, steps."""
    rows = []
    for (method, seed), run in frame.groupby(["method", "seed"], sort=False):
        reached = run.loc[run["accuracy"] >= goal, "step"]
        rows.append({"method": method, "seed": seed, "steps": float(reached.min()) if len(reached) else math.inf})
    return pd.DataFrame(rows)


def paired_log2(steps: pd.DataFrame, a: str, b: str, *, limit: float | None = None) -> Interval:
    """log2(steps of a / steps of b), paired by seed.

    limit: the length of the runs; a run of `a` that never got there counts with it, and the result is a lower limit.
    Raises ValueError where a run of `b` never got there, or one of `a` and no limit is given.
    """
    table = steps.pivot(index="seed", columns="method", values="steps")[[a, b]]
    if limit is not None:
        table[a] = table[a].clip(upper=limit)
    if not np.isfinite(table.to_numpy()).all():
        raise ValueError("steps: a run never reached the goal; choose a lower one, train longer, or give the limit")
    return metrics.t_interval(np.log2(table[a] / table[b]))


def area_between(frame: pd.DataFrame, a: str, b: str) -> Interval:
    """Mean gap between two learning curves over log labels (in accuracy), seed by seed, with a t interval."""
    _check_methods(frame, a, b)
    areas = []
    for _, runs in frame.groupby("seed"):
        table = runs.pivot_table(index="labels", columns="method", values="accuracy").sort_index()
        gap, x = (table[a] - table[b]).to_numpy(), np.log(table.index.to_numpy(float))
        if len(x) < 2:
            raise ValueError("area_between needs at least two label budgets")
        areas.append(np.trapezoid(gap, x) / (x[-1] - x[0]))
    return metrics.t_interval(areas)
