"""Pictures as words: a small VQ-VAE that writes a 32x32 picture as 64 codes out of 256, and reads them back.

A convolutional encoder turns each 4x4 patch, seen with its neighbourhood, into 16 numbers; the nearest of 256 learned codes
takes their place; a decoder draws the picture again (van den Oord et al. 2017, codes learned by moving averages). The
pictures are plain scenes: the shapes world without clutter and texture.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import multimodal, shapes

CODES, SIDE, DEPTH = 256, 8, 16        # codes in the book, tokens per side, numbers per code
LENGTH = SIDE * SIDE
MEAN, STD = 0.5, 0.25                  # of what the networks see; pictures go in and come out in [0, 1]


# ---------------------------------------------------------------------------- the scenes it learns to draw
def plain_scenes(shape: Tensor, colour: Tensor, *, generator: torch.Generator) -> shapes.Scenes:
    """Scenes as the minis draw them: no clutter, solid, near the middle, of middling size, hardly turned.

    shape, colour: (N,) int64 as in `shapes.sample`. The background stays random.
    """
    scenes = shapes.sample(shape, colour, generator=generator, clutter=0)
    middle = shapes.RESOLUTION / 2
    place = middle + 4 * (torch.rand(2, len(shape), generator=generator) - 0.5)
    scenes.texture = torch.zeros_like(scenes.texture)
    scenes.radius = 9.5 + 2 * (scenes.radius - 7.0) / 5.5
    scenes.x, scenes.y = place[0], place[1]
    scenes.rotation = scenes.rotation * (0.15 / (math.pi / 4))
    return scenes


def plain_pictures(generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """n fresh plain scenes of the seen pairs of shape and colour, twice: what goes in and what should come out."""
    x = shapes.render(plain_scenes(*multimodal.pairs(n, generator=generator), generator=generator))
    return x, x


# ---------------------------------------------------------------------------- the network
def _conv(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True))


def _twice(inner: int, outer: int) -> nn.Sequential:
    """Double the side: four channels become four pixels."""
    return nn.Sequential(nn.Conv2d(inner, 4 * outer, 1), nn.PixelShuffle(2))


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(_conv(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Codebook(nn.Module):
    """Codes that follow the vectors they stand for, by moving averages; a code that nobody uses starts again elsewhere."""

    def __init__(self, codes: int = CODES, depth: int = DEPTH, memory: float = 0.98):
        super().__init__()
        self.memory = memory
        self.register_buffer("codes", 0.5 * torch.randn(codes, depth))
        self.register_buffer("uses", torch.ones(codes))
        self.register_buffer("sums", self.codes.clone())

    def nearest(self, vectors: Tensor) -> Tensor:
        """vectors: (M, depth). Returns the number of the nearest code of each: (M,) int64."""
        with torch.autocast(vectors.device.type, enabled=False):
            return ((self.codes ** 2).sum(1) - 2 * vectors @ self.codes.T).argmin(1)

    def follow(self, vectors: Tensor, numbers: Tensor) -> None:
        """Move the codes towards the vectors (M, depth) that chose them, numbers (M,)."""
        with torch.autocast(vectors.device.type, enabled=False):
            chosen = F.one_hot(numbers, len(self.codes)).to(vectors.dtype)
            self.uses.lerp_(chosen.sum(0), 1 - self.memory)
            self.sums.lerp_(chosen.T @ vectors, 1 - self.memory)
        fair = len(vectors) / len(self.codes)
        idle = self.uses < 0.02 * fair
        elsewhere = vectors[torch.randint(len(vectors), (len(self.codes),), device=vectors.device)]
        self.uses.masked_fill_(idle, 0.2 * fair)
        self.sums.copy_(torch.where(idle[:, None], elsewhere * (0.2 * fair), self.sums))
        self.codes.copy_(self.sums / self.uses[:, None])


class ImageTokens(nn.Module):
    """Encoder, codebook and decoder. `encode` writes pictures as tokens, `decode` reads tokens as pictures."""

    def __init__(self, codes: int = CODES, width: int = 64):
        super().__init__()
        half = width // 2
        self.encoder = nn.Sequential(_conv(3, half, 2), _conv(half, width, 2), _Residual(width), _Residual(width), nn.Conv2d(width, DEPTH, 1))
        self.book = Codebook(codes)
        self.decoder = nn.Sequential(_conv(DEPTH, width), _Residual(width), _Residual(width), _twice(width, half), _conv(half, half),
                                     _twice(half, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, 3, 32, 32) in [0, 1]. Returns the pictures drawn again and how far the vectors lay from their codes."""
        vectors = self._vectors(x)
        numbers = self.book.nearest(vectors)
        if self.training:
            self.book.follow(vectors.detach(), numbers)
        codes = self.book.codes[numbers]
        passed = vectors + (codes - vectors).detach()          # forward the code, backward the vector's gradient
        return self._draw(passed), F.mse_loss(vectors, codes)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """x: (N, 3, 32, 32) in [0, 1]. Returns (N, 64) int64, row by row from the upper left."""
        return self.book.nearest(self._vectors(x)).view(len(x), LENGTH)

    @torch.no_grad()
    def decode(self, numbers: Tensor) -> Tensor:
        """numbers: (N, 64) int64. Returns (N, 3, 32, 32) in [0, 1]. Raises ValueError on another form or an unknown code."""
        if numbers.ndim != 2 or numbers.shape[1] != LENGTH:
            raise ValueError(f"numbers: must be (N, {LENGTH}), got {tuple(numbers.shape)}")
        if len(numbers) and not (0 <= int(numbers.min()) and int(numbers.max()) < len(self.book.codes)):
            raise ValueError(f"numbers: codes go from 0 to {len(self.book.codes) - 1}, got {int(numbers.min())} to {int(numbers.max())}")
        return self._draw(self.book.codes[numbers.flatten()]).clamp(0, 1)

    def _vectors(self, x: Tensor) -> Tensor:
        maps = self.encoder((x - MEAN) / STD).float()
        return maps.permute(0, 2, 3, 1).reshape(-1, DEPTH)

    def _draw(self, vectors: Tensor) -> Tensor:
        maps = vectors.view(-1, SIDE, SIDE, DEPTH).permute(0, 3, 1, 2)
        return self.decoder(maps).float() * STD + MEAN


def drawing_loss(outputs: tuple[Tensor, Tensor], x: Tensor, commitment: float = 0.25) -> Tensor:
    """Squared error of the pictures (in units of their spread) plus the vectors' distance from their codes."""
    drawn, distance = outputs
    return ((drawn - x) / STD).square().mean() + commitment * distance
