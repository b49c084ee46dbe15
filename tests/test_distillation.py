"""tlutils.distillation: known values and invariants of the losses."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tlutils import distillation, freezing, training
from tlutils.distillation import cosine_distance, soft_targets


def test_nothing_is_lost_when_both_agree():
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    assert soft_targets(logits, logits).abs() < 1e-6 and soft_targets(logits + 3, logits).abs() < 1e-5
    assert cosine_distance(logits, 5 * logits).abs() < 1e-6 and cosine_distance(logits, -logits) == pytest.approx(2)


def test_a_value_by_hand():
    student, teacher = torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])
    p = torch.tensor([2.0, 0.0]).div(2).softmax(0)  # at temperature 2
    by_hand = 4 * (p * (p.log() - torch.tensor(0.5).log())).sum()
    torch.testing.assert_close(soft_targets(student, teacher), by_hand)


def test_at_temperature_one_the_gradient_is_that_of_cross_entropy_with_soft_labels():
    student, teacher = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).requires_grad_(), torch.randn(3, 5)
    (a,) = torch.autograd.grad(soft_targets(student, teacher, temperature=1), student)
    (b,) = torch.autograd.grad(F.cross_entropy(student, teacher.softmax(-1)), student)
    torch.testing.assert_close(a, b)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 8))
def test_never_negative(seed, temperature):
    a, b = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(seed))
    assert soft_targets(a, b, temperature=temperature) >= -1e-6 and 0 <= cosine_distance(a, b) <= 2


def test_bad_input():
    with pytest.raises(ValueError, match=r"same shape; got \(2, 3\) and \(2, 4\)"):
        soft_targets(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="temperature=0"):
        soft_targets(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0)
    with pytest.raises(ValueError, match="same shape"):
        cosine_distance(torch.zeros(2, 3), torch.zeros(3, 3))


# ---------------------------------------------------------------------------- Hinton's loss
def logits(*shape, seed=0, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(value, wanted):
    return torch.autograd.grad(value, wanted)[0]


def test_weight_zero_is_cross_entropy_and_weight_one_the_teacher_alone():
    student, teacher, y = logits(6, 4), logits(6, 4, seed=1), torch.tensor([0, 1, 2, 3, 0, 1])
    torch.testing.assert_close(distillation.loss(student, teacher, y, weight=0), F.cross_entropy(student, y))
    torch.testing.assert_close(distillation.loss(student, teacher, weight=1, temperature=3), soft_targets(student, teacher, temperature=3))
    half = distillation.loss(student, teacher, y, weight=0.5, temperature=3)
    torch.testing.assert_close(half, (F.cross_entropy(student, y) + soft_targets(student, teacher, temperature=3)) / 2)


def test_the_squared_temperature_keeps_the_gradient_of_small_logits():
    """Hinton et al. 2015, section 2.1: for small zero-mean logits the gradient tends to (z - v) / K, whatever the temperature."""
    student, teacher = (logits(5, 8, seed=s, scale=0.01) for s in (0, 1))
    student, teacher = (student - student.mean(1, keepdim=True)).requires_grad_(), teacher - teacher.mean(1, keepdim=True)
    expected = (student - teacher) / 8 / 5                                  # the mean over 5 examples
    for temperature in (1.0, 4.0, 20.0):
        found = gradient(distillation.loss(student, teacher, weight=1, temperature=temperature), student)
        torch.testing.assert_close(found, expected.detach(), rtol=0.03, atol=5e-6)


def test_no_gradient_where_student_and_teacher_agree_and_never_one_into_the_teacher():
    student, teacher = logits(4, 5).requires_grad_(), logits(4, 5).requires_grad_()
    value = distillation.loss(student, teacher, weight=1)
    value.backward()
    assert student.grad.abs().max() < 1e-6 and teacher.grad is None


def test_half_precision_is_summed_in_full():
    assert distillation.loss(logits(3, 4).bfloat16(), logits(3, 4, seed=1).bfloat16(), weight=1).dtype == torch.float32


@pytest.mark.parametrize("settings, words", [
    ({"temperature": 0}, "temperature=0 must be a number greater than 0"), ({"temperature": -1.0}, "temperature=-1.0"),
    ({"temperature": float("nan")}, "temperature=nan"), ({"weight": 1.5}, "weight=1.5 must be from 0"), ({}, "give y, or weight=1")])
def test_settings_that_cannot_work(settings, words):
    with pytest.raises(ValueError, match=words):
        distillation.loss(logits(2, 3), logits(2, 3), **settings)


def test_different_numbers_of_classes():
    with pytest.raises(ValueError, match="the student has 3 classes and the teacher 5"):
        distillation.loss(logits(2, 3), logits(2, 5), weight=1)


# ---------------------------------------------------------------------------- distil
def small(classes=3, width=6, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                             nn.Linear(4 * width, classes))


def pictures(n=24, classes=3):
    x = torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(n) % classes


class Notes(nn.Module):
    """A network that keeps what it was shown, and in which mode."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, []

    def forward(self, x):
        self.seen.append((x.clone(), self.training, torch.is_grad_enabled()))
        return self.network(x)


