"""Speed of what every lesson leans on: `python benchmarks/speed.py` prints it and writes benchmarks/speed.json.

Measured, never asserted in a test: rendering the shapes world (design goal: 5,000 pictures a second on two cores), and a
step of `training.fit` beside a bare loop that does the same work.
"""
from __future__ import annotations

import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from tlutils import report, shapes, training, zoo
from tlutils.finetune import Classifier


def per_second(function, work: int, seconds: float = 3.0) -> float:
    """Units of work a second, after one warm-up call."""
    function()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        function()
        calls += 1
    return calls * work / (time.perf_counter() - start)


def bare_loop(model, x, y, steps: int) -> None:
    """The least that training can do: forward, loss, backward, step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    x = x.contiguous(memory_format=torch.channels_last)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def main() -> None:
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        generator = torch.Generator().manual_seed(0)
        pictures = per_second(lambda: shapes.SHAPES16.stream(generator, 128), 128)
        x, y = shapes.SHAPES16.stream(generator, 128)
        model = Classifier(zoo.load("resnet-mini", None), 16).to(memory_format=torch.channels_last)
        steps = 40
        bare = per_second(lambda: bare_loop(model, x, y, steps), steps)
        fit = per_second(lambda: training.fit(model, (x, y), steps=steps), steps)
        rows.append({"threads": threads, "pictures_per_second": round(pictures), "bare_loop_steps_per_second": round(bare, 1),
                     "fit_steps_per_second": round(fit, 1)})
        print(rows[-1], flush=True)
    result = {"what": "resnet-mini, batches of 128 pictures of 32 x 32", "rows": rows, **report.environment()}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
