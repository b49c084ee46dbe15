"""A small benchmark for architecture search: every cell of a closed space, trained briefly on the shapes world.

The space (`nas_cells.BENCHMARK_SPACE`): four operations, cells that are chains of up to three blocks, 2,730 in all, so that a
search that adds block after block never leaves it. With the table a search takes milliseconds; NAS-Bench-101 (Ying et al.
2019) is the model. The table is made by

    python -m tlutils.nas_benchmark --seconds 170      trains for so long; call it again, it goes on from its log
    python -m tlutils.nas_benchmark --store            writes what is trained, with its card, into data/results/lab/
"""
from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from . import nas_networks, paths, report, shapes, training, zoo
from .nas_cells import BENCHMARK_SPACE, Cell, Space

TRAIN = 6400                           # pictures that all cells of a task share
TEST = 3200                            # others, to test on
NETWORK = {"width": 16, "reductions": (False, True), "stem_stride": 4}       # two cells, of 8x8 and 4x4 positions
TRAINING = {"steps": 250, "lr": 2e-2, "weight_decay": 1e-2, "batch_size": 32, "warmup": 25}
FEWER = Space(("identity", "sep3", "max3"), blocks=3, back=1, chained=True)  # trained first: closed in itself, 546 cells
TWICE = 200                            # so many of the best cells get a second seed
CODE = ("shapes", "batches", "loop", "training", "optim", "inference", "zoo:Preprocess", "zoo:MINI", "backbones:Backbone", "nas_networks",
        *(f"nas_benchmark:{name}" for name in ("TRAIN", "TEST", "NETWORK", "TRAINING", "TASKS", "_plain", "_textures", "pictures", "train_cell")))


# ---------------------------------------------------------------------------- the tasks
def _plain(names: tuple[str, ...]) -> Callable:
    """Which of these shapes is it? Any colour, place and size, without texture and clutter."""
    def scenes(labels: Tensor, generator: torch.Generator) -> shapes.Scenes:
        index = torch.tensor([shapes.SHAPES.index(name) for name in names])
        colours = torch.randint(0, len(shapes.COLOURS), labels.shape, generator=generator)
        found = shapes.sample(index[labels], colours, generator=generator, clutter=0)
        found.texture.zero_()
        return found
    return scenes


def _textures(labels: Tensor, generator: torch.Generator) -> shapes.Scenes:
    """Which texture has it? Any source shape, without clutter."""
    kinds = torch.randint(0, len(shapes.SOURCE_SHAPES), labels.shape, generator=generator)
    found = shapes.sample(kinds, torch.randint(0, len(shapes.COLOURS), labels.shape, generator=generator), generator=generator, clutter=0)
    found.texture.copy_(labels)
    return found


TASKS: dict[str, tuple[int, Callable]] = {           # name -> classes, scenes of given classes
    "shapes": (8, _plain(shapes.SOURCE_SHAPES[:8])),
    "new shapes": (8, _plain(shapes.TARGET_SHAPES[:8])),
    "textures": (4, _textures),
}


