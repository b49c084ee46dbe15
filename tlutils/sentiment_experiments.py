"""The stored experiments on real English and few labels: the book's reviews, SST-2, BANKING77, product reviews.

Frozen sentence vectors against counted words. Every text is encoded once; a draw only chooses whose labels are seen,
so x and x_test are row numbers of the data set throughout.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch

from . import datasets, evaluation, features, finetune, paths, text, training, zoo

MINILM = "all-MiniLM-L6-v2"
BUDGETS = (1, 2, 5, 10, 20, 50, 250)
SEEDS = range(100, 120)             # draws of labels that are printed; choices were made on DEV_SEEDS
DEV_SEEDS = range(0, 8)             # judged on training texts that the draw left over, never on test texts
STRENGTHS = {"tf-idf": (0.1, 1.0, 10.0, 100.0), "MiniLM": (1e-4, 1e-3, 1e-2, 1e-1, 1.0), "random frozen": (1e-3, 1e-2, 1e-1, 1.0)}
RATES = (3e-4, 1e-3, 3e-3)
REAL_DRAWS = range(200, 203)
REAL_DEV_DRAW = 199


# ---------------------------------------------------------------------------- the contestants
def tfidf(C: float = 10.0):
    """Counted words and pairs of words, rare ones weighted up, and a logistic regression: the old method, unfitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(C=C, max_iter=1000))


class Counted:
    """`tfidf` as a contestant. It sees the labelled texts only: no other text helps it to weight the words."""

    def __init__(self, dataset, C: float):
        self.train, self.test, self.C = dataset.x_train, dataset.x_test, C

    def __call__(self, x, y, x_test, seed) -> np.ndarray:
        return tfidf(self.C).fit([self.train[i] for i in x], np.asarray(y)).predict([self.test[i] for i in x_test])


class Encoded:
    """A linear probe on sentence vectors that were computed once."""

    def __init__(self, train, test, C: float):
        self.train, self.test, self.C = train, test, C

    def __call__(self, x, y, x_test, seed) -> np.ndarray:
        return finetune.linear_probe(self.train[x], y, C=self.C).predict(self.test[x_test].numpy())


class TrainedText:
    """A small transformer trained on the labelled texts: weights=None is training from scratch."""

    def __init__(self, dataset, model: str, weights: str | None, lr: float, steps: int):
        self.train, self.test, self.model, self.weights, self.lr, self.steps = dataset.x_train, dataset.x_test, model, weights, lr, steps
        self.train_accuracy = float("nan")

    def __call__(self, x, y, x_test, seed) -> np.ndarray:
        classifier = finetune.Classifier(zoo.load(self.model, self.weights, seed=seed), len(y.unique()), seed=seed)
        texts = [self.train[i] for i in x]
        training.fit(classifier, (texts, y), steps=self.steps, lr=self.lr, weight_decay=0.05, warmup=self.steps // 10, batch_size=32,
                     clip=1.0, seed=seed)
        self.train_accuracy = float((training.predict(classifier, texts).argmax(1) == y).float().mean())
        return training.predict(classifier, [self.test[i] for i in x_test]).argmax(1).numpy()


def encode(texts: Sequence[str], name: str = MINILM, weights: str | None = "DEFAULT", seed: int = 0) -> torch.Tensor:
    """The sentence vectors (N, width) of a frozen transformer; short texts go together, so that little is padding."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    found = features.extract(_loaded(name, weights, seed), [texts[i] for i in order], batch_size=32, cache=paths.cache_dir() / "features")
    vectors = torch.empty_like(found)
    vectors[torch.as_tensor(order)] = found
    return vectors


@lru_cache(maxsize=2)
def _loaded(name: str, weights: str | None, seed: int):
    return zoo.load(name, weights, seed=seed)


@lru_cache(maxsize=16)
def _vectors(domain: str | None, weights: str | None):
    """Training and test vectors of the reviews, from MiniLM or from the same network with random weights."""
    whole = datasets.reviews()
    row = {text: i for i, text in enumerate(whole.x_train + whole.x_test)}
    table = encode(list(row), weights=weights)
    part = datasets.reviews(domain)
    return tuple(table[[row[text] for text in texts]] for texts in (part.x_train, part.x_test))


def contestant(name: str, C: float, domain: str | None = None, dataset=None) -> Callable:
    """"tf-idf", "MiniLM" or "random frozen" on the reviews (of one domain), with its penalty's inverse strength."""
    if name == "tf-idf":
        return Counted(dataset or datasets.reviews(domain), C)
    return Encoded(*_vectors(domain, "DEFAULT" if name == "MiniLM" else None), C)


