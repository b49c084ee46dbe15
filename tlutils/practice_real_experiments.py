"""The real experiments of Part 3 on pictures: strategies on ants and bees and on clothes, repairs across PACS's domains, Omniglot.

Protocol: rates chosen once per method on development pictures (a part of the training photographs, or the published
validation part), three seeds for what is shown, test pictures only at the end. Runs are kept in the cache (see
`practice_text_experiments.kept`), so that a stopped experiment goes on where it was.
"""
from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from . import datasets, features, finetune, zoo
from .practice_text_experiments import DEV_SEED, SEEDS, judged, kept
from .real_experiments import AUGMENT, thinned

NETWORK = ("mobilenet_v2", "imagenet")    # with TensorFlow's padding, as it was trained
BATCH = 32


# ---------------------------------------------------------------------------- strategies: ants and bees, clothes
SETS = {"hymenoptera": {"size": 160, "thin": None}, "clothing10": {"size": 128, "thin": 40}}
EPOCHS = {"hymenoptera": {"full": 25, "LP-FT": 6, "last-2": 10}, "clothing10": {"full": 5, "LP-FT": 3, "last-2": 5}}
RATES = {"last-2": (3e-4, 1e-3, 3e-3), "full": (1e-4, 3e-4, 1e-3), "LP-FT": (3e-5, 1e-4, 3e-4)}
FITTED = ("probe", "kNN")
TRAINED = {"last-2": {"strategy": "last-k", "k": 2}, "full": {"strategy": "full"}, "LP-FT": {"strategy": "lp-ft"}}
DEV_EPOCHS = 5                        # of the runs that choose a rate


def loaded_network(layout=torch.channels_last) -> zoo.Loaded:
    """MobileNetV2 with ImageNet's weights, laid out for speed on a CPU."""
    loaded = zoo.load(*NETWORK)
    loaded.backbone.to(memory_format=layout)
    return loaded


def vectors(loaded, x: torch.Tensor, cache=None) -> torch.Tensor:
    """Features (N, 1280) of pictures (N, 3, H, W) uint8, computed channels last."""
    return features.extract(loaded, x.contiguous(memory_format=torch.channels_last), batch_size=BATCH, cache=cache)


def fitted(name: str, train: torch.Tensor, y: torch.Tensor):
    """A linear probe or nearest neighbours (cosine) on features, the strength or the number chosen by five-fold cross-validation."""
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    made = ({C: finetune.linear_probe(train, y, C=C) for C in (1e-3, 1e-2, 1e-1, 1.0)} if name == "probe" else
            {k: KNeighborsClassifier(k, metric="cosine") for k in (1, 5, 10, 20)})
    best = max(made, key=lambda key: cross_val_score(made[key], train.numpy(), y.numpy(), cv=5).mean())
    return made[best].fit(train.numpy(), y.numpy()), best


def _parts(name: str, dev: bool):
    """Training and test part at the set's size; for choosing rates, test pictures are training ones put aside, or the validation part."""
    data = datasets.load(name, size=SETS[name]["size"])
    if dev and data.x_validation is not None:
        data = replace(data, x_test=data.x_validation, y_test=data.y_validation)
    elif dev:
        order = np.random.default_rng(DEV_SEED).permutation(len(data.y_train))
        held, rest = order[:100], order[100:]
        data = replace(data, x_train=data.x_train[rest], y_train=data.y_train[rest], x_test=data.x_train[held], y_test=data.y_train[held])
    return data if SETS[name]["thin"] is None else thinned(data, SETS[name]["thin"], 10**6)


