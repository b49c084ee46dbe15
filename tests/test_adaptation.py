"""AdaBN and TENT: the statistics asked for, the model untouched, known answers, bad input."""

import copy

import pytest
import torch
from torch import nn

from tlutils import adaptation, finetune, freezing, shapes, training, zoo


def net(seed=0, **options):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, **options), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(5, 4)).eval()


def pictures(n=32, mean=2.0, seed=0):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 3 + mean


def test_adabn_computes_what_training_mode_computes_on_one_batch():
    model, x = net(), pictures()
    twin = copy.deepcopy(model)
    for layer in adaptation.batch_norms(twin):
        layer.train()
    with torch.no_grad():
        torch.testing.assert_close(adaptation.adabn(model, x)(x), twin(x))


def test_adabn_keeps_the_statistics_of_all_batches():
    model, x = net(), pictures(50)
    adapted = adaptation.adabn(model, x, batch_size=7)
    with torch.no_grad():
        seen = model[0](x)                                      # the first layer's input does not depend on the batches
    torch.testing.assert_close(adapted[1].running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(adapted[1].running_var, seen.var((0, 2, 3), correction=0))


def test_adabn_on_the_old_domain_changes_little_and_on_a_new_one_undoes_a_change_of_colour():
    x, y = shapes.SHAPES16.draw(20, seed=3)
    model = finetune.finetune(zoo.load("resnet-mini", "shapes"), *shapes.SHAPES16.draw(20, seed=4), strategy="probe").model
    before = training.evaluate(model, x, y)["accuracy"]
    assert training.evaluate(adaptation.adabn(model, x), x, y)["accuracy"] > before - 0.04
    dim = 0.5 * x + 0.1                                         # batch norm after a linear layer undoes it up to the border
    broken = training.evaluate(model, dim, y)["accuracy"]
    mended = training.evaluate(adaptation.adabn(model, dim), dim, y)["accuracy"]
    assert mended > broken and mended > before - 0.06


def test_the_model_that_came_in_stays_as_it_was():
    model, x = net(), pictures()
    modes = [part.training for part in model.modules()]
    with freezing.assert_frozen(model):
        adapted, learned = adaptation.adabn(model, x), adaptation.tent(model, x, steps=3)
    assert [part.training for part in model.modules()] == modes
    assert not adapted.training and not learned.training
    assert all(p.requires_grad for p in learned.parameters()) and all(p.grad is None for p in learned.parameters())


def test_adabn_changes_no_parameter_and_tent_only_scales_and_shifts():
    model, x = net(), pictures()
    adapted, learned = adaptation.adabn(model, x), adaptation.tent(model, x, steps=3, lr=0.01)
    for name, old in model.named_parameters():
        assert torch.equal(adapted.get_parameter(name), old)
        assert torch.equal(learned.get_parameter(name), old) == (name.split(".")[0] not in ("1", "4")), name


def test_source_weight_mixes_old_and_new():
    model, x = net(), pictures()
    old, new = model[1].running_mean, adaptation.adabn(model, x)[1].running_mean
    torch.testing.assert_close(adaptation.adabn(model, x, source_weight=0.25)[1].running_mean, 0.25 * old + 0.75 * new)
    kept = adaptation.adabn(model, x, source_weight=1.0)
    torch.testing.assert_close(kept(x), model(x))


def test_tent_lowers_the_entropy_and_without_steps_is_adabn():
    model, x, seen = net(), pictures(64), []
    torch.testing.assert_close(adaptation.tent(model, x, steps=0)(x), adaptation.adabn(model, x)(x))
    learned = adaptation.tent(model, x, steps=30, lr=0.01, history=seen)
    assert len(seen) == 30 and seen[-1] < seen[0]
    assert adaptation.entropy(learned(x)).mean() < adaptation.entropy(adaptation.adabn(model, x)(x)).mean()


def test_tent_repeats_exactly_and_leaves_the_random_state_alone():
    model, x = net(), pictures(100)
    state = torch.get_rng_state()
    first, second = (adaptation.tent(model, x, steps=4, batch_size=16, seed=3)(x) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, adaptation.tent(model, x, steps=4, batch_size=16, seed=4)(x))


def test_entropy_of_known_distributions():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1000.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(adaptation.entropy(logits), torch.tensor([1.3862944, 0.0]))


def test_pictures_in_bytes_are_taken_too():
    model, x = net(), torch.randint(0, 256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    torch.testing.assert_close(adaptation.adabn(model, x)[1].running_mean, adaptation.adabn(model, x.float() / 255)[1].running_mean)


BROKEN = pictures(4).index_fill(0, torch.tensor([2]), float("nan"))
PLAIN = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


@pytest.mark.parametrize("call, words", [
    (lambda: adaptation.adabn(net(), pictures(0)), r"x: is empty, shape \(0, 3, 8, 8\)"),
    (lambda: adaptation.tent(net(), pictures(0)), "x: is empty"),
    (lambda: adaptation.adabn(net(), BROKEN), "x: has values that are not finite, first in picture 2"),
    (lambda: adaptation.tent(net(), BROKEN), "x: has values that are not finite, first in picture 2"),
    (lambda: adaptation.adabn(PLAIN, pictures()), "model: Sequential has no batch norm with running statistics"),
    (lambda: adaptation.tent(PLAIN, pictures()), "model: Sequential has no batch norm"),
    (lambda: adaptation.adabn(net(), pictures(), source_weight=1.5), r"source_weight: must lie in \[0, 1\], got 1.5"),
    (lambda: adaptation.adabn(net(), pictures(), batch_size=0), "batch_size: must be at least 1, got 0"),
    (lambda: adaptation.tent(net(), pictures(), lr=0), "lr: must be greater than 0, got 0"),
    (lambda: adaptation.tent(net(), pictures(), steps=-1), "steps: must be at least 0, got -1"),
    (lambda: adaptation.tent(net(), pictures(1)), "at least 2 pictures in a batch, got 1 pictures"),
    (lambda: adaptation.tent(net(), pictures(), batch_size=1), "in batches of 1"),
    (lambda: shapes.shift(pictures(2, 0), "blur", 1.2), r"strength: must lie in \[0, 1\], got 1.2"),
])
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
