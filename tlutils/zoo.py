"""Pretrained networks by name: backbone, feature width, preprocessing and card.

load("resnet-mini")                     bundled, pretrained on the shapes world
load("resnet-mini", None, seed=3)       the same network with random weights
load("resnet18", "IMAGENET1K_V1")       torchvision's weights, from a local folder, its cache or the network
load("mobilenet_v2", "inat_insect")     converted weights from a local folder
load("resnet18", "mine.safetensors")    a checkpoint of your own
load("bert-mini")                       bundled, pretrained on the generated language of `text`
load("bert-base-uncased", "DEFAULT")    a transformer, from a local folder or the hub
load("clip-mini")                       pictures and captions in one space; openai/clip-vit-base-patch32 likewise
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import backbones, clip_backbones, mini_cnns, mini_transformers, multimodal, paths, torchvision_backbones, transformer_backbones
from . import weights as weight_files
from .backbones import Backbone, resnet_mini
from .datasets import as_float
from .transformer_backbones import MINILM, TextBackbone

__all__ = ["MINIS", "Backbone", "Loaded", "Preprocess", "cards", "load", "names", "resnet_mini", "save_bundled", "variants"]
MINIS = backbones.MINIS | mini_cnns.MINIS
DEFAULT_VARIANT = "shapes"
CARD_KEYS = ("recipe", "seed", "steps", "seconds", "hardware", "scores")


@dataclass(frozen=True)
class Preprocess:
    """From images to what a backbone was trained on: resized if need be, then (x - mean) / std per channel.

    Takes (N, 3, H, W) in [0, 1], or uint8 in 0..255, and returns (N, 3, H, W) float. `size`: the side that images of
    any other shape are stretched to (bilinear, antialiased); None leaves them, resizing is then the data set's affair.
    Its repr names every setting, so it can key a cache.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        x = as_float(x)
        if self.size and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (x - mean) / std


MINI = Preprocess((0.5,) * 3, (0.25,) * 3, size=32)
IMAGENET = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# GoogLeNet and Inception were converted from TensorFlow, which scales to [-1, 1] (torchvision: `transform_input`).
TENSORFLOW = Preprocess((0.5,) * 3, (0.5,) * 3)


@dataclass
class Loaded:
    """What `load` returns; the backbone is in eval mode, on the CPU, in float32.

    preprocess: callable from images (N, 3, H, W) in [0, 1] to what the backbone takes (texts pass unchanged).
    head: the network's own classifier, from the last stage's maps to logits, or None (see `logits`).
    """

    name: str
    backbone: Backbone | TextBackbone
    width: int
    preprocess: Callable
    card: dict[str, Any] = field(default_factory=dict)
    head: nn.Module | None = None
    tokenizer: Any = None

    def logits(self, x: Tensor) -> Tensor:
        """What the network itself, unchanged, says of images x (N, 3, H, W) in [0, 1]: (N, classes).

        Raises ValueError if it came without a head.
        """
        if self.head is None:
            raise ValueError(f"{self.name} came without a classifier of its own: fit a head to its features first")
        return self.head(self.backbone.stages(self.preprocess(x)))


def _minis() -> list[str]:
    return [*MINIS, *mini_transformers.NETWORKS, *multimodal.NETWORKS]


def names() -> list[str]:
    """The networks that `load` knows by name; besides these it takes ids of transformers on the hub."""
    return [*_minis(), *torchvision_backbones.NETWORKS, MINILM]


def variants(name: str, folder: str | Path | None = None) -> list[str]:
    """The bundled variants of a mini, e.g. ["colours", "half", "noise", "shapes"].

    Raises ValueError for a name that is no mini: only minis have bundled weights.
    """
    minis = _minis()
    if name not in minis:
        raise ValueError(f"name={name!r} is no network with bundled weights; {paths.did_you_mean(name, minis)}")
    return _variants(name, folder)


def _variants(name: str, folder: str | Path | None) -> list[str]:
    return sorted(key.removeprefix(f"{name}-") for key in _cards(_bundle(folder)) if key.startswith(f"{name}-"))


