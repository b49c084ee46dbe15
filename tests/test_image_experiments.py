"""tlutils.image_experiments: what the grids of `image_models` compare, and that choices stay apart from what is reported."""

import math

import pytest
import torch
from torch import nn

from tlutils import evaluation, experiments, paths, pretrain, report, shapes, zoo
from tlutils import image_experiments as ie
from tlutils.mini_cnns import MINIS


def stored(name):
    if not report.exists("lab", name):
        pytest.skip(f"{name} is not recorded yet")
    return report.load("lab", name)


# ---------------------------------------------------------------------------- the grids
def test_what_is_chosen_and_what_is_reported_never_meet():
    assert not set(ie.DEV_SEEDS) & {*ie.SEEDS, *ie.TUNED_SEEDS} and len(ie.SEEDS) >= 10 and len(ie.TUNED_SEEDS) >= 5
    assert all(shapes.DEV8 in job.args for job in ie.probe_rates())
    assert all(shapes.DEV8 not in job.args for job in ie.families())
    used = [r.seed for r in pretrain.RECIPES.values()] + [-r.seed - 1 for r in pretrain.RECIPES.values()]
    assert ie.VALIDATION_SEED not in used


def test_every_mini_is_tried_with_as_many_settings():
    tried = {(job.args[0], job.args[1]) for job in ie.source_rates()}
    assert tried == {(model, rate) for model in MINIS for rate in ie.SOURCE_RATES}
    towers = [job.args[:4] for job in ie.tower_rates()]
    assert len(towers) == len(set(towers)) == 4 * 2 * len(ie.TOWER_RATES)


def test_probes_of_one_draw():
    rows = ie.probe_run(2, 100, networks=("resnet-mini",))
    assert [row["method"] for row in rows] == ["resnet-mini", "resnet-mini, random"]
    assert all(row["C"] == ie.chosen_penalty(row["method"], 2) and 0 <= row["accuracy"] <= 1 for row in rows)
    from tlutils.methods import Probe

    x, y, x_test, y_test = evaluation.world(shapes.TARGET10)(2, 100)
    same = Probe("shapes", C=rows[0]["C"])(x, y, x_test, 100)
    assert rows[0]["accuracy"] == pytest.approx(float((same == y_test.numpy()).mean()))


def test_a_search_has_a_row_for_every_penalty():
    rows = ie.probe_run(1, 0, shapes.DEV8, None, networks=("resnet-mini",))
    assert [row["C"] for row in rows] == [*ie.PENALTIES, *ie.PENALTIES]


def test_few_and_many_labels_have_penalties_of_their_own(monkeypatch):
    monkeypatch.setitem(ie.CHOSEN_PENALTY, "resnet-mini", (0.5, 2.0))
    assert [ie.chosen_penalty("resnet-mini", n) for n in (1, 10, 20, 50)] == [0.5, 0.5, 2.0, 2.0]


def test_short_runs_give_their_rows():
    (row,) = ie.source_run("inception-mini", 1e-2, steps=2)
    assert row["model"] == "inception-mini" and row["method"] == "0.01" and 0 <= row["accuracy"] <= 1


# ---------------------------------------------------------------------------- towers
def test_a_skip_adds_the_input():
    block = ie.Block(4, skip=True, norm=False)
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        for p in block.parameters():
            p.zero_()
    assert torch.equal(block(x), x.relu())
    block.skip = False
    assert not block(x).any()


@pytest.mark.parametrize("skip, norm", ie.CELLS)
def test_towers_differ_in_skips_and_norm_only(skip, norm):
    net, plain = ie.tower(3, skip=skip, norm=norm, seed=1), ie.tower(3, skip=False, norm=False, seed=1)
    convolutions = [[m.weight for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (net, plain)]
    assert all(map(torch.equal, *convolutions)), "the same weights in every cell"
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == (6 if norm else 0)
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 16)


def test_initialisation_by_name():
    a, b = (ie.tower(1, skip=True, norm=True, init=init)[1].weight.std() for init in ("torch", "he"))
    assert a != b
    with pytest.raises(ValueError, match="init: must be"):
        ie.tower(1, skip=True, norm=True, init="xavier")


