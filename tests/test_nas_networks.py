"""tlutils.nas_networks: cells that compute what they say, in networks that train, freeze and transfer like others."""

import pytest
import torch
from torch import nn

from tlutils import finetune, nas_networks, shapes, training, zoo
from tlutils.nas_cells import OPERATIONS, Cell
from tlutils.nas_networks import CellBackbone, CellModule, count_parameters, width_for

RICH = Cell.parse("h1 sep3 + h2 max3; b1 dil3 + h1 identity; b1 sep5 + h2 avg3")


def module(text, **options):
    torch.manual_seed(0)
    return CellModule(Cell.parse(text), (4, 4), 4, **options).eval()


def test_every_operation_keeps_the_size():
    assert set(nas_networks.MODULES) == set(OPERATIONS)
    x = torch.rand(2, 4, 8, 8)
    for operation in OPERATIONS:
        assert module(f"h1 {operation} + h1 {operation}")((x, x))[1].shape == x.shape, operation


def test_known_answers():
    h2, h1 = torch.rand(2, 1, 4, 6, 6)
    h2, h1 = h2.expand(3, -1, -1, -1), h1.expand(3, -1, -1, -1)
    biggest = nn.functional.max_pool2d(h1, 3, 1, 1)
    for text, expected in {
        "h1 identity + h1 identity": 2 * h1,
        "h2 identity + h1 identity": h1 + h2,
        "h1 identity + h2 identity; b1 identity + h1 identity": 2 * h1 + h2,
        "h1 max3 + h2 identity": biggest + h2,
        "h1 identity + h1 identity; h2 identity + h2 identity": torch.cat([2 * h1, 2 * h2], 1),      # both unused
    }.items():
        torch.testing.assert_close(module(text)((h2, h1))[1], expected)
    halved = module("h1 identity + h1 identity", reduce=True)((h2, h1))[1]
    torch.testing.assert_close(halved, 2 * nn.functional.max_pool2d(h1, 2))


def test_an_average_ignores_the_border():
    flat = torch.ones(1, 4, 5, 5)
    torch.testing.assert_close(module("h1 avg3 + h1 avg3")((flat, flat))[1], 2 * flat)


@pytest.mark.parametrize("text", [str(RICH), "h1 max3 + h1 identity", "h1 sep7 + h2 split7; h2 sep3 + h1 sep3"])
@pytest.mark.parametrize("reductions, stride", [((False, True, True), 2), ((False, True), 4)])
def test_a_network_of_any_cell(text, reductions, stride):
    backbone = CellBackbone(Cell.parse(text), width=4, reductions=reductions, stem_stride=stride)
    features = backbone(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, backbone.width) and torch.isfinite(features).all()
    assert [name for name, _ in backbone.stages.named_children()] == ["stem", *(f"cell{i + 1}" for i in range(len(reductions)))]
    assert backbone.features_after(torch.rand(2, 3, 32, 32), "stem").shape == (2, 4)
    with pytest.raises(ValueError, match="none of this backbone's stages: stem, cell1"):
        backbone.features_after(torch.rand(2, 3, 32, 32), "layer1")


def test_the_same_seed_gives_the_same_network_and_all_of_it_learns():
    def made():
        torch.manual_seed(1)
        return CellBackbone(RICH, width=4)
    one, other = made(), made()
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    before = [p.clone() for p in one.parameters()]
    model = nn.Sequential(one, nn.Linear(one.width, 2))
    training.fit(model, (torch.rand(8, 3, 32, 32), torch.arange(8) % 2), steps=2, lr=1e-2, batch_size=8)
    assert not any(map(torch.equal, before, one.parameters()))


def test_width_for_a_number_of_parameters():
    for goal in (9_000, 77_392):
        width = width_for(RICH, goal)
        sizes = {w: count_parameters(CellBackbone(RICH, width=w)) for w in (width - 1, width, width + 1)}
        assert min(sizes, key=lambda w: abs(sizes[w] - goal)) == width and abs(sizes[width] / goal - 1) < 0.1
    with pytest.raises(ValueError, match="even a network of width 1"):
        width_for(RICH, 10)


@pytest.mark.parametrize("strategy", ["probe", "last-k", "full"])
def test_it_is_fine_tuned_like_any_backbone(strategy):
    backbone = CellBackbone(RICH, width=4)
    loaded = zoo.Loaded("cell", backbone, backbone.width, zoo.MINI)
    x, y = shapes.TARGET10.draw(2, seed=0)
    run = finetune.finetune(loaded, x, y, strategy=strategy, steps=2)
    assert run.predict(x).shape == (20,)


def test_bad_settings():
    with pytest.raises(ValueError, match="width >= 1 and at least one cell"):
        CellBackbone(RICH, width=0)
    with pytest.raises(ValueError, match="at least one cell"):
        CellBackbone(RICH, reductions=())
