"""The real experiments of Part 3 across domains: PACS's photographs to paintings, cartoons and sketches, and product reviews.

A model learns from one domain and is judged on others; repairs use unlabelled examples of the target, a few labelled
ones, or what is known of the shift. Targets' test halves are fixed; three draws of what is learned from.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import adaptation, augmentation, datasets, finetune, paths, semi, training, zoo
from .practice_real_experiments import NETWORK, loaded_network, vectors
from .practice_text_experiments import DEV_SEED, SEEDS, Tokens, judged, kept
from .sentiment_experiments import MINILM, tfidf

# ---------------------------------------------------------------------------- PACS
SIZE = 160
SOURCE, TARGETS = "photo", ("art_painting", "cartoon", "sketch")
LABELS, FEW = 50, 5                   # photographs per class to learn from; labels per class of the target where a repair may have them
VIEWS = 4                             # disturbed copies of each photograph that the probe on views sees beside it
EPOCHS, DEV_EPOCHS, BATCH = 3, 1, 32
RATES = (1e-4, 3e-4, 1e-3)            # of fine-tuning, judged on photographs that the draw left over
TENT = {"lr": 1e-3, "steps": 8, "batch_size": 64}      # the rate of the paper: without target labels there is nothing to choose it on


def covering(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures as another hand might have made them: each one recoloured strongly, grey, in few flat colours, or as dark lines on white.

    images: (N, 3, H, W) in [0, 1]; the kind is drawn for each picture. Made with the kinds of shift in mind that PACS has.
    """
    images = augmentation.colour(strength=0.8)(images, generator)
    kind = torch.randint(4, (len(images), 1, 1, 1), generator=generator)
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    flat = (F.avg_pool2d(images, 5, 1, 2, count_include_pad=False) * 4).round() / 4
    return torch.where(kind == 0, images, torch.where(kind == 1, grey, torch.where(kind == 2, flat, lines(grey))))


def lines(grey: Tensor) -> Tensor:
    """Dark lines on white where the brightness changes: (N, 3, H, W) to the same form."""
    one = F.avg_pool2d(grey[:, :1], 3, 1, 1, count_include_pad=False)
    slope = torch.stack([F.conv2d(F.pad(one, (1, 1, 1, 1), mode="replicate"), kernel[None, None]) for kernel in SOBEL]).square().sum(0).sqrt()
    strength = slope / slope.amax((2, 3), keepdim=True).clamp_min(1e-3)
    return (1 - 3 * (strength - 0.2)).clamp(0, 1).expand_as(grey)


SOBEL = torch.tensor([[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], [[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]]])
GEOMETRY = augmentation.affine(rotate=15, scale=0.15, translate=0.08, flip=True)
AUGMENTS = {"fine-tuned": augmentation.compose(GEOMETRY, augmentation.colour(strength=0.2)),
            "fine-tuned, covering": augmentation.compose(GEOMETRY, covering)}


@lru_cache(maxsize=1)
def pacs() -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """By domain: pictures and labels to learn from (of a target: its unlabelled half), pictures and labels of the test."""
    found = {}
    for domain in (SOURCE, *TARGETS):
        data = datasets.load("pacs", size=SIZE, domain=domain)
        x, y = torch.cat([data.x_train, data.x_test]), torch.cat([data.y_train, data.y_test])
        part = datasets.split(x, y, fractions=(0.7, 0.3) if domain == SOURCE else (0.5, 0.5), seed=0)
        found[domain] = x[part["train"]], y[part["train"]], x[part["test"]], y[part["test"]]
    return found


def drawn(y: Tensor, labels: int, seed: int) -> np.ndarray:
    """Row numbers of so many examples of each class."""
    rng, y = np.random.default_rng([seed, labels]), np.asarray(y)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(y == c))[:labels] for c in np.unique(y)]))


