"""Augmentation of whole batches, on the device where they lie.

Each function maps (N, 3, H, W) float32 in [0, 1] to the same form and draws only from the generator it is
given (on the CPU), so that a run is repeated exactly from its seed.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def affine(*, rotate: float = 30.0, scale: float = 0.25, translate: float = 0.12, flip: bool = False) -> Augmentation:
    """Random rotation (up to `rotate` degrees either way), scaling (1 +- scale), shift (share of the side), mirror."""
    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        n = len(images)
        angle, zoom, dx, dy, mirror = (torch.rand(5, n, generator=generator) * 2 - 1).unbind()
        angle, zoom = angle * math.radians(rotate), 1 / (1 + zoom * scale)
        sign = torch.where((mirror > 0) & flip, -1.0, 1.0)
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        matrix = torch.stack([torch.stack([cos * sign, -sin, dx * 2 * translate], -1),
                              torch.stack([sin * sign, cos, dy * 2 * translate], -1)], -2)
        grid = F.affine_grid(matrix.to(images.device), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return augment


def colour(*, strength: float = 0.4) -> Augmentation:
    """Random brightness, contrast and gain of each channel, each within 1 +- strength."""
    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        gain, contrast = (1 + strength * (torch.rand(2, len(images), 3, 1, 1, generator=generator) * 2 - 1)).unbind()
        gain, contrast = gain.to(images.device), contrast[:, :1].to(images.device)
        mean = images.mean((2, 3), keepdim=True)
        return ((images - mean) * contrast + mean * gain).clamp(0, 1)
    return augment


def compose(*steps: Augmentation) -> Augmentation:
    """One augmentation after the other."""
    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        for step in steps:
            images = step(images, generator)
        return images
    return augment
