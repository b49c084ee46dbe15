"""Searches for good cells, on anything that says how good a cell is, with a counted budget of trained cells.

`pnas` is progressive search (Liu et al. 2018): all cells of one block first, then the most promising ones with a block more.
Its rivals: `random_search`, `evolution` (regularised; Real et al. 2019), `local_search` (White et al. 2021) and `one_shot`,
a predictor that ranks the whole space once (Wen et al. 2020). All take `evaluate(cell) -> accuracy` and give a `Trace`.

A search with a `log` writes every trained cell there at once; called again with the same settings it goes on from the log.
With a `team` (`processes.team()`) each process trains its share of every batch of cells, and all see all results: the trace
is that of one process as long as `evaluate` gives a cell the same accuracy everywhere.
"""
from __future__ import annotations

import itertools
import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import paths, processes
from .nas_cells import Cell, Space
from .nas_predictors import Predictor

MOST_CANDIDATES = 5_000       # spaces up to this size are ranked whole, larger ones by a sample of so many cells
PATIENCE = 200                # proposals in a row of cells that are trained already, after which a search draws at random


@dataclass(frozen=True)
class Trace:
    """What a search trained, in order: cells and their accuracies, both of length N."""

    cells: list[Cell]
    accuracies: list[float]

    @property
    def best(self) -> np.ndarray:
        """(N,) the best accuracy after each trained cell."""
        return np.maximum.accumulate(self.accuracies)

    @property
    def winner(self) -> Cell:
        """The best cell, the earliest of equals."""
        return self.cells[int(np.argmax(self.accuracies))]

    def models_to(self, goal: float) -> float:
        """How many cells were trained until one reached `goal`; inf if none did."""
        reached = np.flatnonzero(np.asarray(self.accuracies) >= goal)
        return float(reached[0] + 1) if len(reached) else math.inf


class Trials:
    """The cells that a search has trained: counted, logged, and shared by all processes of a team.

    evaluate(cell) -> accuracy. budget: the most cells to train. log: a file of JSON lines, the first of which holds
    `settings`; if it exists, its cells are not trained again. Raises ValueError if the log belongs to other settings.
    """

    def __init__(self, evaluate: Callable[[Cell], float], budget: int, *, settings: dict | None = None, log: str | Path | None = None,
                 team=None):
        self.evaluate, self.budget, self.team = evaluate, budget, team
        self.scores: dict[Cell, float] = {}
        self.log = None if log is None else Path(log)
        known = self._read(settings or {}) if self.log and self._is_first else {}
        self.known: dict[str, float] = self._from_first(known)

    @property
    def left(self) -> int:
        """How many cells may still be trained."""
        return self.budget - len(self.scores)

    @property
    def trace(self) -> Trace:
        """What has been trained so far."""
        return Trace(list(self.scores), list(self.scores.values()))

    def train(self, cells: Iterable[Cell]) -> None:
        """Train those of the cells that are new, in order, until the budget is spent."""
        new = list(dict.fromkeys(cell for cell in map(Cell.canonical, cells) if cell not in self.scores))[:self.left]
        new = [Cell.parse(text) for text in self._from_first(list(map(str, new)))]
        unknown = [cell for cell in new if str(cell) not in self.known]
        size, rank = (self.team.num_processes, self.team.process_index) if self.team else (1, 0)
        for start in range(0, len(unknown), size):
            share = unknown[start:start + size]
            self._note(share, self._gather(self._value(share[rank]) if rank < len(share) else 0.0)[:len(share)])
        self.scores |= {cell: self.known[str(cell)] for cell in new}

    def _value(self, cell: Cell) -> float:
        with processes.alone() if self.team else nullcontext():
            value = float(self.evaluate(cell))
        if not math.isfinite(value):
            raise ValueError(f"evaluate gave {value} for the cell {cell}: it must give a finite number")
        return value

    def _note(self, cells: list[Cell], values: list[float]) -> None:
        self.known |= {str(cell): value for cell, value in zip(cells, values, strict=True)}
        if self.log and self._is_first:
            with self.log.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"cell": str(cell), "accuracy": value}) + "\n" for cell, value in zip(cells, values))

    def _read(self, settings: dict) -> dict[str, float]:
        lines = self.log.read_text(encoding="utf-8").split("\n") if self.log.exists() else [""]
        if lines[-1]:                                          # killed while it wrote: the half line does not count
            paths.atomic_write(self.log, "".join(line + "\n" for line in lines[:-1]))
        entries = [json.loads(line) for line in lines[:-1]]
        if not entries:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
            return {}
        if entries[0] != {"settings": json.loads(json.dumps(settings))}:
            raise ValueError(f"log={str(self.log)!r} is of a search with other settings: give the same ones again, or another file")
        return {entry["cell"]: entry["accuracy"] for entry in entries[1:]}

    @property
    def _is_first(self) -> bool:
        return self.team is None or self.team.is_main_process

    def _from_first(self, value):
        """What the first process holds, so that all go the same way."""
        if self.team is None or self.team.num_processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def _gather(self, value: float) -> list[float]:
        if self.team is None or self.team.num_processes == 1:
            return [value]
        import torch

        return self.team.gather(torch.tensor([value], dtype=torch.float64, device=self.team.device)).tolist()


