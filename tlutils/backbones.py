"""Networks as backbones: named stages in depth order, then a global average. The mini networks of the lab."""

from collections import OrderedDict
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class Backbone(nn.Module):
    """A feature extractor in named stages, in depth order, ending in a global average over positions.

    stages: names and modules; each module maps (N, C, H, W) to (N, C', H', W'), the last one to `width` channels.
    """

    def __init__(self, stages: Mapping[str, nn.Module], width: int):
        super().__init__()
        self.stages = nn.Sequential(OrderedDict(stages))
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W) float, preprocessed. Returns the features (N, width)."""
        return pool(self.stages(x))

    def features_after(self, x: Tensor, stage: str) -> Tensor:
        """x: (N, 3, H, W) float. Returns the pooled features (N, C) after the named stage.

        Raises ValueError if the backbone has no such stage.
        """
        stages = dict(self.stages.named_children())
        if stage not in stages:
            raise ValueError(f"stage={stage!r} is none of this backbone's stages: {', '.join(stages)}")
        for name, module in stages.items():
            x = module(x)
            if name == stage:
                break
        return pool(x)


def pool(x: Tensor) -> Tensor:
    """Global average pooling: (N, C, H, W) to (N, C)."""
    return x.mean((2, 3))


def resnet_mini() -> Backbone:
    """A ResNet of three basic blocks for 32x32 images (He et al. 2016): 77,392 parameters, width 64."""
    stem = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
    )
    stages = OrderedDict(stem=stem, layer1=BasicBlock(16, 16), layer2=_widen(16, 32), layer3=_widen(32, 64))
    backbone = Backbone(stages, width=64)
    _initialise(backbone)
    return backbone


def _widen(inner: int, outer: int) -> BasicBlock:
    shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride=2, bias=False), nn.BatchNorm2d(outer))
    return BasicBlock(inner, outer, stride=2, downsample=shortcut)


def _initialise(module: nn.Module) -> None:
    """The initialisation of torchvision's ResNets (He et al. 2015); batch norm already starts at scale 1, shift 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


MINIS: dict[str, Callable[[], Backbone]] = {"resnet-mini": resnet_mini}
