"""tlutils.limited_experiments: what the grids of `limited_data` compare, and that choices stay apart from what is reported."""

import pytest
import torch

from tlutils import datasets, evaluation, experiments, report, shapes, training
from tlutils import limited_experiments as le
from tlutils.methods import Train


def stored(name):
    if not report.exists("lab", name):
        pytest.skip(f"{name} is not recorded yet")
    return report.load("lab", name)


# ---------------------------------------------------------------------------- what is compared
def test_what_is_chosen_and_what_is_reported_never_meet():
    assert not set(le.DEV_SEEDS) & {*le.SEEDS, *le.TUNED_SEEDS} and len(le.SEEDS) >= 10 and len(le.TUNED_SEEDS) >= 5
    assert not set(le.BARE_SEEDS) & {*le.SEEDS, *le.TUNED_SEEDS}
    assert all(shapes.DEV8 in job.args for job in le.limited_view_rates() + le.limited_bare_rates() + le.limited_tuning_rates())
    shown = (le.limited_plain, le.limited_knobs, le.limited_curves, le.limited_alone, le.limited_without, le.limited_scratch_alone,
             le.limited_mixed, le.limited_scratch_mixed)
    assert all(job.args[2] is shapes.TARGET10 for grid in shown for job in grid())


def test_runs_are_paired_with_those_of_why_transfer():
    assert list(le.TUNED_SEEDS) == list(experiments.SEEDS)
    for name in ("scratch", "fine-tuning"):
        for labels, place in ((5, le.FEW), (50, le.MANY)):
            assert le.RATE[name][place] == experiments.chosen(name, labels)
            mine, theirs = le.learner(name, labels), experiments.tuned(name, labels)
            assert (mine.lr, mine.weights, mine.weight_decay, mine.batch_size) == (theirs.lr, theirs.weights, theirs.weight_decay, theirs.batch_size)
            assert mine.steps == theirs.steps or mine.steps(labels) == theirs.steps(labels)


def test_with_its_defaults_a_learner_is_plain_training():
    x, y = shapes.TARGET10.draw(2, seed=0)
    mine = le.Learner("shapes", 1e-3, steps=3)(x, y, 5)
    theirs = Train("shapes", 1e-3, steps=3).run(x, y, 5)
    assert torch.equal(training.predict(mine.model, x), training.predict(theirs.model, x))


@pytest.mark.parametrize("knob", [{"dropout": 0.5}, {"mix": "mixup"}, {"mix": "cutmix"}, {"augment": None}, {"weight_decay": 9.0}])
def test_every_knob_changes_the_run(knob):
    x, y = shapes.TARGET10.draw(2, seed=0)
    plain, turned = (le.Learner("shapes", 1e-3, steps=3, **more)(x, y, 5) for more in ({}, knob))
    assert not torch.equal(training.predict(plain.model, x), training.predict(turned.model, x))


def test_a_run_gives_its_row():
    (row,) = le.learn_run("mixup", le.Learner("shapes", 1e-3, steps=2, mix="mixup"), shapes.TARGET10, 1, 100, {"what": "x"})
    assert row["method"] == "mixup" and row["what"] == "x" and row["labels"] == 1
    assert 0 <= row["accuracy"] <= 1 and 0 <= row["train_accuracy"] <= 1 and row["loss"] > 0


def test_a_learner_says_what_is_wrong_with_its_labels():
    x, y = shapes.TARGET10.draw(1, seed=0)
    with pytest.raises(ValueError, match="y: all 10 labels are the same class"):
        le.Learner(None, 1e-3, steps=1)(x, y * 0, 0)


# ---------------------------------------------------------------------------- augmentation
def test_each_kind_changes_pictures_in_its_own_way():
    x, _ = shapes.TARGET10.draw(3, seed=0)
    changed = {kind: one(x, torch.Generator().manual_seed(0)) for kind, one in le.KINDS.items()}
    assert all(part.shape == x.shape and 0 <= part.min() and part.max() <= 1 for part in changed.values())
    mirrored = torch.isclose(changed["flip"], x.flip(3), atol=1e-4).flatten(1).all(1)
    same = torch.isclose(changed["flip"], x, atol=1e-4).flatten(1).all(1)
    assert (mirrored ^ same).all() and mirrored.any() and same.any(), "a flip mirrors some and leaves the others"
    assert (changed["noise"] - x).abs().mean() < 0.08


def test_mirrored_shapes_are_the_same_scenes_in_a_mirror():
    x, y = le.SIGNS.draw(3, seed=4)
    plain, _ = shapes.Task("same", le.SIGNS.shapes, 4).draw(6, seed=4)
    assert x.shape[0] == 24 and y.bincount().tolist() == [3] * 8 and len(le.SIGNS.classes) == 8
    other, _ = le.Mirrored("x", le.SIGNS.shapes, 4).draw(3, seed=4)
    assert torch.equal(x, other) and plain.shape == x.shape
    stream, labels = le.SIGNS.stream(torch.Generator().manual_seed(0), 6)
    assert stream.shape == (6, 3, 32, 32) and labels.max() < 8


