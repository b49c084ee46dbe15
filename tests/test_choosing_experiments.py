"""The experiments behind the choice of a base model: tasks that ask what they say, grids that are complete, choices that were made."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from tlutils import choosing_experiments as choosing
from tlutils import report, shapes, transferability, zoo
from tlutils.recommend import Advice


def stored(name):
    if not report.exists("lab", name):
        pytest.skip(f"{name} is not recorded yet")
    return report.load("lab", name)


# ---------------------------------------------------------------------------- the tasks
def test_a_texture_is_what_the_task_of_textures_asks_for():
    task = choosing.Textures("4 textures", shapes.TARGET_SHAPES, 1)
    labels = torch.arange(4).repeat(50)
    scenes = task.scenes(labels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scenes.texture, labels) and task.classes == shapes.TEXTURES
    assert {shapes.SHAPES[i] for i in scenes.shape.tolist()} == set(shapes.TARGET_SHAPES)


@pytest.mark.parametrize("name", [*choosing.TASKS, *choosing.DEV_TASKS])
def test_every_task_gives_balanced_pictures_and_the_same_again(name):
    draw = (choosing.TASKS | choosing.DEV_TASKS)[name]
    x, y, x_test, y_test = draw(5, 7)
    assert x.shape[1:] == (3, 32, 32) == x_test.shape[1:] and set(np.bincount(y)) == {5} and len(x_test) == len(y_test)
    assert torch.equal(x, draw(5, 7)[0]) and not torch.equal(x, draw(5, 8)[0])


def test_a_background_is_what_the_task_of_backgrounds_asks_for():
    task, labels = choosing.Backgrounds("backgrounds", shapes.TARGET_SHAPES, 1), torch.arange(4).repeat(50)
    scenes = task.scenes(labels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scenes.background // 4, labels) and len(set(scenes.background.tolist())) == 16 and len(task.classes) == 4


def test_held_out_tasks_share_no_shape_with_the_tasks_that_anything_was_chosen_on():
    assert not set(shapes.TARGET_SHAPES) & set(shapes.DEV_SHAPES) and not set(choosing.TASKS) & set(choosing.DEV_TASKS)
    assert not set(choosing.HELD_OUT) & set(choosing.TASKS | choosing.DEV_TASKS)
    assert not set(choosing.JUDGED) & set(choosing.HELD_OUT | choosing.TASKS | choosing.DEV_TASKS)
    held, judged = (set().union(*seeds.values()) for seeds in (choosing.HELD_SEEDS, choosing.JUDGED_SEEDS))
    assert not held & judged and not (held | judged) & {0, *choosing.SEEDS}


@pytest.mark.parametrize("name", [*choosing.HELD_OUT, *choosing.JUDGED])
def test_the_tasks_that_came_after_a_rule_are_balanced(name):
    x, y, x_test, y_test = (choosing.HELD_OUT | choosing.JUDGED)[name](5, 7)
    assert set(np.bincount(y)) == {5} and len(x) == len(y) and len(x_test) == len(y_test)


def test_a_piece_of_the_held_out_truth_is_probed_only_with_few_labels():
    rows = choosing.held_out_run("halves and quarters", 5, 3, bases=("resnet-mini-bits2",))
    assert [row["method"] for row in rows] == ["pixels", "probe resnet-mini-bits2", "probe resnet-mini-random"]
    (said,) = choosing.held_out_advice("halves and quarters", 5, 3)
    assert said["method"].split()[0] in ("probe", "pixels")


def test_every_base_model_is_bundled_and_has_a_head():
    assert len(choosing.BASES) == 10
    for base in choosing.BASES:
        loaded = choosing.load(base)
        assert loaded.head[-1].in_features == loaded.width and base in zoo.cards()
    assert choosing.load("resnet-mini-random", seed=1).card["recipe"] == "random initialisation"


# ---------------------------------------------------------------------------- the runs
def test_a_piece_of_the_truth_has_a_row_for_each_option():
    rows = choosing.truth_run("dev colours", 5, 3, bases=("resnet-mini-bits2",))
    assert [row["method"] for row in rows] == ["fine-tune resnet-mini-bits2", "probe resnet-mini-bits2"]
    assert all(0 <= row["accuracy"] <= 1 and row["seconds"] > 0 for row in rows)
    assert rows[0]["learned"] > 0.5 and rows[1]["learned"] is None


def test_scores_of_a_draw_have_a_column_for_each_score_and_its_seconds():
    (row,) = choosing.score_run("dev shapes", 5, 3, bases=("resnet-mini-shapes",))
    for name in (*transferability.SCORES, *transferability.BASELINES):
        assert np.isfinite(row[name]) and row[f"s {name}"] >= 0
    assert row["value"] == row["cross-validated probe"] and row["size"] == 77392


def test_an_advice_has_the_name_of_the_option_that_it_recommends():
    def said(base, strategy):
        return choosing.option(Advice(base, strategy, True, (), (), (), 0.0))
    assert said("vgg-mini-shapes", "fine-tune") == "fine-tune vgg-mini-shapes" and said("", "pixels") == "pixels"
    assert said("resnet-mini", "scratch") == "scratch resnet-mini"


def test_every_version_is_asked_on_a_judged_task():
    rows = choosing.judged_advice("halves of both", 5, 3)
    assert [row["version"] for row in rows] == ["second", "third"]
    assert all(row["method"].split()[0] in ("probe", "pixels") and row["value"] > 0 for row in rows)


def test_an_advice_on_photographs_is_one_of_the_options_and_has_its_accuracy():
    from types import SimpleNamespace

    rng = np.random.default_rng(0)
    labels = torch.arange(60) % 3
    features = {name: torch.tensor(rng.normal(size=(60, 8)) + d * np.eye(8)[labels], dtype=torch.float32) for name, d in (("a", 4.0), ("b", 0.2))}
    probes = {name: choosing.real_experiments.FeatureProbe(f[:30], f[30:]) for name, f in features.items()}
    pictures = SimpleNamespace(x_train=torch.rand(30, 3, 8, 8), x_test=torch.rand(30, 3, 8, 8))
    rows = choosing.photograph_rows(SimpleNamespace(y_test=labels[30:]), pictures, probes, torch.arange(30), labels[:30])
    assert [row["method"] for row in rows] == ["a", "b", "pixels", "recommend"] and rows[-1]["chosen"] == "a"
    assert rows[-1]["accuracy"] == rows[0]["accuracy"] > 0.9


# ---------------------------------------------------------------------------- the stored grids
def test_trials_use_the_rates_and_steps_that_the_truth_uses():
    from tlutils import trials

    assert {family: few_many[1] for family, few_many in choosing.CHOSEN_RATES.items()} == trials.RATES
    assert (trials.STEPS, trials.SCRATCH_STEPS, trials.SCRATCH_RATE) == (choosing.STEPS, choosing.SCRATCH_STEPS[50], choosing.SCRATCH_RATE)


def test_the_rates_are_those_that_did_best_on_the_development_tasks():
    frame = stored("choose_rates")
    for family in choosing.FAMILIES:
        for few, labels in enumerate((5, 50)):
            means = frame[(frame["model"] == family) & (frame["labels"] == labels)].groupby("method")["accuracy"].mean()
            assert choosing.CHOSEN_RATES[family][few] == float(means.idxmax()), (family, labels)


def test_the_truth_has_every_option_on_every_draw():
    tuned, few, advice = stored("choose_truth"), stored("choose_few"), stored("choose_advice")
    options = tuned["method"].nunique()
    assert options == 2 * len(choosing.BASES) + 3 and set(tuned["labels"]) == {50} and set(few["labels"]) == {5}
    assert len(tuned) == options * len(choosing.TASKS) * len(choosing.TUNED_SEEDS)
    assert len(few) == (len(choosing.BASES) + 2) * len(choosing.TASKS) * len(choosing.SEEDS)
    assert set(advice["method"]) <= set(tuned["method"]) | set(few["method"])


def test_every_draw_of_the_truth_has_its_scores():
    keys = ["task", "labels", "seed"]
    tuned, few, scores = (set(map(tuple, stored(n)[keys].to_numpy())) for n in ("choose_truth", "choose_few", "choose_scores"))
    assert tuned | few <= scores


@pytest.mark.parametrize("which", ["held_out", "judged"])
def test_the_held_out_truth_has_what_the_advice_names(which):
    truth, advice = stored(f"choose_{which}"), stored(f"choose_{which}_advice")
    keys = ["task", "labels", "seed", "method"]
    assert set(map(tuple, advice[keys].to_numpy())) <= set(map(tuple, truth[keys].to_numpy()))
    tasks, seeds, asked = {"held_out": (choosing.HELD_OUT, choosing.HELD_SEEDS, 1), "judged": (choosing.JUDGED, choosing.JUDGED_SEEDS, 2)}[which]
    assert len(advice) == asked * len(tasks) * sum(map(len, seeds.values()))
