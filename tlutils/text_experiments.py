"""The stored experiments of `language_models`: few labels, the budget of pretraining, RoBERTa's recipe, both sides, a student."""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from . import finetune, mini_transformers, pretrain_text, report, text, training, zoo
from .metrics import correct
from .transformer_backbones import TextBackbone

SEEDS = range(100, 105)
DEV_SEEDS = range(0, 1)         # choices are made on other sentences (split "dev") and other seeds
ALL = (5, 20, 100)              # labels per class
STEPS = 120
SCRATCH_STEPS = 240
BATCH = 16
WEIGHT_DECAY = 0.05
RATES = (3e-4, 1e-3, 3e-3)
BASELINES = {"tf-idf": (1.0, 10.0, 100.0), "scratch": RATES}              # what needs no pretrained weights
PRETRAINED = {"bert-mini probe": (0.01, 0.1, 1.0), "bert-mini": RATES, "roberta-mini": RATES, "gpt-mini": RATES, "distilbert-mini": RATES}
TEST_PER_CLASS = {"topic": 40, "sentiment": 150, "acceptability": 150, "reference": 150}
WORDS = r"\S+"                  # every word counts, "i" and "a" too


# ---------------------------------------------------------------------------- the contestants
@dataclass(frozen=True)
class TfIdf:
    """Logistic regression on weighted counts of words and pairs of words: what needs no network at all."""
    C: float = 10.0

    def fit(self, x, y, seed: int = 0) -> Callable:
        """Trained on N texts; returns texts -> predicted labels."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        weigh = TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORDS)
        return make_pipeline(weigh, LogisticRegression(C=self.C, max_iter=1000)).fit(list(x), np.asarray(y)).predict


@dataclass(frozen=True)
class TextProbe:
    """A linear probe on a frozen text mini."""
    C: float = 0.1
    model: str = "bert-mini"
    weights: str | None = "bundled"

    def fit(self, x, y, seed: int = 0) -> Callable:
        """Trained on N texts; returns texts -> predicted labels."""
        features = finetune.Features(zoo.load(self.model, self.weights, seed=seed))
        probe = finetune.linear_probe(training.predict(features, x), y, C=self.C)
        return lambda texts: probe.predict(training.predict(features, texts).numpy())


@dataclass(frozen=True)
class TextTrain:
    """A text mini trained whole on the labelled sentences; weights=None is training from scratch."""
    lr: float
    model: str = "bert-mini"
    weights: str | None = "bundled"
    steps: int = STEPS
    backbone: Callable | None = None        # makes the backbone, where it is none of the zoo's

    def fit(self, x, y, seed: int = 0) -> Callable:
        """Trained on N texts; returns texts -> predicted labels."""
        if self.backbone is None:
            loaded = zoo.load(self.model, self.weights, seed=seed)
        else:
            made = self.backbone()
            loaded = zoo.Loaded(self.model, made, made.width, list)
        model = finetune.Classifier(loaded, int(y.max()) + 1, seed=seed)
        training.fit(model, (list(x), y), steps=self.steps, lr=self.lr, weight_decay=WEIGHT_DECAY, batch_size=BATCH, warmup=self.steps // 10,
                     clip=1.0, seed=seed, channels_last=False)
        return lambda texts: training.predict(model, list(texts), 256).argmax(1).numpy()


def contestant(name: str, setting: float):
    """A contestant by name with its one setting: a learning rate, or the C of a logistic regression."""
    if name == "tf-idf":
        return TfIdf(setting)
    if name == "bert-mini probe":
        return TextProbe(setting)
    if name == "scratch":
        return TextTrain(setting, weights=None, steps=SCRATCH_STEPS)
    return TextTrain(setting, name)


@lru_cache(maxsize=None)
def chosen(name: str) -> float:
    """The setting that did best on the development sentences (topic and sentiment, 20 labels per class)."""
    sweep = report.load("lab", "text_baseline_rates" if name in BASELINES else "text_rates")
    return float(sweep[sweep["method"] == name].groupby("rate")["accuracy"].mean().idxmax())


def tuned(name: str):
    """A contestant with its chosen setting."""
    return contestant(name, chosen(name))


def one_run(method, name: str, task: str, labels: int, seed: int, *, split: str = "target", test_per_class: int | None = None,
            **columns) -> list[dict]:
    """One method on one draw of a task: method, task, labels, seed, accuracy and the accuracy on its own training sentences."""
    torch.set_num_threads(1)
    draw = text.world(text.TASKS[task], split=split, test_per_class=test_per_class or TEST_PER_CLASS[task])
    x, y, x_test, y_test = draw(labels, seed)
    predict = method().fit(x, y, seed)
    return [{"method": name, "task": task, "labels": labels, "seed": seed, "accuracy": float(correct(predict(x_test), y_test).mean()),
             "train_accuracy": float(correct(predict(x), y).mean()), **columns}]


# ---------------------------------------------------------------------------- the grids
def _rates(candidates: dict) -> list[Callable]:
    return [partial(one_run, partial(contestant, name, rate), name, task, 20, seed, split="dev", rate=rate)
            for name, rates in candidates.items() for rate in rates for task in ("topic", "sentiment") for seed in DEV_SEEDS]


def _runs(name: str, **budgets) -> list[Callable]:
    """One job for each task, budget and seed; budgets: labels per class by task."""
    return [partial(one_run, partial(tuned, name), name, task, labels, seed) for task, labels_of in budgets.items() for labels in labels_of
            for seed in SEEDS]


def text_baseline_rates() -> list[Callable]:
    """Settings of TF-IDF and of scratch tried on development sentences, topic and sentiment, at 20 labels per class."""
    return _rates(BASELINES)


def text_rates() -> list[Callable]:
    """Settings of the pretrained contestants tried on the same development sentences: as many as for the others."""
    return _rates(PRETRAINED)


def text_baselines() -> list[Callable]:
    """Accuracy against labels per class on four tasks of the generated language, for TF-IDF and for the network from scratch."""
    return (_runs("tf-idf", **dict.fromkeys(text.TASKS, ALL))
            + _runs("scratch", topic=ALL, sentiment=(20, 100), acceptability=(100,), reference=(100,)))


def few_labels() -> list[Callable]:
    """The same tasks and draws for what was pretrained: bert-mini probed and fine-tuned, and its relatives fine-tuned."""
    return (_runs("bert-mini", topic=ALL, sentiment=(20, 100), acceptability=(100,), reference=(100,))
            + _runs("bert-mini probe", **dict.fromkeys(text.TASKS, ALL))
            + _runs("roberta-mini", topic=(20,), sentiment=(20, 100), acceptability=(100,), reference=(100,))
            + _runs("gpt-mini", topic=(20,), sentiment=(20,), reference=(100,)) + _runs("distilbert-mini", topic=(20, 100), sentiment=(20,)))


RECIPE_BASE = pretrain_text.TextRecipe("bert-mini", "", masks="static", pairs=True, documents=4000, steps=2000, batch_size=32, lr=3e-3,
                                       width=64, layers=2)
_DYNAMIC = replace(RECIPE_BASE, masks="dynamic")
_PLAIN = replace(_DYNAMIC, pairs=False)
_LARGE = replace(_PLAIN, batch_size=64, steps=1000)
RECIPE_STEPS = {"bert recipe": RECIPE_BASE, "+ dynamic masks": _DYNAMIC, "+ no pairs": _PLAIN, "+ larger batch": _LARGE,
                "+ longer": replace(_LARGE, steps=4000)}


def recipe() -> list[Callable]:
    """RoBERTa as a recipe: the same small network, one change after another; masked words held out, and probes at 100 labels."""
    return [partial(recipe_run, name, seed) for seed in range(200, 205) for name in RECIPE_STEPS]


def recipe_run(name: str, seed: int, steps: int | None = None) -> list[dict]:
    """One pretraining of the recipe ablation: its held-out loss, and a linear probe for each task on the frozen network."""
    torch.set_num_threads(1)
    wanted = replace(RECIPE_STEPS[name], seed=seed)
    if steps:
        wanted = replace(wanted, steps=steps)
    model, _ = pretrain_text.pretrain(wanted)
    held = pretrain_text.score(model)
    backbone = TextBackbone(mini_transformers.encoder(model.net), mini_transformers.tokenizer(wanted.model))
    rows = []
    for task in text.TASKS:
        x, y, x_test, y_test = text.world(text.TASKS[task], test_per_class=TEST_PER_CLASS[task])(100, seed)
        probe = finetune.linear_probe(training.predict(backbone, x), y, C=0.1)
        right = correct(probe.predict(training.predict(backbone, x_test).numpy()), y_test)
        rows.append({"method": name, "task": task, "labels": 100, "seed": seed, "accuracy": float(right.mean()), "loss": held["loss"],
                     "word_accuracy": held["word_accuracy"]})
    return rows


BUDGET_STEPS = (100, 300, 600, 1200)


def budget() -> list[Callable]:
    """What pretraining buys at 20 labels per class against how long it lasted: runs of their own, each with its whole schedule."""
    return [partial(budget_run, steps, task) for task in ("sentiment", "topic") for steps in (0, *BUDGET_STEPS, None)]


@lru_cache(maxsize=1)
def _briefly_pretrained(steps: int):
    recipe = replace(pretrain_text.RECIPES["bert-mini-text"], steps=steps)
    model, history = pretrain_text.pretrain(recipe)
    return model.net.state_dict(), history.last["seconds"]


def budget_run(steps: int | None, task: str, seeds=SEEDS) -> list[dict]:
    """bert-mini pretrained for so many steps (None: the bundled one, 0: not at all), then fine-tuned on each draw."""
    torch.set_num_threads(1)
    full = pretrain_text.RECIPES["bert-mini-text"].steps
    method, seconds = partial(tuned, "bert-mini"), zoo.cards()["bert-mini-text"]["training_seconds"]
    if steps == 0:
        method, seconds = partial(tuned, "scratch"), 0.0
    elif steps is not None:
        state, seconds = _briefly_pretrained(steps)

        def backbone():
            net = mini_transformers.network("bert-mini")
            net.load_state_dict(state)
            return TextBackbone(mini_transformers.encoder(net), mini_transformers.tokenizer())
        method = partial(replace, tuned("bert-mini"), backbone=backbone)
    return [row for seed in seeds for row in one_run(method, f"{full if steps is None else steps} steps", task, 20, seed,
                                                     steps=full if steps is None else steps, seconds=round(seconds, 1))]


def distil() -> list[Callable]:
    """distilbert-mini beside its teacher: parameters, and milliseconds for 64 sentences on one thread."""
    return [partial(size_run, ("bert-mini", "distilbert-mini"))]


@torch.no_grad()
def size_run(names, repeats: int = 15) -> list[dict]:
    """Parameters and median milliseconds of a forward pass of 64 sentences, measured in turn so that both share the machine's mood."""
    torch.set_num_threads(1)
    x = pretrain_text.tokens(text.documents(400, seed=3, split="target"))
    x = torch.tensor([row for row in x if len(row) == 20][:64] or x[:1])
    minis, taken = {name: zoo.load(name) for name in names}, {name: [] for name in names}
    for _ in range(repeats):
        for name, loaded in minis.items():
            start = time.perf_counter()
            loaded.backbone(x)
            taken[name].append(1000 * (time.perf_counter() - start))
    facts = {name: zoo.cards()[f"{name}-text"] for name in names}
    return [{"method": name, "labels": 0, "seed": run, "value": taken[name][run], "parameters": facts[name]["parameters"],
             "encoder_parameters": facts[name]["encoder_parameters"]} for name in names for run in range(repeats)]


