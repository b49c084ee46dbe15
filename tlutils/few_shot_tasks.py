"""Where tasks for `metalearning` come from: stacks of few-shot episodes, classes split so that none is met twice, and sine curves.

A stack is x (T, S + Q, ...) and y (T, S + Q): T tasks whose first S rows are the support and whose other Q rows are the queries.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from . import fewshot


def task_stream(x: Tensor, labels: Tensor, *, ways: int, shots: int, queries: int = 15) -> Callable:
    """A stream of tasks from labelled pictures: `stream(generator, n)` gives x (n, ways (shots + queries), ...) and y from 0 to ways - 1.

    The support's rows come first, ways times shots of them. Raises ValueError as `fewshot.episodes` does.
    """
    next(fewshot.episodes(labels, ways=ways, shots=shots, queries=queries, n=1))       # whatever is wrong is said now

    def stream(generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
        seed = int(torch.randint(2 ** 62, (), generator=generator))
        return stacked(x, fewshot.episodes(labels, ways=ways, shots=shots, queries=queries, n=n, seed=seed))
    return stream


def stacked(x: Tensor, episodes: Iterable[fewshot.Episode]) -> tuple[Tensor, Tensor]:
    """Episodes of one form as a stack of tasks: x (T, S + Q, ...), y (T, S + Q)."""
    episodes = list(episodes)
    rows = torch.stack([torch.cat([e.support, e.query]) for e in episodes])
    return x[rows], torch.stack([torch.cat([e.support_labels, e.query_labels]) for e in episodes])


def split_classes(labels, shares: Sequence[float] = (0.64, 0.16, 0.2), *, seed: int = 0) -> list[Tensor]:
    """Rows of disjoint groups of classes, to train on, to choose on and to report: a task of one has no class of another.

    labels: (N,). shares of the classes, which add up to 1 at most. Raises ValueError for others, or a group of fewer than two classes.
    """
    labels = torch.as_tensor(np.asarray(labels))
    classes = torch.unique(labels)
    if not all(s > 0 for s in shares) or sum(shares) > 1 + 1e-9:
        raise ValueError(f"shares: must be greater than 0 and add up to 1 at most, got {tuple(shares)}")
    order = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))]
    edges = np.round(np.cumsum([0, *shares]) * len(classes)).astype(int)
    groups = [order[a:b] for a, b in zip(edges, edges[1:])]
    if min(map(len, groups)) < 2:
        raise ValueError(f"shares: {tuple(shares)} of {len(classes)} classes leave a group of fewer than two")
    return [torch.isin(labels, group).nonzero()[:, 0] for group in groups]


def disjoint_episodes(labels, *, ways: int, shots: int, queries: int = 15, seed: int = 0) -> list[fewshot.Episode]:
    """Episodes that share no class and so no example: as many as there are classes for. An interval over them covers new classes.

    Raises ValueError as `fewshot.episodes` does.
    """
    labels = torch.as_tensor(np.asarray(labels))
    next(fewshot.episodes(labels, ways=ways, shots=shots, queries=queries, n=1))
    classes = torch.unique(labels)
    order = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))]
    found = []
    for i in range(0, len(order) - ways + 1, ways):
        rows = torch.isin(labels, order[i:i + ways]).nonzero()[:, 0]
        e = next(fewshot.episodes(labels[rows], ways=ways, shots=shots, queries=queries, n=1, seed=seed + i))
        found.append(fewshot.Episode(e.classes, rows[e.support], e.support_labels, rows[e.query], e.query_labels))
    return found


def sinusoids(generator: torch.Generator, n: int, *, points: int = 20) -> tuple[Tensor, Tensor]:
    """n regression tasks: y = A sin(x + b), A from 0.1 to 5, b from 0 to pi, x from -5 to 5 (Finn et al. 2017); (n, points, 1) twice."""
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)
    x = uniform(-5, 5, n, points, 1)
    return x, uniform(0.1, 5, n, 1, 1) * torch.sin(x + uniform(0, np.pi, n, 1, 1))
