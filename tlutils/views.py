"""Random augmentation and cached features together: k views of each picture go through the frozen backbone, once.

A cache answers the same question with the same answer, so augmentation that is new in every epoch can't pass through
it. What can: draw k views of each picture in advance, keep the features of all, and let the head see them in turn.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from . import batches, features, finetune


def extract_views(loaded, x: Tensor, k: int, *, augment: Callable | None = None, seed: int = 0, batch_size: int = 256,
                  cache: str | Path | None = None, name: str | None = None) -> Tensor:
    """Features of k views of every picture: the picture itself, then k - 1 random augmentations of it.

    loaded: what `zoo.load` gives. x: (N, 3, H, W) float32 in [0, 1], or uint8. augment(x, generator) -> x, as in
    `augmentation`. Returns (k, N, D) float32. View j follows from (seed, j) alone: the first of 16 views are the
    views that k = 8 gives. cache: a folder, as in `features.extract`; name then says what the augmentation is, since
    two functions look alike from outside. Neither pictures nor network are touched again when all views lie there.
    Raises ValueError for k below 1, k > 1 without an augmentation, or a cache without a name.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k={k!r} must be a whole number of views, at least 1")
    if k > 1 and augment is None:
        raise ValueError(f"augment: is None, but k={k} asks for {k - 1} augmented views; give one, as augmentation.affine()")
    if k > 1 and cache is not None and not name:
        raise ValueError("name: give the augmentation a name for the cache, for instance name='affine, 30 degrees'")
    shared = {"batch_size": batch_size, "cache": cache}
    views = [features.extract(loaded, x, **shared)]
    for j in range(1, k):
        words = f"{loaded.preprocess!r} after {name}, view {j} of seed {seed}, {batch_size} at a time"
        views.append(features.extract(loaded, x, preprocess=_augmented(loaded, augment, seed, j), fingerprint=words, **shared))
    return torch.stack(views)


def _augmented(loaded, augment: Callable, seed: int, view: int) -> Callable[[Tensor], Tensor]:
    draws = batches.generator(seed, "view", view)
    return lambda x: loaded.preprocess(augment(x, draws))


def probe(views: Tensor, y: Tensor, *, C: float = 0.1):
    """The linear probe of `finetune`, fitted to all views of all examples.

    views: (k, N, D), y: (N,) int64. The loss is summed over k N rows, so C is divided by k: the penalty weighs as much
    as with one view. Returns the fitted pipeline. Raises ValueError for other shapes, lengths that differ, a single
    class or values that are not finite.
    """
    _check(views, y)
    return finetune.linear_probe(views.flatten(0, 1), torch.as_tensor(y).repeat(len(views)), C=C / len(views))


def stream(views: Tensor, y: Tensor) -> Callable:
    """Batches for `training.fit`: random examples, each in one of its k views, drawn anew every time.

    views: (k, N, D), y: (N,) int64. A batch holds no example twice, and at most N. Raises ValueError as `probe`.
    """
    _check(views, y)

    def batch(generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randperm(len(y), generator=generator)[:n]
        view = torch.randint(len(views), (len(chosen),), generator=generator)
        return views[view, chosen], y[chosen]
    return batch


def _check(views: Tensor, y: Tensor) -> None:
    if views.ndim != 3:
        raise ValueError(f"views: must be (k, N, D), as from extract_views; got {tuple(views.shape)}")
    for view in views:
        finetune.check_labelled(view, y, name="y", of="views")
