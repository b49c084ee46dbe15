"""The loop behind `training.fit`."""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import batches, freezing, inference, optim, processes
from . import checkpoint as saving
from .callbacks import State
from .history import History

CHECK_EVERY = 20            # steps between looks at the loss on a GPU, where each look waits for the device


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite.

    step (counted from 1), rates (one per parameter group), indices (of the batch's examples; None if they have
    none) say where. On a CPU the weights are those before this step (batch-norm statistics have seen the batch); on a
    GPU some steps may have followed.
    """

    def __init__(self, value: float, step: int, rates: list[float], origin: str, indices: list[int] | None):
        self.value, self.step, self.rates, self.indices = value, step, rates, indices
        which = "" if indices is None else f", examples {first_few(indices)}"
        where = f"step {step} (learning rate {first_few(rates)}; batch: {origin}{which})"
        super().__init__(f"the loss is {value} at {where}. Lower lr, clip the gradients (clip=1.0), or look at these "
                         "examples")


@dataclass
class Run:
    """One call of `fit`: what it needs, and the loop (`__call__`)."""

    state: State
    source: Callable[[int], batches.Batch]
    loss: Callable
    penalty: Callable | None
    augment: Callable | None
    rate_factor: Callable[[int], float]
    validation: Any
    callbacks: list
    seed: int
    dtype: torch.dtype | None
    accumulate: int
    clip: float | None
    team: Any
    device: torch.device
    forward: Callable
    evaluate_every: int
    checkpoint: Path | None
    checkpoint_every: int
    progress: bool
    settings: dict = field(default_factory=dict)

    def __call__(self) -> History:
        state = self.state
        self.seconds, self.pending, self.watched = 0.0, [], self._hooks("on_step")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.autocast = torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()
        if self._resume():
            return state.history
        processes.start_alike(self.team, state.model)
        self._tell("on_start")
        freezing.train_mode(state.model)
        with self._bar() as bar:
            self.clock = time.perf_counter()
            while state.step < state.steps and not state.stop:
                self._step(state.step)
                state.step += 1
                if self.watched:
                    self._tell("on_step")
                    freezing.train_mode(state.model)
                evaluate_now = state.step % self.evaluate_every == 0 or state.step == state.steps or state.stop
                save_now = self.checkpoint is not None and state.step % self.checkpoint_every == 0
                if evaluate_now or save_now:
                    self._pause(evaluate_now, save_now)
                bar.update()
        self._tell("on_end")
        if self.checkpoint is not None:
            self._save(finished=True)
        return state.history

    def _step(self, step: int) -> None:
        """One step of the optimizer; everything random in it follows from (seed, step)."""
        model, optimizer = self.state.model, self.state.optimizer
        rate = self.rate_factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
        self._seed_global(step)
        batch = self.source(step)
        x = batch.x
        if self.augment is not None:
            x = self.augment(x, batches.generator(self.seed, "augment", step))
        optimizer.zero_grad(set_to_none=True)
        value = self._backward(x, batch.y)
        losses = torch.stack([value, value + self._backward_penalty()])
        if self.team.num_processes > 1:
            losses = processes.sum_gradients(self.team, model, losses)
        self.pending.append((losses, batch.origin, batch.indices))
        if self.device.type == "cpu" or len(self.pending) == CHECK_EVERY:
            self._look()
        if self.clip is not None:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), self.clip)
        self.scaler.step(optimizer)
        self.scaler.update()

    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradients of this process's slice, in `accumulate` parts; returns its share of the batch's mean loss."""
        parts = self._parts(len(x))
        if len(parts) == 1 and self.team.num_processes == 1:
            return self._backward_part(x, y, 1.0)
        return torch.stack([self._backward_part(x[part], y[part], (part.stop - part.start) / len(x))
                            for part in parts]).sum()

    def _backward_part(self, x: Tensor, y: Tensor, share: float) -> Tensor:
        with self.autocast:
            outputs = self.forward(x)
        value = self.loss(inference.as_float32(outputs), y)
        if value.ndim or not value.requires_grad:
            raise ValueError(f"loss must be a scalar that depends on a trainable parameter, not {value}: average over "
                             "the batch, and check that something is not frozen")
        if share != 1.0:
            value = value * share
        self.scaler.scale(value).backward()
        return value.detach()

    def _backward_penalty(self) -> Tensor | float:
        if self.penalty is None:
            return 0.0
        value = self.penalty(self.state.model) / self.team.num_processes
        if value.requires_grad:                 # not if all that it pulls on is frozen
            self.scaler.scale(value).backward()
        return value.detach()

    def _parts(self, n: int) -> list[slice]:
        """The slices of a batch of n that this process works through, one after another."""
        wanted = self.team.num_processes * self.accumulate
        if n < wanted:
            raise ValueError(f"a batch of {n} can't be cut in {wanted} ({self.team.num_processes} processes x "
                             f"accumulate={self.accumulate}): use fewer, or a larger batch")
        edges = [n * i // wanted for i in range(wanted + 1)]
        first = self.team.process_index * self.accumulate
        return [slice(edges[i], edges[i + 1]) for i in range(first, first + self.accumulate)]

    def _look(self) -> None:
        """Read the losses that have gathered on the device; stop at the first that is not finite."""
        if not self.pending:
            return
        losses = self.state.history.losses
        pairs = torch.stack([pair for pair, _, _ in self.pending]).tolist()
        for (value, total), (_, origin, indices) in zip(pairs, self.pending, strict=True):
            if not math.isfinite(total):
                step = len(losses)
                rates = [group["initial_lr"] * self.rate_factor(step) for group in self.state.optimizer.param_groups]
                raise NonFiniteLoss(total, step + 1, rates, origin, None if indices is None else indices.tolist())
            losses.append(value)
        self.pending.clear()

    def _pause(self, evaluate_now: bool, save_now: bool) -> None:
        """What happens between steps, with the clock stopped."""
        self._look()
        self.seconds += time.perf_counter() - self.clock
        processes.average_buffers(self.team, self.state.model)
        if evaluate_now:
            self._measure()
            self._tell("on_evaluate")
        if save_now:
            self._save()
        freezing.train_mode(self.state.model)
        self.clock = time.perf_counter()

    def _measure(self) -> None:
        state = self.state
        history = state.history
        since = history.rows[-1]["step"] if history.rows else 0
        row = {"step": state.step, "loss": math.fsum(history.losses[since:]) / (state.step - since),
               "lr": max(group["lr"] for group in state.optimizer.param_groups)}
        if self.validation is not None:
            with self.autocast:
                scores = (self.validation(state.model) if callable(self.validation)
                          else inference.evaluate(state.model, *self.validation, loss=self.loss))
            row |= {f"validation_{name}": float(value) for name, value in scores.items()}
        history.rows.append(row)
        history.seconds.append(self.seconds)

    def _save(self, finished: bool = False) -> None:
        if self.team.is_main_process:
            state, history = self.state, self.state.history
            optimizer = {str(index): values for index, values in state.optimizer.state_dict()["state"].items()}
            saving.save(self.checkpoint, {
                "settings": self.settings, "finished": finished, "step": state.step, "stop": state.stop,
                "model": freezing.frozen_snapshot(state.model),
                "trainable": [name for name, p in state.model.named_parameters() if p.requires_grad],
                "frozen": [name for name, part in state.model.named_modules() if freezing.is_frozen(part)],
                "optimizer": optimizer, "initial_lr": [group["initial_lr"] for group in state.optimizer.param_groups],
                "scaler": self.scaler.state_dict(),
                "callbacks": [c.state_dict() if hasattr(c, "state_dict") else None for c in self.callbacks],
                "rows": history.rows, "losses": torch.tensor(history.losses, dtype=torch.float64),
                "row_seconds": history.seconds, "seconds": self.seconds})
        self.team.wait_for_everyone()

    def _resume(self) -> bool:
        """Take up the checkpoint, if there is one; True if that run was finished."""
        if self.checkpoint is None:
            return False
        if self.team.is_main_process:
            saving.remove_leftovers(self.checkpoint)
        if not self.checkpoint.exists():
            return False
        saved = saving.load(self.checkpoint)
        saving.check_same(self.settings, saved["settings"], self.checkpoint)
        state = self.state
        freezing.restore(state.model, saved["model"])
        freezing.restore_marks(state.model, saved["trainable"], saved["frozen"])
        optim.restore(state.optimizer, saved["optimizer"])
        for group, rate in zip(state.optimizer.param_groups, saved["initial_lr"], strict=True):
            group["initial_lr"] = rate
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        for callback, memory in zip(self.callbacks, saved["callbacks"], strict=True):
            if memory is not None:
                callback.load_state_dict(memory)
        state.history = History(saved["rows"], saved["losses"].tolist(), saved["row_seconds"])
        state.step, state.stop, self.seconds = saved["step"], saved["stop"], saved["seconds"]
        return saved["finished"]

    def _seed_global(self, step: int) -> None:
        """Seed the global generators, which dropout uses: alike in every run, other in every process."""
        rank = self.team.process_index
        seed = batches.derived_seed(self.seed, f"step of process {rank}" if rank else "step", step)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _hooks(self, name: str) -> list[Callable]:
        return [getattr(callback, name) for callback in self.callbacks if hasattr(callback, name)]

    def _tell(self, name: str) -> None:
        for hook in self._hooks(name):
            hook(self.state)

    def _bar(self):
        from tqdm import tqdm
        hidden = not (self.progress and self.team.is_main_process)
        return tqdm(total=self.state.steps, initial=self.state.step, disable=hidden, unit="step")


def first_few(values: Iterable, most: int = 10) -> str:
    """The first values in words, and how many there are in all."""
    values = list(values)
    shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values[:most])
    return shown + (f" ... ({len(values)} in all)" if len(values) > most else "")
