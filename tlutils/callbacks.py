"""What may happen during `training.fit`: early stopping, unfreezing on a schedule, or a callback of your own.

A callback is any object with some of the methods `on_start(state)`, `on_step(state)`, `on_evaluate(state)`,
`on_end(state)`. One whose memory must survive a resumed run also has `state_dict()` (a dict of numbers, strings,
lists and tensors, dicts nested) and `load_state_dict(saved)`.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from . import freezing


@dataclass
class State:
    """What a callback sees. It may set `stop` to end the run after this step, and change the model's freezing.

    step: steps done. history: on a GPU its `losses` may lag behind by some steps.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    history: Any
    steps: int
    step: int = 0
    stop: bool = False


class Unfreeze:
    """Unfreeze modules on a schedule: {steps done: module or list of modules}; 0 means before the first step."""

    def __init__(self, schedule: Mapping[int, nn.Module | Iterable[nn.Module]]):
        self.schedule = {}
        for step, modules in schedule.items():
            if not isinstance(step, int) or step < 0:
                raise ValueError(f"schedule has the key {step!r}: keys are numbers of steps, at least 0")
            self.schedule[step] = [modules] if isinstance(modules, nn.Module) else list(modules)

    def on_start(self, state: State) -> None:
        """Check that the optimizer can train what will be unfrozen, and catch up with the step of a resumed run."""
        held = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
        for step, modules in self.schedule.items():
            if any(id(p) not in held for module in modules for p in module.parameters()):
                raise ValueError(f"what is to be unfrozen at step {step} has parameters that the optimizer does not "
                                 "hold: put them into groups (frozen ones may be there from the start)")
            if step <= state.step:
                self._unfreeze(step)

    def on_step(self, state: State) -> None:
        """Unfreeze what is due."""
        if state.step in self.schedule:
            self._unfreeze(state.step)

    def _unfreeze(self, step: int) -> None:
        for module in self.schedule[step]:
            freezing.unfreeze(module)


@dataclass
class EarlyStopping:
    """Stop when `metric`, a column of the history, has not improved for `patience` evaluations in a row.

    A metric whose name ends in "loss" is to fall, any other to rise. With `restore_best` the model gets back the
    weights and buffers of its best evaluation when the run ends, whether it ended early or not.
    `best_step` and `best` say when and how good. Raises ValueError for a metric that is not measured.
    """

    patience: int = 5
    metric: str = "validation_accuracy"
    restore_best: bool = True
    best: float | None = field(default=None, init=False)
    best_step: int | None = field(default=None, init=False)
    waited: int = field(default=0, init=False)
    weights: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        if self.patience < 1:
            raise ValueError(f"patience={self.patience} must be at least 1")

    def on_start(self, state: State) -> None:
        """Forget an earlier run, unless this one was resumed."""
        if state.step == 0:
            self.best, self.best_step, self.waited, self.weights = None, None, 0, {}

    def on_evaluate(self, state: State) -> None:
        """Compare the last row with the best so far."""
        row = state.history.last
        if self.metric not in row:
            raise ValueError(f"metric={self.metric!r} is not measured: the history has {', '.join(row)}; give fit "
                             "validation=(x, y) and evaluate_every")
        if self._better(row[self.metric]):
            self.best, self.best_step, self.waited = row[self.metric], state.step, 0
            if self.restore_best:
                self.weights = freezing.frozen_snapshot(state.model)
        else:
            self.waited += 1
            state.stop = state.stop or self.waited >= self.patience

    def on_end(self, state: State) -> None:
        """Give the model its best weights back."""
        if self.weights:
            freezing.restore(state.model, self.weights)

    def state_dict(self) -> dict:
        """Its memory, for a checkpoint."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, saved: dict) -> None:
        """Take up the memory of a checkpoint."""
        self.best, self.best_step = saved["best"], saved["best_step"]
        self.waited, self.weights = saved["waited"], saved["weights"]

    def _better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        falls = self.metric.endswith("loss")
        return self.best is None or (value < self.best if falls else value > self.best)