@lru_cache(maxsize=None)
def frozen(domain: str, test: bool, own_statistics: bool = False) -> np.ndarray:
    """(N, 1280) features of a domain's part; own_statistics: batch norm adapted to the domain's learning part first (AdaBN)."""
    x = pacs()[domain][2 if test else 0]
    return vectors(network(domain if own_statistics else None), x, cache=paths.cache_dir() / "features").numpy()


@lru_cache(maxsize=2)
def network(domain: str | None):
    """MobileNetV2, its batch norms adapted to the learning part of a domain if one is named."""
    loaded = loaded_network()
    if domain is not None:
        loaded.backbone = adaptation.adabn(finetune.Features(loaded), pacs()[domain][0], batch_size=128).backbone
    return loaded


@lru_cache(maxsize=1)
def views() -> list[np.ndarray]:
    """Features of the photographs to learn from in VIEWS disturbed copies."""
    x, loaded = datasets.as_float(pacs()[SOURCE][0]), loaded_network()
    return [vectors(loaded, AUGMENTS["fine-tuned, covering"](x, torch.Generator().manual_seed(k)), paths.cache_dir() / "features").numpy()
            for k in range(VIEWS)]


def scaled(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Each feature less the mean of `like`, over its deviation: every domain on its own scale."""
    return (x - like.mean(0)) / (like.std(0) + 1e-3)


def recoloured(x: np.ndarray, target: np.ndarray, ridge: float = 1.0) -> np.ndarray:
    """CORAL (Sun, Feng & Saenko 2016): x whitened and given the covariance of the target's features, both plus ridge times their mean variance."""
    def power(features: np.ndarray, exponent: float) -> np.ndarray:
        values, axes = np.linalg.eigh(np.cov(features.T))
        return (axes * (values + ridge * values.mean()) ** exponent) @ axes.T
    return (x - x.mean(0)) @ power(x, -0.5) @ power(target, 0.5)


def repairs(source: np.ndarray, y: np.ndarray, target: np.ndarray, test: np.ndarray, few: np.ndarray, y_few: np.ndarray,
            y_target: np.ndarray, C: float = 0.1) -> dict[str, Callable[[], np.ndarray]]:
    """Repairs on stored features by name; each, called, gives the labels of the test features.

    source, y: what is learned from; target: unlabelled; few, y_few: the few labelled examples of the target; y_target: the
    labels of `target`, for "all target labels" only.
    """
    def probe(x, labels):
        return finetune.linear_probe(x, labels, C=C)
    s, t, u, f = scaled(source, source), scaled(test, target), scaled(target, target), scaled(few, target)
    mean = target.mean(0)
    return {
        "probe": lambda: probe(source, y).predict(test),
        "own scale": lambda: probe(s, y).predict(t),
        "CORAL": lambda: probe(recoloured(source, target), y).predict(test - mean),
        "pseudo-labels": lambda: semi.self_training(s, y, u, threshold=0.9, rounds=3, C=C)[-1].probe.predict(t),
        "few target labels": lambda: probe(few, y_few).predict(test),
        "source and few": lambda: probe(np.concatenate([s, f]), np.concatenate([y, y_few])).predict(t),
        "all target labels": lambda: probe(target, y_target).predict(test),
    }


def feature_run(seed: int) -> list[dict]:
    """All repairs on frozen features for one draw of photographs, on every target (probes also on photographs)."""
    torch.set_num_threads(1)
    rows, index = [], drawn(pacs()[SOURCE][1], LABELS, seed)
    y = pacs()[SOURCE][1].numpy()[index]
    more, y_more = np.concatenate([frozen(SOURCE, False)[index], *(v[index] for v in views())]), np.tile(y, 1 + VIEWS)
    on_views, on_scaled_views = (finetune.linear_probe(x, y_more) for x in (more, scaled(more, more)))
    for target in (SOURCE, *TARGETS):
        source, unlabelled, test = frozen(SOURCE, False)[index], frozen(target, False), frozen(target, True)
        y_target = pacs()[target][1].numpy()
        some = drawn(y_target, FEW, seed)
        todo = repairs(source, y, unlabelled, test, unlabelled[some], y_target[some], y_target)
        todo["probe on views"] = lambda test=test: on_views.predict(test)
        todo["views, own scale"] = lambda test=test, like=unlabelled: on_scaled_views.predict(scaled(test, like))
        own, adapted = frozen(SOURCE, False, True)[index], [frozen(target, part, True) for part in (False, True)]
        todo["AdaBN"] = lambda own=own, adapted=adapted: finetune.linear_probe(own, y).predict(adapted[1])
        todo["AdaBN, CORAL"] = lambda own=own, adapted=adapted: (
            finetune.linear_probe(recoloured(own, adapted[0]), y).predict(adapted[1] - adapted[0].mean(0)))
        todo["AdaBN, pseudo-labels"] = lambda own=own, adapted=adapted: (
            semi.self_training(scaled(own, own), y, scaled(adapted[0], adapted[0]), threshold=0.9, rounds=3)[-1].probe.predict(
                scaled(adapted[1], adapted[0])))
        for method, answer in todo.items() if target != SOURCE else [(m, todo[m]) for m in ("probe", "probe on views")]:
            began = time.process_time()
            rows.append({"method": method, "source": SOURCE, "target": target, "part": "test", "labels": LABELS, "seed": seed,
                         **judged(answer(), pacs()[target][3]), "seconds": time.process_time() - began})
    return rows


def tent_run(seed: int, target: str) -> list[dict]:
    """TENT from the probe of AdaBN: batch norm's scales and shifts learn on the unlabelled half, the test half is judged."""
    torch.set_num_threads(1)
    index, began = drawn(pacs()[SOURCE][1], LABELS, seed), time.process_time()
    model = finetune.Classifier(network(SOURCE), 7)
    model.head = finetune.as_linear(finetune.linear_probe(frozen(SOURCE, False, True)[index], pacs()[SOURCE][1][index]))
    x, _, x_test, y_test = pacs()[target]
    adapted = adaptation.tent(model, x, seed=seed, **TENT)
    found = training.predict(adapted, x_test.contiguous(memory_format=torch.channels_last), 128).argmax(1)
    return [{"method": "TENT", "source": SOURCE, "target": target, "part": "test", "labels": LABELS, "seed": seed, **judged(found, y_test),
             "seconds": time.process_time() - began, "rate": TENT["lr"]}]


def tuned(seed: int, method: str, rate: float, epochs: int) -> tuple[finetune.Run, np.ndarray]:
    """All weights trained on a draw of photographs, from the probe's head on (LP-FT), and which photographs these were."""
    x, y, *_ = pacs()[SOURCE]
    index = drawn(y, LABELS, seed)
    steps = epochs * len(index) // BATCH
    run = finetune.finetune(loaded_network(), x[index], y[index], strategy="lp-ft", lr=rate, steps=steps, seed=seed, batch_size=BATCH,
                            weight_decay=0.05, warmup=steps // 10, augment=AUGMENTS[method])
    return run, index


def rate_run(method: str, rate: float) -> list[dict]:
    """A short run on a draw for development, judged on the photographs that it left over."""
    torch.set_num_threads(1)
    run, index = tuned(DEV_SEED, method, rate, DEV_EPOCHS)
    x, y, *_ = pacs()[SOURCE]
    rest = np.setdiff1d(np.arange(len(y)), index)
    found = run.predict(x[rest].contiguous(memory_format=torch.channels_last))
    return [{"method": method, "source": SOURCE, "target": SOURCE, "part": "development", "labels": LABELS, "seed": DEV_SEED, "rate": rate,
             **judged(found, y[rest])}]


def tuned_run(seed: int, method: str, rate: float) -> list[dict]:
    """All weights trained on photographs, judged on every domain."""
    torch.set_num_threads(1)
    began = time.process_time()
    run, _ = tuned(seed, method, rate, EPOCHS)
    seconds, rows = time.process_time() - began, []
    for target in (SOURCE, *TARGETS):
        x_test, y_test = pacs()[target][2].contiguous(memory_format=torch.channels_last), pacs()[target][3]
        rows.append({"method": method, "source": SOURCE, "target": target, "part": "test", "labels": LABELS, "seed": seed,
                     **judged(run.predict(x_test), y_test), "seconds": seconds, "rate": rate})
    return rows


def pacs_repairs() -> list[dict]:
    """Learn from 350 photographs of seven things, name them in paintings, cartoons and sketches: repairs on MobileNetV2's features."""
    return [row for seed in SEEDS for row in kept(feature_run, seed)]


def pacs_tent() -> list[dict]:
    """As pacs_repairs, with TENT: batch norm's scales and shifts learn on each target's unlabelled half."""
    return [row for seed in SEEDS for target in TARGETS for row in kept(tent_run, seed, target)]


def pacs_trained() -> list[dict]:
    """As pacs_repairs, with training: everything fine-tuned on the photographs, with plain augmentation and with one that covers the shift."""
    rows = []
    for method in AUGMENTS:
        tried = [row for rate in RATES for row in kept(rate_run, method, rate)]
        best = max(tried, key=lambda row: row["accuracy"])["rate"]
        rows += tried + [row for seed in SEEDS for row in kept(tuned_run, seed, method, best)]
    return rows


# ---------------------------------------------------------------------------- product reviews
DOMAINS = ("books", "dvd", "electronics", "kitchen", "video")
POOL, TEST, REVIEW_LABELS = 500, 250, 250      # reviews of each class to draw from, to judge, and in a draw
LONGEST = 128                         # tokens of a review that are read
STRENGTHS = {"tf-idf": (0.1, 1.0, 10.0, 100.0), "probe": (1e-4, 1e-3, 1e-2, 1e-1, 1.0)}


@lru_cache(maxsize=1)
def reviews() -> dict[str, tuple[list[str], Tensor, list[str], Tensor]]:
    """By domain: POOL and TEST different reviews of each class; a text that stands in two domains is left out of the later one."""
    found, seen = {}, set()
    for domain in DOMAINS:
        data = datasets.load("amazon", domain=domain)
        parts = []
        for x, y, most in ((data.x_train, data.y_train, POOL), (data.x_test, data.y_test, TEST)):
            new = [i for i, digest in enumerate(datasets.content_hashes(x)) if not (digest in seen or seen.add(digest))]
            index = [new[k] for k in drawn(y[new], most, 0)]
            parts += [[x[i] for i in index], y[index]]
        found[domain] = tuple(parts)
    return found


@lru_cache(maxsize=1)
def review_vectors() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """MiniLM's vectors of each domain's two parts, in bfloat16, reviews cut to LONGEST tokens."""
    return {domain: tuple(np.array(kept(encode_run, domain, number, [POOL, TEST, LONGEST])[0]["vectors"], dtype=np.float32) for number in (0, 2))
            for domain in DOMAINS}


def encode_run(domain: str, number: int, sizes: list[int]) -> list[dict]:
    """One row: the vectors of a part of a domain, to four digits. sizes: POOL, TEST and LONGEST."""
    torch.set_num_threads(1)
    loaded, texts = zoo.load(MINILM), reviews()[domain][number]
    tokens, began = Tokens(texts, loaded.tokenizer, sizes[-1]), time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = tokens.outputs(loaded.backbone)
    print(domain, len(texts), f"{time.process_time() - began:.0f} s", flush=True)
    return [{"vectors": [[round(v, 4) for v in row] for row in vectors.tolist()]}]


def strength(name: str) -> float:
    """The C that did best within the domains: learned from one draw, judged on the reviews that it left over."""
    scores = {C: [] for C in STRENGTHS[name]}
    for domain in DOMAINS:
        x, y = reviews()[domain][:2]
        index = drawn(y, REVIEW_LABELS, DEV_SEED)
        rest = np.setdiff1d(np.arange(len(y)), index)
        for C in scores:
            scores[C].append(np.mean(_answers(name, C, domain, index, [(x, review_vectors()[domain][0])])[0][rest] == y.numpy()[rest]))
    return max(scores, key=lambda C: np.mean(scores[C]))


def _answers(name: str, C: float, source: str, index: np.ndarray, judged_on: list) -> list[np.ndarray]:
    """Learn from rows of a source; the answers on each (texts, vectors)."""
    x, y = reviews()[source][:2]
    if name == "tf-idf":
        model = tfidf(C).fit([x[i] for i in index], y.numpy()[index])
        return [model.predict(texts) for texts, _ in judged_on]
    model = finetune.linear_probe(review_vectors()[source][0][index], y[index], C=C)
    return [model.predict(vectors) for _, vectors in judged_on]


def review_run(source: str, seed: int, C: dict[str, float]) -> list[dict]:
    """Everything learned from one domain in one draw: counted words and probes on all five, repairs on the four others."""
    torch.set_num_threads(1)
    y = reviews()[source][1]
    index, rows = drawn(y, REVIEW_LABELS, seed), []

    def row(method: str, target: str, found: np.ndarray) -> dict:
        return {"method": method, "source": source, "target": target, "labels": REVIEW_LABELS, "seed": seed, **judged(found, reviews()[target][3])}
    tests = [(reviews()[target][2], review_vectors()[target][1]) for target in DOMAINS]
    for name in ("tf-idf", "probe"):
        rows += [row(name, target, found) for target, found in zip(DOMAINS, _answers(name, C[name], source, index, tests), strict=True)]
    for target in (d for d in DOMAINS if d != source):
        unlabelled, test = review_vectors()[target]
        y_target = reviews()[target][1].numpy()
        some = drawn(y_target, 10 * FEW, seed)
        todo = repairs(review_vectors()[source][0][index], y.numpy()[index], unlabelled, test, unlabelled[some], y_target[some], y_target,
                       C["probe"])
        rows += [row(method, target, answer()) for method, answer in todo.items() if method not in ("probe", "all target labels")]
    return rows


def amazon_domains() -> list[dict]:
    """Reviews of books, films, electronics, kitchen ware and videos: learned from 500 of one kind, judged on 500 of each, with repairs."""
    C = {name: strength(name) for name in STRENGTHS}
    return [{**row, "C": C["tf-idf" if row["method"] == "tf-idf" else "probe"]}
            for source in DOMAINS for seed in SEEDS for row in kept(review_run, source, seed, C)]


LAB: dict = {}
REAL: dict = {f.__name__: f for f in (pacs_repairs, pacs_trained, pacs_tent, amazon_domains)}
CODE: dict[str, tuple[str, ...]] = {}
WEIGHTS: dict[str, tuple[str, ...]] = {}


def provenance(name: str, rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind a real experiment, and what its numbers need to be read."""
    if name == "amazon_domains":
        return {"weights_sha256": {MINILM: zoo.load(MINILM).card.get("sha256", "from the hub")},
                "data_sha256": {"amazon": datasets.load("amazon", domain=DOMAINS[0]).card["sha256"]},
                "note": f"reviews cut to {LONGEST} tokens, vectors in bfloat16; {REVIEW_LABELS} reviews of each class in a draw, {TEST} of each "
                        f"for the test; few target labels: {10 * FEW} of each class; no text stands in two parts or two domains; C chosen once "
                        "per method within the domains"}
    return {"weights_sha256": {"MobileNetV2, ImageNet": zoo.load(*NETWORK).card["sha256"]},
            "data_sha256": {d: datasets.load("pacs", domain=d).card["sha256"] for d in (SOURCE, *TARGETS)},
            "note": "160 pixels; a target's unlabelled half adapts, its other half is the test; the network's batch-norm statistics were "
                    "rebuilt from 125 pictures when it was converted, so AdaBN may repair that too; fine-tuning starts at the probe's head, "
                    "its rate chosen on photographs left over (part=development); TENT's rate is the paper's"}