def both_sides() -> list[Callable]:
    """A gap for "he" or "she" whose only clue, a name, stands before it or after it: masked minis against the GPT."""
    return [partial(sides_run, name, where, seed) for where in ("before", "after") for seed in range(100, 110)
            for name in ("bert-mini", "roberta-mini", "distilbert-mini", "gpt-mini")]


def sides_run(name: str, where: str, seed: int, n: int = 100) -> list[dict]:
    """How often a mini puts the right one of the two words into n gaps."""
    torch.set_num_threads(1)
    loaded, gaps = zoo.load(name), text.clues(n, seed=seed, where=where)
    right = [mini_transformers.choose(loaded, gap.text, gap.options) == gap.answer for gap in gaps]
    return [{"method": name, "where": where, "labels": 0, "seed": seed, "accuracy": float(np.mean(right))}]


class Pointer(nn.Module):
    """A network that points at one token of a text: tokens (N, L) to logits over the L places (marks and padding ruled out)."""

    def __init__(self, loaded, seed: int = 0):
        super().__init__()
        self.model = loaded.backbone.model
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.start = nn.Linear(loaded.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        more = {"token_type_ids": pretrain_text.sentence_types(x)} if self.model.config.model_type == "bert" else {}
        hidden = self.model(input_ids=x, attention_mask=(x != mini_transformers.PAD).long(), **more).last_hidden_state
        return self.start(hidden)[..., 0].masked_fill(x < len(mini_transformers.SPECIAL), -1e4)


def pointed(n: int, seed: int, part: str = "train") -> tuple[Tensor, Tensor]:
    """n stories with a question, as tokens (n, L), and the place of the name that answers it."""
    found = text.questions(n, seed=seed, part=part)
    rows = pretrain_text.tokens([(story, question) for story, question, _ in found])
    x = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=mini_transformers.PAD)
    names = torch.tensor(mini_transformers.tokenizer().convert_tokens_to_ids([answer for *_, answer in found]))
    return x, (x == names[:, None]).int().argmax(1)