@lru_cache(maxsize=4)
def pictures(task: str, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n pictures (n, 3, 32, 32) float32, preprocessed, of a task's classes in turn, and the classes (n,) int64."""
    if task not in TASKS:
        raise ValueError(f"task: {task!r} is unknown; {paths.did_you_mean(task, TASKS)}")
    classes, scenes = TASKS[task]
    labels = torch.arange(n) % classes
    return zoo.MINI(shapes.render(scenes(labels, torch.Generator().manual_seed(seed)))), labels


def train_cell(cell: Cell, task: str = "shapes", seed: int = 0, **changes) -> dict:
    """Train a network of this cell: a row of task, cell, seed, accuracy, parameters and seconds (of the processor).

    One thread, about a second. The same cell, task and seed give the same accuracy in every process of a machine.
    changes: to TRAINING, fewer steps for instance.
    """
    began = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = nas_networks.CellBackbone(cell, **NETWORK)
        model = nn.Sequential(backbone, nn.Linear(backbone.width, TASKS[task][0]))
    training.fit(model, pictures(task, TRAIN, 1), seed=seed, **TRAINING | changes)
    accuracy = training.evaluate(model, *pictures(task, TEST, 2))["accuracy"]
    return {"task": task, "cell": str(cell), "seed": seed, "accuracy": round(accuracy, 6),
            "parameters": nas_networks.count_parameters(backbone), "seconds": round(time.process_time() - began, 2)}


# ---------------------------------------------------------------------------- what is trained, in which order
def jobs(done: dict[tuple, dict]) -> Iterator[tuple[str, Cell, int]]:
    """All trainings (task, cell, seed) in order, those that are done included; done: rows by (task, cell's text, seed).

    Cells of one and two blocks; thirty of them again with another seed; three blocks of the FEWER operations, then the
    others, by parent; one and two blocks on two other tasks; a second seed for sixty of three blocks at random, and for the best.
    """
    space = BENCHMARK_SPACE
    small, large = space.cells(1) + space.cells(2), space.cells(3)
    large.sort(key=lambda cell: cell not in FEWER)
    yield from (("shapes", cell, 0) for cell in small)
    yield from (("shapes", cell, 1) for cell in random.Random(0).sample(small, 30))
    yield from (("shapes", cell, 0) for cell in large)
    yield from ((task, cell, 0) for task in ("textures", "new shapes") for cell in small)
    yield from (("shapes", cell, 1) for cell in random.Random(1).sample(large, 60))
    scores = {cell: done.get(("shapes", str(cell), 0), {}).get("accuracy", 0.0) for cell in small + large}
    yield from (("shapes", cell, 1) for cell in sorted(scores, key=lambda cell: -scores[cell])[:TWICE])


def log_file() -> Path:
    """Where trained cells are kept until they are stored: a file for each state of the code."""
    return paths.cache_dir() / f"nas_benchmark-{report.code_hash(*CODE)}.jsonl"


def read_log(file: Path) -> dict[tuple, dict]:
    """The rows of a log by (task, cell's text, seed); a line half written does not count."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {(row["task"], row["cell"], row["seed"]): row for row in rows}


def run(seconds: float, file: Path | None = None, *, part: int = 0, parts: int = 1, train: Callable[..., dict] = train_cell) -> int:
    """Train cells for so many seconds, each written to the log at once; returns how many trainings are left.

    part, parts: where several processes work side by side, each takes its own share.
    """
    torch.set_num_threads(1)
    file, began = file or log_file(), time.time()
    done = read_log(file)
    left = {number: job for number, job in enumerate(dict.fromkeys(jobs(done))) if (job[0], str(job[1]), job[2]) not in done}
    mine = [job for number, job in left.items() if number % parts == part]
    with file.open("a", encoding="utf-8") as log:
        if log.tell() and not file.read_text(encoding="utf-8").endswith("\n"):
            log.write("\n")
        for count, (task, cell, seed) in enumerate(mine):
            if time.time() - began > seconds:
                return len(left) - count
            log.write(json.dumps(train(cell, task, seed)) + "\n")
            log.flush()
    return len(left) - len(mine)


# ---------------------------------------------------------------------------- the table
def path() -> Path:
    """The stored table."""
    return paths.data_dir() / "results" / "lab" / "nas_benchmark.json.gz"


def store(rows: Iterable[dict], target: Path | None = None) -> Path:
    """Write rows, column by column, and the card that says how they were made. Raises ValueError for no rows."""
    rows = sorted(rows, key=lambda row: (row["task"], row["seed"], row["cell"].count(";"), row["cell"]))
    if not rows:
        raise ValueError("rows: the benchmark is empty, nothing is written")
    space, have = BENCHMARK_SPACE, {(row["task"], row["cell"], row["seed"]) for row in rows}
    missing = sum(("shapes", str(cell), 0) not in have for b in range(1, space.blocks + 1) for cell in space.cells(b))
    card = {"name": "nas_benchmark", "what": __doc__.splitlines()[0], "code": report.code_hash(*CODE), "network": NETWORK, "training": TRAINING,
            "pictures": {"train": TRAIN, "test": TEST}, "rows": len(rows), "cells_missing": missing,
            "processor_seconds": round(sum(row["seconds"] for row in rows)), **report.environment()}
    table = {"card": card, "columns": {name: [row[name] for row in rows] for name in rows[0]}}
    target = target or path()
    target.parent.mkdir(parents=True, exist_ok=True)
    paths.atomic_write(target, gzip.compress(json.dumps(table).encode(), mtime=0))
    return target


def load(source: Path | None = None):
    """The table as a pandas DataFrame: task, cell, seed, accuracy, parameters, seconds; the card in `attrs["card"]`.

    Raises FileNotFoundError if it has not been made.
    """
    import pandas as pd

    source = source or path()
    if not source.exists():
        raise FileNotFoundError(f"{source.name} is not there: make it with python -m tlutils.nas_benchmark, then --store")
    stored = json.loads(gzip.decompress(source.read_bytes()))
    frame = pd.DataFrame(stored["columns"])
    frame.attrs["card"] = stored["card"]
    return frame


def lookup(frame, task: str = "shapes", seed: int = 0) -> Callable[[Cell], float]:
    """`evaluate(cell)` for the searches of `nas`: the accuracy in the table. It raises ValueError for a cell that is not there."""
    rows = frame[(frame["task"] == task) & (frame["seed"] == seed)]
    scores = dict(zip(rows["cell"], rows["accuracy"]))

    def evaluate(cell: Cell) -> float:
        text = str(cell.canonical())
        if text not in scores:
            raise ValueError(f"the benchmark has no {text!r} on {task!r} with seed {seed}: it holds {len(scores)} cells there")
        return scores[text]
    return evaluate


def main(arguments: list[str] | None = None) -> None:
    """The command: train for a while, or store what is trained."""
    parser = argparse.ArgumentParser(prog="python -m tlutils.nas_benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=170, help="how long to train (default: 170)")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="the I-th (from 0) of N processes side by side")
    parser.add_argument("--store", action="store_true", help="write what is trained into data/results/lab/")
    options = parser.parse_args(arguments)
    if options.store:
        print(store(read_log(log_file()).values()))
    else:
        left = run(options.seconds, part=options.part[0], parts=options.part[1])
        print(f"{len(read_log(log_file()))} trained, {left} left in {log_file()}", flush=True)


if __name__ == "__main__":
    main()
