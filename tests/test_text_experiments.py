"""tlutils.text_experiments: the contestants on words alone, runs of each grid in small, and what is registered."""

from dataclasses import replace
from functools import partial

import pytest

from tlutils import experiments, mini_transformers, report, text_experiments, zoo
from tlutils.text_experiments import LAB, TextProbe, TextTrain, TfIdf, one_run

TRAINED = {f"{name}-text" for name in mini_transformers.NETWORKS} <= set(zoo.cards())


def test_tf_idf_learns_topics_and_sees_no_order():
    (row,) = one_run(partial(TfIdf, 10.0), "tf-idf", "topic", 20, 0, test_per_class=10)
    assert row["accuracy"] > 0.4 and row["train_accuracy"] == 1.0
    assert (row["method"], row["task"], row["labels"], row["seed"]) == ("tf-idf", "topic", 20, 0)
    (row,) = one_run(partial(TfIdf, 10.0), "tf-idf", "reference", 50, 0, test_per_class=60)
    assert 0.3 < row["accuracy"] < 0.7  # who is meant is a matter of order and gender: a bag of words can't tell
    assert one_run(partial(TfIdf, 10.0), "tf-idf", "reference", 50, 0, test_per_class=60) == [row]


def test_scratch_learns_its_training_sentences():
    (row,) = one_run(partial(TextTrain, 1e-3, weights=None, steps=40), "scratch", "sentiment", 5, 0, test_per_class=10)
    assert row["train_accuracy"] >= 0.9 and 0 <= row["accuracy"] <= 1


def test_a_probe_leaves_the_network_alone():
    x, y = text_experiments.text.SENTIMENT.draw(5, seed=0)
    assert set(TextProbe(weights=None).fit(x, y)(x)) <= {0, 1}


def test_a_run_of_the_recipe_ablation(monkeypatch):
    monkeypatch.setattr(text_experiments.pretrain_text, "TEST_DOCUMENTS", 60)
    monkeypatch.setattr(text_experiments, "TEST_PER_CLASS", dict.fromkeys(text_experiments.TEST_PER_CLASS, 5))
    monkeypatch.setitem(text_experiments.RECIPE_STEPS, "bert recipe", replace(text_experiments.RECIPE_BASE, documents=100))
    rows = text_experiments.recipe_run("bert recipe", 0, steps=3)
    assert {row["task"] for row in rows} == set(text_experiments.text.TASKS) and all(4 < row["loss"] < 9 for row in rows)


def test_the_ablation_changes_one_thing_at_a_time():
    recipes = list(text_experiments.RECIPE_STEPS.values())
    changes = [{key for key in vars(a) if getattr(a, key) != getattr(b, key)} for a, b in zip(recipes, recipes[1:])]
    assert changes == [{"masks"}, {"pairs"}, {"batch_size", "steps"}, {"steps"}]
    assert recipes[2].batch_size * recipes[2].steps == recipes[3].batch_size * recipes[3].steps


def test_grids_are_registered_with_the_code_that_decides_them():
    assert set(LAB) == set(text_experiments.CODE) <= set(experiments.LAB)
    for name in LAB:
        assert report.code_hash(*text_experiments.CODE[name]) and LAB[name].__doc__
    every = {task for task in text_experiments.text.TASKS}
    for name in ("text_baselines", "few_labels"):
        runs = [job.args for job in LAB[name]()]
        assert {task for _, _, task, *_ in runs} == every and {labels for *_, labels, _ in runs} == {5, 20, 100}
        assert len({args[1:] for args in runs}) == len(runs)


@pytest.mark.skipif(not TRAINED, reason="the text minis are not trained yet")
@pytest.mark.parametrize(
    "name, where, low, high",
    [("roberta-mini", "after", 0.8, 1.0), ("gpt-mini", "before", 0.8, 1.0), ("gpt-mini", "after", 0.3, 0.7)],
)
def test_a_gpt_guesses_where_the_clue_comes_later(name, where, low, high):
    (row,) = text_experiments.sides_run(name, where, seed=0, n=60)
    assert low <= row["accuracy"] <= high


@pytest.mark.skipif(not TRAINED, reason="the text minis are not trained yet")
def test_sizes_are_those_of_the_cards():
    rows = text_experiments.size_run(("bert-mini", "distilbert-mini"), repeats=2)
    assert len(rows) == 4 and all(row["value"] > 0 for row in rows)
    size = {row["method"]: row["encoder_parameters"] for row in rows}
    assert size["distilbert-mini"] <= 0.6 * size["bert-mini"]

