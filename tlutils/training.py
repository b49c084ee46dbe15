"""The one training loop of the book: `fit`, with `predict` and `evaluate`.

Everything random at step t is seeded by (seed, t), so a run can be killed at any step and go on exactly.
The modules behind it: `batches` (what a step sees), `loop` (what it does), `callbacks`, `checkpoint`, `processes`.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from . import batches, freezing, optim, processes
from . import checkpoint as saving
from .callbacks import EarlyStopping, State, Unfreeze
from .history import History
from .inference import evaluate, predict
from .loop import NonFiniteLoss, Run, first_few

__all__ = ["EarlyStopping", "History", "NonFiniteLoss", "State", "Unfreeze", "evaluate", "fit", "predict"]
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def fit(model: nn.Module, train, *, steps: int, lr: float = 1e-3, weight_decay: float = 0.0, optimizer="adamw",
        groups: list[dict] | None = None, batch_size: int = 128, loss: Callable | None = None,
        penalty: Callable | None = None, augment: Callable | None = None, schedule="cosine", warmup: int = 0,
        validation=None, evaluate_every: int | None = None, callbacks: Sequence = (), seed: int = 0,
        precision: str | None = None, compile: bool | str = False, channels_last: bool = True, accumulate: int = 1,
        clip: float | None = None, checkpoint: str | Path | None = None, checkpoint_every: int | None = None,
        progress: bool = False, device=None) -> History:
    """Train `model` in place for `steps` steps; it ends on the device, in evaluation mode.

    train: (x, y) tensors in memory, x (N, ...) float32, uint8 (pictures, divided by 255) or N texts; y (N, ...); or
        `stream(generator, batch_size) -> (x, y)`, called anew for each step; or a torch DataLoader.
    lr, weight_decay, optimizer, groups: see `optim.build`; groups may carry rates of their own (`optim.layerwise`).
        Modules marked by `freezing.freeze` stay in evaluation mode.
    batch_size: with N at most this, each batch is all examples; otherwise each epoch is a new permutation cut
        into full batches. accumulate: so many batches, one after another, make one step. Not used for a DataLoader.
    loss(outputs, y) -> mean over the batch (default: cross-entropy). penalty(model) -> scalar, added to it.
    augment(x, generator) -> x: whole batches on the device; the generator is on the CPU.
    schedule, warmup: see `optim.schedule`. clip: the largest norm of the gradient.
    validation: (x, y), or a function model -> dict of scores; measured every `evaluate_every` steps (default: once,
        at the end). callbacks: see `callbacks`.
    precision: "no", "bf16", "fp16" (GPU only); default: what `accelerate launch` was told, else "no".
    compile: torch.compile, or the name of its backend.
    checkpoint: a file; written every `checkpoint_every` steps (default: 20 times in the run). Where it exists,
        the run goes on from it, and on a CPU ends with the weights, bit for bit, of a run that was never stopped.
    With several processes (`accelerate launch`) each takes its slice of every batch; batch norm then sees slices.

    Raises ValueError for settings that can't work, or that differ from the checkpoint's, FileNotFoundError if the
    checkpoint's folder is missing, NonFiniteLoss for a loss that is NaN or infinite.
    """
    _check_settings(steps=steps, batch_size=batch_size, accumulate=accumulate, evaluate_every=evaluate_every,
                    checkpoint_every=checkpoint_every, clip=clip)
    rate_factor = optim.schedule(schedule, steps, warmup=warmup)
    team = processes.team()
    device = _device(device, team)
    precision = team.mixed_precision if precision is None else precision
    _check_precision(precision, device)
    if checkpoint is not None and not Path(checkpoint).parent.is_dir():
        raise FileNotFoundError(f"checkpoint={str(checkpoint)!r}: the folder {Path(checkpoint).parent} does not exist; "
                                "make it first")
    if validation is not None and not callable(validation):
        batches.check_pair(validation, "validation")
    model.to(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    source = batches.source(train, batch_size=batch_size, accumulate=accumulate, seed=seed, device=device,
                            channels_last=channels_last)
    built = optim.build(model.parameters() if groups is None else groups, lr=lr, weight_decay=weight_decay,
                        optimizer=optimizer)
    _check_held(model, built)
    for group in built.param_groups:
        group["initial_lr"] = group["lr"]
    run = Run(
        state=State(model, built, History(), steps), source=source, loss=loss or F.cross_entropy, penalty=penalty,
        augment=augment, rate_factor=rate_factor, validation=validation, callbacks=list(callbacks), seed=seed,
        dtype=PRECISIONS[precision], accumulate=accumulate, clip=clip, team=team, device=device,
        forward=_compiled(model, compile), evaluate_every=evaluate_every or steps,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        checkpoint_every=checkpoint_every or math.ceil(steps / 20), progress=progress)
    if checkpoint is not None:
        run.settings = _describe_run(
            model, built, train, validation, steps=steps, lr=lr, weight_decay=weight_decay, batch_size=batch_size,
            loss=loss, penalty=penalty, augment=augment, schedule=schedule, warmup=warmup, seed=seed,
            precision=precision, compile=compile, channels_last=channels_last, accumulate=accumulate, clip=clip,
            evaluate_every=evaluate_every, callbacks=[type(c).__name__ for c in callbacks])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            return run()
        finally:
            model.eval()


def _device(device, team) -> torch.device:
    device = team.device if device is None else torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}, but torch finds no CUDA device: use device='cpu' or leave it out")
    if team.num_processes > 1:
        if device.type != team.device.type:
            raise ValueError(f"device={str(device)!r}, but accelerate launched this process on {team.device}: leave "
                             "device out")
        return team.device
    return torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device


def _compiled(model: nn.Module, compile: bool | str) -> Callable:
    if not compile:
        return model
    return torch.compile(model, backend=compile) if isinstance(compile, str) else torch.compile(model)


def _check_settings(*, clip, **counts) -> None:
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}={value!r} must be a whole number, at least 1")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip={clip} must be greater than 0: it is the largest norm of the gradient")


def _check_precision(precision: str, device: torch.device) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown: use one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision='fp16' needs a GPU, this is {device}: use 'bf16' or 'no'")


def _check_held(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    left = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if left:
        raise ValueError(f"groups leave out the trainable parameters {first_few(left)}: add them or freeze them")


def _describe_run(model: nn.Module, optimizer, train, validation, **settings) -> dict:
    """What must be the same for a checkpoint to be taken up, as JSON values."""
    names = {id(p): name for name, p in model.named_parameters()}
    described = {name: saving.in_words(value) for name, value in settings.items()}
    described["model"] = saving.digest(*(f"{name} {tuple(t.shape)} {t.dtype}"
                                         for name, t in freezing.frozen_tensors(model).items()))
    described["optimizer"] = f"{type(optimizer).__name__} {saving.in_words(optimizer.defaults)}"
    described["groups"] = saving.digest(*(
        f"{[names.get(id(p)) for p in group['params']]} {group['initial_lr']} {group.get('weight_decay')}"
        for group in optimizer.param_groups))
    described["train"], described["validation"] = _describe_data(train), _describe_data(validation)
    return described


def _describe_data(data) -> Any:
    if isinstance(data, (tuple, list)):
        return saving.digest(*data)
    if isinstance(data, torch.utils.data.DataLoader):
        return f"DataLoader of {type(data.dataset).__name__}, batch_size {data.batch_size}"
    return saving.in_words(data)
