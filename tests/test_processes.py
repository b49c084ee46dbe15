"""tlutils.processes: what several processes exchange, with stand-ins for the others (real ones: test_training_processes.py)."""
from __future__ import annotations

from types import SimpleNamespace

import accelerate
import pytest
import torch
from tiny import network, same, weights
from torch import nn

from tlutils import processes


class Team:
    """This process, and others that send `theirs`, a function of what this one sends."""

    def __init__(self, theirs=lambda sent: torch.zeros_like(sent), num_processes: int = 2):
        self.theirs, self.num_processes, self.messages = theirs, num_processes, 0

    def reduce(self, sent, how):
        self.messages += 1
        total = sent + self.theirs(sent)
        return total / self.num_processes if how == "mean" else total


def linear(weight_grad=None, bias_grad=None) -> nn.Linear:
    model = nn.Linear(2, 1)
    model.weight.grad = None if weight_grad is None else torch.tensor([weight_grad])
    model.bias.grad = None if bias_grad is None else torch.tensor([bias_grad])
    return model


# A message holds: weight (2), bias (1), whether each has a gradient (2), the losses
def test_gradients_and_losses_are_summed_in_one_message():
    team, model = Team(lambda sent: torch.tensor([10.0, 20.0, 30.0, 1.0, 1.0, 0.5])), linear([1.0, 2.0], 3.0)
    losses = processes.sum_gradients(team, model, torch.tensor([0.25]))
    assert model.weight.grad.tolist() == [[11.0, 22.0]] and model.bias.grad.tolist() == [33.0]
    assert losses.tolist() == [0.75] and team.messages == 1


def test_a_gradient_that_only_another_process_has_arrives():
    team, model = Team(lambda sent: torch.tensor([0.0, 0.0, 5.0, 0.0, 1.0, 0.0])), linear([1.0, 2.0])
    processes.sum_gradients(team, model, torch.zeros(1))
    assert model.weight.grad.tolist() == [[1.0, 2.0]] and model.bias.grad.tolist() == [5.0]


def test_what_no_process_has_a_gradient_for_stays_without():
    model = linear([1.0, 2.0])
    processes.sum_gradients(Team(), model, torch.zeros(1))
    assert model.bias.grad is None        # a zero would let weight decay move it


def test_frozen_parameters_are_not_sent():
    sizes, model = [], linear([1.0, 2.0])
    model.bias.requires_grad_(False)
    processes.sum_gradients(Team(lambda sent: sizes.append(len(sent)) or torch.zeros_like(sent)), model, torch.zeros(2))
    assert sizes == [2 + 1 + 2]


def test_every_process_gets_the_mean_of_the_buffers_but_keeps_its_counters():
    model = network()
    norm = model[0].stages.low[1]
    norm.running_mean.fill_(1.0)
    norm.num_batches_tracked.fill_(7)
    before = [p.clone() for p in model.parameters()]
    processes.average_buffers(Team(lambda sent: sent * 2), model)
    torch.testing.assert_close(norm.running_mean, torch.full((6,), 1.5))
    assert norm.num_batches_tracked == 7 and all(map(torch.equal, before, model.parameters()))


def test_alone_nothing_is_sent():
    model = network()
    before, alone = weights(model), Team(num_processes=1)
    processes.average_buffers(alone, model)
    processes.start_alike(alone, model)
    assert alone.messages == 0 and same(before, model)


def test_all_begin_with_what_the_first_process_sends(monkeypatch):
    model, first = network(seed=1), network(seed=0)
    sent = iter([*first.parameters(), *first.buffers()])
    monkeypatch.setattr("accelerate.utils.broadcast", lambda tensor: next(sent).detach())
    processes.start_alike(Team(), model)
    assert same(model, first)


def test_a_plain_process_is_a_team_of_one():
    found = processes.team()
    assert found.num_processes == 1 and found.is_main_process and found.process_index == 0


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_a_model_split_over_processes_is_refused(kind, monkeypatch):
    monkeypatch.setattr(accelerate, "Accelerator", lambda: SimpleNamespace(distributed_type=SimpleNamespace(value=kind)))
    with pytest.raises(ValueError, match=f"accelerate was told to use {kind}, but fit keeps a whole copy .*: launch plain"):
        processes.team()


def test_one_thread_sets_the_number_and_none_leaves_it():
    before = torch.get_num_threads()
    try:
        processes.one_thread(1)
        assert torch.get_num_threads() == 1
        processes.one_thread(None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
