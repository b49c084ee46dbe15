"""tlutils.symptoms: each instrument on a run made by hand whose reading is known, and bad input."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from tlutils import symptoms
from tlutils.history import History
from tlutils.symptoms import Case


class Tiny(nn.Module):
    """The three parts that a case asks for, on pictures of 4x4."""

    def __init__(self, classes: int = 2):
        super().__init__()
        self.preprocess = lambda x: x
        self.backbone = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 8))
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.backbone(self.preprocess(x)))


def made(losses=(0.7, 0.5, 0.3), rows=(), n=40, change=lambda model: None, **more) -> Case:
    """Two classes that differ in brightness, a model before and the same after `change`."""
    torch.manual_seed(0)
    y = torch.arange(n) % 2
    x, xv = (torch.randn(n, 3, 4, 4) + 3 * y[:, None, None, None] for _ in range(2))
    before = Tiny().eval()
    model = copy.deepcopy(before)
    with torch.no_grad():
        change(model)
    return Case(model, before, History(rows=list(rows), losses=list(losses)), **{"train": (x, y), "validation": (xv, y), **more})


# ---------------------------------------------------------------------------- curves
def test_the_course_of_the_loss_in_units_of_chance():
    found = symptoms.curves(made(losses=[math.log(2)] * 50 + [0.0] * 50))
    assert found["start"] == pytest.approx(1) and found["end"] == 0 and found["rise"] == 0 and found["broken"] == 0
    assert found["late_fall"] == 0
    assert symptoms.curves(made(losses=np.linspace(1, 0, 90)))["late_fall"] == pytest.approx(1 / 3, abs=0.05)
    climbing = symptoms.curves(made(losses=[0.1] * 30 + [2.0] * 30))
    assert climbing["rise"] == pytest.approx(1.9 / math.log(2))


def test_a_loss_that_breaks_is_seen_and_the_rest_is_read_up_to_it():
    found = symptoms.curves(made(losses=[0.7, 0.6, 0.5, float("nan")]))
    assert found["broken"] == 1 and math.isfinite(found["end"])
    assert symptoms.curves(made(losses=[float("nan")]))["broken"] == 1


def test_validation_that_gets_worse():
    rows = [{"step": k, "validation_loss": v, "validation_accuracy": a} for k, v, a in [(1, 0.5, 0.7), (2, 0.2, 0.9), (3, 0.9, 0.8)]]
    found = symptoms.curves(made(rows=rows))
    assert found["validation_rise"] == pytest.approx(0.7 / math.log(2)) and found["validation_fall"] == pytest.approx(0.1)
    assert math.isnan(symptoms.curves(made())["validation_rise"])


# ---------------------------------------------------------------------------- scores and modes
def constant(model):
    model.head.weight.zero_()
    model.head.bias.copy_(torch.tensor([1.0, 0.0]))


def test_one_answer_for_everything():
    found = symptoms.scores(made(change=constant, baseline=0.9, reported=0.5))
    assert found["validation_accuracy"] == found["balanced"] == 0.5 and found["majority"] == 0.5 and found["gap"] == 0
    assert found["misreported"] == 0 and found["below_baseline"] == pytest.approx(0.4 / math.hypot((0.25 / 40) ** 0.5, (0.09 / 40) ** 0.5))
    assert math.isnan(symptoms.scores(made())["misreported"])


def test_modes_are_told_apart_and_put_back():
    case = made()
    before = copy.deepcopy(case.model.state_dict())
    found = symptoms.modes(case)
    assert found["training_flag"] == 0 and found["mode_gap"] >= 0 and not case.model.training
    assert all(torch.equal(before[k], v) for k, v in case.model.state_dict().items())
    case.model.train()
    assert symptoms.modes(case)["training_flag"] == 1 and case.model.training


# ---------------------------------------------------------------------------- movement
def test_what_did_not_move_reads_zero_and_doubled_weights_read_one():
    assert symptoms.movement(made()) == {"backbone_moved": 0, "head_moved": 0, "frozen_statistics_moved": 0}

    def double(model):
        model.head.weight.mul_(2), model.head.bias.mul_(2)
    assert symptoms.movement(made(change=double))["head_moved"] == pytest.approx(1)


def test_statistics_count_only_where_their_own_parameters_stood_still():
    def drift(model):
        model.backbone[0].running_mean.add_(2.0)
    assert symptoms.movement(made(change=drift))["frozen_statistics_moved"] == pytest.approx(2, rel=1e-3)

    def trained(model):
        drift(model), model.backbone[0].weight.add_(0.1)
    assert symptoms.movement(made(change=trained))["frozen_statistics_moved"] == 0


# ---------------------------------------------------------------------------- data
def test_shuffled_labels_do_not_agree_with_their_neighbours():
    right = symptoms.data(made(n=200))
    case = made(n=200)
    case.train = (case.train[0], case.train[1][torch.randperm(200, generator=torch.Generator().manual_seed(1))])
    wrong = symptoms.data(case)
    assert right["agreement"] > 10 and right["validation_agreement"] > 10
    assert abs(wrong["agreement"]) < 4 and abs(wrong["validation_agreement"]) < 4


def test_duplicates_are_counted_and_near_ones_are_not():
    case = made(n=100)
    assert symptoms.data(case)["duplicates"] == 0
    x, y = case.train
    x[:30] = case.validation[0][:30]
    assert symptoms.data(case)["duplicates"] == pytest.approx(0.3)
    x[:30] += 0.3 * torch.randn(30, 3, 4, 4)
    assert symptoms.data(case)["duplicates"] == 0


def test_imbalance_is_the_ratio_of_the_largest_to_the_smallest_class():
    case = made(n=100)
    keep = torch.cat([torch.arange(0, 100, 2), torch.arange(1, 21, 2)])
    case.train = (case.train[0][keep], case.train[1][keep])
    assert symptoms.data(case)["imbalance"] == 5


def test_inputs_are_measured_against_the_first_batch_norm():
    case = made(n=200)
    first = case.before.backbone[0]
    values = case.train[0].transpose(0, 1).flatten(1)
    first.running_mean.copy_(values.mean(1)), first.running_var.copy_(values.var(1))
    found = symptoms.inputs(case)
    assert found["input_shift"] < 0.02 and found["input_scale"] < 0.02
    case.model.preprocess = lambda x: 4 * x
    assert symptoms.inputs(case)["input_scale"] == pytest.approx(2, abs=0.02)
    case.model.preprocess = lambda x: x + 3 * values.std(1)[None, :, None, None]
    assert symptoms.inputs(case)["input_shift"] == pytest.approx(3, abs=0.05)


# ---------------------------------------------------------------------------- features
def test_cka_knows_rotation_and_scale_and_nothing_else():
    dice = np.random.default_rng(0)
    a = dice.normal(size=(300, 6))
    turn = np.linalg.qr(dice.normal(size=(6, 6)))[0]
    assert symptoms.cka(a, 3 * a @ turn + 5) == pytest.approx(1)
    assert symptoms.cka(a, dice.normal(size=(300, 6))) < 0.1
    assert symptoms.cka(a, np.ones((300, 2))) == 0
    with pytest.raises(ValueError, match="the same examples must stand in both"):
        symptoms.cka(a, a[:10])


def test_a_skill_that_is_wiped_out_is_missed():
    def wipe(model):
        model.backbone[2].weight.zero_()
    case = made(n=120, change=wipe)
    case.source = case.validation
    found = symptoms.features(case)
    assert found["start_accuracy"] > 0.9 and found["source_lost"] > 0.3 and found["drift"] == 1
    assert math.isnan(symptoms.features(made())["source_lost"])


def test_measure_gives_every_symptom_as_a_number():
    found = symptoms.measure(made())
    assert all(isinstance(value, float) for value in found.values()) and len(found) > 25


# ---------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("change, message", [
    ({"model": nn.Linear(2, 2)}, "model: has no preprocess"),
    ({"history": History()}, "history: holds no step"),
    ({"train": (torch.zeros(3, 3, 4, 4), torch.tensor([0, 1]))}, r"train\[1\]: has 2 labels for 3 examples"),
    ({"source": (torch.zeros(2, 3, 4, 4), torch.tensor([1, 1]))}, r"source\[1\]: all 2 labels are the same class"),
])
def test_a_case_that_can_not_be_read_is_refused(change, message):
    case = made()
    parts = {name: getattr(case, name) for name in ("model", "before", "history", "train", "validation")}
    with pytest.raises(ValueError, match=message):
        Case(**{**parts, **change})
    with pytest.raises(ValueError, match="before: is the trained model itself"):
        Case(**{**parts, "before": case.model})
