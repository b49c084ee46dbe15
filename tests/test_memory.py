"""tlutils.memory: bytes by hand, and what freezing saves."""

import pytest
import torch
from torch import nn

from tlutils import finetune, freezing, memory, peft_methods, zoo


def test_a_linear_layer_by_hand():
    model, x = nn.Linear(10, 5), torch.randn(4, 10)
    step = memory.training_step(model, lambda: model(x).sum())
    assert step == memory.Step(weights=4 * 55, gradients=4 * 55, optimizer=8 * 55, activations=4 * 40) and step.total == 4 * (55 * 4 + 40)
    assert memory.training_step(model, lambda: model(x).sum(), averages=1).optimizer == 4 * 55


def test_nothing_is_kept_below_what_learns_and_much_above_it():
    def kept(frozen):
        model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(4)), nn.Linear(8, 2))
        for i in frozen:
            freezing.freeze(model[i])
        x = torch.randn(16, 8)
        step = memory.training_step(model, lambda: model(x).square().mean())
        return step.activations, step.gradients
    everything, head, bottom = kept(()), kept(range(4)), kept(range(1, 5))
    assert head[0] < 0.4 * everything[0] and 0.5 * everything[0] < bottom[0] <= everything[0]
    assert head[1] < bottom[1] < everything[1]


def test_the_model_is_left_alone():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train(), torch.rand(2, 3, 8, 8)
    with freezing.assert_frozen(model):
        assert memory.training_step(model, lambda: model(x).sum()).activations > 0
    assert model[0].weight.grad is None and model.training


def test_few_parameters_save_gradients_but_hardly_activations():
    texts, steps = ["a small red circle on blue ground"] * 8, {}
    for method in ("probe", "lora", "full"):
        model = finetune.Classifier(peft_methods.prepare(zoo.load("bert-mini"), method), 2)
        freezing.train_mode(model)
        steps[method] = memory.training_step(model, lambda m=model: m(texts).logsumexp(1).mean())
    assert steps["lora"].gradients < 0.05 * steps["full"].gradients
    assert steps["probe"].activations < 0.05 * steps["full"].activations < 0.3 * steps["lora"].activations


def test_a_loss_without_a_graph():
    model = freezing.freeze(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no trainable parameter"):
        memory.training_step(model, lambda: model(torch.ones(1, 2)).sum())
