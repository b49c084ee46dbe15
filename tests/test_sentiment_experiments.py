"""The experiments on sentences: contestants that learn, draws that share nothing, rows that can be judged."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tlutils import datasets, evaluation, report, zoo
from tlutils import sentiment_experiments as experiments


@pytest.fixture
def vectors(monkeypatch):
    """Sentence vectors that carry the label, in the place of MiniLM's."""
    def made(domain, weights):
        part = datasets.reviews(domain)
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(len(y), 8, generator=generator) + (weights is not None) * 4 * y[:, None] for y in (part.y_train, part.y_test))
    monkeypatch.setattr(experiments, "_vectors", made)
    monkeypatch.setattr(experiments, "DEV_SEEDS", range(2))
    experiments.strength.cache_clear()
    yield
    experiments.strength.cache_clear()


def small():
    texts = ["good film", "bad film", "a good soup", "a bad soup"] * 5
    y = torch.tensor([1, 0, 1, 0] * 5)
    return datasets.Dataset("small", texts, y, ["good app", "bad app"], torch.tensor([1, 0]), ("bad", "good"), {})


def test_counted_words_learn_a_word():
    dataset = small()
    method = experiments.Counted(dataset, C=10.0)
    x, y, x_test, y_test = evaluation.pool(experiments.by_index(dataset))(4, 0)
    assert (method(x, y, x_test, 0) == y_test.numpy()).all()


def test_development_draws_share_nothing_and_lose_nothing():
    own = experiments.own_test(small())
    x, y, rest, y_rest = experiments.leftovers(own)(3, 1)
    assert sorted([*x.tolist(), *rest.tolist()]) == list(range(20))
    assert y.bincount().tolist() == [3, 3] and y_rest.bincount().tolist() == [7, 7]
    assert (own.y_test[rest] == y_rest).all()


def test_vectors_come_back_in_the_order_of_the_texts(monkeypatch, tmp_path):
    class Length(torch.nn.Module):
        def forward(self, texts):
            return torch.tensor([[float(len(t))] for t in texts])
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path))
    loaded = zoo.Loaded("length", Length(), 1, list)
    monkeypatch.setattr(experiments, "_loaded", lambda *key: loaded)
    texts = ["ccc", "a", "bb", "dddd"]
    assert experiments.encode(texts)[:, 0].tolist() == [3, 1, 2, 4]


def test_a_budget_gives_a_row_for_each_contestant_and_draw(vectors):
    rows = experiments.reviews_run(5, seeds=range(2))
    assert [(r["method"], r["seed"]) for r in rows] == [(m, s) for s in range(2) for m in experiments.STRENGTHS]
    assert all(len(r["correct"]) == 300 and r["domain"] == "all" and r["labels"] == 5 for r in rows)
    scores = {r["method"]: r["accuracy"] for r in rows}
    assert scores["MiniLM"] > 0.95 and scores["random frozen"] < 0.65


def test_where_all_labels_are_used_there_is_one_draw(vectors):
    rows = experiments.reviews_run(50, "films", seeds=range(3), names=("tf-idf",))
    assert len(rows) == 1 and len(rows[0]["correct"]) == 60 and rows[0]["domain"] == "films"


def test_every_pair_of_domains_is_judged(vectors):
    rows = experiments.domain_run("books", labels=5, seeds=range(2))
    assert {r["target"] for r in rows} == set(datasets.REVIEW_DOMAINS) and len(rows) == 2 * 2 * 5
    assert all(r["source"] == "books" for r in rows)


def test_the_strength_is_chosen_without_the_test_texts(vectors, monkeypatch):
    whole = datasets.reviews()
    monkeypatch.setattr(experiments.datasets, "reviews", lambda domain=None: replace(whole, x_test=None, y_test=None))
    assert experiments.strength("tf-idf", 2) in experiments.STRENGTHS["tf-idf"]