def load(
    name: str,
    weights: str | Path | None = "bundled",
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    padding: str | None = None,
) -> Loaded:
    """A network by name with pretrained (or, for weights=None, random) weights.

    weights: for a mini a bundled variant ("bundled" means "shapes", for a text mini "text"); for torchvision's networks a member of its weights
        enum or a name in `torchvision_backbones.LOCAL`; for a transformer "DEFAULT"; for any but a transformer a path
        to a .safetensors or .pth file of exactly this network, with any number of classes.
    seed: of random weights; torch's global generators stay as they were.
    folder: searched first for files (for a mini: instead of the bundled ones).
    padding: "torchvision" or "tensorflow" (MobileNetV2 only); None means the one its weights were trained with.
    Raises ValueError (wrong name, weights, checksum, file) or FileNotFoundError (no local copy and no network).
    """
    if padding not in (None, "torchvision") and (padding, name) != ("tensorflow", "mobilenet_v2"):
        raise ValueError(f'padding={padding!r} for {name}: use None, "torchvision" or, for mobilenet_v2, "tensorflow"')
    if (isinstance(weights, Path) or "/" in str(weights)) and Path(weights).is_dir():
        raise ValueError(f"weights={str(weights)!r} is a folder: name the file in it, or give it as folder= to be searched")
    if weights == "bundled" and name in torchvision_backbones.NETWORKS:
        raise ValueError(f'{name} has no bundled weights: say which, as in load("{name}", "IMAGENET1K_V1"), or None for random ones')
    folder = None if folder is None else Path(folder)
    head, tokenizer = None, None
    with _seeded(seed):
        if name in MINIS:
            backbone, head, facts = _load_mini(name, weights, folder)
            preprocess = MINI
        elif name in mini_transformers.NETWORKS:
            backbone, head, tokenizer, facts = _load_text_mini(name, weights, folder)
            preprocess = transformer_backbones.as_texts
        elif name in torchvision_backbones.NETWORKS:
            backbone, head, facts = torchvision_backbones.load(name, weights, folder, padding)
            preprocess = TENSORFLOW if name in ("googlenet", "inception_v3") else IMAGENET
        elif name in multimodal.NETWORKS:
            backbone, facts = _load_dual_mini(name, weights, folder)
            preprocess = MINI
        elif clip_backbones.is_name(name):
            backbone, preprocess, facts = clip_backbones.load(name, weights, folder)
            tokenizer = backbone.tokenizer
        elif transformer_backbones.is_name(name) and not paths.near(name, _minis()):
            backbone, facts = transformer_backbones.load(name, weights, folder)
            preprocess, tokenizer = transformer_backbones.as_texts, backbone.tokenizer
        else:
            raise ValueError(f"name={name!r} is no network of the zoo; {paths.did_you_mean(name, names())}")
    origin = {"weights": Path(weights).name if weight_files.is_file_name(weights) else weights}  # cards hold no paths
    card = {"name": name, **origin, **({"seed": seed} if weights is None else {}), **facts}
    return Loaded(name, backbone.eval(), backbone.width, preprocess, card, head, tokenizer)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws inside come from `seed`; the CPU's global generator is put back afterwards, others are not touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def cards() -> dict[str, dict]:
    """The cards of all bundled weights, by file name without its ending."""
    return _cards(_bundle(None))


def _bundle(folder: str | Path | None) -> Path:
    return paths.data_dir() / "weights" if folder is None else Path(folder)


def _cards(bundle: Path) -> dict[str, dict]:
    file = bundle / "cards.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _load_mini(name: str, weights: str | Path | None, folder: Path | None) -> tuple[Backbone, nn.Module | None, dict]:
    backbone = MINIS[name]()
    if weights is None:
        return backbone, None, {"recipe": "random initialisation"}
    file, facts = bundled_file(name, weights, folder)
    state = {key.removeprefix("backbone."): value for key, value in weight_files.read(file).items()}
    head = _linear_head({key: state.pop(key) for key in ("head.weight", "head.bias") if key in state})
    weight_files.fit(backbone, state, f"weights file {file}")
    return backbone, head, facts


def _load_text_mini(name: str, weights: str | Path | None, folder: Path | None) -> tuple[TextBackbone, nn.Module, Any, dict]:
    state, source, facts = None, "", {"recipe": "random initialisation"}
    if weights is not None:
        file, facts = bundled_file(name, weights, folder)
        state, source = weight_files.read(file), f"weights file {file}"
    return *mini_transformers.load(name, state, source), facts


