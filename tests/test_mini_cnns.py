"""tlutils.mini_cnns: small networks that keep their family's idea, in named stages."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.efficientnet import MBConv
from torchvision.models.googlenet import Inception

from tlutils import zoo
from tlutils.mini_cnns import MINIS

STAGES = {"vgg-mini": ["block1", "block2", "block3", "block4"], "inception-mini": ["stem", "block1", "block2", "block3"],
          "efficientnet-mini": ["stem", "block1", "block2", "block3", "last"]}
# (parameters, multiply-adds for one 32x32 picture)
SIZES = {"vgg-mini": (294_480, 13_418_496), "inception-mini": (42_808, 2_103_296), "efficientnet-mini": (50_318, 1_662_976)}


@pytest.fixture(scope="module", params=MINIS)
def mini(request):
    torch.manual_seed(0)
    return request.param, MINIS[request.param]().eval()


def multiply_adds(backbone) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.stages(torch.rand(1, 3, 32, 32))
    return counter.get_total_flops() // 2


def test_sizes_are_as_stated(mini):
    name, backbone = mini
    assert (sum(p.numel() for p in backbone.parameters()), multiply_adds(backbone)) == SIZES[name]
    assert sum(v.numel() for v in backbone.state_dict().values()) * 2 < 2.2e6, "half precision stays below 2.2 MB"


def test_stages_end_in_maps_of_four_by_four(mini):
    name, backbone = mini
    assert [stage for stage, _ in backbone.stages.named_children()] == STAGES[name]
    x = torch.rand(3, 3, 32, 32)
    assert backbone.stages(x).shape == (3, backbone.width, 4, 4) and backbone(x).shape == (3, backbone.width)
    assert torch.equal(backbone.features_after(x, STAGES[name][-1]), backbone(x))


def test_every_parameter_gets_a_gradient(mini):
    backbone = mini[1].train()
    backbone(torch.rand(4, 3, 32, 32)).square().sum().backward()
    silent = [name for name, p in backbone.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    # a bias or scale right before batch norm has no effect: batch norm takes the mean away
    assert all(name.endswith("bias") for name in silent), silent
    backbone.zero_grad(set_to_none=True)
    backbone.eval()


def test_channels_last_gives_the_same_features(mini):
    backbone, x = mini[1], torch.rand(2, 3, 32, 32)
    usual = backbone(x)
    fast = backbone.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(fast, usual, rtol=1e-4, atol=1e-4)


def modules(name, kind):
    return [module for module in MINIS[name]().modules() if isinstance(module, kind)]


def test_each_keeps_the_idea_of_its_family():
    assert {c.kernel_size for c in modules("vgg-mini", nn.Conv2d)} == {(3, 3)}, "VGG: nothing but 3x3"
    assert {c.stride for c in modules("vgg-mini", nn.Conv2d)} == {(1, 1)}, "VGG: pooling alone makes maps smaller"
    assert len(modules("inception-mini", Inception)) == 4
    depthwise = [c for c in modules("efficientnet-mini", nn.Conv2d) if c.groups == c.in_channels > 1]
    assert len(depthwise) == len(modules("efficientnet-mini", MBConv)) == 5
    assert {c.kernel_size for c in depthwise} == {(3, 3), (5, 5)}
    skips = [block for block in modules("efficientnet-mini", MBConv) if block.use_res_connect]
    assert len(skips) == 3


def test_the_third_branch_of_torchvisions_inception_is_three_by_three():
    """The paper has 5x5 there; the lesson says so."""
    block = Inception(16, 8, 8, 16, 4, 8, 8)
    assert [c.kernel_size for c in block.branch3.modules() if isinstance(c, nn.Conv2d)] == [(1, 1), (3, 3)]
    x = torch.rand(2, 16, 8, 8)
    assert block.eval()(x).shape == (2, 40, 8, 8)


def test_vgg_costs_most_and_the_lean_ones_least():
    size = {name: (sum(p.numel() for p in zoo.MINIS[name]().parameters()), multiply_adds(zoo.MINIS[name]()))
            for name in ("resnet-mini", *SIZES)}
    for i in range(2):
        assert size["vgg-mini"][i] > 3 * size["resnet-mini"][i]
        assert max(size["inception-mini"][i], size["efficientnet-mini"][i]) < size["resnet-mini"][i]


def test_random_weights_come_from_the_seed():
    a, b, c = (zoo.load("efficientnet-mini", None, seed=seed).backbone.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[key], b[key]) for key in a) and not torch.equal(a["stages.stem.0.weight"], c["stages.stem.0.weight"])


@pytest.mark.parametrize("wrong, near", [("vgg-mimi", "vgg-mini"), ("inception", "inception-mini"), ("efficientnet", "efficientnet-mini"),
                                         ("vgg17", "vgg16"), ("resnet-mni", "resnet-mini")])
def test_a_wrong_name_lists_the_near_ones(wrong, near):
    with pytest.raises(ValueError, match=f"name='{wrong}' is no network of the zoo; did you mean .*'{near}'"):
        zoo.load(wrong)


def test_a_file_of_another_mini_names_the_first_wrong_tensor(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file(MINIS["inception-mini"]().state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"it lacks stages\.block1\.0\.weight \(16, 3, 3, 3\)"):
        zoo.load("vgg-mini", tmp_path / "other.safetensors")
    wide = {key: torch.zeros(17, *value.shape[1:]) if key == "stages.block1.1.weight" else value
            for key, value in MINIS["vgg-mini"]().state_dict().items()}
    safetensors.torch.save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match=r"stages\.block1\.1\.weight is \(17,\) in the file and \(16,\) in the network"):
        zoo.load("vgg-mini", tmp_path / "wide.safetensors")
