"""tlutils.mixing: soft labels that add up, pictures that are what their labels say, batches that `fit` takes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tlutils import mixing, training


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(n=8, classes=4, side=8):
    """Pictures that are their own label: class c is the flat grey c / classes."""
    y = torch.arange(n) % classes
    return (y / classes).view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous(), y


@pytest.mark.parametrize("mix", [mixing.mixup, mixing.cutmix])
@settings(max_examples=25, deadline=None)
@given(alpha=st.floats(0.05, 20), seed=st.integers(0, 999))
def test_the_label_says_what_is_in_the_picture(mix, alpha, seed):
    x, y = flat()
    mixed, soft = mix(x, y, seeded(seed), classes=4, alpha=alpha)
    assert soft.shape == (8, 4) and torch.allclose(soft.sum(1), torch.ones(8), atol=1e-5)
    assert ((soft > 1e-6).sum(1) <= 2).all() and (soft >= -1e-6).all()
    assert torch.allclose(mixed.mean((1, 2, 3)), (soft * torch.arange(4) / 4).sum(1), atol=1e-4)


def test_cutmix_leaves_whole_rectangles():
    x, y = flat(2, 2, side=32)
    mixed, soft = mixing.cutmix(x, y, seeded(1), classes=2)
    for picture, own, share in zip(mixed[:, 0], x[:, 0, 0, 0], soft):
        other = picture != own
        box = other.any(1)[:, None] & other.any(0)
        assert torch.equal(other, box), "a rectangle"
        assert float(other.float().mean()) == pytest.approx(float(share.min()) if share.min() < 0.5 else float(other.float().mean()), abs=1e-5)


def test_shares_follow_their_beta():
    assert torch.allclose(mixing.shares(4000, 1.0, seeded()).sort()[0], torch.linspace(0, 1, 4000), atol=0.04)
    low, high = (mixing.shares(4000, alpha, seeded()) for alpha in (0.1, 50))
    assert ((low < 0.05) | (low > 0.95)).float().mean() > 0.6 and (high - 0.5).abs().max() < 0.3


def test_the_generator_fixes_everything():
    x, y = flat()
    for mix in (mixing.mixup, mixing.cutmix):
        assert all(map(torch.equal, mix(x, y, seeded(3), classes=4), mix(x, y, seeded(3), classes=4)))
        assert not torch.equal(mix(x, y, seeded(3), classes=4)[0], mix(x, y, seeded(4), classes=4)[0])


def test_vectors_can_be_mixed_up_too():
    mixed, soft = mixing.mixup(torch.eye(4), torch.arange(4), seeded(), classes=4)
    assert torch.allclose(mixed, soft, atol=1e-6)


@pytest.mark.parametrize("kind", mixing.MIXES)
def test_fit_learns_from_a_stream(kind):
    x, y = flat(40, 2)
    x = x + 0.05 * torch.randn(x.shape, generator=seeded())
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    history = training.fit(model, mixing.stream(x, y, kind=kind), steps=60, lr=1e-2, batch_size=16)
    assert training.evaluate(model, x, y)["accuracy"] == 1 and history.losses[-1] < history.losses[0]


def test_a_stream_augments_before_it_mixes():
    x, y = flat()
    seen = []
    source = mixing.stream(x, y, augment=lambda part, generator: seen.append(part) or part * 0)
    mixed, _ = source(seeded(), 5)
    assert len(seen) == 1 and len(seen[0]) == 5 and not mixed.any()
    assert len(source(seeded(), 100)[0]) == 8


X, Y = flat()
BAD = [
    ("alpha: must be greater than 0, got 0", lambda: mixing.mixup(X, Y, seeded(), classes=4, alpha=0)),
    ("alpha: must be greater than 0, got -1", lambda: mixing.cutmix(X, Y, seeded(), classes=4, alpha=-1)),
    ("alpha: must be greater than 0, got nan", lambda: mixing.shares(3, float("nan"), seeded())),
    ("alpha: must be greater than 0, got 0", lambda: mixing.stream(X, Y, alpha=0)),
    ("y: has 7 labels for 8 examples", lambda: mixing.mixup(X, Y[:7], seeded(), classes=4)),
    ("y: labels must be 0 to classes - 1; they run from 0 to 3, classes=3", lambda: mixing.mixup(X, Y, seeded(), classes=3)),
    ("x: must be pictures", lambda: mixing.cutmix(X[:, 0], Y, seeded(), classes=4)),
    ("kind: must be one of mixup, cutmix; got 'blend'", lambda: mixing.stream(X, Y, kind="blend")),
    ("all 8 labels are the same class", lambda: mixing.stream(X, Y * 0)),
    ("x: has values that are not finite, first in example 0", lambda: mixing.stream(X * np.nan, Y)),
]


@pytest.mark.parametrize("message, call", BAD, ids=[m[:40] for m, _ in BAD])
def test_bad_input_is_named(message, call):
    with pytest.raises(ValueError, match=message):
        call()