def _trials(name: str, evaluate, space: Space, budget: int, seed: int, log, team, **settings) -> tuple[Trials, random.Random]:
    if budget < 1:
        raise ValueError(f"budget={budget}: a search trains at least one cell")
    settings = {"search": name, "space": [list(space.operations), space.blocks, space.back, space.chained], "budget": budget,
                "seed": seed, **settings}
    return Trials(evaluate, budget, settings=settings, log=log, team=team), random.Random(f"{name} {seed}")


# ---------------------------------------------------------------------------- progressive search
def pnas(evaluate: Callable[[Cell], float], space: Space, *, budget: int, keep: int | Sequence[int] | None = None,
         predictor: Predictor | None | str = "default", warm: bool = False, progression: bool = True, seed: int = 0,
         log: str | Path | None = None, team=None) -> Trace:
    """Progressive neural architecture search (Liu et al. 2018, algorithm 1).

    All cells of one block are trained. Then, level by level: the predictor learns from all cells trained so far, the kept
    cells get one block more in every possible way, and the `keep` children of the highest predicted accuracy are trained.
    keep: default, what the budget allows after the first level in equal parts, the last one taking the rest. A number holds
    for every level (K in the paper); a sequence names one for each level after the first but the last, which takes the rest.
    For ablations: predictor=None takes children at random; progression=False trains full cells from the start (as many
    batches of the same sizes, the first at random, the others the highest predicted of all full cells); warm=True lets
    every fit go on from what the `predictor` that you pass has learned before, from another task for instance.
    Raises ValueError for a budget smaller than the first level, for a `keep` below 1 or of the wrong length.
    """
    first = space.first_level()
    if budget < len(first):
        raise ValueError(f"budget={budget} is smaller than the first level, the {len(first)} cells of one block: allow at least so many")
    counts = _keep_at(space, keep, budget - len(first))
    if predictor == "default":
        predictor = Predictor(seed=seed)
    trials, dice = _trials("pnas", evaluate, space, budget, seed, log, team, keep=keep, progression=progression, warm=warm,
                           predictor=None if predictor is None else [*predictor.kinds, predictor.members])
    if not progression:
        first = _distinct(space, dice, len(first), set())
    trials.train(first)
    beam = list(trials.scores)
    for count in counts:
        if trials.left == 0:
            break
        pool = space.expand(beam) if progression else _candidates(space, dice)
        pool = [cell for cell in pool if cell not in trials.scores]
        beam = _most_promising(pool, min(trials.left, len(pool), count), trials, predictor, dice, warm)
        trials.train(beam)
    return trials.trace


