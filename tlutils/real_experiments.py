"""The real tier's experiments: public photographs, X-rays and weights, read from local folders.

`python -m tlutils.experiments NAME` runs and records them like the lab's. Protocol: three draws of the labels,
rates chosen once per method on a separate draw, frozen features wherever the question allows it, full training on
small sets only. Test items are shared by the draws, so intervals cross draws and items.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd

from . import augmentation, datasets, evaluation, features, finetune, paths, report, zoo
from .methods import Pixels, Train

SIZE = 128                    # pixels a side, for every set
DRAWS = range(200, 203)
DEV_DRAW = 199                # rates are chosen on this draw, on training pictures that it left over
NETWORKS = {"imagenet": ("mobilenet_v2", "imagenet"), "insects": ("mobilenet_v2", "inat_insect"),
            "birds": ("mobilenet_v2", "inat_bird"), "squeezenet": ("squeezenet1_0", "imagenet_pruned"),
            "random frozen": ("mobilenet_v2", None)}
AUGMENT = augmentation.compose(augmentation.affine(rotate=15, scale=0.15, translate=0.08, flip=True), augmentation.colour(strength=0.2))
TRAIN_BUDGETS = (2, 10, 50, 100)      # of the methods that train the whole network: they take most of the time
TRAINED = {"fine-tuning": ("imagenet", (1e-4, 3e-4, 1e-3), 40), "scratch": (None, (3e-4, 1e-3, 3e-3), 100)}


class FeatureProbe:
    """A linear probe on features that were computed once; x and x_test are row numbers of the data set."""

    def __init__(self, train_features, test_features):
        self.train, self.test = train_features, test_features

    def __call__(self, x, y, x_test, seed) -> np.ndarray:
        return finetune.linear_probe(self.train[x], y).predict(self.test[x_test].numpy())


def probes(dataset, networks=NETWORKS) -> dict[str, FeatureProbe]:
    """One probe per source network; its features come from the cache when they are there."""
    made = {}
    for name, (model, weights) in networks.items():
        loaded = zoo.load(model, weights)
        parts = [features.extract(loaded, x, batch_size=64, cache=paths.cache_dir() / "features")
                 for x in (dataset.x_train, dataset.x_test)]
        made[name] = FeatureProbe(*parts)
    return made


def by_index(dataset):
    """The data set with row numbers in the place of pictures, for probes on stored features."""
    import torch

    return replace(dataset, x_train=torch.arange(len(dataset.y_train)), x_test=torch.arange(len(dataset.y_test)))


def small(dataset, size: int = 32):
    """The data set at `size` pixels, float in [0, 1], for the baseline on pixels."""
    import torch.nn.functional as F

    def shrink(x):
        return F.interpolate(datasets.as_float(x), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return replace(dataset, x_train=shrink(dataset.x_train), x_test=shrink(dataset.x_test))


def _trained(name: str, rate: float, steps: int) -> Train:
    source = TRAINED[name][0]
    return Train(source, rate, steps, model="mobilenet_v2", batch_size=32, augment=AUGMENT)


@lru_cache(maxsize=None)
def _rate(name: str, set_name: str, labels: int) -> float:
    """Chosen on DEV_DRAW: trained on its labels, judged on 100 training pictures that it left over."""
    dataset = _load(set_name)
    rng = np.random.default_rng(DEV_DRAW)
    order = rng.permutation(len(dataset.y_train))
    held, rest = order[:100], order[100:]
    part = replace(dataset, x_train=dataset.x_train[rest], y_train=dataset.y_train[rest],
                   x_test=dataset.x_train[held], y_test=dataset.y_train[held])
    scores = {}
    for rate in TRAINED[name][1]:
        frame = evaluation.learning_curve({name: _trained(name, rate, TRAINED[name][2])}, [labels], [DEV_DRAW], draw=evaluation.pool(part))
        scores[rate] = frame["accuracy"].mean()
    return max(scores, key=scores.get)


@lru_cache(maxsize=2)
def _load(name: str):
    if name == "chest_xray":
        return datasets.load(name, size=SIZE, classes=["no_finding", "pneumonia"])
    return datasets.load(name, size=SIZE)


def _recorded_rates() -> dict[str, float]:
    """The rates that `ants_bees` chose: once per method, for all sets (the real tier's protocol)."""
    frame = report.load("real", "ants_bees").dropna(subset="rate")
    return frame.groupby("method")["rate"].first().to_dict()


def curves(name: str, probe_budgets, train_budgets, rate: Callable[[str], float]) -> list[dict]:
    """Probes from every source, pixels, fine-tuning and scratch on one set, over label budgets.

    rate(method): the learning rate of "fine-tuning" or "scratch".
    """
    dataset = _load(name)
    frames = [evaluation.learning_curve(probes(dataset), probe_budgets, DRAWS, draw=evaluation.pool(by_index(dataset)), items=True),
              evaluation.learning_curve({"pixels": Pixels()}, probe_budgets, DRAWS, draw=evaluation.pool(small(dataset)), items=True)]
    for method, (_, _, steps) in TRAINED.items():
        chosen = rate(method)
        frame = evaluation.learning_curve({method: _trained(method, chosen, steps)}, train_budgets, DRAWS, draw=evaluation.pool(dataset), items=True)
        frames.append(frame.assign(rate=chosen))
        print(frame.groupby(["method", "labels"])["accuracy"].mean(), flush=True)
    rows = pd.concat(frames).assign(data=name)
    return [{k: v for k, v in row.items() if v == v} for row in rows.to_dict("records")]


def ants_bees() -> list[dict]:
    """Ants against bees: 244 photographs to learn from, five source networks, fine-tuning and scratch."""
    return curves("hymenoptera", (1, 2, 5, 10, 20, 50, 100), TRAIN_BUDGETS, lambda method: _rate(method, "hymenoptera", 20))


def xrays() -> list[dict]:
    """Chest X-rays, no finding against pneumonia: probes, fine-tuning and scratch."""
    return curves("chest_xray", (2, 5, 10, 20, 50, 100, 200), TRAIN_BUDGETS, _recorded_rates().get)


TARGETS = {"ants and bees": "hymenoptera", "X-rays": "chest_xray", "clothing": "clothing10", "PACS photo": "pacs",
           "PACS sketch": "pacs", "CIFAR-10": "cifar10"}


def sources_targets() -> list[dict]:
    """Probes from every source network on six targets, at 5 and 20 labels per class."""
    rows = []
    for target, name in TARGETS.items():
        started = time.time()
        domain = target.removeprefix("PACS ") if name == "pacs" else None
        dataset = thinned(datasets.load(name, size=SIZE, domain=domain) if domain else _load(name))
        frame = pd.concat([
            evaluation.learning_curve(probes(dataset), (5, 20), DRAWS, draw=evaluation.pool(by_index(dataset)), items=True),
            evaluation.learning_curve({"pixels": Pixels()}, (5, 20), DRAWS, draw=evaluation.pool(small(dataset)), items=True)])
        rows += frame.assign(data=target).to_dict("records")
        print(f"{target}: {time.time() - started:.0f} s", flush=True)
    return rows


def thinned(dataset, train: int = 60, test: int = 50, seed: int = 0):
    """At most so many training and test items of each class: enough for a probe, cheap on a CPU."""
    rng = np.random.default_rng(seed)

    def pick(y, most):
        y = np.asarray(y)
        return np.concatenate([rng.permutation(np.flatnonzero(y == c))[:most] for c in np.unique(y)])
    a, b = pick(dataset.y_train, train), pick(dataset.y_test, test)
    return replace(dataset, x_train=dataset.x_train[a], y_train=dataset.y_train[a], x_test=dataset.x_test[b], y_test=dataset.y_test[b])


def provenance(rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind some rows, for the card (from the same local files)."""
    sets = {"hymenoptera", "chest_xray"} & {row["data"] for row in rows} or set(TARGETS.values())
    networks = {name: zoo.load(*NETWORKS[name]).card.get("sha256", "random initialisation") for name in NETWORKS}
    data = {name: datasets.load(name, size=SIZE).card["sha256"] for name in sorted(sets)}
    return {"weights_sha256": networks, "data_sha256": data}


EXPERIMENTS = {f.__name__: f for f in (ants_bees, xrays, sources_targets)}