def test_teacher_and_student_see_the_same_crop_and_the_teacher_stays_as_it_is():
    student, teacher = Notes(small()), Notes(small(width=12, seed=1)).eval()
    before = freezing.frozen_snapshot(teacher)

    def crop(x, generator):
        return x + torch.rand(x.shape, generator=generator)

    distillation.distil(student, teacher, pictures(), steps=4, lr=1e-2, batch_size=8, augment=crop)
    freezing.assert_frozen(teacher, before)
    assert len(student.seen) == len(teacher.seen) == 4
    for (mine, learns, graph), (theirs, trains, traced) in zip(student.seen, teacher.seen, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
        assert learns and graph and not trains and not traced
    assert not student.training and not teacher.training
    assert not any(torch.equal(student.seen[0][0], later) for later, _, _ in student.seen[1:])


def test_a_student_comes_to_agree_with_its_teacher_without_any_label():
    teacher, student, (x, _) = small(width=8, seed=3).eval(), small(seed=4), pictures(60)
    with torch.no_grad():
        teacher[-1].weight.mul_(20)
    before = distillation.agreement(training.predict(student, x), training.predict(teacher, x))
    history = distillation.distil(student, teacher, (x, None), steps=150, lr=3e-2, weight=1, temperature=2.0)
    after = distillation.agreement(training.predict(student, x), training.predict(teacher, x))
    assert history.losses[-1] < history.losses[0] / 2 and after > max(before, 0.8)


def test_distil_with_weight_zero_is_training_on_labels():
    taught, plain = small(), small()
    distillation.distil(taught, small(seed=1).eval(), pictures(), steps=3, lr=1e-2, weight=0, seed=5)
    training.fit(plain, pictures(), steps=3, lr=1e-2, seed=5)
    for a, b in zip(taught.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_scores_of_a_validation_are_the_students():
    student, (x, y) = small(), pictures()
    history = distillation.distil(student, small(seed=1).eval(), (x, y), steps=2, lr=1e-2, validation=(x, y))
    expected = training.evaluate(student, x, y)
    assert history.rows[-1]["validation_accuracy"] == pytest.approx(expected["accuracy"])
    assert history.rows[-1]["validation_loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_bad_input_of_distil():
    teacher = small(seed=1)
    with pytest.raises(ValueError, match=r"in training mode .*call teacher.eval\(\) first"):
        distillation.distil(small(), teacher, pictures(), steps=1)
    teacher.eval()[1].train()
    with pytest.raises(ValueError, match=r"in training mode \(1\)"):
        distillation.distil(small(), teacher, pictures(), steps=1)
    with pytest.raises(ValueError, match="the student has 3 classes and the teacher 4"):
        distillation.distil(small(), small(classes=4).eval(), pictures(), steps=1)
    with pytest.raises(ValueError, match="temperature=0"):
        distillation.distil(small(), small().eval(), pictures(), steps=1, temperature=0)
    with pytest.raises(ValueError, match=r"train has none \(x, None\): use weight=1"):
        distillation.distil(small(), small().eval(), (pictures()[0], None), steps=1)
    same = small().eval()
    with pytest.raises(ValueError, match="share parameters"):
        distillation.distil(same, same, pictures(), steps=1)


def test_an_ensemble_speaks_with_the_mean_of_its_logits():
    members, (x, _) = [small(seed=s).eval() for s in (0, 1)], pictures(4)
    both = distillation.Ensemble(members)
    torch.testing.assert_close(both(x), (members[0](x) + members[1](x)) / 2)
    assert not both.training
    with pytest.raises(ValueError, match="at least one"):
        distillation.Ensemble([])


def test_agreement():
    a = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    assert distillation.agreement(a, a) == 1 and distillation.agreement(a, a.flip(1)) == 0
    assert distillation.agreement(a, torch.tensor([[1.0, 0.0]] * 3)) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="same shape"):
        distillation.agreement(a, a[:2])


# ---------------------------------------------------------------------------- ablations
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 9))
def test_shuffling_moves_the_wrong_classes_only(seed, classes):
    said, y = logits(7, classes, seed=seed), torch.randint(0, classes, (7,), generator=torch.Generator().manual_seed(seed))
    moved = distillation.shuffle_wrong(said, y, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(moved.sort(1).values, said.sort(1).values, rtol=0, atol=0)
    torch.testing.assert_close(moved.gather(1, y[:, None]), said.gather(1, y[:, None]), rtol=0, atol=0)


def test_every_order_of_the_wrong_classes_is_as_likely():
    said, y = torch.tensor([[9.0, 1.0, 2.0, 3.0]]).repeat(6000, 1), torch.zeros(6000, dtype=torch.int64)
    moved = distillation.shuffle_wrong(said, y, torch.Generator().manual_seed(0))
    shares = torch.tensor([[(moved[:, place] == value).float().mean() for value in (1, 2, 3)] for place in (1, 2, 3)])
    torch.testing.assert_close(shares, torch.full((3, 3), 1 / 3), rtol=0, atol=0.03)


def test_flattening_keeps_the_confidence_at_that_temperature():
    said, y = logits(5, 6), torch.tensor([0, 1, 2, 3, 4])
    flat = (distillation.flatten_wrong(said, y, temperature=3) / 3).softmax(1)
    torch.testing.assert_close(flat.gather(1, y[:, None]), (said / 3).softmax(1).gather(1, y[:, None]))
    wrong = flat.scatter(1, y[:, None], float("nan"))
    assert (wrong.nan_to_num(2).amin(1) - wrong.nan_to_num(-1).amax(1)).abs().max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 0.99), st.integers(2, 20))
