"""tlutils.backbones: stages in depth order, pooled features."""

import pytest
import torch

from tlutils.backbones import MINIS, Backbone


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return MINIS["resnet-mini"]().eval()


def test_resnet_mini_has_the_size_it_states(backbone):
    assert sum(p.numel() for p in backbone.parameters()) == 77_392
    assert [name for name, _ in backbone.stages.named_children()] == ["stem", "layer1", "layer2", "layer3"]
    assert backbone.stages(torch.rand(2, 3, 32, 32)).shape == (2, 64, 4, 4)


@pytest.mark.parametrize("name", MINIS)
def test_minis_give_one_row_of_features_per_image(name):
    mini = MINIS[name]().eval()
    x = torch.rand(3, 3, 32, 32)
    features = mini(x)
    assert features.shape == (3, mini.width)
    fast = mini.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(fast, features, rtol=1e-4, atol=1e-4)


def test_every_parameter_of_a_mini_gets_a_gradient():
    for build in MINIS.values():
        mini = build().train()
        mini(torch.rand(4, 3, 32, 32)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mini.parameters())


def test_features_after_a_stage(backbone):
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(backbone.features_after(x, "layer3"), backbone(x))
    assert torch.equal(backbone.features_after(x, "stem"), backbone.stages.stem(x).mean((2, 3)))
    with pytest.raises(ValueError, match="stage='layer9' is none.*stem, layer1, layer2, layer3"):
        backbone.features_after(x, "layer9")
