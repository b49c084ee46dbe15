"""Adapting a trained model to a new domain from its unlabelled examples.

Each function works on a copy and gives the copy back, in evaluation mode; the model that came in stays as it was.
x: (N, 3, H, W) pictures in [0, 1] or uint8, whatever the model takes.
"""
from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from . import batches


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The model's batch-norm layers that keep running statistics, in order. Raises ValueError where there is none."""
    found = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    if not found:
        raise ValueError(f"model: {type(model).__name__} has no batch norm with running statistics, so there is nothing to adapt")
    return found


def entropy(logits: Tensor) -> Tensor:
    """(N,) entropy of the softmax of each row, in nats: 0 where the model is certain, log K where it has no idea."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def adabn(model: nn.Module, x: Tensor, *, batch_size: int = 512, source_weight: float = 0.0) -> nn.Module:
    """A copy of the model whose batch-norm statistics are those of x (AdaBN, Li et al. 2017). No parameter changes.

    The pictures go through once; every batch is normalised by its own mean and variance, and the layers keep those of
    all of x. With N <= batch_size the copy in evaluation mode computes what the model in training mode computes on x.
    source_weight: the share of the old statistics in the new ones, 0 to 1. With n pictures, N / (N + n) counts the old
    ones as N pictures (Schneider et al. 2020): a help where few have come.
    Raises ValueError for an empty x, values that are not finite, a source_weight outside [0, 1], or a model without
    batch norm.
    """
    _check(x, batch_size)
    if not 0 <= source_weight <= 1:
        raise ValueError(f"source_weight: must lie in [0, 1], got {source_weight}")
    batch_norms(model)
    adapted = copy.deepcopy(model).eval()
    meters = [_Meter(layer, source_weight) for layer in batch_norms(adapted)]
    try:
        with torch.no_grad():
            for part in x.split(batch_size):
                adapted(batches.as_model_input(part, _device(adapted, x)))
    finally:
        for meter in meters:
            meter.hook.remove()
    for meter in meters:
        meter.finish()
    return adapted


class _Meter:
    """Watches the input of one batch norm: normalises each batch by its own statistics, and adds up those of all."""

    def __init__(self, layer: nn.Module, source_weight: float):
        self.layer, self.weight = layer, source_weight
        self.old = layer.running_mean.clone(), layer.running_var.clone()
        self.count, self.sum, self.squares = 0, 0.0, 0.0
        self.hook = layer.register_forward_pre_hook(self.see)

    def see(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        """Called with each batch."""
        axes = [i for i in range(inputs[0].ndim) if i != 1]
        values = inputs[0]
        variance, mean = torch.var_mean(values, axes, correction=0)
        n = values.numel() // values.shape[1]
        self.count += n
        self.sum = self.sum + n * mean.double()
        self.squares = self.squares + n * (variance.double() + mean.double() ** 2)
        self.set(mean, variance)

    def finish(self) -> None:
        """Give the layer the statistics of everything it saw; a layer that saw nothing keeps its own."""
        if self.count:
            mean = self.sum / self.count
            self.set(mean, (self.squares / self.count - mean ** 2).clamp_min(0))

    def set(self, mean: Tensor, variance: Tensor) -> None:
        """The layer's statistics: these, mixed with the old ones."""
        for kept, old, new in zip((self.layer.running_mean, self.layer.running_var), self.old, (mean, variance)):
            kept.copy_(self.weight * old + (1 - self.weight) * new)


def tent(model: nn.Module, x: Tensor, *, lr: float = 1e-3, steps: int = 50, batch_size: int = 64, seed: int = 0,
         history: list | None = None) -> nn.Module:
    """A copy that has learned to be sure of itself on x: entropy minimisation (TENT, Wang et al. 2021).

    Only the batch norms' scales and shifts learn (Adam); every batch is normalised by its own statistics. At the end the
    layers keep the statistics of all of x, as after `adabn`, so steps=0 is `adabn`. This is the offline form: the
    pictures are seen several times and judged afterwards. history: a list that gets the mean entropy of every step.
    Raises ValueError for an empty x, one picture, values that are not finite, a rate not above 0, negative steps,
    batches of one, or a model without batch norm; FloatingPointError where the entropy is no longer finite.
    """
    _check(x, batch_size)
    if not lr > 0:
        raise ValueError(f"lr: must be greater than 0, got {lr}")
    if steps < 0:
        raise ValueError(f"steps: must be at least 0, got {steps}")
    if min(batch_size, len(x)) < 2:
        raise ValueError(f"x: TENT needs at least 2 pictures in a batch, got {len(x)} pictures in batches of {batch_size}")
    batch_norms(model)
    adapted = copy.deepcopy(model).eval()
    learning = [p for layer in batch_norms(adapted) if layer.affine for p in (layer.weight, layer.bias)]
    if not learning:
        raise ValueError(f"model: the batch norms of {type(model).__name__} have no scale and shift that could learn")
    asked = {p: p.requires_grad for p in adapted.parameters()}
    for parameter in asked:
        parameter.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(learning, lr=lr)
    for layer in batch_norms(adapted):
        layer.training = True
    source = batches.InMemory(x, torch.zeros(len(x)), batch_size, seed, _device(adapted, x), False)
    for step in range(steps):
        with torch.enable_grad():
            loss = entropy(adapted(source(step).x)).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the entropy is {loss.item()} at step {step} with lr={lr:g}: use a smaller rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if history is not None:
            history.append(loss.item())
    for parameter, flag in asked.items():
        parameter.requires_grad_(flag)
        parameter.grad = None
    return adabn(adapted, x)


# ---------------------------------------------------------------------------- checks
def _device(model: nn.Module, x: Tensor) -> torch.device:
    return next((p.device for p in model.parameters()), x.device)


def _check(x: Tensor, batch_size: int) -> None:
    if not len(x):
        raise ValueError(f"x: is empty, shape {tuple(x.shape)}; give at least one picture")
    if x.is_floating_point() and not torch.isfinite(x).all():
        first = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"x: has values that are not finite, first in picture {first}")
    if batch_size < 1:
        raise ValueError(f"batch_size: must be at least 1, got {batch_size}")
