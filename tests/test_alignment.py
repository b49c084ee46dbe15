"""tlutils.alignment: known values, invariances, gradients that point the right way, and sets that can't be compared."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlutils import alignment, domains

LOSSES = {"coral": alignment.coral, "mmd": alignment.mmd, "transport": alignment.transport}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(width, seed=0):
    return torch.linalg.qr(normal(width, width, seed=seed))[0]


# ---------------------------------------------------------------------------- known values and invariances
@pytest.mark.parametrize("name", LOSSES)
def test_equal_batches_cost_nothing(name):
    x = normal(20, 5).requires_grad_()
    value = LOSSES[name](x, x.detach().clone())
    assert abs(float(value.detach())) < 1e-6
    value.backward()
    assert x.grad.abs().max() < 1e-4


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(list(LOSSES)), seed=st.integers(0, 99), n=st.integers(2, 12), width=st.integers(1, 6))
def test_what_must_not_matter(name, seed, n, width):
    loss, a, b = LOSSES[name], normal(n, width, seed=seed), 2 * normal(n, width, seed=seed + 1) + 1
    value, turn = loss(a, b), rotation(width, seed)
    assert value >= 0
    for same in (loss(b, a), loss(a.flip(0), b.roll(1, 0)), loss(a @ turn, b @ turn), loss(a + 3, b + 3)):
        assert torch.allclose(same, value, rtol=1e-3, atol=1e-5)


def test_coral_by_hand():
    a = torch.tensor([[1.0, 0], [-1, 0]])        # covariance diag(2, 0)
    b = torch.tensor([[0.0, 3], [0, -3]])        # covariance diag(0, 18)
    assert float(alignment.coral(a, b)) == pytest.approx((2 ** 2 + 18 ** 2) / (4 * 2 ** 2))
    assert float(alignment.coral(a, a + 100)) == pytest.approx(0, abs=1e-6), "means don't count"
    x, y = normal(30, 4), 3 * normal(40, 4, seed=1)
    expected = np.square(np.cov(x.numpy().T) - np.cov(y.numpy().T)).sum() / 64
    assert float(alignment.coral(x, y)) == pytest.approx(expected, rel=1e-4)


def test_mmd_agrees_with_the_test_statistic():
    """domains.mmd leaves out each example's similarity to itself; the loss keeps it, which is 1."""
    a, b, bandwidth = normal(15, 3).double(), (normal(20, 3, seed=1) + 1).double(), 1.7
    value = float(alignment.mmd(a, b, kernels=(1.0,), scale=bandwidth ** 2))

    def within(x):
        return float(torch.exp(-torch.cdist(x, x).square() / (2 * bandwidth ** 2)).sum() - len(x))
    unbiased = value - sum((within(x) + len(x)) / len(x) ** 2 - within(x) / (len(x) * (len(x) - 1)) for x in (a, b))
    assert unbiased == pytest.approx(domains.mmd(a, b, bandwidth=bandwidth, permutations=1).value, abs=1e-9)
    several = [float(alignment.mmd(a, b, kernels=(k,), scale=2.0)) for k in (0.5, 1.0)]
    assert float(alignment.mmd(a, b, kernels=(0.5, 1.0), scale=2.0)) == pytest.approx(sum(several) / 2)


def test_mmd_does_not_depend_on_the_unit_and_stays_below_two():
    a, b = normal(20, 4), normal(20, 4, seed=1) + 2
    assert torch.allclose(alignment.mmd(a, b), alignment.mmd(1000 * a, 1000 * b), rtol=1e-4)
    assert 0.5 < alignment.mmd(a, b + 1e4) < 2 and alignment.mmd(torch.zeros(3, 2), torch.zeros(4, 2)) == 0


def test_transport_by_hand():
    a, step = normal(25, 3), torch.tensor([3.0, 0, -4])
    assert float(alignment.transport(a, (a + step).flip(0))) == pytest.approx(25, rel=1e-4), "the distance of a translation, squared"
    line = torch.tensor([[0.0], [1], [5]])
    assert float(alignment.transport(line, torch.tensor([[6.0], [0], [1]]))) == pytest.approx(1 / 3), "in one dimension the sorted match"


