"""The memory that a training step needs, counted in bytes: weights, gradients, the optimizer's averages, and what the graph keeps.

Counted, not measured: the same on every machine. What an allocator adds, and the short-lived tensors of a single operation, are
left out.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """Bytes of one training step. activations: all that the forward pass keeps for the backward pass, weights apart."""
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_step(model: nn.Module, loss: Callable[[], Tensor], *, averages: int = 2) -> Step:
    """What a step of training takes, by kind. The model is left as it was, no gradient is computed.

    loss: computes the scalar of one batch, e.g. `lambda: cross_entropy(model(x), y)`; the model should be in the mode it trains in.
    averages: numbers that the optimizer keeps for each trainable parameter (Adam 2, SGD with momentum 1). A frozen layer below all
    that learns keeps no activations; one above it does, for gradients go through it.
    Raises ValueError for a loss without a graph.
    """
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()        # it stays alive with the graph, so its address is its own
        return tensor
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        value = loss()
    with torch.no_grad():
        for name, b in model.named_buffers():
            b.copy_(buffers[name])                             # batch norm has counted the batch
    if not value.requires_grad:
        raise ValueError("loss: depends on no trainable parameter; unfreeze a part or add a head")
    learning = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    return Step(weights, learning, averages * learning, sum(kept.values()))