def test_gradient_norms_are_those_of_the_plain_loss():
    net, (x, y) = ie.tower(2, skip=True, norm=False), shapes.SHAPES16.draw(1, seed=0)
    norms = ie.gradient_norms(net, x, y)
    net.zero_grad()
    torch.nn.functional.cross_entropy(net(x), y).backward()
    assert norms == pytest.approx([float(block.body[0].weight.grad.norm()) for block in net if isinstance(block, ie.Block)], rel=1e-4)


def test_gradients_too_small_for_single_precision_are_told_from_zero():
    (row,) = (r for r in ie.gradient_run(40, 0, cells=((False, False),), inits=("torch",)))
    assert -60 < row["value"] < -30 and row["method"] == "neither" and row["depth"] == 40


def test_a_tower_that_diverges_counts_as_chance():
    (row,) = ie.tower_run(True, False, "he", 1e6, 0, depth=8, steps=5)
    assert row["diverged"] and row["accuracy"] == 1 / 16 and row["loss"] is None
    (row,) = ie.tower_run(True, True, "torch", 1e-3, 0, depth=1, steps=2)
    assert not row["diverged"] and 0 <= row["accuracy"] <= 1


# ---------------------------------------------------------------------------- real
def test_photographs_are_missed_in_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(paths, "local_folders", lambda: [])
    with pytest.raises(FileNotFoundError, match="imagenet_sample.*TLUTILS_DATA.*EliSchwartz/imagenet-sample-images"):
        ie.imagenet_sample()


def test_speed_needs_no_weights(monkeypatch):
    monkeypatch.setattr(ie, "SPEED", {"mobilenet_v2": 64})
    monkeypatch.setattr(ie, "SPEED_ROUNDS", 2)
    monkeypatch.setattr(ie, "NETWORKS", ("resnet-mini",))
    rows = ie.image_speed()
    assert [(row["method"], row["seed"]) for row in rows] == [(n, s) for s in (0, 1) for n in ("mobilenet_v2", "resnet-mini")]
    assert all(row["value"] > 0 for row in rows)
    assert "threads" in ie.provenance("image_speed", rows)


# ---------------------------------------------------------------------------- what is stored, and what was chosen by it
def settings_at_the_end_matter_little(means, best):
    means = means.sort_index()
    if best in (means.index[0], means.index[-1]):
        neighbour = means.iloc[1] if best == means.index[0] else means.iloc[-2]
        assert means[best] - neighbour < 0.015, "try candidates beyond this end"


@pytest.mark.parametrize("model", MINIS)
def test_the_recipes_rate_is_the_best_that_was_tried(model):
    sweep = stored("source_rates")
    means = sweep[sweep["model"] == model].groupby("method")["accuracy"].mean()
    means.index = means.index.astype(float)
    assert pretrain.RECIPES[f"{model}-shapes"].lr == means.idxmax()
    settings_at_the_end_matter_little(means, means.idxmax())


@pytest.mark.parametrize("labels", [5, 50])
@pytest.mark.parametrize("method", ie.CHOSEN_PENALTY)
def test_the_chosen_penalty_is_the_best_that_was_tried(method, labels):
    sweep = stored("probe_rates")
    means = sweep[(sweep["method"] == method) & (sweep["labels"] == labels)].groupby("C")["accuracy"].mean()
    assert ie.chosen_penalty(method, labels) == means.idxmax()
    settings_at_the_end_matter_little(means, means.idxmax())


@pytest.mark.parametrize("method", ie.CHOSEN_TOWER)
def test_each_tower_gets_the_settings_that_served_it_best(method):
    sweep = stored("tower_rates")
    means = sweep[sweep["method"] == method].groupby(["init", "rate"])["accuracy"].mean()
    assert ie.CHOSEN_TOWER[method] == means.idxmax()


@pytest.mark.parametrize("name", ie.LAB)
def test_every_grid_names_the_code_that_makes_it(name):
    assert f"image_experiments:{name}" in ie.CODE[name] or name == "source_rates"
    assert experiments.current_code(name) if all(w in zoo.cards() for w in ie.WEIGHTS.get(name, ())) else True


def test_stored_gradients_are_those_of_the_code():
    grid = stored("gradients")
    for row in ie.gradient_run(8, ie.SEEDS[0]):
        same = grid[(grid["method"] == row["method"]) & (grid["init"] == row["init"]) & (grid["depth"] == 8) & (grid["seed"] == row["seed"])]
        assert math.isclose(same["value"].item(), row["value"], abs_tol=0.1)