def _load_dual_mini(name: str, weights: str | Path | None, folder: Path | None) -> tuple[nn.Module, dict]:
    backbone = multimodal.NETWORKS[name]()
    if weights is None:
        return backbone, {"recipe": "random initialisation"}
    file, facts = bundled_file(name, weights, folder)
    weight_files.fit(backbone, weight_files.read(file), f"weights file {file}")
    return backbone, facts


def bundled_file(name: str, weights: str | Path, folder: str | Path | None = None) -> tuple[Path, dict]:
    """The file of a mini's weights, checked against its card, and the card. weights: a variant, or a path to a file.

    Raises ValueError for an unknown variant (names near ones) or a wrong checksum, FileNotFoundError for a missing file.
    """
    if weight_files.is_file_name(weights):
        file = Path(weights)
        return file, {"file": file.name, "sha256": paths.sha256_file(file) if file.is_file() else None}
    default = mini_transformers.DEFAULT_VARIANT if name in mini_transformers.NETWORKS else DEFAULT_VARIANT
    default = multimodal.DEFAULT_VARIANT if name in multimodal.NETWORKS else default
    bundle, variant = _bundle(folder), default if weights == "bundled" else weights
    card = _cards(bundle).get(f"{name}-{variant}")
    if card is None:
        near = paths.did_you_mean(variant, _variants(name, folder))
        raise ValueError(f"weights={variant!r}: there are no such weights of {name} in {bundle}; {near}")
    file = bundle / f"{name}-{variant}.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is named in cards.json but is not there: get it from the repository again")
    remedy = "it is not the file that the card describes: get it from the repository again, or run tlutils.pretrain"
    paths.check_sha256(file, card["sha256"], f"the file {file}", remedy)
    return file, {**card, "weights": variant}


def _linear_head(state: dict[str, Tensor]) -> nn.Module | None:
    """A mini's own classifier, if the file holds it: average, then linear."""
    if "head.weight" not in state:
        return None
    linear = nn.Linear(*reversed(state["head.weight"].shape))
    weight_files.fit(linear, {key.removeprefix("head."): value for key, value in state.items()}, "the head in the file")
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()


def save_bundled(
    backbone: nn.Module,
    name: str,
    variant: str,
    card: dict,
    *,
    head: nn.Linear | None = None,
    folder: str | Path | None = None,
    leave_out: tuple[str, ...] = (),
) -> Path:
    """Write a backbone as `<name>-<variant>.safetensors` in half precision and its card into cards.json.

    head: the classifier that it was trained with, kept beside it (a linear layer on the features).
    leave_out: names of tensors that are copies of others (tied weights).
    card: at least CARD_KEYS; file, sha256, bytes, parameters and versions are filled in. Both files are written wholly
    or not at all, the card last. Raises ValueError for a missing key or a value that half precision can't hold.
    """
    missing = [key for key in CARD_KEYS if key not in card]
    if missing:
        raise ValueError(f"card of {name}-{variant} lacks {', '.join(missing)}: say how the weights were made")
    whole = backbone.state_dict() | (head.state_dict(prefix="head.") if head else {})
    state = {}
    for key, value in whole.items():
        if key in leave_out:
            continue
        value = value.detach().cpu().contiguous()
        state[key] = value.half() if value.is_floating_point() else value
        if value.is_floating_point() and not state[key].isfinite().all():
            raise ValueError(f"{key} of {name}-{variant} has values that are not finite in half precision: not saved")
    bundle = _bundle(None if folder is None else Path(folder))
    file = bundle / f"{name}-{variant}.safetensors"
    paths.atomic_write(file, safetensors.torch.save(state))
    facts = {
        "file": file.name,
        "sha256": paths.sha256_file(file),
        "bytes": file.stat().st_size,
        "parameters": sum(p.numel() for p in backbone.parameters()),
    }
    versions = {package: metadata.version(package) for package in ("torch", "torchvision")}
    cards = _cards(bundle) | {f"{name}-{variant}": {"versions": versions, **card, **facts}}
    paths.atomic_write(bundle / "cards.json", json.dumps(dict(sorted(cards.items())), indent=1) + "\n")
    return file
