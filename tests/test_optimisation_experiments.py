"""tlutils.optimisation_experiments: methods differ in one thing only, and choices stay apart from what is reported."""

import pandas as pd
import pytest
import torch

from tlutils import experiments, report, shapes
from tlutils import optimisation_experiments as oe


def stored(name):
    if not report.exists("lab", name):
        pytest.skip(f"{name} is not recorded yet")
    return report.load("lab", name)


@pytest.fixture(scope="module")
def few():
    return shapes.TARGET10.draw(5, seed=3)


# ---------------------------------------------------------------------------- one run
@pytest.mark.parametrize("method", oe.METHODS)
def test_every_method_trains_the_backbone_that_it_hands_back(few, method):
    loaded, run = oe.tune(method, *few, lr=1e-2, steps=6, seed=0)
    from tlutils import zoo

    before = zoo.load("resnet-mini", "shapes").backbone.state_dict()
    changed = any(not torch.equal(before[name], value) for name, value in loaded.backbone.state_dict().items())
    assert run.model.backbone is loaded.backbone and changed and len(run.history.losses) == 6


def test_methods_see_the_same_first_loss(few):
    first = {m: oe.tune(m, *few, lr=1e-3, steps=6, seed=0)[1].history.losses[0] for m in ("plain", "warm-up", "layer-wise", "sgd")}
    assert max(first.values()) == pytest.approx(min(first.values()), abs=1e-5)


def test_layer_wise_with_no_difference_between_layers_is_plain(few, monkeypatch):
    monkeypatch.setattr(oe, "LAYER_DECAY", 1.0)
    plain, layers = (oe.tune(m, *few, lr=1e-3, steps=6, seed=0)[1].history.losses for m in ("plain", "layer-wise"))
    assert plain == pytest.approx(layers, abs=1e-4)


def test_early_stopping_holds_out_one_label_in_five_of_every_class(few):
    x, y = few
    x_left, y_left, (x_out, y_out) = oe.hold_out(x, y)
    assert len(x_left) == len(y_left) == 40 and torch.equal(y_out.bincount(), torch.ones(10, dtype=torch.int64))
    assert torch.equal(y_left.bincount(), torch.full((10,), 4))
    assert len(torch.cat([x_left, x_out]).flatten(1).unique(dim=0)) == 50      # nothing twice, nothing lost


def test_bad_input_is_named(few):
    with pytest.raises(ValueError, match="method: must be one of plain, warm-up"):
        oe.tune("best", *few, lr=1e-3, steps=6, seed=0)
    with pytest.raises(ValueError, match="class 9 has a single label"):
        oe.hold_out(few[0][9:], few[1][9:].where(few[1][9:] < 9, torch.tensor([9, *[8] * 40])))
    with pytest.raises(ValueError, match="lr=-0.1 must be a finite number"):
        oe.tune("plain", *few, lr=-0.1, steps=6, seed=0)
    with pytest.raises(ValueError, match="steps"):
        oe.tune("gradual", *few, lr=1e-3, steps=3, seed=0)


def test_a_row_says_what_was_run_and_what_was_kept():
    (row,) = oe.one_run("plain", 1, 3, 1e-3, 0)
    assert row["method"] == "plain" and 0 <= row["accuracy"] <= 1 and row["old_head"] > 0.8 and row["new_probe"] > 0.8
    (row,) = oe.one_run("plain", 1, 3, 1e-3, 0, None, name="other")
    assert row["source"] == "scratch" and row["method"] == "other" and "old_head" not in row


def test_a_search_takes_the_best_two_to_the_second_draw():
    rows = pd.DataFrame(oe.search("plain", "shapes", 1, 2, rates=(1e-5, 1e-3, 1e-1)))
    first, second = (rows[rows["seed"] == seed] for seed in oe.DEV_SEEDS)
    assert len(first) == 3 and set(second["rate"]) == set(first.nlargest(2, "accuracy")["rate"])
    best = oe.best_rates(rows)["plain", "shapes", 1, 2]
    assert best in set(second["rate"])


def test_looks_at_two_halves(monkeypatch):
    monkeypatch.setitem(oe.CHOSEN, ("plain", "shapes", 1, 4), 1e-3)
    rows = oe.watched_run(1, True, 0, steps=4)
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and all(0 <= row[c] <= 1 for row in rows for c in ("accuracy", "other_accuracy"))


# ---------------------------------------------------------------------------- the grids
def test_what_is_chosen_and_what_is_reported_never_meet():
    assert not set(oe.DEV_SEEDS) & set(oe.SEEDS) and len(oe.SEEDS) >= 5


def test_every_method_is_searched_for_every_case_that_it_is_run_on():
    searched = {job.args for job in oe.optim_rates()}
    assert searched == {(m, *case) for case in oe.CASES for m in oe.tried(*case)}


def test_practices_are_left_out_one_at_a_time():
    left_out = {job.args[0]: job.args[1] for job in oe.optim_practices()}
    assert left_out.pop("all off") == oe.PRACTICES
    assert all(parts == (name.removeprefix("without "),) for name, parts in left_out.items())


@pytest.mark.parametrize("name", oe.LAB)
def test_every_grid_names_the_code_that_makes_it(name):
    assert len(report.code_hash(*oe.CODE[name])) == 16 and experiments.LAB[name] is oe.LAB[name]


def test_the_chosen_rates_are_the_best_that_were_tried():
    assert oe.CHOSEN == pytest.approx(oe.best_rates(stored("optim_rates")))
