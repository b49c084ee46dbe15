"""Mixing pairs of examples, labels and all: mixup and CutMix on whole batches, for `training.fit`.

A mixed example lies between two others, and its label between theirs: 70 % ring and 30 % star. `fit` takes such soft
labels as they are, since cross-entropy accepts probabilities; `stream` mixes each batch anew.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import finetune


def shares(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    """(n,) float32 shares in [0, 1] from Beta(alpha, alpha): near 0 or 1 for a small alpha, even for 1, near 1/2 for a large one.

    Raises ValueError unless alpha is a positive number.
    """
    if not (np.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha: must be greater than 0, got {alpha}")
    seed = int(torch.randint(2 ** 62, (1,), generator=generator))
    return torch.as_tensor(np.random.default_rng(seed).beta(alpha, alpha, n), dtype=torch.float32)


def mixup(x: Tensor, y: Tensor, generator: torch.Generator, *, classes: int, alpha: float = 0.4) -> tuple[Tensor, Tensor]:
    """Each example blended with another of the batch (mixup, Zhang et al. 2018), here with a share of its own.

    x: (N, ...) float32, y: (N,) int64. Returns x mixed and soft labels (N, classes) that add up to 1. The partners are a
    permutation of the batch. Raises ValueError for alpha <= 0, lengths that differ or a label outside 0 to classes - 1.
    """
    soft = _soft(x, y, classes)
    share, partner = shares(len(x), alpha, generator), torch.randperm(len(x), generator=generator)
    share, partner = share.to(x.device), partner.to(x.device)
    weight = share.view(-1, *[1] * (x.ndim - 1))
    return weight * x + (1 - weight) * x[partner], share[:, None] * soft + (1 - share[:, None]) * soft[partner]


def cutmix(x: Tensor, y: Tensor, generator: torch.Generator, *, classes: int, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """A rectangle of each picture replaced by the same place of another; labels by area (CutMix, Yun et al. 2019).

    x: (N, C, H, W), y: (N,) int64. The rectangle has the picture's proportions and an area of 1 - Beta(alpha, alpha), less
    where the border cuts it off. Returns and raises as `mixup`, and for x that is no batch of pictures.
    """
    if x.ndim != 4:
        raise ValueError(f"x: must be pictures (N, C, H, W), got shape {tuple(x.shape)}")
    soft = _soft(x, y, classes)
    n, (height, width) = len(x), x.shape[2:]
    side, partner = (1 - shares(n, alpha, generator)).sqrt(), torch.randperm(n, generator=generator)
    centre_y, centre_x = torch.rand(2, n, generator=generator)

    def inside(centre, length):        # (N, length): pixels whose middle lies within the rectangle
        middle = (torch.arange(length) + 0.5) / length
        return (middle - centre[:, None]).abs() < side[:, None] / 2
    cut = (inside(centre_y, height)[:, :, None] & inside(centre_x, width)[:, None]).to(x.device)
    partner, share = partner.to(x.device), 1 - cut.float().mean((1, 2))
    return torch.where(cut[:, None], x[partner], x), share[:, None] * soft + (1 - share[:, None]) * soft[partner]


MIXES = {"mixup": mixup, "cutmix": cutmix}


def stream(x: Tensor, y: Tensor, *, kind: str = "mixup", classes: int | None = None, augment: Callable | None = None,
           **options) -> Callable:
    """A source of mixed batches for `training.fit(model, stream(...))`: pictures in, soft labels out.

    x: (N, ...) float32, y: (N,) int64 from 0. Each batch is drawn without repetition (all examples where the batch size
    allows it), augmented first (`augment(x, generator)`), then mixed. kind: "mixup" or "cutmix"; options go there.
    Raises ValueError for another kind, lengths that differ, a single class, values that are not finite, a bad alpha.
    """
    if kind not in MIXES:
        raise ValueError(f"kind: must be one of {', '.join(MIXES)}; got {kind!r}")
    finetune.check_labelled(x, y)
    mix, classes = MIXES[kind], int(y.max()) + 1 if classes is None else classes
    mix(x[:2], y[:2], torch.Generator().manual_seed(0), classes=classes, **options)       # settings that can't work stop here

    def batches(generator: torch.Generator, batch_size: int) -> tuple[Tensor, Tensor]:
        rows = torch.randperm(len(x), generator=generator)[:batch_size]
        pictures = x[rows] if augment is None else augment(x[rows], generator)
        return mix(pictures, y[rows], generator, classes=classes, **options)
    return batches


def _soft(x: Tensor, y: Tensor, classes: int) -> Tensor:
    if len(x) != len(y):
        raise ValueError(f"y: has {len(y)} labels for {len(x)} examples; give one label each")
    if len(y) and not (0 <= int(y.min()) and int(y.max()) < classes):
        raise ValueError(f"y: labels must be 0 to classes - 1; they run from {int(y.min())} to {int(y.max())}, classes={classes}")
    return F.one_hot(y, classes).float()
