"""CLIP in miniature: a picture encoder and a text encoder that agree on which caption belongs to which scene.

A dual encoder as in Radford et al. (2021), made from torchvision's residual blocks and torch's transformer layers: both
towers end in a vector of 64 numbers of length one, and a learned temperature scales their products. It learns from
captions only: no class labels. `zoo.load("clip-mini")` gives the trained one.
"""
from __future__ import annotations

import math
import re
import warnings
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import paths, shapes
from .backbones import Backbone

WIDTHS = (32, 64, 128)          # channels of the picture tower's stages
EMBEDDING = 64                  # numbers in which both towers end
WINDOW = 16                     # tokens of a caption, start and end included
PAD, START, END = 0, 1, 2
WORDS = ("<pad>", "<start>", "<end>", "a", "on", "background", *shapes.SIZES, *shapes.TEXTURES, *shapes.COLOURS,
         *shapes.SOURCE_SHAPES)
_NUMBER = {word: i for i, word in enumerate(WORDS)}


# ---------------------------------------------------------------------------- captions
def tokens(texts: Sequence[str]) -> Tensor:
    """Captions as numbers of words: (N, 16) int64, start and end marked, padded with zeros.

    texts: N captions of words from WORDS, in any case, commas and full stops ignored. One that is longer than 14 words
    is cut with a warning. Raises ValueError for a text that is no string, is empty or has an unknown word (names near ones).
    """
    if isinstance(texts, str):
        raise ValueError(f"texts: give a list of captions, not one string ({texts!r})")
    rows = torch.full((len(texts), WINDOW), PAD)
    for i, text in enumerate(texts):
        numbers = _numbers(text, i)
        if len(numbers) > WINDOW - 2:
            warnings.warn(f"texts[{i}] has {len(numbers)} words, the model reads {WINDOW - 2}: the rest is cut off", stacklevel=2)
        numbers = [START, *numbers[:WINDOW - 2], END]
        rows[i, :len(numbers)] = torch.tensor(numbers)
    return rows


def _numbers(text: str, i: int) -> list[int]:
    words = re.sub(r"[.,]", " ", text).lower().split() if isinstance(text, str) else []
    if not words:
        raise ValueError(f"texts[{i}]={text!r} is no caption: give at least one word")
    for word in words:
        if word not in _NUMBER or word.startswith("<"):
            raise ValueError(f"texts[{i}]={text!r}: the model has never read the word {word!r}; {paths.did_you_mean(word, WORDS[3:])}")
    return [_NUMBER[word] for word in words]


def held_out(shape: Tensor, colour: Tensor) -> Tensor:
    """Which pairs of source shape and colour the minis were never shown: 64 of 256, four of every shape and every colour.

    shape, colour: (N,) int64 indices. Returns (N,) bool.
    """
    return (5 * shape + 7 * colour) % 16 < 4


def combinations() -> tuple[Tensor, Tensor]:
    """All 256 pairs of a source shape and a colour: shape (256,), colour (256,), int64."""
    grid = torch.arange(len(shapes.SOURCE_SHAPES) * len(shapes.COLOURS))
    return grid // len(shapes.COLOURS), grid % len(shapes.COLOURS)


def pairs(n: int, *, generator: torch.Generator, new: bool = False) -> tuple[Tensor, Tensor]:
    """n random pairs of shape and colour (with repetition), from those seen in training or (`new`) those held out."""
    shape, colour = combinations()
    allowed = (held_out(shape, colour) == new).nonzero()[:, 0]
    pick = allowed[torch.randint(0, len(allowed), (n,), generator=generator)]
    return shape[pick], colour[pick]


def describe(scenes: shapes.Scenes, *, generator: torch.Generator) -> list[str]:
    """One caption a scene in varying detail: the shape always, each other factor left out of some captions at random."""
    keep = torch.rand(len(scenes), 4, generator=generator) < torch.tensor([0.35, 0.7, 0.35, 0.4])
    columns = (scenes.shape, scenes.colour, scenes.texture, scenes.size, scenes.background)
    said = []
    for (size, colour, texture, back), (s, c, t, z, b) in zip(keep.tolist(), zip(*(column.tolist() for column in columns))):
        words = ["a", size and shapes.SIZES[z], colour and shapes.COLOURS[c], texture and shapes.TEXTURES[t],
                 shapes.SHAPES[s], back and f"on a {shapes.COLOURS[b]} background"]
        said.append(" ".join(filter(None, words)))
    return said


def captioned(generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """n fresh scenes of the seen pairs with their captions: pictures (n, 3, 32, 32) in [0, 1], tokens (n, 16)."""
    scenes = shapes.sample(*pairs(n, generator=generator), generator=generator)
    return shapes.render(scenes), tokens(describe(scenes, generator=generator))


# ---------------------------------------------------------------------------- the two towers
def picture_tower(widths: Sequence[int] = WIDTHS) -> Backbone:
    """A residual network of torchvision's basic blocks for 32x32 pictures, its last stage as wide as `widths[-1]`."""
    from torchvision.models.resnet import BasicBlock

    def block(inner, outer):
        shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride=2, bias=False), nn.BatchNorm2d(outer))
        return BasicBlock(inner, outer, stride=2, downsample=shortcut)
    first, *_ = widths
    stem = nn.Sequential(nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True))
    stages = OrderedDict(stem=stem, layer1=BasicBlock(first, first))
    for i, (inner, outer) in enumerate(zip(widths, widths[1:]), start=2):
        stages[f"layer{i}"] = block(inner, outer)
    return Backbone(stages, widths[-1])


