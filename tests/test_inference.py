"""tlutils.inference: outputs and scores of a model, which is left as it was."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import data, network
from torch import nn

from tlutils import freezing, inference

X, Y = data(64)


def test_predict_and_evaluate():
    model = network(dropout=0.5).train()
    model[0].stages.low.eval()
    modes = [part.training for part in model.modules()]
    with freezing.assert_frozen(model):
        logits = inference.predict(model, X, batch_size=10)
        scores = inference.evaluate(model, X, Y)
    assert [part.training for part in model.modules()] == modes
    assert logits.shape == (64, 4) and not logits.requires_grad and not logits.is_inference()
    torch.testing.assert_close(logits, model.eval()(X).detach())
    assert scores["accuracy"] == (logits.argmax(1) == Y).float().mean().item()
    assert scores["loss"] == pytest.approx(F.cross_entropy(logits, Y).item())
    with pytest.raises(ValueError, match="x is empty"):
        inference.predict(model, X[:0])
    with pytest.raises(ValueError, match="64 examples, y has 3"):
        inference.evaluate(model, X, Y[:3])


def test_an_error_in_predict_restores_the_modes():
    model = network().train()
    with pytest.raises(RuntimeError):
        inference.predict(model, torch.rand(2, 7, 8, 8))
    assert all(part.training for part in model.modules())


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_the_size_of_the_batches_makes_no_difference(batch_size):
    model = network()
    torch.testing.assert_close(inference.predict(model, X, batch_size), inference.predict(model, X))


def test_bytes_are_pictures_and_texts_are_passed_on():
    model = network()
    pictures = (X * 255).to(torch.uint8)
    torch.testing.assert_close(inference.predict(model, pictures), inference.predict(model, pictures.float() / 255))

    class Lengths(nn.Module):
        def forward(self, texts):
            return torch.tensor([[float(len(text))] for text in texts])

    assert inference.predict(Lengths(), ["a", "abc", ""], batch_size=2).flatten().tolist() == [1, 3, 0]


def test_targets_that_are_no_classes_get_no_accuracy():
    scores = inference.evaluate(nn.Flatten(), X, X.flatten(1) + 2, loss=F.mse_loss)
    assert scores == {"loss": pytest.approx(4.0)}


def test_classes_at_every_place_of_a_map():
    outputs = F.one_hot(torch.arange(3), 3).float()[None, :, :, None]      # (1, 3 classes, 3, 1): place i says class i
    scores = inference.evaluate(nn.Identity(), outputs, torch.tensor([[[0], [1], [0]]]))
    assert scores["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_turned_into_float32(dtype):
    assert inference.as_float32(torch.ones(2, dtype=dtype)).dtype == torch.float32

    class Half(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)).to(dtype)

    assert inference.predict(Half(), X).dtype == torch.float32


def test_other_outputs_are_left_alone():
    whole, words = torch.ones(2, dtype=torch.float64), {"logits": 1}
    assert inference.as_float32(whole) is whole and inference.as_float32(words) is words
