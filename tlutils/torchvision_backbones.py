"""torchvision's CNNs as backbones: cut into stages, with weights from its enums, local files or checkpoints."""

import re
from collections import OrderedDict
from pathlib import Path

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from . import paths, weights
from .backbones import Backbone


def _span(start: int, stop: int) -> str:
    return " ".join(f"features.{i}" for i in range(start, stop))


_RESNET = {"stem": "conv1 bn1 relu maxpool", **{f"layer{i}": f"layer{i}" for i in range(1, 5)}}

# For each network its stages (the submodules that each one chains), its width and the layer that ends in the classes.
# What torchvision does in `forward` between submodules (dropout, DenseNet's last ReLU) is added in `decompose`.
NETWORKS = {
    "resnet18": (_RESNET, 512, "fc"),
    "resnet34": (_RESNET, 512, "fc"),
    "resnet50": (_RESNET, 2048, "fc"),
    "vgg16": (
        dict(block1=_span(0, 5), block2=_span(5, 10), block3=_span(10, 17), block4=_span(17, 24), block5=_span(24, 31)),
        512, "classifier.6",
    ),
    "squeezenet1_0": (
        dict(stem=_span(0, 3), block1=_span(3, 7), block2=_span(7, 12), block3=_span(12, 13)),
        512, "classifier.1",
    ),
    "mobilenet_v2": (
        dict(stem=_span(0, 2), block1=_span(2, 4), block2=_span(4, 7), block3=_span(7, 14), block4=_span(14, 18),
             last=_span(18, 19)),
        1280, "classifier.1",
    ),
    "efficientnet_b0": (
        {"stem": _span(0, 1), **{f"block{i}": _span(i, i + 1) for i in range(1, 8)}, "last": _span(8, 9)},
        1280, "classifier.1",
    ),
    "densenet121": (
        dict(stem="features.conv0 features.norm0 features.relu0 features.pool0",
             block1="features.denseblock1 features.transition1", block2="features.denseblock2 features.transition2",
             block3="features.denseblock3 features.transition3", block4="features.denseblock4 features.norm5"),
        1024, "classifier",
    ),
    "googlenet": (
        dict(stem="conv1 maxpool1 conv2 conv3 maxpool2", block3="inception3a inception3b maxpool3",
             block4="inception4a inception4b inception4c inception4d inception4e maxpool4",
             block5="inception5a inception5b"),
        1024, "fc",
    ),
    "inception_v3": (
        dict(stem="Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2",
             mixed5="Mixed_5b Mixed_5c Mixed_5d", mixed6="Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e",
             mixed7="Mixed_7a Mixed_7b Mixed_7c"),
        2048, "fc",
    ),
}  # fmt: skip

_CORAL = "google-coral/test_data on GitHub, Apache-2.0, converted from TensorFlow Lite; 8-bit weights multiplied out"
_PRUNED = "songhan/SqueezeNet-Deep-Compression on GitHub, BSD-2-Clause; 66 % of its weights pruned to zero"
# Weights that no hub serves: (network, name) -> file, sha256, padding they were trained with, source and licence.
LOCAL = {
    ("mobilenet_v2", "imagenet"): (
        "mobilenet_v2/mobilenet_v2_imagenet.pth",
        "4b2cc694d9f348748a5f9b161233c06591f56a6ff4c763a6ec0a414f7701e9be", "tensorflow", _CORAL,
    ),
    ("mobilenet_v2", "inat_insect"): (
        "mobilenet_v2/mobilenet_v2_inat_insect.pth",
        "8a7f486448edc4f8a1d22e5fe7474f4157ab617fe5fdb5f193bf5d23ba03e421", "tensorflow", _CORAL,
    ),
    ("mobilenet_v2", "inat_bird"): (
        "mobilenet_v2/mobilenet_v2_inat_bird.pth",
        "78f566cb45b890d714866b16f472e857b41aae2e0e07fa9f2e5d536bfcb43ad9", "tensorflow", _CORAL,
    ),
    ("squeezenet1_0", "imagenet_pruned"): (
        "squeezenet1_0/squeezenet1_0_imagenet.pth",
        "b81cf1c7f723451f9f3c3327be1ad2c38f0c868954622c03791c6b187d87de92", "torchvision", _PRUNED,
    ),
}  # fmt: skip
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers that GoogLeNet and Inception have for training only


Loading = tuple[Backbone, nn.Module | None, dict]


def load(name: str, wanted: str | Path | None, folder: Path | None, padding: str | None) -> Loading:
    """Backbone, head (None with random weights) and card of torchvision's `name`; see `zoo.load` for the arguments.

    Random weights, and those that files replace, are drawn from torch's generator as it stands.
    """
    if wanted is None:
        model, facts = build(name, 1000, random=True), {"recipe": "random initialisation"}
    else:
        file, facts = _file(name, wanted, folder)
        model = _with_state(name, weights.read(file), file)
        *_, last = NETWORKS[name]
        facts |= {"sha256": paths.sha256_file(file), "classes": len(model.get_submodule(last).weight)}
    padding = padding or facts.get("padding", "torchvision")
    backbone, head = decompose(name, model.eval())
    if padding == "tensorflow":
        use_tensorflow_padding(backbone)
    return backbone.eval(), head.eval() if wanted is not None else None, {**facts, "padding": padding}


