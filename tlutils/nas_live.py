"""A live search, small enough for a page: PNAS on six operations that really trains every cell, in one process or several.

    python -m tlutils.nas_live --budget 30                                                 in one process
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m tlutils.nas_live --budget 30    in two

prints one line of JSON: the cells in order with their accuracies, the processes, and the seconds from first cell to last.
"""
from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import torch

from . import nas, nas_benchmark, processes
from .nas_cells import Cell, Space

SPACE = Space(("identity", "sep3", "sep5", "dil3", "avg3", "max3"), blocks=2, back=1, chained=True)     # 21 cells, then 756
BUDGET = 30
STEPS = 120


def accuracy(cell: Cell, task: str = "shapes", seed: int = 0, steps: int = STEPS) -> float:
    """What a network of this cell reaches after so many steps, about half a second on one thread."""
    return nas_benchmark.train_cell(cell, task, seed, steps=steps, warmup=steps // 10)["accuracy"]


def search(budget: int = BUDGET, *, task: str = "shapes", seed: int = 0, steps: int = STEPS, log: str | Path | None = None, team=None) -> nas.Trace:
    """PNAS on SPACE with real training; the processes of a team share the cells."""
    return nas.pnas(partial(accuracy, task=task, seed=seed, steps=steps), SPACE, budget=budget, seed=seed, log=log, team=team)


def main(arguments: list[str] | None = None) -> None:
    """The command: search, and print what was found (the first process does)."""
    parser = argparse.ArgumentParser(prog="python -m tlutils.nas_live", description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, default=BUDGET, help=f"cells to train, the {len(SPACE.first_level())} of one block among them")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", help="a file from which an interrupted search goes on")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    team = processes.team()
    for size, seed in ((nas_benchmark.TRAIN, 1), (nas_benchmark.TEST, 2)):
        nas_benchmark.pictures("shapes", size, seed)             # drawn before the clock starts
    began = time.perf_counter()
    trace = search(options.budget, seed=options.seed, steps=options.steps, log=options.log, team=team)
    if team.is_main_process:
        print(json.dumps({"processes": team.num_processes, "seconds": round(time.perf_counter() - began, 1),
                          "cells": [[str(cell), value] for cell, value in zip(trace.cells, trace.accuracies)]}), flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
