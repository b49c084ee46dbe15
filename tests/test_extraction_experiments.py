"""tlutils.extraction_experiments: strategies that do what they say, costs with known answers, grids that belong to the code."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from tlutils import extraction_experiments as extraction
from tlutils import finetune, freezing, metrics, report, shapes, training, zoo

X, Y = shapes.TARGET10.draw(3, seed=4)
X_TEST, Y_TEST = shapes.TARGET10.draw(10, seed=5)
QUICK = {"kNN": {"k": 1}, "probe": {"C": 0.1}, "L2-SP": {"lr": 3e-3, "pull": 0.1, "steps": 25}}


@pytest.mark.parametrize("name", extraction.NAMES)
def test_every_strategy_adapts_and_predicts(name):
    loaded = zoo.load("resnet-mini")
    before = freezing.frozen_snapshot(loaded.backbone)
    base = extraction.CONTROLS.get(name, (name,))[0]
    found = extraction.adapt(name, loaded, X, Y, 0, QUICK.get(base, {"lr": 3e-3, "steps": 25}))(X_TEST)
    assert found.shape == Y_TEST.shape and metrics.accuracy(found, Y_TEST) > 0.2
    if base in ("kNN", "probe"):
        freezing.assert_frozen(loaded.backbone, before)
    else:
        changed = {key.split(".")[1] for key, value in loaded.backbone.named_parameters() if not torch.equal(value, before[key])}
        top = {"last-1": 1, "last-2": 2}.get(name, 4)
        assert changed == set(list(dict(loaded.backbone.stages.named_children()))[-top:])


def test_a_strategy_by_another_name_is_refused():
    with pytest.raises(ValueError, match="name: 'kn' is no strategy; there are kNN, probe"):
        extraction.adapt("kn", zoo.load("resnet-mini"), X, Y, 0, {})


def test_one_neighbour_knows_the_training_pictures():
    predict = extraction.knn(zoo.load("resnet-mini"), X, Y, k=1)
    assert torch.equal(predict(X), Y)


@pytest.mark.parametrize("x, y, k, words", [
    (X, Y, 0, "k=0 must be 1 to 30"), (X, Y, 31, "k=31 must be 1 to 30"), (X, Y[:4], 1, "y: has 4 labels for 30 examples"),
    (X, torch.ones(30), 1, "y: all 30 labels are the same class"), (X / 0, Y, 1, "x: has values that are not finite, first in example 0")])
def test_bad_input_of_nearest_neighbours_is_named(x, y, k, words):
    with pytest.raises(ValueError, match=words):
        extraction.knn(zoo.load("resnet-mini"), x, y, k=k)


def test_the_probe_names_bad_input_too():
    with pytest.raises(ValueError, match="y: has 4 labels for 30 examples"):
        extraction.probe(zoo.load("resnet-mini"), X, Y[:4])
    with pytest.raises(ValueError, match="k=0 must be a whole number"):
        extraction.probe(zoo.load("resnet-mini"), X, Y, k=0)


def test_a_strong_pull_keeps_the_weights_nearer():
    moved = []
    for pull in (0.0, 10.0):
        loaded = zoo.load("resnet-mini")
        before = freezing.frozen_snapshot(loaded.backbone)
        extraction.trained(loaded, X, Y, lr=1e-2, seed=0, pull=pull, steps=15)
        moved.append(sum((p - before[name]).square().sum().item() for name, p in loaded.backbone.named_parameters()))
    assert moved[1] < 0.5 * moved[0]


def test_settings_know_what_lies_outside():
    near, far = extraction.SETTINGS["near"], extraction.SETTINGS["far domain"]
    assert set(near.outside(shapes.DEV8, 1, 3)) == set(shapes.SHIFTS) and set(far.outside(shapes.DEV8, 1, 3)) == {"plain"}
    plain, _ = near.draw(shapes.DEV8, 2, 3)
    assert torch.equal(far.outside(shapes.DEV8, 2, 3)["plain"][0], plain) and not torch.equal(far.draw(shapes.DEV8, 2, 3)[0], plain)


# ---------------------------------------------------------------------------- the trap
def test_half_frozen_is_not_frozen():
    for freeze, drifts in ((freezing.freeze, False), (extraction.half_freeze, True)):
        loaded = zoo.load("resnet-mini")
        model, before = finetune.Classifier(loaded, 10), freezing.frozen_snapshot(loaded.backbone)
        freeze(loaded.backbone)
        training.fit(model, (X, Y), steps=2)
        if drifts:
            with pytest.raises(freezing.FrozenChanged, match="buffer .*running_mean.* changed"):
                freezing.assert_frozen(loaded.backbone, before)
            assert all(torch.equal(p, before[name]) for name, p in loaded.backbone.named_parameters())
        else:
            freezing.assert_frozen(loaded.backbone, before)


def test_an_unshuffled_loader_gives_class_after_class():
    x, y = torch.arange(6.0)[:, None], torch.tensor([1, 0, 1, 0, 2, 2])
    stream, gen = extraction.in_order(x, y), torch.Generator()
    seen = [stream(gen, 2) for _ in range(4)]
    assert [labels.tolist() for _, labels in seen] == [[0, 0], [1, 1], [2, 2], [0, 0]]
    assert all(torch.equal(y[x[:, 0].long()], labels) for x, labels in seen)


def test_the_trap_is_measured_both_ways():
    rows = extraction.trap_run("shuffled, 4 a batch", 1, steps=12)
    assert [row["method"] for row in rows] == ["frozen", "left in train()"]
    frozen, trapped = rows
    assert frozen["source"] > 0.95 and frozen["plain"] == frozen["accuracy"] and trapped["source"] != frozen["source"]


# ---------------------------------------------------------------------------- views and costs
def test_heads_on_views_and_live(monkeypatch):
    monkeypatch.setattr(extraction, "STEPS", 30)
    for kind in (1, 3, extraction.LIVE):
        predict, seconds = extraction.view_head(kind, X, Y, 1e-2, 0)
        assert metrics.accuracy(predict(X_TEST), Y_TEST) > 0.3 and seconds > 0


def test_what_is_kept_for_the_backward_pass():
    """x (5, 4), the hidden layer (5, 3), the logits (5, 2) and the sums (5,), four bytes each; nothing where nothing learns."""
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(5, 4)
    assert extraction.saved_bytes(model, x) == 4 * (5 * 4 + 5 * 3 + 5 * 2 + 5)
    freezing.freeze(model[0])
    assert extraction.saved_bytes(model, x) == 4 * (5 * 3 + 5 * 2 + 5)
    assert extraction.saved_bytes(freezing.freeze(model), x) == 0


def test_freezing_from_below():
    for top, learning in ((None, 0), (0, 4), (1, 1), (3, 3), (4, 4)):
        loaded = zoo.load("resnet-mini")
        extraction.freeze_below(loaded, top)
        assert sum(not freezing.is_frozen(stage) for stage in loaded.backbone.stages) == learning
    for top in (-1, 5):
        with pytest.raises(ValueError, match=f"top={top} must be 0 to 4"):
            extraction.freeze_below(zoo.load("resnet-mini"), top)


def test_the_second_pass_is_cheaper():
    row, = extraction.cache_run("resnet-mini", 300, 0)
    assert row["value"] == row["first"] / row["second"] > 1


# ---------------------------------------------------------------------------- the stored grids
@pytest.mark.parametrize("name", ["extract_grid", "extract_middle"])
def test_the_grids_used_the_settings_that_the_search_chose(name):
    grid = report.load("lab", name)
    for _, row in grid.drop_duplicates(["method", "setting", "labels"]).iterrows():
        assert row["tuned"] == extraction.words(extraction.chosen(row["method"], row["setting"], row["labels"]))


@pytest.mark.parametrize(("name", "cells"), [("extract_grid", extraction.CELLS), ("extract_middle", extraction.MIDDLE)])
def test_the_grids_are_whole(name, cells):
    grid = report.load("lab", name)
    assert set(grid.groupby(["setting", "labels"]).groups) == set(cells)
    assert len(grid) == len(extraction.NAMES) * len(cells) * 5 and grid["accuracy"].notna().all() and grid["outside"].between(0, 1).all()
    assert (grid[grid["setting"] == "near"][list(shapes.SHIFTS)].notna()).all(axis=None)


def test_a_cell_of_the_grid_comes_out_again():
    before = report.load("lab", "extract_grid").query("setting == 'near' and labels == 5 and seed == 100").set_index("method")
    for row in extraction.strategy_run("near", 5, 100, names=("kNN", "probe", "probe, 8 views")):
        assert row["accuracy"] == pytest.approx(before.loc[row["method"], "accuracy"], abs=0.01)
        assert row["outside"] == pytest.approx(before.loc[row["method"], "outside"], abs=0.01)


def test_there_is_no_real_experiment_here():
    with pytest.raises(ValueError, match="name: 'x' is no real experiment"):
        extraction.provenance("x", [])
