"""Learning to learn from a few examples: MAML, Reptile and prototypical networks, and the fine-tuning that they must beat.

A task is a small problem of its own. Tasks come in stacks (`few_shot_tasks`): x (T, S + Q, ...) and y (T, S + Q, ...), T tasks whose
first S rows are the support, what is learned from, and whose other Q rows are the queries. An objective gives the mean query loss of a
stack as a scalar, and `meta_train` minimises it in the book's own loop. Afterwards a learner names the queries of new tasks
(`task_scores`).
"""
from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from . import adapters, fewshot, finetune, metrics, training

Weights = Mapping[str, Tensor]


class FourConv(nn.Module):
    """The network of the few-shot papers (Vinyals et al. 2016): four times 3x3 convolution, norm, ReLU and halving; then a head.

    Pictures (N, colours, H, W), H and W at least 16, to logits (N, ways); ways=None leaves the head out and gives the features (N,
    `width`), for pictures of `side`. norm="batch" keeps no running statistics: every batch is normalised by itself, in training and
    afterwards, as in MAML's own code. A query's answer then depends on the queries beside it, which is a help that "group" (each
    picture by itself) does not have. Raises ValueError for another norm or a smaller picture.
    """

    def __init__(self, ways: int | None = 5, *, channels: int = 32, colours: int = 1, side: int = 28, norm: str = "batch", seed: int = 0):
        super().__init__()
        if norm not in ("batch", "group"):
            raise ValueError(f'norm: must be "batch" or "group", got {norm!r}')
        if side < 16:
            raise ValueError(f"side={side}: four halvings need pictures of at least 16 pixels a side")
        self.width = channels * (side // 16) ** 2
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            blocks = []
            for inner in (colours, channels, channels, channels):
                normalise = nn.BatchNorm2d(channels, track_running_stats=False) if norm == "batch" else nn.GroupNorm(min(8, channels), channels)
                blocks += [nn.Conv2d(inner, channels, 3, padding=1), normalise, nn.ReLU(), nn.MaxPool2d(2)]
            self.features = nn.Sequential(*blocks, nn.Flatten())
            self.head = nn.Identity() if ways is None else nn.Linear(self.width, ways)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


# ---------------------------------------------------------------------------- inner learning
def adapted(model: nn.Module, x: Tensor, y: Tensor, *, lr: float, steps: int = 1, loss: Callable = F.cross_entropy, first_order: bool = False,
            start: Weights | None = None) -> Weights:
    """The model's weights, by name, after `steps` gradient steps on (x, y); the model itself stays as it was.

    They are functions of the weights they started from (start: default, the model's own), so a gradient can flow back through
    the steps; first_order=True cuts it off at each step's gradient. Use them with `torch.func.functional_call(model, weights, x)`.
    Raises ValueError for a rate below 0, steps below 0, or a model with batch-norm statistics in training mode.
    """
    if not lr >= 0 or steps < 0:
        raise ValueError(f"lr and steps: must be at least 0, got lr={lr} and steps={steps}")
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None and part.training:
            raise ValueError(f"model: {name} would change its running statistics in every inner step; freeze it, or use track_running_stats=False")
    weights = dict(model.named_parameters()) if start is None else dict(start)
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    slope = torch.func.grad(lambda part: loss(functional_call(model, weights | part, (x,)), y))
    for _ in range(steps):
        part = {name: weights[name] for name in learning}
        gradient = slope(part)
        weights |= {name: part[name] - lr * (gradient[name].detach() if first_order else gradient[name]) for name in learning}
    return weights


# ---------------------------------------------------------------------------- objectives: the mean query loss of a stack of tasks
def maml(model: nn.Module, x: Tensor, y: Tensor, support: int, *, lr: float, steps: int = 1, first_order: bool = False,
         loss: Callable = F.cross_entropy) -> Tensor:
    """Loss on the queries with the weights adapted to the support; its gradient goes through the adaptation (Finn, Abbeel & Levine 2017).

    support: how many rows of each task are its support. first_order=True leaves out the second derivatives. Returns a scalar.
    """
    values = []
    for rows, labels in zip(*_stack(x, y, support), strict=True):
        weights = adapted(model, rows[:support], labels[:support], lr=lr, steps=steps, loss=loss, first_order=first_order)
        values.append(loss(functional_call(model, weights, (rows[support:],)), labels[support:]))
    return torch.stack(values).mean()


def reptile(model: nn.Module, x: Tensor, y: Tensor, support: int, *, lr: float, steps: int = 5, loss: Callable = F.cross_entropy) -> Tensor:
    """Its gradient is w - w', with w' adapted to the whole task, queries too (Reptile; Nichol, Achiam & Schulman 2018).

    A step of plain gradient descent at rate e is then w <- w + e (w' - w), the mean over the tasks. The value is the loss on
    the queries before the adaptation, for the record only. Returns a scalar.
    """
    now, values, pull = dict(model.named_parameters()), [], []
    for rows, labels in zip(*_stack(x, y, support), strict=True):
        with torch.no_grad():
            values.append(loss(model(rows[support:]), labels[support:]))
            after = adapted(model, rows, labels, lr=lr, steps=steps, loss=loss, first_order=True)
        pull.append(sum((p * (p.detach() - after[name])).sum() for name, p in now.items() if p.requires_grad))
    pull = torch.stack(pull).mean()
    return torch.stack(values).mean() + pull - pull.detach()


def prototypical(model: nn.Module, x: Tensor, y: Tensor, support: int) -> Tensor:
    """Cross-entropy of the queries by minus the squared distance to the class means of the support (Snell, Swersky & Zemel 2017).

    model gives features; support and queries of a task go through it together. Labels are 0 to ways - 1. Raises ValueError for a
    class without an example in the support.
    """
    values = []
    for rows, labels in zip(*_stack(x, y, support), strict=True):
        features = model(rows)
        means = fewshot.class_means(features[:support], labels[:support], int(labels.max()) + 1)
        values.append(F.cross_entropy(-torch.cdist(features[support:], means).square(), labels[support:]))
    return torch.stack(values).mean()


def _stack(x: Tensor, y: Tensor, support: int) -> tuple[Tensor, Tensor]:
    if x.ndim < 2 or y.shape[:2] != x.shape[:2]:
        raise ValueError(f"x and y: must be stacks of tasks (T, S + Q, ...), got {tuple(x.shape)} and {tuple(y.shape)}")
    if not 1 <= support < x.shape[1]:
        raise ValueError(f"support={support} must be at least 1 and leave queries: a task has {x.shape[1]} rows")
    return x, y


class _Handed(nn.Module):
    """Hands the stack on: the objective calls the model itself, with weights of its own."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return x


def meta_train(model: nn.Module, objective: Callable, tasks: Callable, *, steps: int, lr: float = 1e-3, batch: int = 4, seed: int = 0,
               **options) -> training.History:
    """Minimise objective(model, x, y) over fresh stacks of tasks, in place; returns the history.

    objective: e.g. `lambda net, x, y: maml(net, x, y, 5, lr=0.4)`. tasks: a stream(generator, n) -> (x, y) of n tasks (`few_shot_tasks`).
    batch: tasks in a step. options: for `training.fit` (optimizer, schedule, warmup, clip, checkpoint; validation(model) -> scores). Reptile's own
    outer step is lr=1, optimizer=torch.optim.SGD, schedule="linear".
    """
    if (validation := options.pop("validation", None)) is not None:
        options["validation"] = lambda handed: validation(handed.model)
    return training.fit(_Handed(model), tasks, steps=steps, lr=lr, batch_size=batch, seed=seed, loss=lambda x, y: objective(model, x, y), **options)


# ---------------------------------------------------------------------------- learners: (support, its labels, queries) -> predicted labels
def by_gradient(model: nn.Module, *, lr: float, steps: int = 5) -> Callable:
    """What MAML and Reptile do on a new task: some gradient steps on the support, from the weights that they learned."""
    def learn(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        with torch.no_grad():
            weights = adapted(model, support, labels, lr=lr, steps=steps, first_order=True)
            return functional_call(model, weights, (query,)).argmax(1)
    return learn


def by_prototypes(features: Callable) -> Callable:
    """The nearest class mean. features: a network without its head; support and queries go through it together, as in training."""
    def learn(support: Tensor, labels: Tensor, query: Tensor) -> np.ndarray:
        found = _together(features, support, query)
        return fewshot.nearest_mean(found[0], labels, found[1])
    return learn


def by_probe(features: Callable, *, C: float = 1.0) -> Callable:
    """The baseline: a logistic regression on a good backbone's features (Chen et al. 2019; Tian et al. 2020)."""
    def learn(support: Tensor, labels: Tensor, query: Tensor) -> np.ndarray:
        found = _together(features, support, query)
        return finetune.linear_probe(found[0], labels, C=C).predict(found[1].numpy())
    return learn


def by_finetuning(features: nn.Module, *, lr: float, steps: int = 20) -> Callable:
    """The baseline that people forget: fine-tune a good backbone on the support, all of it, from a head made of the class means.

    The head starts as the prototypes' linear form (Triantafillou et al. 2020); features: a network without its head.
    """
    def learn(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        with torch.no_grad():
            means = fewshot.class_means(features(support), labels, int(labels.max()) + 1)
            head = nn.Linear(means.shape[1], len(means))
            head.weight.copy_(2 * means)
            head.bias.copy_(-means.square().sum(1))
            whole = nn.Sequential(features, head)
            return functional_call(whole, adapted(whole, support, labels, lr=lr, steps=steps, first_order=True), (query,)).argmax(1)
    return learn


def _together(features: Callable, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        found = features(torch.cat([support, query]))
    return found[:len(support)], found[len(support):]


def task_scores(learner: Callable, x: Tensor, y: Tensor, *, support: int, ways: int) -> np.ndarray:
    """(T,) accuracy on the queries of each task of a stack. learner: one of those above; two of them can be compared task by task.

    Raises ValueError for a support smaller than the number of ways, or one that lacks a class.
    """
    adapters.check_whole(ways, "ways")
    if support < ways:
        raise ValueError(f"support={support} examples are fewer than the {ways} ways: give at least one of each class")
    scores = []
    for number, (rows, labels) in enumerate(zip(*_stack(x, y, support), strict=True)):
        if len(labels[:support].unique()) < ways:
            raise ValueError(f"y: the support of task {number} has {len(labels[:support].unique())} of the {ways} classes; give at least one of each")
        scores.append(metrics.accuracy(learner(rows[:support], labels[:support], rows[support:]), labels[support:]))
    return np.array(scores)