def build(name: str, classes: int, *, random: bool) -> nn.Module:
    """torchvision's network `name` with `classes` outputs, without auxiliary classifiers.

    random: draw the initial weights as its authors did (slow for two of them, needless if weights follow).
    """
    options = {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": random}
    return torchvision.models.get_model(name, weights=None, **options)


def decompose(name: str, model: nn.Module) -> tuple[Backbone, nn.Module]:
    """A torchvision network as a backbone and its own head.

    The head maps the last stage's maps (N, C, H, W) to logits (N, classes); `head(backbone.stages(x))` is the network.
    """
    parts, width, _ = NETWORKS[name]
    stages = OrderedDict((stage, _chain(model, names)) for stage, names in parts.items())
    if name == "densenet121":
        stages["block4"].append(nn.ReLU(inplace=True))
    return Backbone(stages, width), _head(model)


def _chain(model: nn.Module, names: str) -> nn.Module:
    modules = [model.get_submodule(name) for name in names.split()]
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _head(model: nn.Module) -> nn.Module:
    if isinstance(model, torchvision.models.SqueezeNet):  # its classes come from a convolution, before the average
        return nn.Sequential(model.classifier, nn.Flatten())
    average = getattr(model, "avgpool", nn.AdaptiveAvgPool2d(1))
    names = ("classifier",) if hasattr(model, "classifier") else ("dropout", "fc")
    last = [getattr(model, name) for name in names if hasattr(model, name)]
    return nn.Sequential(average, nn.Flatten(), *last)


class TensorflowConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2 with TensorFlow's "same" padding.

    The zeros stand at the right and the bottom only where the input's side is even, (0, 1, 0, 1) in `F.pad`'s
    order; where it is odd they stand on both sides, as in torchvision.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return super().forward(F.pad(x, (width % 2, 1, height % 2, 1)))


def use_tensorflow_padding(backbone: nn.Module) -> int:
    """Give every 3x3 convolution of stride 2 TensorFlow's padding, in place; weights and their names stay.

    Returns how many there were. For networks trained in TensorFlow and converted.
    """
    count = 0
    for parent in backbone.modules():
        for name, layer in parent.named_children():
            if type(layer) is nn.Conv2d and layer.stride == (2, 2) and layer.kernel_size == (3, 3):
                same = TensorflowConv2d(
                    layer.in_channels, layer.out_channels, 3, 2, 0, groups=layer.groups, bias=layer.bias is not None
                )
                same.load_state_dict(layer.state_dict())
                setattr(parent, name, same)
                count += 1
    return count


def _file(name: str, wanted: str | Path, folder: Path | None) -> tuple[Path, dict]:
    """The file that holds the wanted weights, fetched if need be, and what is known of it."""
    if weights.is_file_name(wanted):
        return Path(wanted), {"file": Path(wanted).name}
    folders = [folder] if folder else []
    if (name, wanted) in LOCAL:
        return _local_file(name, wanted, [*folders, *paths.weight_folders()])
    enum = torchvision.models.get_model_weights(name)
    # VGG-16's "features" weights come without a classifier (its place holds NaN) and with another normalisation.
    known = [member for member in enum.__members__ if member != "IMAGENET1K_FEATURES"]
    known += [local for network, local in LOCAL if network == name]
    if wanted not in known:
        near = paths.did_you_mean(wanted, known)
        raise ValueError(f"weights={wanted!r}: {name} has no such weights (None and a file are allowed too); {near}")
    file = weights.find_or_fetch(enum[wanted].url, [*folders, *weights.hub_folders()])
    return file, {"file": file.name, "source": f"torchvision's {enum[wanted]}, trained on ImageNet-1k"}


def _local_file(name: str, wanted: str, folders: list[Path]) -> tuple[Path, dict]:
    relative, sha256, padding, source = LOCAL[name, wanted]
    file = weights.find(relative, folders)
    if file is None:
        raise FileNotFoundError(
            f"{relative} (from {source}) is in none of {', '.join(map(str, folders))}, and no public copy of this "
            f"conversion is known: put it there as {folders[-1] / relative}, or set TLUTILS_WEIGHTS"
        )
    paths.check_sha256(file, sha256, f"the file {file}", "it is damaged or another one: get it again")
    return file, {"file": file.name, "source": source, "padding": padding}


def _with_state(name: str, state: dict[str, Tensor], file: Path) -> nn.Module:
    """torchvision's network with the file's weights and as many classes as the file has."""
    *_, last = NETWORKS[name]
    state = {_current_key(key): value for key, value in state.items() if not key.startswith(AUXILIARY)}
    if f"{last}.weight" not in state:
        raise ValueError(f"weights file {file} does not fit {name}: it lacks {last}.weight; use a file of this network")
    model = build(name, len(state[f"{last}.weight"]), random=False)
    weights.fit(model, state, f"weights file {file}")
    return model


def _current_key(key: str) -> str:
    """DenseNet's published files still say `norm.1` where the code now says `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", key)