def _keep_at(space: Space, keep: int | Sequence[int] | None, rest: int) -> list[int]:
    """How many cells of each level after the first are trained, `rest` in all at the most."""
    levels = space.blocks - 1
    if keep is None:
        return [max(1, rest // max(1, levels))] * (levels - 1) + [rest] * (levels > 0)
    counts = [keep] * levels if isinstance(keep, int) else [*keep, *[rest] * (levels > 0)]
    if len(counts) != levels:
        raise ValueError(f"keep={tuple(keep)}: name {max(0, levels - 1)}, one for each level between the first and the last")
    if any(count < 1 for count in counts[:levels if isinstance(keep, int) else -1]):
        raise ValueError(f"keep={keep}: at least one cell must be kept at each level")
    return counts


def _most_promising(pool: list[Cell], count: int, trials: Trials, predictor: Predictor | None, dice: random.Random, warm: bool) -> list[Cell]:
    if predictor is None:
        return dice.sample(pool, count)
    predictor.fit(list(trials.scores), list(trials.scores.values()), warm=warm)
    order = np.argsort(-predictor.predict(pool), kind="stable")
    return [pool[i] for i in order[:count]]


# ---------------------------------------------------------------------------- its rivals
def random_search(evaluate: Callable[[Cell], float], space: Space, *, budget: int, seed: int = 0, log: str | Path | None = None,
                  team=None) -> Trace:
    """Different cells of full size, drawn at random."""
    trials, dice = _trials("random_search", evaluate, space, budget, seed, log, team)
    trials.train(_distinct(space, dice, budget, set()))
    return trials.trace


def evolution(evaluate: Callable[[Cell], float], space: Space, *, budget: int, population: int = 20, sample: int = 5, seed: int = 0,
              log: str | Path | None = None, team=None) -> Trace:
    """Regularised evolution (Real et al. 2019): the best of a random sample gets a mutant, the oldest cell dies.

    population, sample: there 100 and 25, for a budget of 20,000. A mutant that is trained already costs nothing.
    """
    if not 1 <= sample <= population:
        raise ValueError(f"sample={sample} must lie between 1 and the population, {population}")
    trials, dice = _trials("evolution", evaluate, space, budget, seed, log, team, population=population, sample=sample)
    trials.train(_distinct(space, dice, min(population, budget), set()))
    alive, idle = deque(trials.scores, maxlen=population), 0
    while trials.left and idle < PATIENCE:
        before = trials.left
        parent = max(dice.sample(list(alive), min(sample, len(alive))), key=trials.scores.__getitem__)
        child = space.mutate(parent, dice)
        trials.train([child])
        alive.append(child)
        idle = idle + 1 if trials.left == before else 0
    trials.train(_distinct(space, dice, trials.left, set(trials.scores)))
    return trials.trace


def local_search(evaluate: Callable[[Cell], float], space: Space, *, budget: int, initial: int = 10, seed: int = 0,
                 log: str | Path | None = None, team=None) -> Trace:
    """Local search (White et al. 2021): from the best of a few random cells to its best neighbour, until none is better; then anew."""
    if initial < 1:
        raise ValueError(f"initial={initial}: a local search starts from at least one cell")
    trials, dice = _trials("local_search", evaluate, space, budget, seed, log, team, initial=initial)
    while trials.left:
        start = _distinct(space, dice, min(initial, trials.left), set(trials.scores))
        if not start:
            break
        trials.train(start)
        here = max(start, key=trials.scores.__getitem__)
        while trials.left:
            around = space.neighbours(here)
            dice.shuffle(around)
            trials.train(around)
            best = max((cell for cell in around if cell in trials.scores), key=trials.scores.__getitem__, default=here)
            if trials.scores[best] <= trials.scores[here]:
                break
            here = best
    return trials.trace


def one_shot(evaluate: Callable[[Cell], float], space: Space, *, budget: int, first: int | None = None, predictor: Predictor | None = None,
             seed: int = 0, log: str | Path | None = None, team=None) -> Trace:
    """A neural predictor (Wen et al. 2020): learn from random cells, rank all cells of full size once, train the best.

    first: how many random cells (default: half the budget). With first=0 the `predictor` must have been fitted before, on
    another task for instance: it ranks the space as it is.
    """
    first = max(2, budget // 2) if first is None else first
    if not 0 <= first <= budget or first == 1:
        raise ValueError(f"first={first} must be 0, or 2 to the budget of {budget}: a predictor learns from two cells or more")
    predictor = Predictor(seed=seed) if predictor is None else predictor
    trials, dice = _trials("one_shot", evaluate, space, budget, seed, log, team, first=first, predictor=[*predictor.kinds, predictor.members])
    if first:
        trials.train(_distinct(space, dice, first, set()))
        predictor.fit(list(trials.scores), list(trials.scores.values()))
    pool = [cell for cell in _candidates(space, dice) if cell not in trials.scores]
    order = np.argsort(-predictor.predict(pool), kind="stable")
    trials.train(pool[i] for i in order)
    return trials.trace


# ---------------------------------------------------------------------------- cells to choose from
def _is_small(space: Space) -> bool:
    return math.prod(len(space.choices(number)) for number in range(space.blocks)) <= 2 * MOST_CANDIDATES


def _candidates(space: Space, dice: random.Random) -> list[Cell]:
    """All cells of full size, or a sample where there are too many."""
    return space.cells() if _is_small(space) else _distinct(space, dice, MOST_CANDIDATES, set())


def _distinct(space: Space, dice: random.Random, count: int, besides: set[Cell]) -> list[Cell]:
    """So many different cells of full size at random, none of them in `besides`; fewer if there are no more."""
    if _is_small(space):
        pool = [cell for cell in space.cells() if cell not in besides]
        return dice.sample(pool, min(count, len(pool)))
    drawn = (space.random(dice) for _ in itertools.count())
    fresh: dict[Cell, None] = {}
    for cell in drawn:
        if len(fresh) == count:
            break
        if cell not in besides:
            fresh[cell] = None
    return list(fresh)


METHODS = {"PNAS": pnas, "random search": random_search, "evolution": evolution, "local search": local_search, "one-shot predictor": one_shot}
