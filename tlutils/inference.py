"""Outputs and scores of a model, without changing it."""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import batches


def predict(model: nn.Module, x, batch_size: int = 512) -> Tensor:
    """The model's outputs for x, in evaluation mode and without gradients; every module's mode is restored.

    x: (N, ...) float32, or uint8 pictures, or N texts; N >= 1. Returns (N, ...) float32 on the device of x (for texts
    on the CPU). Raises ValueError for an empty x.
    """
    if len(x) == 0:
        raise ValueError("x is empty: give at least one example")
    home = x.device if isinstance(x, Tensor) else torch.device("cpu")
    device = next((p.device for p in model.parameters()), home)
    slices = (x[i:i + batch_size] for i in range(0, len(x), batch_size))
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            parts = [as_float32(model(batches.as_model_input(part, device))).to(home) for part in slices]
    finally:
        for part, mode in modes:
            part.training = mode
    return torch.cat(parts)


def evaluate(model: nn.Module, x, y: Tensor, batch_size: int = 512, loss: Callable | None = None) -> dict:
    """{"loss": mean loss (default: cross-entropy), "accuracy": share of right answers} on x and y.

    y: (N, ...) int64 class numbers for outputs (N, K, ...). For other targets the accuracy is left out.
    """
    batches.check_pair((x, y), "x, y")
    outputs = predict(model, x, batch_size)
    scores = {"loss": float((loss or F.cross_entropy)(outputs, y))}
    if not y.is_floating_point() and outputs.ndim == y.ndim + 1:
        scores["accuracy"] = (outputs.argmax(1) == y).float().mean().item()
    return scores


def as_float32(outputs):
    """Half-precision outputs as float32, so that the loss is computed in full."""
    half = isinstance(outputs, Tensor) and outputs.dtype in (torch.float16, torch.bfloat16)
    return outputs.float() if half else outputs