def test_smoothing_of_an_entropy_has_this_entropy(share, classes):
    wanted = share * math.log(classes)
    eps = distillation.smoothing_of(wanted, classes)
    said = distillation.smoothed_teacher(torch.tensor([0, 1]), classes, eps, temperature=3.0)
    assert distillation.entropy(said, temperature=3.0) == pytest.approx(wanted, abs=1e-4)
    assert said.argmax(1).tolist() == [0, 1]


def test_limits_of_smoothing():
    assert distillation.smoothing_of(0.0, 5) == pytest.approx(0, abs=1e-9)
    assert distillation.entropy(torch.zeros(2, 8)) == pytest.approx(math.log(8))
    with pytest.raises(ValueError, match=r"from 0 to log\(3\)"):
        distillation.smoothing_of(2.0, 3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        distillation.smoothed_teacher(torch.tensor([0]), 3, 0.0)


# ---------------------------------------------------------------------------- hints
def test_hints_bring_a_layer_close_to_the_teachers_and_leave_the_rest():
    student, teacher, (x, _) = small(), small(width=12, seed=1).eval(), pictures()
    before, head = freezing.frozen_snapshot(teacher), student[-1].weight.detach().clone()
    history = distillation.learn_hints(student, teacher, (x, None), student_layer=student[2], teacher_layer=teacher[2], steps=80, lr=3e-2)
    assert history.losses[-1] < history.losses[0] / 2
    freezing.assert_frozen(teacher, before)
    torch.testing.assert_close(student[-1].weight, head, rtol=0, atol=0)


def test_hints_between_features_and_between_maps_of_different_size():
    student, teacher, (x, _) = small(), small(width=12, seed=1).eval(), pictures(4)
    flat = distillation.Hints(student, teacher, student[4], teacher[4]).prepare(x)
    assert [tuple(part.shape) for part in flat(x)] == [(4, 48), (4, 48)]
    maps = distillation.Hints(student, teacher, student[3], teacher[2]).prepare(x)            # 2x2 beside 4x4
    assert [tuple(part.shape) for part in maps(x)] == [(4, 12, 2, 2), (4, 12, 2, 2)]
    with pytest.raises(ValueError, match="both give maps, or both features"):
        distillation.Hints(student, teacher, student[4], teacher[2]).prepare(x)
    with pytest.raises(ValueError, match="student_layer is no part of its network"):
        distillation.Hints(student, teacher, teacher[2], teacher[2])
    with pytest.raises(ValueError, match="training mode"):
        distillation.Hints(student, teacher.train(), student[2], teacher[2])
