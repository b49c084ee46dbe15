"""tlutils.freezing: what is frozen stays, bit for bit, and the checks that prove it can fail."""
from __future__ import annotations

import copy

import pytest
import torch
from tiny import data, network, same, weights
from torch import nn

from tlutils import freezing


def step(model: nn.Module, lr: float = 0.1, **options) -> None:
    """One step of training, as anyone would write it."""
    x, y = data(16)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, **options)
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def test_a_frozen_backbone_stays_and_the_head_learns():
    model = network(dropout=0.5)
    freezing.freeze(model[0])
    freezing.train_mode(model)
    head = weights(model[1])
    with freezing.assert_frozen(model[0]):
        step(model)
    assert not same(model[1], head)


def test_training_mode_moves_batch_norm_and_the_proof_names_the_buffer():
    model = network()
    freezing.freeze(model[0])
    model.train()                               # the common mistake: requires_grad is off, the mode is not
    with pytest.raises(freezing.FrozenChanged, match=r"buffer 'stages\.low\.1\.running_mean'.*training mode"):
        with freezing.assert_frozen(model[0]):
            step(model)


def test_the_proof_names_the_first_parameter_that_changed():
    model = network(norm=False)
    before = freezing.frozen_snapshot(model)
    step(model)
    with pytest.raises(AssertionError, match=r"parameter '0\.stages\.low\.0\.weight' changed by up to"):
        freezing.assert_frozen(model, before)


def test_buffers_that_are_not_saved_are_watched():
    model = nn.Linear(2, 2)
    model.register_buffer("hidden", torch.zeros(2), persistent=False)
    with pytest.raises(AssertionError, match="buffer 'hidden'"):
        with freezing.assert_frozen(model):
            model.hidden += 1


@pytest.mark.parametrize("change", [-0.0, 1e-45, float("nan")])
def test_any_change_of_bits_counts(change):
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    with pytest.raises(AssertionError, match="weight"):
        with freezing.assert_frozen(model), torch.no_grad():
            model.weight.fill_(change)


def test_nan_that_stays_is_no_change():
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, float("nan"))
    with freezing.assert_frozen(model):
        pass


def test_a_new_type_shape_or_name_is_a_change():
    model = nn.Linear(2, 2)
    with pytest.raises(AssertionError, match="float32.*float64"):
        with freezing.assert_frozen(model):
            model.double()
    with pytest.raises(AssertionError, match="extra"):
        with freezing.assert_frozen(model):
            model.register_buffer("extra", torch.zeros(1))


def test_another_memory_format_is_no_change():
    model = network()
    with freezing.assert_frozen(model):
        model.to(memory_format=torch.channels_last)


def test_an_error_inside_the_block_comes_through():
    model = nn.Linear(2, 2)
    with pytest.raises(KeyError):
        with freezing.assert_frozen(model), torch.no_grad():
            model.weight += 1
            raise KeyError


def test_a_proof_that_was_never_entered_says_so():
    with pytest.warns(UserWarning, match="checked nothing"):
        freezing.assert_frozen(nn.Linear(2, 2))


def test_train_mode_keeps_marked_modules_in_evaluation_and_unfreeze_lifts_it():
    model = network(dropout=0.5)
    freezing.freeze(model[0])
    freezing.unfreeze(model[0].stages.high)
    freezing.train_mode(model)
    assert model.training and model[1].training
    assert not any(part.training for part in model[0].stages.low.modules())
    assert all(part.training for part in model[0].stages.high.modules())
    assert freezing.is_frozen(model[0].stages.low) and not freezing.is_frozen(model[0].stages.high)
    freezing.unfreeze(model)
    freezing.train_mode(model)
    assert all(part.training for part in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_a_module_added_to_a_frozen_one_is_free():
    model = freezing.freeze(network())
    model[0].adapter = nn.Linear(8, 8)
    freezing.train_mode(model)
    assert model[0].adapter.training and model[0].adapter.weight.requires_grad


def test_marks_survive_a_copy():
    model = copy.deepcopy(freezing.freeze(network()))
    assert not any(part.training for part in freezing.train_mode(model).modules())


def test_freezing_drops_old_gradients_so_that_no_optimizer_uses_them():
    model = network(norm=False)
    step(model)
    freezing.freeze(model)
    with freezing.assert_frozen(model):
        torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.5).step()


def test_integer_parameters_can_be_frozen_and_unfrozen():
    model = nn.Linear(2, 2)
    model.table = nn.Parameter(torch.arange(3), requires_grad=False)
    freezing.unfreeze(freezing.freeze(model))
    assert model.weight.requires_grad and not model.table.requires_grad


def test_restore_and_marks_bring_back_a_snapshot():
    model = network()
    freezing.freeze(model[0])
    before = freezing.frozen_snapshot(model)
    step(freezing.unfreeze(model).train())
    freezing.restore(model, before)
    freezing.restore_marks(model, ["1.weight"], ["0"])
    freezing.assert_frozen(model, before)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["1.weight"]
    assert freezing.is_frozen(model[0]) and not freezing.is_frozen(model[0].stages)
    with pytest.raises(ValueError, match="does not fit"):
        freezing.restore(model[1], before)


def test_trainable_parameters_counts_numbers_and_shared_ones_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    assert freezing.trainable_parameters(model) == 24
    model[1].weight = model[0].weight
    assert freezing.trainable_parameters(model) == 15
    assert freezing.trainable_parameters(freezing.freeze(model)) == 0


class Adapted(nn.Module):
    """LoRA's two matrices beside a layer (the second starts at zero), used or not."""

    def __init__(self, used: bool):
        super().__init__()
        self.layer, self.down, self.up = nn.Linear(4, 3), nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False)
        nn.init.zeros_(self.up.weight)
        freezing.freeze(self.layer)
        self.used = used

    def forward(self, x):
        return self.layer(x) + (self.up(self.down(x)) if self.used else 0 * self.up(self.down(x)).detach())


def test_assert_trains_finds_an_adapter_that_is_never_used():
    x = torch.rand(5, 4)
    used, unused = Adapted(True), Adapted(False)
    freezing.assert_trains(used, lambda: used(x).sum())
    with pytest.raises(AssertionError, match=r"2 of 2 .*down\.weight, up\.weight"):
        freezing.assert_trains(unused, unused(x).sum())


def test_a_zero_gradient_reaches_a_parameter_unless_more_is_asked():
    x = torch.rand(5, 4)
    model = Adapted(True)
    freezing.assert_trains(model, model(x).sum())
    with pytest.raises(AssertionError, match=r"1 of 2.*down\.weight"):
        freezing.assert_trains(model, model(x).sum(), nonzero=True)


def test_assert_trains_changes_nothing_and_leaves_the_graph():
    model = network(norm=False)
    loss = model(data(4)[0]).sum()
    freezing.assert_trains(model, loss)
    assert all(p.grad is None for p in model.parameters())
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_assert_trains_with_nothing_to_train_or_a_loss_without_graph():
    model = network()
    with pytest.raises(AssertionError, match="receive no gradient"):
        freezing.assert_trains(model, torch.zeros(()))
    with pytest.raises(AssertionError, match="no trainable parameter"):
        freezing.assert_trains(freezing.freeze(model), torch.zeros(()))