def test_real_sets_by_budget_and_with_all_labels(monkeypatch, vectors):
    dataset = small()
    monkeypatch.setattr(experiments, "_real_set", lambda name: dataset)
    monkeypatch.setattr(experiments, "REAL_SETS", {"sst2": (2, 4)})
    monkeypatch.setattr(experiments, "encode", lambda texts: torch.tensor([[float("good" in t), 1.0] for t in texts]))
    rows = experiments.real_sentences()
    assert [(r["labels"], r["everything"]) for r in rows if r["method"] == "MiniLM"] == [(2, False)] * 3 + [(4, False)] * 3 + [(10, True)]
    assert all(r["data"] == "sst2" and len(r["correct"]) == 2 for r in rows)


@pytest.fixture
def tiny(monkeypatch):
    """A tiny transformer in the place of every network."""
    from tlutils import mini_transformers
    from tlutils.transformer_backbones import TextBackbone

    tokens = mini_transformers.tokenizer()

    def load(*name, **options):
        torch.manual_seed(0)
        net = mini_transformers.network("distilbert-mini", vocabulary=len(tokens), width=16, layers=1, heads=2)
        return zoo.Loaded("tiny", TextBackbone(mini_transformers.encoder(net), tokens), 16, list, {"sha256": "0"})
    monkeypatch.setattr(experiments.zoo, "load", load)


def test_a_small_transformer_learns_its_few_sentences(tiny):
    dataset = small()
    method = experiments.TrainedText(dataset, "bert-mini", None, lr=1e-2, steps=30)
    predicted = method(torch.arange(20), dataset.y_train, torch.arange(2), 0)
    assert method.train_accuracy > 0.9 and predicted.shape == (2,)


def test_probes_choose_on_development_sentences(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path))
    experiments._loaded.cache_clear()
    rows = experiments.probe_run("bert-mini probe", "sentiment", budgets=(2,), seeds=range(2), dev_seeds=range(1))
    assert [(r["labels"], r["seed"]) for r in rows] == [(2, 0), (2, 1)] and len({r["C"] for r in rows}) == 1
    experiments._loaded.cache_clear()


def test_rates_are_tried_on_development_draws_first(tiny, monkeypatch):
    monkeypatch.setattr(experiments.datasets, "reviews", small)
    rows = experiments.trained_run("scratch", labels=3, seeds=range(2), dev_seeds=range(1), steps=2)
    assert [r["dev"] for r in rows] == [True] * 3 + [False] * 2 and len({r["rate"] for r in rows if not r["dev"]}) == 1


def test_frozen_and_trained_hub_networks_are_paired(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path))
    rows = experiments._frozen_and_tuned(small(), "gpt2", "gpt2", 4, 5, (1e-3, 1e-2))
    assert [r["method"] for r in rows] == ["gpt2", "gpt2 fine-tuned"] * 3 and {r["rate"] for r in rows} <= {1e-3, 1e-2}
    assert all(len(r["correct"]) == 2 for r in rows)


def test_thinning_keeps_so_many_of_each_class():
    thin = experiments._thin(small(), 3, 1)
    assert thin.y_train.bincount().tolist() == [3, 3] and thin.y_test.bincount().tolist() == [1, 1]
    assert all(("good" in text) == bool(label) for text, label in zip(thin.x_train, thin.y_train))


def test_every_grid_says_what_decides_it():
    assert set(experiments.CODE) == set(experiments.LAB)
    for name, parts in experiments.CODE.items():
        assert report.code_hash(*parts), name
        assert experiments.LAB[name].__doc__ and experiments.LAB[name]()


@pytest.mark.parametrize("name", ["sentiment", "sentiment_domains"])
def test_stored_grids_are_whole(name):
    if not report.exists("lab", name):
        pytest.skip(f"{name} has not been run")
    grid = report.load("lab", name)
    pooled = grid[(grid["labels"] == 20) & (grid["domain"] == "all")] if name == "sentiment" else grid
    runs = pooled.groupby([c for c in ("method", "source", "target") if c in pooled])["seed"].nunique()
    assert (runs >= 10).all() and np.allclose(grid["accuracy"], grid["correct"].map(lambda c: c.count("1") / len(c)), atol=1e-5)
