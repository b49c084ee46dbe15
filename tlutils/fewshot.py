"""Few-shot learning on frozen features: the nearest class mean, and the episodes that few-shot papers report.

A class of a handful of examples is summed up by their mean, its prototype (Snell, Swersky & Zemel 2017); nothing is
trained. An episode is a small task of its own: `ways` classes, `shots` labelled examples of each (the support) and
`queries` others of each to be named. What is reported is the mean over many episodes, with an interval over episodes.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import finetune, metrics

METRICS = ("euclidean", "cosine")


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean feature of each class: (classes, D). features: (N, D), labels: (N,) int64 from 0.

    Raises ValueError if a class from 0 to classes - 1 has no example.
    """
    counts = torch.bincount(labels, minlength=classes)
    if len(counts) > classes:
        raise ValueError(f"labels: must be 0 to classes - 1, got {int(labels.max())} with classes={classes}")
    if classes > len(labels):
        raise ValueError(f"classes: {classes} classes can't have an example each among {len(labels)} examples")
    if not counts.all():
        raise ValueError(f"labels: class {int((counts == 0).nonzero()[0])} of {classes} has no example; give at least one of each")
    return torch.zeros(classes, features.shape[1], dtype=features.dtype).index_add(0, labels, features) / counts[:, None]


class Prototypes:
    """The nearest class mean: each class is the mean of its examples, a new example gets the nearest one's label.

    metric: "euclidean" (Snell et al. 2017), or "cosine": features and means are first scaled to length 1. scores() with the
    squared Euclidean distance is linear in the features up to a part common to all classes, so this is a linear classifier.
    """

    def __init__(self, metric: str = "euclidean"):
        if metric not in METRICS:
            raise ValueError(f"metric: must be one of {', '.join(METRICS)}; got {metric!r}")
        self.metric = metric

    def fit(self, features, labels, *, classes: int | None = None) -> Prototypes:
        """Take the class means. features: (N, D), labels: (N,) of any numbers, or of 0 to classes - 1 if `classes` is given.

        Returns itself. Raises ValueError for lengths that differ, a single class, values that are not finite, more
        classes than examples, or a class without an example.
        """
        features, labels = _checked(features, labels)
        if classes is None:
            self.classes_, labels = torch.unique(labels, return_inverse=True)
        else:
            self.classes_ = torch.arange(classes)
        self.prototypes_ = class_means(self._scaled(features), labels, len(self.classes_))
        return self

    def scores(self, features) -> Tensor:
        """(N, K) float: minus the squared distance to each prototype (after scaling both, for "cosine")."""
        features = _features(features)
        if features.shape[1] != self.prototypes_.shape[1]:
            raise ValueError(f"features: have {features.shape[1]} columns, the prototypes have {self.prototypes_.shape[1]}")
        return -torch.cdist(self._scaled(features), self._scaled(self.prototypes_)) ** 2

    def predict(self, features) -> np.ndarray:
        """(N,) labels, as they were given to `fit`."""
        return self.classes_[self.scores(features).argmax(1)].numpy()

    def _scaled(self, features: Tensor) -> Tensor:
        return torch.nn.functional.normalize(features, dim=1) if self.metric == "cosine" else features


@dataclass(frozen=True)
class Episode:
    """One small task. classes: (ways,) the labels that were drawn; support and query are rows of the features, (ways x shots,)
    and (ways x queries,) int64; their labels run from 0 to ways - 1, in the order of `classes`."""
    classes: Tensor
    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor


def episodes(labels, *, ways: int, shots: int, queries: int = 15, n: int = 200, seed: int = 0) -> Iterator[Episode]:
    """Draw n episodes from labelled examples; within an episode no example is both support and query.

    labels: (N,). The same seed gives the same episodes. Raises ValueError for a single class, fewer than two ways or more
    ways than classes, and for a class with fewer than shots + queries examples.
    """
    labels = torch.as_tensor(np.asarray(labels))
    for name, value, least in (("ways", ways, 2), ("shots", shots, 1), ("queries", queries, 1), ("n", n, 1)):
        if isinstance(value, bool) or value != int(value) or value < least:
            raise ValueError(f"{name}: must be a whole number, at least {least}; got {value}")
    classes, counts = torch.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"labels: all {len(labels)} labels are the same class; an episode needs at least two")
    if ways > len(classes):
        raise ValueError(f"ways: {ways} asked for, but there are only {len(classes)} classes")
    if int(counts.min()) < shots + queries:
        poor = int(counts.argmin())
        raise ValueError(f"shots + queries: {shots} + {queries} asked for, but class {classes[poor].item()} has only "
                         f"{int(counts[poor])} example{'s' * (int(counts[poor]) != 1)}")
    return _drawn(labels, classes, ways, shots, queries, n, seed)


def _drawn(labels, classes, ways, shots, queries, n, seed) -> Iterator[Episode]:
    members = [(labels == c).nonzero()[:, 0] for c in classes]
    draws = torch.Generator().manual_seed(seed)
    numbers = torch.arange(ways)
    for _ in range(n):
        picked = torch.randperm(len(classes), generator=draws)[:ways]
        rows = [members[c][torch.randperm(len(members[c]), generator=draws)[:shots + queries]] for c in picked.tolist()]
        yield Episode(classes[picked], torch.cat([r[:shots] for r in rows]), numbers.repeat_interleave(shots),
                      torch.cat([r[shots:] for r in rows]), numbers.repeat_interleave(queries))


def nearest_mean(support: Tensor, labels: Tensor, query: Tensor, *, metric: str = "euclidean"):
    """Prototypes as a function: fit on the support, name the queries. (S, D), (S,), (Q, D) -> (Q,) labels."""
    return Prototypes(metric).fit(support, labels).predict(query)


def episode_scores(features, labels, *, ways: int, shots: int, queries: int = 15, n: int = 200, seed: int = 0,
                   method: Callable = nearest_mean) -> np.ndarray:
    """(n,) accuracy of a method in each of n episodes; two methods with one seed get the same episodes.

    features: (N, D), labels: (N,). method(support features, support labels, query features) -> predicted labels.
    Raises ValueError as `episodes` does, and for lengths that differ and features that are not finite.
    """
    features, labels = _checked(features, labels)
    found = []
    for e in episodes(labels, ways=ways, shots=shots, queries=queries, n=n, seed=seed):
        predicted = method(features[e.support], e.support_labels, features[e.query])
        found.append(metrics.accuracy(predicted, e.query_labels))
    return np.array(found)


def episode_accuracy(features, labels, **options) -> metrics.Interval:
    """Mean accuracy over episodes with its 95 % interval over episodes (see `episode_scores` for the options).

    The interval says how well the mean over episodes of *these* classes and examples is known. It does not cover other
    classes: episodes share them.
    """
    return metrics.t_interval(episode_scores(features, labels, **options))


def _features(features) -> Tensor:
    features = torch.as_tensor(features, dtype=torch.float32)
    if features.ndim != 2:
        raise ValueError(f"features: must be (N, D), got shape {tuple(features.shape)}")
    return features


def _checked(features, labels) -> tuple[Tensor, Tensor]:
    features, labels = _features(features), torch.as_tensor(np.asarray(labels))
    finetune.check_labelled(features, labels, name="labels", of="features")
    return features, labels
