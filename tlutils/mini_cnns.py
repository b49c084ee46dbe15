"""Mini networks of three more image families, built from torchvision's own blocks, for 32x32 pictures.

Each keeps the idea of its family: VGG stacks 3x3 convolutions at full resolution, Inception runs kernels of several sizes
side by side, EfficientNet expands, filters each channel by itself, weighs the channels and projects back.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import nn
from torchvision.models.efficientnet import MBConv, MBConvConfig
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.vgg import make_layers
from torchvision.ops import Conv2dNormActivation

from .backbones import Backbone


def vgg_mini() -> Backbone:
    """A VGG with batch norm for 32x32 pictures (Simonyan & Zisserman 2015): 3x3 convolutions and pooling; width 128."""
    widths = ([16, 16], [32, 32], [64, 64], [128, 128])
    layers = make_layers([v for block in widths for v in (*block, "M")], batch_norm=True)
    stages, at = OrderedDict(), 0
    for i, block in enumerate(widths, 1):
        stages[f"block{i}"] = layers[at : at + 3 * len(block) + 1]
        at += 3 * len(block) + 1
    stages["block4"] = stages["block4"][:-1]  # the last maps stay 4x4, as in the other minis
    return _ready(Backbone(stages, width=128))


def inception_mini() -> Backbone:
    """GoogLeNet's modules for 32x32 pictures (Szegedy et al. 2015), torchvision's form: three 3x3 branches; width 128.

    Inception(channels in, 1x1, 3x3 reduced, 3x3, "5x5" reduced, "5x5", pooled).
    """
    pool = partial(nn.MaxPool2d, 2)
    stages = OrderedDict(
        stem=BasicConv2d(3, 16, kernel_size=3, stride=2, padding=1),
        block1=Inception(16, 8, 8, 16, 4, 8, 8),
        block2=nn.Sequential(pool(), Inception(40, 16, 16, 32, 8, 16, 16), Inception(80, 16, 16, 32, 8, 16, 16)),
        block3=nn.Sequential(pool(), Inception(80, 32, 24, 64, 8, 16, 16)),
    )
    return _ready(Backbone(stages, width=128))


def efficientnet_mini() -> Backbone:
    """EfficientNet's inverted bottlenecks for 32x32 pictures (Tan & Le 2019); width 128."""
    norm, silu = nn.BatchNorm2d, nn.SiLU

    def block(expand: int, kernel: int, stride: int, inner: int, outer: int) -> MBConv:
        return MBConv(MBConvConfig(expand, kernel, stride, inner, outer, 1), 0.0, norm)

    stages = OrderedDict(
        stem=Conv2dNormActivation(3, 16, 3, stride=2, norm_layer=norm, activation_layer=silu),
        block1=block(1, 3, 1, 16, 16),
        block2=nn.Sequential(block(4, 3, 2, 16, 24), block(4, 5, 1, 24, 24)),
        block3=nn.Sequential(block(4, 5, 2, 24, 40), block(4, 5, 1, 40, 40)),
        last=Conv2dNormActivation(40, 128, 1, norm_layer=norm, activation_layer=silu),
    )
    return _ready(Backbone(stages, width=128))


def _ready(backbone: Backbone) -> Backbone:
    """The initialisation of torchvision's VGG, ResNet and EfficientNet (He et al. 2015), for every mini alike."""
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return backbone


MINIS: dict[str, Callable[[], Backbone]] = {
    "vgg-mini": vgg_mini,
    "inception-mini": inception_mini,
    "efficientnet-mini": efficientnet_mini,
}
