"""tlutils.deltas: what is shipped is what was trained, tasks are exchanged exactly, both ends of WiSE-FT are exact."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tlutils import deltas, freezing, training


def network(classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))


X, Y = torch.rand(12, 3, 8, 8), torch.arange(12) % 3


def trained_network(seed=0, **options):
    model = network(seed=seed)
    training.fit(model, (X, Y), steps=3, lr=0.05, seed=seed, **options)
    return model


def test_a_delta_is_what_learns_and_what_drifts():
    model = network()
    assert set(deltas.trained(model)) == set(model.state_dict())
    freezing.freeze(model[0])
    assert "0.weight" not in deltas.trained(model) and "1.running_mean" in deltas.trained(model)
    freezing.freeze(model[1])
    assert set(deltas.trained(model)) == {"5.weight", "5.bias"}
    deltas.trained(model)["5.weight"].zero_()
    assert model[5].weight.abs().sum() > 0, "a copy"


@pytest.mark.parametrize("frozen", [0, 2])
def test_a_saved_delta_gives_the_same_outputs(tmp_path, frozen):
    model = network()
    other = copy.deepcopy(model)
    for net in (model, other):
        freezing.freeze(net[:frozen])
    training.fit(model, (X, Y), steps=5, lr=0.05)
    written = deltas.save(model, tmp_path / "task.safetensors")
    assert written == deltas.size(model) == (tmp_path / "task.safetensors").stat().st_size
    assert not torch.allclose(training.predict(other, X), training.predict(model, X))
    deltas.load(other, tmp_path / "task.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))
    assert torch.allclose(training.predict(other, X), training.predict(model, X), atol=1e-6)        # their memory layouts differ


def test_tasks_are_exchanged_on_one_network():
    model = network()
    freezing.freeze(model[:2])
    tasks, outputs = deltas.Tasks(model), {}
    tasks.keep("start")
    for name, labels in {"first": Y, "second": (Y + 1) % 3}.items():
        tasks.use("start")
        training.fit(model, (X, labels), steps=5, lr=0.05)
        tasks.keep(name)
        outputs[name] = training.predict(model, X)
    for name in ("first", "second", "first"):
        assert torch.equal(training.predict(tasks.use(name), X), outputs[name]) and tasks.now == name
    with pytest.raises(ValueError, match="did you mean 'first'"):
        tasks.use("frist")


def test_tasks_may_have_other_numbers_of_classes():
    model, wide = network(3), network(7, seed=1)
    for net in (model, wide):
        freezing.freeze(net[:2])
    tasks = deltas.Tasks(model)
    tasks.keep("three")
    before = training.predict(model, X)
    deltas.load(model, deltas.trained(wide))
    assert training.predict(model, X).shape == (12, 7) and model[5].out_features == 7 and model[5].weight.requires_grad
    assert torch.equal(training.predict(tasks.use("three"), X), before)


def test_what_does_not_fit_changes_nothing(tmp_path):
    model = network()
    freezing.freeze(model[:2])
    good = deltas.trained(model)
    before = freezing.frozen_snapshot(model)
    for bad, words in (({**good, "9.weight": torch.zeros(2)}, "9.weight, which the model lacks"), ({"5.bias": good["5.bias"]}, "lacks 5.weight"),
                       ({**good, "5.weight": torch.zeros(3, 9)}, r"5.weight in shape \(3, 9\)"),
                       ({"5.weight": torch.zeros(4, 4), "5.bias": torch.zeros(3)}, "5.weight in shape")):
        with pytest.raises(ValueError, match=words):
            deltas.load(model, bad)
    freezing.assert_frozen(model, before)
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        deltas.load(model, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="no trainable parameter"):
        deltas.trained(freezing.freeze(model))


# ---------------------------------------------------------------------------- WiSE-FT
START, END = trained_network(0), trained_network(1)


def test_both_ends_are_exact():
    for alpha, model in ((0, START), (0.0, START), (1, END), (1.0, END)):
        got = deltas.interpolate(START, END, alpha)
        assert all(torch.equal(a, b) for a, b in zip(got.state_dict().values(), model.state_dict().values(), strict=True))
        assert torch.equal(training.predict(got, X), training.predict(model, X)) and not got.training


@settings(max_examples=15, deadline=None)
@given(alpha=st.floats(0, 1))
def test_between_them_every_weight_lies_on_the_line(alpha):
    before = freezing.frozen_snapshot(START), freezing.frozen_snapshot(END)
    got = deltas.interpolate(START, END, alpha).state_dict()
    for name, a in START.state_dict().items():
        if a.is_floating_point():
            assert torch.allclose(got[name], (1 - alpha) * a + alpha * END.state_dict()[name], atol=1e-6)
        else:
            assert got[name] in (a, END.state_dict()[name])
    freezing.assert_frozen(START, before[0])
    freezing.assert_frozen(END, before[1])


def test_interpolating_a_linear_model_interpolates_its_outputs():
    a, b = nn.Linear(5, 2), nn.Linear(5, 2)
    x = torch.randn(4, 5)
    assert torch.allclose(deltas.interpolate(a, b, 0.3)(x), 0.7 * a(x) + 0.3 * b(x), atol=1e-6)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="alpha"):
        deltas.interpolate(START, END, alpha)


def test_models_of_two_forms():
    with pytest.raises(ValueError, match="5.weight"):
        deltas.interpolate(network(3), network(4), 0.5)
    with pytest.raises(ValueError, match="not of one form"):
        deltas.interpolate(network(3), network(3)[:5], 0.5)
