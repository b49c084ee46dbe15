"""tlutils.forgetting: both measures on networks whose answer is known."""

import pytest
import torch

from tlutils import forgetting, freezing, shapes, zoo


@pytest.fixture(scope="module")
def scenes():
    return shapes.SHAPES16.draw(10, seed=1), shapes.SHAPES16.draw(10, seed=2)


def test_a_network_that_was_left_alone_has_forgotten_nothing(scenes):
    loaded = zoo.load("resnet-mini", "shapes")
    with freezing.assert_frozen(loaded.backbone):
        kept = forgetting.source_kept(loaded, *scenes)
    by_itself = (loaded.logits(scenes[1][0]).argmax(1) == scenes[1][1]).float().mean()
    assert kept["old_head"] == pytest.approx(float(by_itself)) and min(kept.values()) > 0.9


def test_turned_features_fool_the_old_head_and_not_a_new_probe(scenes):
    """Channels in another order: nothing is lost, but the old head no longer knows where to look."""
    loaded = zoo.load("resnet-mini", "shapes")
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))

    class Shuffled(torch.nn.Module):
        def forward(self, maps):
            return maps[:, order]

    loaded.backbone.stages.add_module("shuffle", Shuffled())
    kept = forgetting.source_kept(loaded, *scenes)
    assert kept["old_head"] < 0.4 and kept["new_probe"] > 0.9


def test_a_random_backbone_is_near_chance_with_the_old_head(scenes):
    loaded = zoo.load("resnet-mini", "shapes")
    loaded.backbone.load_state_dict(zoo.load("resnet-mini", None, seed=1).backbone.state_dict())
    kept = forgetting.source_kept(loaded, *scenes)
    assert kept["old_head"] < 0.25 and kept["new_probe"] < 0.6


def test_bad_input_is_named(scenes):
    loaded, ((x, y), test) = zoo.load("resnet-mini", "shapes"), scenes
    with pytest.raises(ValueError, match="came without a classifier"):
        forgetting.source_kept(zoo.load("resnet-mini", None), (x, y), test)
    with pytest.raises(ValueError, match="probe labels: has 5 labels for 160 examples"):
        forgetting.source_kept(loaded, (x, y[:5]), test)
    with pytest.raises(ValueError, match="probe labels: all 160 labels are the same"):
        forgetting.source_kept(loaded, (x, 0 * y), test)
    with pytest.raises(ValueError, match="test labels: go up to 23, the old head knows 16 classes"):
        forgetting.source_kept(loaded, (x, y), (test[0], test[1] + 8))
    with pytest.raises(ValueError, match="test: has values that are not finite, first in example 0"):
        forgetting.source_kept(loaded, (x, y), (test[0] * float("nan"), test[1]))