def strategy_run(name: str, method: str, rate: float | None, epochs: int | None, seed: int, dev: bool) -> list[dict]:
    """One strategy from files to answers, in this process: seconds of CPU time and megabytes above what it held before.

    Pictures are decoded anew, so that nothing is had for free; weights are read as usual.
    """
    torch.set_num_threads(1)
    before = _megabytes("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        kept_in, os.environ["TLUTILS_CACHE"] = os.environ.get("TLUTILS_CACHE"), folder
        try:
            began = time.process_time()
            data = _parts(name, dev)
            loaded = loaded_network()
            row = {"method": method, "labels": len(data.y_train), "seed": seed, "data": name, "part": "development" if dev else "test"}
            if method in FITTED:
                train, test = vectors(loaded, data.x_train), vectors(loaded, data.x_test)
                model, row["chosen"] = fitted(method, train, data.y_train)
                found = model.predict(test.numpy())
            else:
                steps = round(epochs * len(data.y_train) / BATCH)
                run = finetune.finetune(loaded, data.x_train, data.y_train, **TRAINED[method], lr=rate, steps=steps, seed=seed, C=0.01,
                                        batch_size=BATCH, weight_decay=0.05, warmup=steps // 10, augment=AUGMENT)
                found = run.predict(data.x_test.contiguous(memory_format=torch.channels_last)).numpy()
                row |= {"rate": rate, "epochs": epochs}
            seconds = time.process_time() - began
        finally:
            os.environ.pop("TLUTILS_CACHE") if kept_in is None else os.environ.update(TLUTILS_CACHE=kept_in)
    y = data.y_test.numpy()
    balanced = float(np.mean([(found[y == c] == c).mean() for c in np.unique(y)]))
    return [row | judged(found, y) | {"balanced": balanced, "seconds": seconds, "megabytes": _megabytes("VmHWM") - before}]


def _megabytes(entry: str) -> float:
    """What Linux says of this process: "VmRSS", the memory that it holds, or "VmHWM", the most that it ever held. NaN elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{entry}:")), float("nan"))


def apart(*settings) -> list[dict]:
    """`strategy_run` in a process of its own, so that its peak of memory is its own."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(strategy_run, *settings).result()


def cache_run(repeat: int) -> list[dict]:
    """The features of all ants and bees, twice with an empty cache at first: CPU seconds of the first pass and of the second."""
    torch.set_num_threads(1)
    data, loaded, rows = datasets.load("hymenoptera", size=SETS["hymenoptera"]["size"]), loaded_network(), []
    x = torch.cat([data.x_train, data.x_test])
    vectors(loaded, x[:BATCH])                                # warms up
    with tempfile.TemporaryDirectory() as folder:
        for method in ("first pass", "cached"):
            began = time.process_time()
            vectors(loaded, x, cache=folder)
            rows.append({"method": method, "labels": len(x), "seed": repeat, "seconds": time.process_time() - began})
    return rows


def chosen_rate(method: str) -> tuple[float, list[dict]]:
    """The rate that did best on ants and bees put aside, after at most DEV_EPOCHS, and the rows that say so."""
    tried = [row for rate in RATES[method]
             for row in kept(apart, "hymenoptera", method, rate, min(EPOCHS["hymenoptera"][method], DEV_EPOCHS), DEV_SEED, True)]
    return max(tried, key=lambda row: row["accuracy"])["rate"], tried


def ants_bees_strategies() -> list[dict]:
    """Ants and bees, all 244 training photographs: strategies compared from files to accuracy, and what the cache of features saves."""
    rows = [row for repeat in range(5) for row in kept(cache_run, repeat)] + _fitted("hymenoptera")
    chosen = {method: chosen_rate(method) for method in EPOCHS["hymenoptera"]}
    return rows + [row for _, tried in chosen.values() for row in tried] + _trained("hymenoptera", {m: rate for m, (rate, _) in chosen.items()})


def clothing_strategies() -> list[dict]:
    """Ten kinds of clothes, at most 40 training photographs each: strategies compared, accuracy and balanced accuracy."""
    return _fitted("clothing10") + _trained("clothing10", {method: chosen_rate(method)[0] for method in EPOCHS["clothing10"]})


def _fitted(name: str) -> list[dict]:
    return [row for method in FITTED for seed in SEEDS for row in kept(apart, name, method, None, None, seed, False)]


def _trained(name: str, rates: dict[str, float]) -> list[dict]:
    return [row for seed in SEEDS for method, epochs in EPOCHS[name].items()
            for row in kept(apart, name, method, rates[method], epochs, seed, False)]


LAB: dict = {}
REAL: dict = {f.__name__: f for f in (ants_bees_strategies, clothing_strategies)}
CODE: dict[str, tuple[str, ...]] = {}
WEIGHTS: dict[str, tuple[str, ...]] = {}
DATA = {"ants_bees_strategies": "hymenoptera", "clothing_strategies": "clothing10"}
NOTES = {
    "ants_bees_strategies": "160 pixels, MobileNetV2 with TensorFlow's padding, channels last; seconds are CPU seconds of one thread from "
                            "image files to answers, imports left out; megabytes are the peak above what the process held before; "
                            "rows with part=development chose the rates, on 100 training photographs put aside",
    "clothing_strategies": "128 pixels, MobileNetV2 with TensorFlow's padding, channels last; at most 40 training photographs a class; "
                           "rates are those that ants and bees chose; seconds include decoding all files of the set",
}


def provenance(name: str, rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind a real experiment, and what its numbers need to be read."""
    return {"weights_sha256": {"MobileNetV2, ImageNet": zoo.load(*NETWORK).card["sha256"]},
            "data_sha256": {DATA[name]: datasets.load(DATA[name]).card["sha256"]}, "note": NOTES[name]}