def pointing() -> list[Callable]:
    """A question about a story of two people, answered by pointing at a name: fine-tuned minis and the same network from scratch."""
    return [partial(pointing_run, name, seed) for seed in SEEDS for name in ("bert-mini", "scratch", "gpt-mini")]


def pointing_run(name: str, seed: int, n: int = 500, steps: int = 300) -> list[dict]:
    """One network trained on n questions; accuracy is the share of new questions whose name it points at (two names: chance 0.5)."""
    torch.set_num_threads(1)
    loaded = zoo.load("bert-mini", None, seed=seed) if name == "scratch" else zoo.load(name)
    model, (x, y), (x_test, y_test) = Pointer(loaded, seed), pointed(n, seed), pointed(200, seed, "test")
    training.fit(model, (x, y), steps=steps, lr=chosen(name), weight_decay=WEIGHT_DECAY, batch_size=BATCH, warmup=steps // 10, clip=1.0, seed=seed,
                 channels_last=False)
    return [{"method": name, "task": "pointing", "labels": n, "seed": seed, "accuracy": training.evaluate(model, x_test, y_test)["accuracy"],
             "train_accuracy": training.evaluate(model, x, y)["accuracy"]}]


LAB: dict = {grid.__name__: grid for grid in (text_baseline_rates, text_rates, text_baselines, few_labels, recipe, budget, distil,
                                              both_sides, pointing)}
