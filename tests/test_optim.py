"""tlutils.optim: who gets which rate, schedules, and the L2-SP penalty."""
from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import network, weights
from torch import nn

from tlutils import freezing, optim


def test_layerwise_rates_fall_from_the_top():
    model = network()
    groups = optim.layerwise(model[0], model[1], lr=0.1, decay=0.5, head_lr=1.0)
    assert {g["name"]: g["lr"] for g in groups} == {"low": 0.05, "high": 0.1, "head": 1.0}
    assert optim.layerwise(model[0], model[1], lr=0.1, decay=0.5)[-1]["lr"] == 0.1


@given(depth=st.integers(1, 6), decay=st.floats(0.05, 1.0))
def test_layerwise_holds_every_parameter_once_with_its_own_rate(depth, decay):
    stages = [nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)) for _ in range(depth)]
    head = nn.Linear(3, 2)
    groups = optim.layerwise(stages, head, lr=0.1, decay=decay, weight_decay=0.3)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(rates) == depth * 4 + 2
    for height, stage in enumerate(stages):
        for p in stage.parameters():
            assert math.isclose(rates[id(p)], 0.1 * decay ** (depth - 1 - height))
            assert decays[id(p)] == (0.3 if p.ndim > 1 else 0.0)


def test_a_shared_parameter_stands_in_one_group():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.weight = a.weight
    groups = optim.layerwise([a, b], lr=0.1, decay=0.5)
    assert [len(g["params"]) for g in groups] == [2, 1]


@pytest.mark.parametrize("wrong, message", [
    (dict(decay=0.0), "decay"), (dict(decay=1.5), "decay"), (dict(lr=-1.0), "lr=-1.0"),
    (dict(head_lr=float("nan")), "head_lr"), (dict(weight_decay=-0.1), "weight_decay")])
def test_layerwise_refuses(wrong, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        optim.layerwise(model[0], model[1], **{"lr": 0.1, "decay": 0.5, **wrong})


def test_layerwise_refuses_a_backbone_whose_stages_leave_something_out():
    backbone = network()[0]
    backbone.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"extra\.weight"):
        optim.layerwise(backbone, lr=0.1, decay=0.5)
    with pytest.raises(ValueError, match="empty"):
        optim.layerwise([], lr=0.1, decay=0.5)
    with pytest.raises(ValueError, match="Linear"):
        optim.layerwise(nn.Linear(2, 2), lr=0.1, decay=0.5)


@pytest.mark.parametrize("name", [*optim.OPTIMIZERS, torch.optim.SGD,
                                  functools.partial(torch.optim.Adam, amsgrad=True)])
def test_no_optimizer_moves_frozen_parameters_not_even_by_weight_decay(name):
    model = network(norm=False)
    freezing.freeze(model[0])
    optimizer = optim.build(model.parameters(), lr=0.1, weight_decay=0.5, optimizer=name)
    head = weights(model[1])
    with freezing.assert_frozen(model[0]):
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.rand(4, 3, 8, 8)).square().sum().backward()
            optimizer.step()
    assert not torch.equal(model[1].weight, head["weight"])


def test_build_leaves_the_callers_groups_alone():
    model = network()
    groups = optim.layerwise(model[0], model[1], lr=0.1, decay=0.5)
    before = [dict(g) for g in groups]
    optim.build(groups, lr=1.0)
    assert [g.keys() for g in groups] == [g.keys() for g in before]


def test_build_with_groups_keeps_their_rates_and_gives_the_others_lr():
    model = network()
    built = optim.build([{"params": model[0].parameters(), "lr": 0.5}, {"params": model[1].parameters()}], lr=0.1)
    assert [g["lr"] for g in built.param_groups] == [0.5, 0.1]


@pytest.mark.parametrize("wrong, message", [
    (dict(lr=-0.1), "lr=-0.1"), (dict(lr=float("inf")), "lr=inf"), (dict(weight_decay=-1), "weight_decay=-1"),
    (dict(optimizer="adan"), "optimizer='adan' is unknown.*adamw"), (dict(parameters=[]), "empty")])
def test_build_refuses(wrong, message):
    settings = {"parameters": network().parameters(), "lr": 0.1, **wrong}
    with pytest.raises(ValueError, match=message):
        optim.build(settings.pop("parameters"), **settings)


def test_schedule_values():
    assert [optim.schedule("constant", 4)(t) for t in range(4)] == [1, 1, 1, 1]
    assert [optim.schedule("linear", 4)(t) for t in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [optim.schedule("cosine", 4)(t) for t in range(4)] == pytest.approx(
        [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)])
    assert [optim.schedule("linear", 6, warmup=2)(t) for t in range(6)] == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert [optim.schedule(lambda p: p * p, 4)(t) for t in range(4)] == [0, 1 / 16, 1 / 4, 9 / 16]


@given(kind=st.sampled_from(optim.SCHEDULES), steps=st.integers(1, 200), share=st.floats(0, 0.99))
def test_schedules_rise_in_warmup_and_never_after(kind, steps, share):
    warmup = int(steps * share)
    values = [optim.schedule(kind, steps, warmup=warmup)(t) for t in range(steps)]
    assert all(0 < v <= 1 for v in values)
    assert values[:warmup] == sorted(values[:warmup])
    assert values[warmup] == 1 and values[warmup:] == sorted(values[warmup:], reverse=True)


def test_schedule_refuses():
    with pytest.raises(ValueError, match="schedule='cosin' is unknown.*cosine"):
        optim.schedule("cosin", 10)
    for warmup in (-1, 10):
        with pytest.raises(ValueError, match=f"warmup={warmup}"):
            optim.schedule("cosine", 10, warmup=warmup)


def test_l2_sp_by_hand():
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, 3.0)
    nn.init.constant_(model.bias, 2.0)
    penalty = optim.l2_sp(model, {"weight": torch.tensor([[1.0, 4.0]])}, strength=0.1, new_strength=0.5)
    value = penalty(model)
    assert value.item() == pytest.approx(0.05 * (4 + 1) + 0.25 * 4)
    value.backward()
    assert model.weight.grad.tolist() == [pytest.approx([0.2, -0.1])]
    assert model.bias.grad.tolist() == pytest.approx([1.0])


def test_l2_sp_is_zero_at_the_start_and_follows_the_start_not_the_model():
    model = network()
    penalty = optim.l2_sp(model[0], strength=1.0)
    assert penalty(model) == 0
    with torch.no_grad():
        for p in model[0].parameters():
            p += 1
    assert penalty(model).item() == pytest.approx(sum(p.numel() for p in model[0].parameters()) / 2, rel=1e-5)


def test_l2_sp_leaves_frozen_parameters_out():
    model = network()
    penalty = optim.l2_sp(model[0], {k: v + 1 for k, v in model[0].state_dict().items()}, strength=1.0)
    freezing.freeze(model[0].stages.low)
    assert penalty(model).item() == pytest.approx(
        sum(p.numel() for p in model[0].stages.high.parameters()) / 2, rel=1e-5)
    freezing.freeze(model)
    assert penalty(model) == 0


def test_l2_sp_refuses():
    model = network()
    with pytest.raises(ValueError, match="names no parameter"):
        optim.l2_sp(model, {"other": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"reference\['1.bias'\]"):
        optim.l2_sp(model, {"1.bias": torch.zeros(9)})
    with pytest.raises(ValueError, match="strength=-1"):
        optim.l2_sp(model, strength=-1)
    with pytest.raises(ValueError, match="another model"):
        optim.l2_sp(model)(network())