class TextTower(nn.Module):
    """A small causal transformer over the words; what it holds at the end mark stands for the whole caption."""

    def __init__(self, width: int = 96, layers: int = 2, heads: int = 4):
        super().__init__()
        self.words = nn.Embedding(len(WORDS), width)
        self.places = nn.Parameter(0.02 * torch.randn(WINDOW, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.width = width
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, numbers: Tensor) -> Tensor:
        """numbers: (N, 16) int64 as from `tokens`. Returns (N, width)."""
        used = int((numbers != PAD).sum(1).max())
        numbers = numbers[:, :used]
        mask = nn.Transformer.generate_square_subsequent_mask(used, device=numbers.device)
        hidden = self.layers(self.words(numbers) + self.places[:used], mask=mask, is_causal=True)
        return hidden[torch.arange(len(numbers), device=numbers.device), (numbers == END).int().argmax(1)]


class CLIPMini(nn.Module):
    """Both towers, a linear map from each to the shared space, and the temperature that scales their products."""

    def __init__(self, widths: Sequence[int] = WIDTHS, text_width: int = 96, embedding: int = EMBEDDING):
        super().__init__()
        self.vision, self.text = picture_tower(widths), TextTower(text_width)
        self.from_vision = nn.Linear(self.vision.width, embedding, bias=False)
        self.from_text = nn.Linear(text_width, embedding, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.width = embedding

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, 32, 32) float, preprocessed. Returns the pictures' embeddings (N, 64), each of length one."""
        return F.normalize(self.from_vision(self.vision(x)).float(), dim=1)

    def read(self, numbers: Tensor) -> Tensor:
        """numbers: (N, 16) int64 as from `tokens`. Returns the captions' embeddings (N, 64), each of length one."""
        return F.normalize(self.from_text(self.text(numbers)).float(), dim=1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of N captions: (N, 64), each of length one. Raises ValueError as `tokens` does."""
        return self.read(tokens(texts))

    @property
    def scale(self) -> Tensor:
        """What the products are multiplied by (one over the temperature), at most 100 as in the paper."""
        return self.log_scale.exp().clamp(max=100)


NETWORKS, DEFAULT_VARIANT = {"clip-mini": CLIPMini}, "captions"


def contrastive_loss(pictures: Tensor, captions: Tensor, scale: Tensor | float) -> Tensor:
    """Each picture must pick its caption among the batch's, each caption its picture (Radford et al. 2021).

    pictures, captions: (N, D), rows of length one, row i of both from the same pair. Returns a scalar, log N for towers
    that know nothing. Raises ValueError if the shapes differ.
    """
    if pictures.shape != captions.shape or pictures.ndim != 2:
        raise ValueError(f"pictures {tuple(pictures.shape)} and captions {tuple(captions.shape)} must be (N, D) alike")
    logits = scale * pictures @ captions.T
    answer = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, answer) + F.cross_entropy(logits.T, answer)) / 2


# ---------------------------------------------------------------------------- using it
@torch.no_grad()
def class_embeddings(model: nn.Module, prompts: Sequence[Sequence[str]]) -> Tensor:
    """One vector of length one for each class, the mean over its prompts' embeddings (an ensemble where there are several).

    model: anything with `texts`, such as a CLIPMini. prompts: for each class one or more captions. Returns (classes, D).
    Raises ValueError for a class without a prompt, or one that is a single string instead of a list.
    """
    for i, group in enumerate(prompts):
        if isinstance(group, str) or not len(group):
            raise ValueError(f"prompts[{i}]={group!r}: give a list of at least one caption for every class")
    said = model.texts([text for group in prompts for text in group])
    return torch.stack([F.normalize(part.mean(0), dim=0) for part in said.split([len(group) for group in prompts])])


@torch.no_grad()
def embed(loaded, pictures: Tensor, batch_size: int = 512) -> Tensor:
    """The embeddings of pictures (N, 3, H, W) in [0, 1] by a loaded CLIP: (N, D), each of length one."""
    return torch.cat([loaded.backbone(loaded.preprocess(part)) for part in pictures.split(batch_size)])


def recall(similarity: Tensor, k: int) -> float:
    """Share of rows whose own column is among the k largest of the row. similarity: (N, N), pair i at [i, i]; ties count against."""
    if similarity.ndim != 2 or len(similarity) != similarity.shape[1] or not 1 <= k <= len(similarity):
        raise ValueError(f"similarity {tuple(similarity.shape)} must be square and k={k} from 1 to its side")
    ahead = (similarity >= similarity.diagonal()[:, None]).sum(1) - 1
    return (ahead < k).float().mean().item()