REAL: dict = {}
_BELOW = ("text", "text_words", "mini_transformers", "transformer_backbones:TextBackbone", "batches", "loop", "inference", "training", "optim",
          "finetune")
_CONTESTANTS = tuple(f"text_experiments:{name}" for name in (
    "TfIdf", "TextProbe", "TextTrain", "contestant", "chosen", "one_run", "SEEDS", "DEV_SEEDS", "STEPS", "SCRATCH_STEPS", "BATCH", "WEIGHT_DECAY",
    "RATES", "TEST_PER_CLASS"))
_OWN = {"text_baseline_rates": ("_rates", "BASELINES"), "text_rates": ("_rates", "PRETRAINED"), "text_baselines": ("_runs", "ALL"),
        "few_labels": ("_runs", "ALL"), "recipe": ("recipe_run", "RECIPE_BASE", "RECIPE_STEPS"),
        "budget": ("budget_run", "BUDGET_STEPS", "_briefly_pretrained"), "distil": ("size_run",), "both_sides": ("sides_run",),
        "pointing": ("Pointer", "pointed", "pointing_run")}
_PRETRAINING = {"recipe": ("pretrain_text",), "budget": ("pretrain_text",), "pointing": ("pretrain_text:tokens", "pretrain_text:sentence_types")}
CODE: dict[str, tuple[str, ...]] = {
    name: (*_BELOW, *_CONTESTANTS, *_PRETRAINING.get(name, ()), *(f"text_experiments:{part}" for part in (name, *own)))
    for name, own in _OWN.items()}
_BERT, _ROBERTA, _GPT, _DISTILBERT = (f"{name}-text" for name in mini_transformers.NETWORKS)
WEIGHTS: dict[str, tuple[str, ...]] = {
    "text_rates": (_BERT, _ROBERTA, _GPT, _DISTILBERT), "few_labels": (_BERT, _ROBERTA, _GPT, _DISTILBERT), "budget": (_BERT,),
    "distil": (_BERT, _DISTILBERT), "both_sides": (_BERT, _ROBERTA, _GPT, _DISTILBERT), "pointing": (_BERT, _GPT)}


def provenance(name: str, rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind a real experiment, for its card."""
    return {}
