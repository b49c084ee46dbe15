"""tlutils.distillation: known values and invariants of the losses."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

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