# ---------------------------------------------------------------------------- what their gradients do
@pytest.mark.parametrize("name, start", [("mmd", (3.0, 1.0)), ("transport", (3.0, 2.0)), ("coral", (0.0, 2.0))])
def test_two_gaussians_are_moved_together(name, start):
    source, target = normal(200, 1), normal(200, 1, seed=1)
    move = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.Adam([move], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        LOSSES[name](source, move[0] + move[1] * target).backward()
        optimizer.step()
    assert move[1].item() == pytest.approx(1, abs=0.2)
    assert name == "coral" or move[0].item() == pytest.approx(0, abs=0.2)


def test_the_gradient_is_reversed_and_scaled():
    x = normal(4, 3).requires_grad_()
    weights = normal(4, 3, seed=1)
    assert torch.equal(alignment.reverse_gradient(x, 0.3), x)
    (alignment.reverse_gradient(x, 0.3) * weights).sum().backward()
    assert torch.allclose(x.grad, -0.3 * weights)


def test_the_schedule():
    assert alignment.reversal_schedule(0) == 0 and alignment.reversal_schedule(1) == pytest.approx(0.9999092)
    assert alignment.reversal_schedule(0.1) == pytest.approx(math.tanh(0.5)) and alignment.reversal_schedule(0.5, gamma=0) == 0
    curve = [alignment.reversal_schedule(p) for p in np.linspace(0, 1, 50)]
    assert curve == sorted(curve)
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="progress"):
            alignment.reversal_schedule(bad)


def test_the_adversary_learns_and_the_features_flee():
    judge = alignment.Discriminator(2, 8)
    source, target = normal(50, 2), (normal(50, 2, seed=1) + 1).requires_grad_()
    forward = alignment.adversarial(judge, source, target, strength=0.5)
    forward.backward()
    reversed_, own = target.grad.clone(), [p.grad.clone() for p in judge.parameters()]
    target.grad = None
    judge.zero_grad()
    alignment.adversarial(judge, source, target, strength=-1.0).backward()       # strength -1: an ordinary gradient
    assert torch.allclose(reversed_, -0.5 * target.grad, atol=1e-7)
    assert all(torch.allclose(p.grad, g) for p, g in zip(judge.parameters(), own, strict=True)), "the judge's own gradient is not reversed"
    for p in judge.parameters():
        torch.nn.init.zeros_(p)
    assert float(alignment.adversarial(judge, source, target).detach()) == pytest.approx(math.log(2))


def test_the_discriminator_comes_from_its_seed():
    a, b, c = (alignment.Discriminator(3, 4, seed=s) for s in (0, 0, 1))
    x = normal(5, 3)
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), c(x)) and a(x).shape == (5,)


def test_pseudo_labels_count_the_confident_alone():
    logits = torch.tensor([[4.0, 0], [0, 0.1]], requires_grad=True)
    value = alignment.pseudo_labels(logits, 0.9)
    assert float(value.detach()) == pytest.approx(math.log1p(math.exp(-4)) / 2, rel=1e-4)
    value.backward()
    assert logits.grad[0, 0] < 0 and (logits.grad[1] == 0).all()
    assert alignment.pseudo_labels(logits, 1.0) == 0
    with pytest.raises(ValueError, match="threshold"):
        alignment.pseudo_labels(logits, 0)


# ---------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("name", [*LOSSES, "adversarial"])
def test_sets_that_can_not_be_compared(name):
    loss = LOSSES.get(name) or (lambda a, b: alignment.adversarial(alignment.Discriminator(3), a, b))
    for a, b, words in ((normal(5, 3), normal(5, 2), r"\(5, 3\) and \(5, 2\)"), (normal(5), normal(5), "must be"),
                        (normal(5, 3), normal(0, 3), "target: has 0 rows"), (normal(1, 3), normal(5, 3), "source: has 1 rows")):
        with pytest.raises(ValueError, match=words):
            loss(a, b)


def test_other_bad_settings():
    with pytest.raises(ValueError, match="5 and 4"):
        alignment.transport(normal(5, 2), normal(4, 2))
    for kernels in ((), (1.0, 0.0), (-1,)):
        with pytest.raises(ValueError, match="kernels"):
            alignment.mmd(normal(5, 2), normal(4, 2), kernels=kernels)


def test_label_sets():
    alignment.check_label_sets([0, 1, 2], torch.tensor([2, 1, 0, 0]))
    with pytest.raises(ValueError, match="has the classes 3, 4, which the source lacks"):
        alignment.check_label_sets([0, 1], [0, 1, 3, 4])
    with pytest.raises(ValueError, match="lacks the classes 2 of the source"):
        alignment.check_label_sets([0, 1, 2], [0, 1])
    alignment.check_label_sets([0, 1, 2], [0, 1], partial=True)
