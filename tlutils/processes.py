"""One run in several processes: what they exchange.

They are started by `accelerate launch` (GPUs) or, on CPUs, by `ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2`.

Gradients are summed here and not by DistributedDataParallel, which would miss parameters that are unfrozen on
the way. Each step costs one message.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from . import freezing

PLAIN = ("NO", "MULTI_CPU", "MULTI_GPU")
_alone = 0                    # how many `alone` blocks we are in


def team():
    """The Accelerator of this process: its device, its number, how many there are.

    Inside `alone`, a stand-in that knows of no other process.
    Raises ValueError if `accelerate launch` was told to split the model (FSDP, DeepSpeed and the like).
    """
    from accelerate import Accelerator

    found = Accelerator()
    if found.distributed_type.value not in PLAIN:
        raise ValueError(f"accelerate was told to use {found.distributed_type.value}, but fit keeps a whole copy of "
                         "the model in each process: launch plain multi-CPU or multi-GPU processes")
    if _alone:
        return SimpleNamespace(device=found.device, mixed_precision=found.mixed_precision, num_processes=1, process_index=0,
                               is_main_process=True, wait_for_everyone=lambda: None)
    return found


@contextmanager
def alone() -> Iterator[None]:
    """Inside, `fit` trains in this process only: for work where each process trains a model of its own."""
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


def one_thread(threads: int | None) -> None:
    """Set torch to so many threads; None leaves it as it is. Jobs that run side by side take one each."""
    if threads:
        torch.set_num_threads(threads)


def sum_gradients(team, model: nn.Module, losses: Tensor) -> Tensor:
    """Sum every gradient over the processes, in place; returns the sums of `losses`, (K,)."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    known = [p.grad is not None for p in trainable]
    parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in trainable]
    summed = team.reduce(torch.cat([*parts, losses.new_tensor(known, dtype=losses.dtype), losses]), "sum")
    *parts, known, losses = summed.split([*(len(part) for part in parts), len(known), len(losses)])
    for parameter, part, count in zip(trainable, parts, known.tolist(), strict=True):
        if count:                               # some process has a gradient for it
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad.copy_(part.view_as(parameter))
    return losses


def average_buffers(team, model: nn.Module) -> None:
    """Give every process the mean of the floating-point buffers: each knows its own slices' batch statistics."""
    if team.num_processes > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(team.reduce(buffer.clone(), "mean"))


def start_alike(team, model: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if team.num_processes > 1:
        from accelerate.utils import broadcast

        for tensor in freezing.frozen_tensors(model).values():
            tensor.copy_(broadcast(tensor.contiguous()))
