"""A small network and small data for the tests of the training code."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from tlutils import training

CLASSES = 4


def network(seed: int = 0, *, norm: bool = True, dropout: float = 0.0) -> nn.Sequential:
    """backbone (two stages of convolutions) and head, initialised by the seed; norm: with batch norm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(Backbone(norm, dropout), nn.Linear(8, CLASSES))


class Backbone(nn.Module):
    def __init__(self, norm: bool, dropout: float):
        super().__init__()
        self.stages = nn.Sequential()
        for name, (inner, outer) in {"low": (3, 6), "high": (6, 8)}.items():
            parts = [nn.Conv2d(inner, outer, 3, stride=2, padding=1)]
            parts += [nn.BatchNorm2d(outer)] if norm else []
            self.stages.add_module(name, nn.Sequential(*parts, nn.ReLU(), nn.Dropout(dropout)))

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x).mean((2, 3))


def data(n: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, 8, 8) float32 in [0, 1] and labels (n,) int64, as `stream` draws them."""
    generator = torch.Generator().manual_seed(seed)
    return stream(generator, n)


def stream(generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """n new examples: the class says which of two channels is bright, in the upper or the lower half."""
    x = torch.rand(n, 3, 8, 8, generator=generator) * 0.5
    y = torch.randint(0, CLASSES, (n,), generator=generator)
    for label in range(CLASSES):
        half = slice(0, 4) if label % 2 else slice(4, 8)
        x[y == label, label // 2, half] += 0.5
    return x, y


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of everything in the model."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: nn.Module | dict, b: nn.Module | dict) -> bool:
    """Whether two models (or copies of their weights) are bit for bit the same."""
    a, b = (m.state_dict() if isinstance(m, nn.Module) else m for m in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def distance(a: nn.Module | dict, b: nn.Module | dict) -> float:
    """The largest difference between two weights."""
    a, b = (m.state_dict() if isinstance(m, nn.Module) else m for m in (a, b))
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def fitted(model: nn.Module | None = None, train=None, **options) -> tuple[nn.Module, training.History]:
    """A trained network and its history (default: `network()` on `data(64)`, 8 steps of 16 examples)."""
    model = network() if model is None else model
    history = training.fit(model, data(64) if train is None else train, **{"steps": 8, "batch_size": 16, "lr": 0.01, **options})
    return model, history