def test_the_odd_labels_are_mirrored():
    images, labels = torch.rand(4, 3, 5, 5), torch.tensor([0, 1, 2, 3])
    out, _ = le.Mirrored._mirrored(images, labels)
    assert torch.equal(out[::2], images[::2]) and torch.equal(out[1::2], images[1::2].flip(3))


def test_one_kind_alone_and_all_but_one():
    """A picture with one bright corner on grey: colours leave it where it is, the others leave its colours as they are."""
    x = torch.full((40, 3, 32, 32), 0.4)
    x[:, 0, 4:12, 4:12] = 0.9
    made = {name: one(x, torch.Generator().manual_seed(0)) for name, one in (le.ALONE | le.WITHOUT).items()}
    assert set(le.ALONE) == {f"only {kind}" for kind in le.KINDS}
    assert set(le.WITHOUT) == {f"all but {kind}" for kind in ("rotate", "scale", "shift", "colour")}
    corner = x[:, 0] - x[:, 1] > 0.2
    moved = {name: bool(((out[:, 0] - out[:, 1] > 0.2) != corner).flatten(1).any(1).float().mean() > 0.3) for name, out in made.items()}
    recoloured = {name: bool((out[:, :, 20:, 20:] - 0.4).abs().amax((1, 2, 3)).median() > 0.05) for name, out in made.items()}
    moved.pop("only noise")
    assert {name for name, was in moved.items() if not was} == {"only colour"}
    assert {name for name, was in recoloured.items() if not was} == {"only flip", "only rotate", "only scale", "only shift", "all but colour"}


# ---------------------------------------------------------------------------- frozen features and pseudo-labels
def test_views_of_one_draw():
    rows = le.view_run(1, 100)
    assert [row["views"] for row in rows] == list(le.VIEWS) and all(row["C"] == le.VIEW_C[row["views"]][le.FEW] for row in rows)
    from tlutils.methods import Probe

    x, y, x_test, y_test = evaluation.world(shapes.TARGET10)(1, 100)
    plain = Probe("shapes", C=rows[0]["C"])(x, y, x_test, 100)
    assert rows[0]["accuracy"] == pytest.approx(float((plain == y_test.numpy()).mean()))


def test_heads_of_one_draw():
    rows = le.head_run(1, 100)
    assert [row["method"] for row in rows] == list(le.STRENGTHS)
    assert all(0 <= row["accuracy"] <= row["train_accuracy"] <= 1 for row in rows)


def test_pseudo_labels_of_one_draw():
    rows = {row["method"]: row for row in le.pseudo_run("shapes", 1, 100)}
    assert list(rows) == ["labels only", *(f"pseudo {t:g}" for t in le.THRESHOLDS), "true labels"]
    taken = [rows[f"pseudo {t:g}"]["taken"] for t in le.THRESHOLDS]
    assert taken[0] == 1000 and taken == sorted(taken, reverse=True)
    assert rows["true labels"]["accuracy"] > rows["labels only"]["accuracy"]


def test_unlabelled_pictures_are_neither_trained_nor_tested_on():
    x, y = le.unlabelled(100)
    assert len(x) == 1000 and y.bincount().tolist() == [100] * 10
    few, _, test, _ = evaluation.world(shapes.TARGET10)(5, 100)
    seen = set(datasets.content_hashes(torch.cat([few, test])))
    assert not seen & set(datasets.content_hashes(x))


# ---------------------------------------------------------------------------- what is stored, and what was chosen by it
@pytest.mark.parametrize("labels", [5, 20])
@pytest.mark.parametrize("count", le.VIEWS)
def test_the_chosen_penalty_is_the_best_that_was_tried(count, labels):
    sweep = stored("limited_view_rates")
    means = sweep[(sweep["views"] == count) & (sweep["labels"] == labels)].groupby("C")["accuracy"].mean()
    assert le.VIEW_C[count][le.FEW if labels == 5 else le.MANY] == means.idxmax()


def test_scratch_without_augmentation_has_the_best_rate_that_was_tried():
    sweep = stored("limited_bare_rates").groupby("method")["accuracy"].mean()
    assert float(sweep.idxmax()) == le.BARE_RATE and len(sweep) == len(le.BARE_CANDIDATES)


def test_fine_tuning_without_augmentation_has_the_best_rate_that_was_tried():
    sweep = stored("limited_tuning_rates").groupby("method")["accuracy"].mean()
    used = {job.args[1].lr for job in le.limited_bare() if job.args[1].weights}
    assert used == {float(sweep.idxmax())} and len(sweep) == len(le.BARE_TUNING_CANDIDATES)


@pytest.mark.parametrize("name", le.LAB)
def test_every_grid_names_the_code_that_makes_it(name):
    assert f"limited_experiments:{name}" in le.CODE[name] and experiments.current_code(name)
    if report.exists("lab", name):
        assert experiments.is_current(name), f"python -m tlutils.experiments {name}"


def test_there_is_no_real_experiment_here():
    assert not le.REAL
    with pytest.raises(ValueError, match="no real experiment"):
        le.provenance("anything", [])