# ---------------------------------------------------------------------------- choices, on development draws
def leftovers(dataset) -> Callable:
    """Draws whose test items are the training items that were not drawn: row numbers into the training part twice."""
    labels = np.asarray(dataset.y_train)

    def draw(labels_per_class: int, seed: int):
        rng = np.random.default_rng([seed, labels_per_class])
        order = [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
        chosen = np.sort(np.concatenate([o[:labels_per_class] for o in order]))
        rest = np.setdiff1d(np.arange(len(labels)), chosen)
        return torch.as_tensor(chosen), dataset.y_train[chosen], torch.as_tensor(rest), dataset.y_train[rest]
    return draw


def own_test(dataset):
    """The data set with its training part in the place of its test part, for `leftovers`."""
    return replace(dataset, x_test=dataset.x_train, y_test=dataset.y_train)


@lru_cache(maxsize=None)
def strength(name: str, labels: int) -> float:
    """The C that did best on development draws from all reviews, at this budget (above 200: at 200)."""
    labels, whole = min(labels, 200), own_test(datasets.reviews())
    train = _vectors(None, "DEFAULT" if name == "MiniLM" else None)[0] if name != "tf-idf" else None
    methods = {C: Counted(whole, C) if train is None else Encoded(train, train, C) for C in STRENGTHS[name]}
    sweep = evaluation.learning_curve(methods, [labels], DEV_SEEDS, draw=leftovers(whole))
    return float(sweep.groupby("method")["accuracy"].mean().idxmax())


# ---------------------------------------------------------------------------- lab grids
def sentiment() -> list[Callable]:
    """Positive or negative? Reviews of five kinds, by labels per class: counted words against frozen sentence vectors."""
    pooled = [partial(reviews_run, labels) for labels in sorted(BUDGETS, reverse=True)]
    return pooled + [partial(reviews_run, labels, domain) for domain in datasets.REVIEW_DOMAINS for labels in (5, 20, 50)]


def reviews_run(labels: int, domain: str | None = None, seeds: Sequence[int] = SEEDS, names: Sequence[str] = tuple(STRENGTHS)) -> list[dict]:
    """All contestants at one budget, on all reviews or on one domain; where all labels are used, one draw is all there is."""
    dataset = datasets.reviews(domain)
    smallest = int(dataset.y_train.bincount().min())
    draw, rows = evaluation.pool(by_index(dataset)), []
    for seed in seeds if labels < smallest else seeds[:1]:
        methods = {name: contestant(name, strength(name, labels), domain, dataset) for name in names}
        rows += evaluation.one_draw(methods, draw, labels, seed, threads=1, items=True)
    return [{**row, "domain": domain or "all"} for row in rows]


def by_index(dataset):
    """The data set with row numbers in the place of texts."""
    return replace(dataset, x_train=torch.arange(len(dataset.y_train)), x_test=torch.arange(len(dataset.y_test)))


def sentiment_domains() -> list[Callable]:
    """Learn from reviews of one kind, judge reviews of another: 40 labels per class."""
    return [partial(domain_run, source) for source in datasets.REVIEW_DOMAINS]


def domain_run(source: str, labels: int = 40, seeds: Sequence[int] = SEEDS[:10]) -> list[dict]:
    """Both contestants learn from one domain and are judged on each of the five."""
    learned, rows = datasets.reviews(source), []
    for target in datasets.REVIEW_DOMAINS:
        judged = datasets.reviews(target)
        both = replace(learned, x_test=judged.x_test, y_test=judged.y_test)
        methods = {"tf-idf": Counted(both, strength("tf-idf", labels)),
                   "MiniLM": Encoded(_vectors(source, "DEFAULT")[0], _vectors(target, "DEFAULT")[1], strength("MiniLM", labels))}
        for seed in seeds:
            rows += [{**row, "source": source, "target": target}
                     for row in evaluation.one_draw(methods, evaluation.pool(by_index(both)), labels, seed, threads=1, items=True)]
    return rows


PROBED = {"tf-idf": None, "untrained probe": ("bert-mini", None), "bert-mini probe": ("bert-mini", "text"),
          "roberta-mini probe": ("roberta-mini", "text"), "gpt-mini probe": ("gpt-mini", "text"),
          "distilbert-mini probe": ("distilbert-mini", "text")}


def mini_probes() -> list[Callable]:
    """Linear probes on the frozen text minis, and counted words, in the language they learned: topic and sentiment, 20 and 100 labels."""
    return [partial(probe_run, name, task) for task in ("topic", "sentiment") for name in PROBED]


def probe_run(name: str, task: str, budgets: Sequence[int] = (20, 100), seeds: Sequence[int] = SEEDS[:5],
              dev_seeds: Sequence[int] = range(2)) -> list[dict]:
    """One contestant on one task; its C is chosen on the sentences kept for development, at 20 labels per class."""
    torch.set_num_threads(1)
    per_class, Cs = (40 if task == "topic" else 150), STRENGTHS["tf-idf" if name == "tf-idf" else "random frozen"]

    def predictor(C: float, x, seed: int):
        if PROBED[name] is None:
            return lambda y, x_test: tfidf(C).fit(x, np.asarray(y)).predict(x_test)
        vectors = encode(x, *PROBED[name], seed=seed)
        return lambda y, x_test: finetune.linear_probe(vectors, y, C=C).predict(encode(x_test, *PROBED[name], seed=seed).numpy())

    def score(C: float, split: str, labels: int, seed: int) -> float:
        x, y, x_test, y_test = text.world(text.TASKS[task], split=split, test_per_class=per_class)(labels, seed)
        return float(np.mean(predictor(C, x, seed)(y, x_test) == np.asarray(y_test)))
    best = max(Cs, key=lambda C: np.mean([score(C, "dev", 20, seed) for seed in dev_seeds]))
    return [{"method": name, "task": task, "labels": labels, "seed": seed, "C": best, "accuracy": score(best, "target", labels, seed)}
            for labels in budgets for seed in seeds]


def other_language() -> list[Callable]:
    """The mini-BERT of the generated language and the same network from scratch, trained on real reviews, 50 labels per class."""
    return [partial(trained_run, name) for name in ("scratch", "bert-mini")]


def trained_run(name: str, labels: int = 50, seeds: Sequence[int] = SEEDS[:5], dev_seeds: Sequence[int] = DEV_SEEDS[:2],
                steps: int = 150) -> list[dict]:
    """A small transformer on all reviews: every rate on development draws (rows with dev=True), then the best one."""
    torch.set_num_threads(1)
    whole = datasets.reviews()

    def runs(rate: float, seeds: Sequence[int], dev: bool) -> list[dict]:
        dataset, draw = (own_test(whole), leftovers(whole)) if dev else (whole, evaluation.pool(by_index(whole)))
        rows = []
        for seed in seeds:
            method = TrainedText(dataset, "bert-mini", None if name == "scratch" else "text", rate, steps)
            row, = evaluation.one_draw({name: method}, draw, labels, seed, threads=1)
            rows.append({**row, "rate": rate, "dev": dev, "train_accuracy": method.train_accuracy})
        return rows
    tried = {rate: runs(rate, dev_seeds, True) for rate in RATES}
    best = max(RATES, key=lambda rate: np.mean([row["accuracy"] for row in tried[rate]]))
    return [row for rows in tried.values() for row in rows] + runs(best, seeds, False)


# ---------------------------------------------------------------------------- real results
def _thin(dataset, train: int, test: int, seed: int = 0):
    """At most so many training and test items of each class."""
    rng = np.random.default_rng(seed)

    def pick(x, y, most):
        chosen = np.concatenate([rng.permutation(np.flatnonzero(np.asarray(y) == c))[:most] for c in np.unique(y)])
        return [x[i] for i in chosen], y[chosen]
    (a, b), (c, d) = pick(dataset.x_train, dataset.y_train, train), pick(dataset.x_test, dataset.y_test, test)
    return replace(dataset, x_train=a, y_train=b, x_test=c, y_test=d)


REAL_SETS = {"sst2": (5, 20, 100, 500, 3000), "banking77": (1, 3, 10, 30), "amazon": (5, 20, 100, 500, 1400)}


@lru_cache(maxsize=3)
def _real_set(name: str):
    return _thin(datasets.load("amazon", domain="kitchen"), 1500, 300) if name == "amazon" else datasets.load(name)


def real_sentences() -> list[dict]:
    """SST-2, BANKING77 and Amazon kitchen reviews by labels per class: counted words against frozen MiniLM vectors."""
    rows = []
    for name, budgets in REAL_SETS.items():
        started, dataset = time.time(), _real_set(name)
        train, test = encode(dataset.x_train), encode(dataset.x_test)
        everything = [] if name == "amazon" else [None]
        for labels in [*budgets, *everything]:
            C = _real_strengths(dataset, train, min(labels or max(budgets), 500 if len(dataset.classes) == 2 else 20))
            methods = {"tf-idf": Counted(dataset, C["tf-idf"]), "MiniLM": Encoded(train, test, C["MiniLM"])}
            draw = evaluation.pool(by_index(dataset)) if labels else partial(_everything, by_index(dataset))
            many = round(len(dataset.y_train) / len(dataset.classes))
            for seed in REAL_DRAWS if labels else REAL_DRAWS[:1]:
                rows += [{**row, "data": name, "C": C[row["method"]], "everything": labels is None}
                         for row in evaluation.one_draw(methods, draw, labels or many, seed, items=True)]
            print(name, labels, {row["method"]: row["accuracy"] for row in rows[-2:]}, f"{time.time() - started:.0f} s", flush=True)
    return rows


def _everything(dataset, labels: int, seed: int):
    return dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test


def _real_strengths(dataset, train, labels: int) -> dict[str, float]:
    """The C of both contestants on one development draw, judged on up to 1,000 training texts that it left over."""
    own, best = own_test(dataset), {}
    x, y, rest, y_rest = leftovers(own)(labels, REAL_DEV_DRAW)
    some = np.random.default_rng(REAL_DEV_DRAW).permutation(len(rest))[:1000]
    for name, candidates in (("tf-idf", STRENGTHS["tf-idf"]), ("MiniLM", STRENGTHS["MiniLM"])):
        made = {C: Counted(own, C) if name == "tf-idf" else Encoded(train, train, C) for C in candidates}
        best[name] = max(made, key=lambda C, made=made: np.mean(made[C](x, y, rest[some], 0) == np.asarray(y_rest[some])))
    return best


def _tuned(dataset, name: str, labels: int, steps: int, rates: Sequence[float]) -> TrainedText:
    """A transformer with all its weights trained, at the rate that did best on one development draw of training texts."""
    own = own_test(dataset)
    x, y, rest, y_rest = leftovers(own)(labels, REAL_DEV_DRAW)
    some = np.random.default_rng(REAL_DEV_DRAW).permutation(len(rest))[:300]
    tried = {rate: np.mean(TrainedText(own, name, "DEFAULT", rate, steps)(x, y, rest[some], REAL_DEV_DRAW) == np.asarray(y_rest[some]))
             for rate in rates}
    print(name, tried, flush=True)
    return TrainedText(dataset, name, "DEFAULT", max(tried, key=tried.get), steps)


def _frozen_and_tuned(dataset, name: str, shown: str, labels: int, steps: int, rates: Sequence[float]) -> list[dict]:
    train, test = encode(dataset.x_train, name), encode(dataset.x_test, name)
    tuned = _tuned(dataset, name, labels, steps, rates)
    methods = {shown: Encoded(train, test, _real_strengths(dataset, train, labels)["MiniLM"]), f"{shown} fine-tuned": tuned}
    frame = evaluation.learning_curve(methods, [labels], REAL_DRAWS, draw=evaluation.pool(by_index(dataset)), items=True)
    return frame.assign(data="sst2", rate=tuned.lr).to_dict("records")


def minilm_tuned() -> list[dict]:
    """MiniLM with all its weights trained on 50 labels per class of SST-2, against its frozen vectors."""
    return _frozen_and_tuned(_thin(datasets.load("sst2"), 3000, 300), MINILM, "MiniLM", 50, 60, (2e-5, 5e-5, 2e-4))


HUB = ("bert-base-uncased", "roberta-base", "gpt2", "distilbert-base-uncased")


def hub_sentences() -> list[dict]:
    """BERT, RoBERTa, GPT-2 and DistilBERT by their hub names on SST-2, 500 labels per class: frozen, and all weights trained."""
    return [row for name in HUB for row in _frozen_and_tuned(_real_set("sst2"), name, name, 500, 300, (1e-5, 3e-5, 1e-4))]


def sentence_cost() -> list[dict]:
    """What a sentence costs: milliseconds on one thread, parameters and bytes, for counted words and for MiniLM."""
    torch.set_num_threads(1)
    dataset, rows = datasets.reviews(), []
    words = tfidf().fit(dataset.x_train, dataset.y_train.numpy())
    loaded = zoo.load(MINILM)
    probe = finetune.linear_probe(encode(dataset.x_train), dataset.y_train)
    texts = sorted(dataset.x_test, key=len)
    parameters = {"tf-idf": words[-1].coef_.size, "MiniLM": sum(p.numel() for p in loaded.backbone.parameters())}
    run = {"tf-idf": lambda: words.predict(texts), "MiniLM": lambda: probe.predict(features.extract(loaded, texts, batch_size=32).numpy())}
    for repeat in range(5):
        for name, predict in run.items():
            started = time.process_time()         # not the clock on the wall: other programs may be running
            predict()
            rows.append({"method": name, "seed": repeat, "value": 1000 * (time.process_time() - started) / len(texts),
                         "parameters": parameters[name]})
    return rows


LAB: dict = {f.__name__: f for f in (sentiment, sentiment_domains, mini_probes, other_language)}
REAL: dict = {f.__name__: f for f in (real_sentences, minilm_tuned, sentence_cost, hub_sentences)}
_BASE = ("features", "finetune:linear_probe", "transformer_backbones:TextBackbone", "transformer_backbones:MINILM_SHA256", "evaluation:pool",
         "evaluation:one_draw", "datasets:reviews", "datasets:_grouped_split", "datasets:_near_duplicates", "datasets:NEAR_DUPLICATE",
         *(f"sentiment_experiments:{name}" for name in ("tfidf", "Counted", "Encoded", "encode", "contestant", "leftovers", "own_test",
                                                        "strength", "STRENGTHS", "DEV_SEEDS", "SEEDS", "by_index")))
CODE: dict[str, tuple[str, ...]] = {
    "sentiment": (*_BASE, "sentiment_experiments:sentiment", "sentiment_experiments:reviews_run", "sentiment_experiments:BUDGETS"),
    "sentiment_domains": (*_BASE, "sentiment_experiments:sentiment_domains", "sentiment_experiments:domain_run"),
    "mini_probes": ("text", "text_words", "features", "finetune:linear_probe", "transformer_backbones:TextBackbone", "mini_transformers:network",
                    *(f"sentiment_experiments:{n}" for n in ("tfidf", "encode", "PROBED", "STRENGTHS", "SEEDS", "mini_probes", "probe_run"))),
    "other_language": ("training", "batches", "loop", "optim", "finetune:Classifier", "mini_transformers:network",
                       *_BASE, *(f"sentiment_experiments:{n}" for n in ("other_language", "trained_run", "TrainedText", "RATES"))),
}
WEIGHTS: dict[str, tuple[str, ...]] = {"other_language": ("bert-mini-text",),
                                       "mini_probes": tuple(f"{n}-mini-text" for n in ("bert", "roberta", "gpt", "distilbert"))}


def provenance(name: str, rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind a real experiment, for its card."""
    sets, networks = {row["data"] for row in rows if "data" in row} or {"reviews"}, HUB if name == "hub_sentences" else (MINILM,)
    data = {s: (datasets.reviews() if s == "reviews" else _real_set(s)).card["sha256"] for s in sorted(sets)}
    return {"weights_sha256": {n: _loaded(n, "DEFAULT", 0).card.get("sha256", "from the hub") for n in networks}, "data_sha256": data}
