"""tlutils.metalearning: gradients against finite differences and by hand, learning on tiny tasks, bad input."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tlutils import few_shot_tasks, freezing, metalearning, training


class Point(nn.Module):
    """A network that says the same number everywhere, so that all can be computed by hand."""

    def __init__(self, value=1.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(value))

    def forward(self, x):
        return self.w.expand(len(x))


def half_square(outputs, y):
    return (outputs - y).square().mean() / 2


def curve(width=6, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1)).double()


SINES = tuple(part.double() for part in few_shot_tasks.sinusoids(torch.Generator().manual_seed(1), 3, points=12))
STACK = torch.zeros(1, 2, 1), torch.tensor([[3.0, 5.0]])           # one support row that says 3, one query that says 5


def gradients(model, value):
    return torch.autograd.grad(value, list(model.parameters()))


# ---------------------------------------------------------------------------- gradients
def test_one_step_by_hand():
    model = Point(1.0)
    for steps, first in ((1, False), (1, True), (2, False), (2, True)):
        value = metalearning.maml(model, *STACK, 1, lr=0.25, steps=steps, first_order=first, loss=half_square)
        after = 3 + (1 - 3) * 0.75 ** steps
        assert value.item() == pytest.approx((after - 5) ** 2 / 2)
        assert gradients(model, value)[0].item() == pytest.approx((after - 5) * (1 if first else 0.75 ** steps))
    assert model.w.item() == 1.0 and model.w.grad is None


@pytest.mark.parametrize("steps", [1, 3])
def test_the_second_order_gradient_is_that_of_finite_differences(steps):
    model = curve()

    def value(first_order=False):
        return metalearning.maml(model, *SINES, 6, lr=0.05, steps=steps, first_order=first_order, loss=F.mse_loss)
    exact, cut = gradients(model, value()), gradients(model, value(True))
    assert value().item() == pytest.approx(value(True).item()), "the value does not depend on the order"
    step, numeric = 1e-5, []
    with torch.no_grad():
        for p in model.parameters():
            slopes = torch.empty_like(p).flatten()
            for i in range(p.numel()):
                flat = p.view(-1)
                flat[i] += step
                up = value()
                flat[i] -= 2 * step
                slopes[i] = (up - value()) / (2 * step)
                flat[i] += step
            numeric.append(slopes.view_as(p))
    assert all(torch.allclose(e, n, atol=1e-6, rtol=1e-5) for e, n in zip(exact, numeric, strict=True))
    assert max(float((c - n).abs().max() / n.abs().max()) for c, n in zip(cut, numeric, strict=True)) > 0.02


def test_no_inner_step_is_plain_training():
    model = curve()
    value = metalearning.maml(model, *SINES, 6, lr=0.05, steps=0, loss=F.mse_loss)
    plain = torch.stack([F.mse_loss(model(x[6:]), y[6:]) for x, y in zip(*SINES, strict=True)]).mean()
    assert all(torch.allclose(a, b) for a, b in zip(gradients(model, value), gradients(model, plain), strict=True))


def test_reptile_walks_towards_the_adapted_weights():
    model = curve()
    value = metalearning.reptile(model, *SINES, 6, lr=0.05, steps=3, loss=F.mse_loss)
    ends = [metalearning.adapted(model, x, y, lr=0.05, steps=3, loss=F.mse_loss) for x, y in zip(*SINES, strict=True)]
    for (name, p), g in zip(model.named_parameters(), gradients(model, value), strict=True):
        assert torch.allclose(g, p - torch.stack([end[name] for end in ends]).mean(0), atol=1e-12)
    assert value.item() == pytest.approx(np.mean([F.mse_loss(model(x[6:]), y[6:]).item() for x, y in zip(*SINES, strict=True)]))


def test_a_step_of_sgd_at_rate_one_is_reptiles():
    model = Point(1.0)
    metalearning.meta_train(model, lambda net, x, y: metalearning.reptile(net, x, y, 1, lr=0.5, steps=1, loss=half_square),
                            lambda generator, n: (STACK[0].repeat(n, 1, 1), STACK[1].repeat(n, 1)), steps=1, lr=1.0,
                            optimizer=torch.optim.SGD, schedule="constant")
    assert model.w.item() == pytest.approx(1 + 0.5 * (4 - 1)), "the mean of its two rows is 4"


def test_the_prototypical_loss_by_hand():
    x = torch.tensor([[[0.0, 0], [2, 0], [4, 0], [6, 0], [1, 0], [4, 0]]])       # means (1, 0) and (5, 0)
    y = torch.tensor([[0, 0, 1, 1, 0, 1]])
    value = metalearning.prototypical(nn.Identity(), x, y, 4)
    assert value.item() == pytest.approx((np.log1p(np.exp(-16)) + np.log1p(np.exp(1 - 9))) / 2, rel=1e-4)


# ---------------------------------------------------------------------------- the inner learner
def test_adaptation_leaves_the_model_alone_and_frozen_parts_too():
    model = curve()
    freezing.freeze(model[0])
    before = freezing.frozen_snapshot(model)
    after = metalearning.adapted(model, SINES[0][0], SINES[1][0], lr=0.1, steps=4, loss=F.mse_loss)
    freezing.assert_frozen(model, before)
    assert torch.equal(after["0.weight"], model[0].weight) and not torch.equal(after["2.weight"], model[2].weight)
    again = metalearning.adapted(model, SINES[0][0], SINES[1][0], lr=0.1, steps=2, loss=F.mse_loss)
    again = metalearning.adapted(model, SINES[0][0], SINES[1][0], lr=0.1, steps=2, loss=F.mse_loss, start=again)
    assert torch.allclose(again["2.weight"], after["2.weight"])


def test_running_statistics_are_refused():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="1 would change its running statistics"):
        metalearning.adapted(model, torch.randn(4, 2), torch.arange(4) % 2, lr=0.1)
    metalearning.adapted(model.eval(), torch.randn(4, 2), torch.arange(4) % 2, lr=0.1)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_network_and_what_its_norm_means(norm):
    net = metalearning.FourConv(5, channels=8, side=28, norm=norm, seed=3)
    x = torch.rand(6, 1, 28, 28)
    assert net(x).shape == (6, 5) and net.width == 8
    assert metalearning.FourConv(None, channels=4, colours=3)(x.expand(6, 3, 28, 28)).shape == (6, 4)
    alone = torch.cat([net(x[:3]), net(x[3:])])
    assert torch.allclose(alone, net(x), atol=1e-5) == (norm == "group"), "with batch norm the company matters"
    before = net(x)
    net.eval()
    assert torch.equal(net(x), before), "no running statistics: the mode does not matter"
    assert torch.equal(metalearning.FourConv(5, channels=8, norm=norm, seed=3)(x), before)
    assert metalearning.FourConv(None, channels=4, side=32).width == 16


# ---------------------------------------------------------------------------- learning
def pictures(classes=30, each=8, seed=0):
    """Classes are patterns of 4 x 4 squares on 16 x 16 pictures, under noise."""
    draws = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, 1, 4, 4, generator=draws).round().repeat_interleave(4, -1).repeat_interleave(4, -2)
    y = torch.arange(classes).repeat_interleave(each)
    return patterns[y] + 0.8 * torch.randn(len(y), 1, 16, 16, generator=draws), y


X, Y = pictures()
TRAIN, TEST = few_shot_tasks.split_classes(Y, (0.6, 0.4))
TASKS = few_shot_tasks.task_stream(X[TRAIN], Y[TRAIN], ways=3, shots=2, queries=4)
HELD = few_shot_tasks.task_stream(X[TEST], Y[TEST], ways=3, shots=2, queries=4)(torch.Generator().manual_seed(5), 20)
OBJECTIVES = {"maml": lambda net, x, y: metalearning.maml(net, x, y, 6, lr=0.3), "first order": lambda net, x, y: metalearning.maml(
    net, x, y, 6, lr=0.3, first_order=True), "reptile": lambda net, x, y: metalearning.reptile(net, x, y, 6, lr=0.1, steps=4),
    "protonet": lambda net, x, y: metalearning.prototypical(net, x, y, 6)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_method_learns_to_learn(name):
    proto = name == "protonet"
    net = metalearning.FourConv(None if proto else 3, channels=8, side=16)
    more = {"lr": 1.0, "optimizer": torch.optim.SGD, "schedule": "linear"} if name == "reptile" else {"lr": 1e-2}
    learner = metalearning.by_prototypes(net) if proto else metalearning.by_gradient(net, lr=0.1 if name == "reptile" else 0.3, steps=4)
    before = metalearning.task_scores(learner, *HELD, support=6, ways=3).mean()
    history = metalearning.meta_train(net, OBJECTIVES[name], TASKS, steps=40, batch=2, **more)
    after = metalearning.task_scores(learner, *HELD, support=6, ways=3)
    assert after.shape == (20,) and after.mean() > max(0.6, before) and len(history.losses) == 40
    if name != "reptile":
        assert np.mean(history.losses[-10:]) < np.mean(history.losses[:10])


def test_the_baselines_learn_from_a_trained_backbone():
    net = metalearning.FourConv(len(Y[TRAIN].unique()), channels=8, side=16)
    training.fit(net, (X[TRAIN], Y[TRAIN].unique(return_inverse=True)[1]), steps=60, lr=1e-2, batch_size=40)
    for make in (metalearning.by_prototypes, metalearning.by_probe, partial(metalearning.by_finetuning, lr=0.01, steps=3)):
        assert metalearning.task_scores(make(net.features), *HELD, support=6, ways=3).mean() > 0.6


def test_fine_tuning_without_steps_is_the_nearest_mean():
    net = metalearning.FourConv(None, channels=4, side=16, norm="group")
    a, b = (metalearning.task_scores(learner, *HELD, support=6, ways=3) for learner in
            (metalearning.by_finetuning(net, lr=0.1, steps=0), metalearning.by_prototypes(net)))
    assert np.array_equal(a, b)


def test_meta_training_is_seeded_and_measures():
    def run(seed):
        net = metalearning.FourConv(3, channels=4, side=16)
        history = metalearning.meta_train(net, OBJECTIVES["maml"], TASKS, steps=2, batch=2, seed=seed,
                                          validation=lambda m: {"ways": m.head.out_features})
        return net.head.weight, history.last["validation_ways"]
    (a, ways), (b, _), (c, _) = run(0), run(0), run(1)
    assert torch.equal(a, b) and not torch.equal(a, c) and ways == 3


# ---------------------------------------------------------------------------- bad input
def test_a_support_smaller_than_the_ways():
    with pytest.raises(ValueError, match="support=2 examples are fewer than the 3 ways"):
        metalearning.task_scores(lambda *parts: parts[1], *HELD, support=2, ways=3)
    with pytest.raises(ValueError, match="support of task 0 has 2 of the 3 classes"):
        metalearning.task_scores(lambda *parts: parts[1], *HELD, support=4, ways=3)
    with pytest.raises(ValueError, match="3 classes can't have an example each among 2"):
        metalearning.prototypical(nn.Identity(), torch.rand(1, 5, 2), torch.tensor([[0, 1, 2, 0, 1]]), 2)


def test_other_bad_input():
    model = curve()
    for support in (0, 12, 30):
        with pytest.raises(ValueError, match=f"support={support}"):
            metalearning.maml(model, *SINES, support, lr=0.1, loss=F.mse_loss)
    with pytest.raises(ValueError, match="stacks of tasks"):
        metalearning.maml(model, SINES[0], SINES[1][:2], 6, lr=0.1, loss=F.mse_loss)
    for more in ({"lr": -1.0}, {"lr": float("nan")}, {"lr": 0.1, "steps": -1}):
        with pytest.raises(ValueError, match="lr and steps"):
            metalearning.adapted(model, SINES[0][0], SINES[1][0], loss=F.mse_loss, **more)
    with pytest.raises(ValueError, match="norm"):
        metalearning.FourConv(norm="layer")
    with pytest.raises(ValueError, match="side=8"):
        metalearning.FourConv(side=8)
