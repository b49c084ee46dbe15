"""The shapes world: endless little scenes whose every factor is under control.

A scene is one textured shape on a cluttered background, 32 x 32 pixels. Shape, colour, texture, size,
position, rotation, background and clutter are drawn independently from a `torch.Generator`, so a data set
is fixed by its seed and two data sets with different seeds share no picture. All randomness is drawn on
the CPU; `render` is a pure function of the scenes, so a GPU shows the same pictures (up to rounding).

Three disjoint families of shapes exist: `SOURCE_SHAPES` to pretrain on, `TARGET_SHAPES` to transfer to,
and `DEV_SHAPES` for choosing learning rates, so that no choice is ever made on the classes we report.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

RESOLUTION = 32
_ATLAS = 64        # samples per side of a shape's distance field
_EXTENT = 1.3      # the field covers [-1.3, 1.3]^2; a shape lies within a circle of radius 1.25 (most within 1)
_STROKES = 4       # clutter strokes per scene, of which `clutter` says how many show
_CHUNK = 256       # scenes drawn at once: what fits the CPU's cache is drawn seven times as fast


# ---------------------------------------------------------------------------- the silhouettes
def _polygon(*corners):
    """Inside test of a polygon, by the even-odd rule."""
    def inside(x, y):
        odd = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1]):
            if y0 != y1:
                odd ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return odd
    return inside


def _disc(radius=1.0, cx=0.0, cy=0.0):
    return lambda x, y: (x - cx) ** 2 + (y - cy) ** 2 < radius ** 2


def _box(x0, y0, x1, y1):
    return lambda x, y: (x > x0) & (x < x1) & (y > y0) & (y < y1)


def _any(*parts):
    return lambda x, y: np.logical_or.reduce([part(x, y) for part in parts])


def _both(*parts):
    return lambda x, y: np.logical_and.reduce([part(x, y) for part in parts])


def _without(whole, hole):
    return lambda x, y: whole(x, y) & ~hole(x, y)


def _star(points, inner):
    angles = np.arange(2 * points) * math.pi / points - math.pi / 2
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return _polygon(*zip((radii * np.cos(angles)).tolist(), (radii * np.sin(angles)).tolist()))


def _heart(x, y):
    u, v = 1.25 * x, 0.15 - 1.2 * y
    return (u * u + v * v - 0.75) ** 3 - u * u * v ** 3 * 1.6 < 0


_TRIANGLE = _polygon((0, -1), (0.87, 0.5), (-0.87, 0.5))
_SILHOUETTES = {
    # source shapes
    "disc": _disc(0.85),
    "ring": _without(_disc(0.95), _disc(0.5)),
    "triangle": _TRIANGLE,
    "square": _box(-0.7, -0.7, 0.7, 0.7),
    "star": _star(5, 0.42),
    "plus": _any(_box(-0.3, -0.95, 0.3, 0.95), _box(-0.95, -0.3, 0.95, 0.3)),
    "crescent": _without(_disc(0.95), _disc(0.8, 0.45, 0)),
    "heart": _heart,
    "arrow": _any(_box(-0.95, -0.22, 0.2, 0.22), _polygon((0.1, -0.65), (1, 0), (0.1, 0.65))),
    "half-disc": _both(_disc(1.0, 0, 0.4), _box(-1, -1, 1, 0.4)),
    "corner": _any(_box(-0.75, -0.75, -0.2, 0.75), _box(-0.75, 0.2, 0.75, 0.75)),
    "tee": _any(_box(-0.85, -0.8, 0.85, -0.3), _box(-0.27, -0.8, 0.27, 0.85)),
    "ellipse": lambda x, y: x ** 2 / 0.95 ** 2 + y ** 2 / 0.45 ** 2 < 1,
    "zigzag": _any(_box(-0.95, -0.65, 0.3, -0.05), _box(-0.3, -0.05, 0.95, 0.55)),
    "frame": _without(_box(-0.75, -0.75, 0.75, 0.75), _box(-0.38, -0.38, 0.38, 0.38)),
    "drop": _any(_disc(0.55, 0, 0.4), _polygon((0, -1), (0.5, 0.18), (-0.5, 0.18))),
    # target shapes: disjoint from the sources, whatever the rotation
    "bow-tie": _polygon((-0.9, -0.6), (0, -0.12), (0.9, -0.6), (0.9, 0.6), (0, 0.12), (-0.9, 0.6)),
    "chevron": _polygon((-0.8, -0.8), (0.1, -0.8), (0.85, 0), (0.1, 0.8), (-0.8, 0.8), (-0.05, 0)),
    "horseshoe": _any(_without(_both(_disc(0.85, 0, -0.1), _box(-1, -1, 1, -0.1)), _disc(0.38, 0, -0.1)),
                      _box(-0.85, -0.1, -0.38, 0.9), _box(0.38, -0.1, 0.85, 0.9)),
    "pie": _without(_disc(0.95), _box(0, -1, 1, 0)),
    "trefoil": _any(_disc(0.45, 0, -0.5), _disc(0.45, 0.45, 0.28), _disc(0.45, -0.45, 0.28)),
    "aitch": _any(_box(-0.75, -0.85, -0.3, 0.85), _box(0.3, -0.85, 0.75, 0.85), _box(-0.3, -0.22, 0.3, 0.22)),
    "dumbbell": _any(_disc(0.42, -0.56, 0), _disc(0.42, 0.56, 0), _box(-0.56, -0.15, 0.56, 0.15)),
    "wye": _any(_polygon((-0.2, -0.1), (0.2, -0.1), (0.2, 1.0), (-0.2, 1.0)),
                _polygon((-0.95, -0.55), (-0.72, -0.88), (0.2, -0.1), (0, 0.27)),
                _polygon((0.95, -0.55), (0.72, -0.88), (-0.2, -0.1), (0, 0.27))),
    "delta": _without(_TRIANGLE, _polygon((0, -0.5), (0.43, 0.25), (-0.43, 0.25))),
    "spark": _star(4, 0.3),
    # development shapes: for choosing rates only
    "lens": _both(_disc(1.0, 0, 0.55), _disc(1.0, 0, -0.55)),
    "trapezoid": _polygon((-0.4, -0.55), (0.4, -0.55), (0.9, 0.55), (-0.9, 0.55)),
    "comb": _any(_box(-0.75, -0.85, -0.3, 0.85), _box(-0.3, -0.85, 0.7, -0.5), _box(-0.3, -0.17, 0.7, 0.17),
                 _box(-0.3, 0.5, 0.7, 0.85)),
    "bar": _box(-0.95, -0.24, 0.95, 0.24),
    "cee": _without(_without(_disc(0.95), _disc(0.5)), _polygon((0, 0), (1.5, -0.75), (1.5, 0.75))),
    "bolt": _polygon((0.25, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 1), (0.6, -0.2), (0.05, -0.2)),
    "mushroom": _any(_both(_disc(0.85, 0, -0.05), _box(-1, -1, 1, -0.05)), _box(-0.28, -0.06, 0.28, 0.85)),
    "flag": _any(_box(-0.6, -0.95, -0.3, 0.95), _polygon((-0.3, -0.95), (0.75, -0.45), (-0.3, 0.05))),
}
SHAPES = tuple(_SILHOUETTES)
SOURCE_SHAPES, TARGET_SHAPES, DEV_SHAPES = SHAPES[:16], SHAPES[16:26], SHAPES[26:]

_PALETTE = {   # neighbours in the list are neighbours in hue, so that groups of colours make sense
    "red": (0.86, 0.10, 0.10), "orange": (0.98, 0.52, 0.05), "brown": (0.50, 0.28, 0.12),
    "pink": (0.98, 0.62, 0.72), "yellow": (0.96, 0.90, 0.15), "lime": (0.62, 0.88, 0.15),
    "green": (0.10, 0.60, 0.15), "olive": (0.42, 0.42, 0.08), "teal": (0.05, 0.50, 0.50),
    "cyan": (0.30, 0.88, 0.92), "blue": (0.12, 0.30, 0.90), "navy": (0.05, 0.08, 0.42),
    "purple": (0.48, 0.14, 0.62), "magenta": (0.92, 0.15, 0.75), "white": (0.97, 0.97, 0.97),
    "grey": (0.52, 0.52, 0.55),
}
COLOURS = tuple(_PALETTE)
TEXTURES = ("solid", "striped", "chequered", "dotted")
SIZES = ("small", "medium", "large")
SHIFTS = ("blur", "noise", "underwater", "sketch", "night")


@lru_cache(maxsize=None)
def _atlas() -> Tensor:
    """Signed distance (negative inside, in units of the shape's radius) of every shape: (34, 1, 64, 64)."""
    fine = 4 * _ATLAS
    axis = (np.arange(fine) + 0.5) / fine * 2 * _EXTENT - _EXTENT
    x, y = np.meshgrid(axis, axis)
    fields_ = []
    for inside in _SILHOUETTES.values():
        mask = inside(x, y)
        distance = distance_transform_edt(~mask) - distance_transform_edt(mask)
        fields_.append(distance * (2 * _EXTENT / fine))
    return F.avg_pool2d(torch.tensor(np.stack(fields_)[:, None], dtype=torch.float32), 4)


@lru_cache(maxsize=None)
def _colour_table() -> tuple[Tensor, Tensor, Tensor]:
    """Foreground RGB, muted background RGB, and which background may lie behind which foreground."""
    front = torch.tensor(list(_PALETTE.values()))
    back = 0.65 * front + 0.15
    return front, back, (torch.cdist(front, back) > 0.45).float()


# ---------------------------------------------------------------------------- scenes
@dataclass
class Scenes:
    """N scenes as tensors of length N. Indices point into SHAPES, COLOURS and TEXTURES.

    shape, colour, texture, background: (N,) int64. radius, x, y: (N,) float32, pixels. rotation: (N,)
    float32, radians. clutter: (N,) int64, strokes shown (0 to 4). strokes: (N, 4, 8) float32, their ends,
    widths and colours.
    """
    shape: Tensor
    colour: Tensor
    texture: Tensor
    background: Tensor
    radius: Tensor
    x: Tensor
    y: Tensor
    rotation: Tensor
    clutter: Tensor
    strokes: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def to(self, device) -> "Scenes":
        """The scenes on another device."""
        return Scenes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def size(self) -> Tensor:
        """(N,) int64 index into SIZES, from the radius."""
        return (self.radius > 8.8).long() + (self.radius > 10.7).long()


def sample(shape: Tensor, colour: Tensor, *, generator: torch.Generator, clutter: int | None = None) -> Scenes:
    """Draw every other factor at random for scenes of given shape and colour.

    shape, colour: (N,) int64, indices into SHAPES and COLOURS. clutter fixes the number of strokes
    (0 to 4; None draws it). Raises ValueError on an index or a clutter out of range.
    """
    n = len(shape)
    if n and not (0 <= int(shape.min()) and int(shape.max()) < len(SHAPES)):
        raise ValueError(f"shape: indices must lie in 0..{len(SHAPES) - 1}, got {shape.min()}..{shape.max()}")
    if n and not (0 <= int(colour.min()) and int(colour.max()) < len(COLOURS)):
        raise ValueError(f"colour: indices must lie in 0..{len(COLOURS) - 1}, got {colour.min()}..{colour.max()}")
    if clutter is not None and not 0 <= clutter <= _STROKES:
        raise ValueError(f"clutter: must be 0 to {_STROKES}, got {clutter}")

    def uniform(low, high, *size):
        return torch.rand(*(size or (n,)), generator=generator) * (high - low) + low

    radius = uniform(7.0, 12.5)
    margin = 0.75 * radius
    room = RESOLUTION - 2 * margin
    allowed = _colour_table()[2][colour]
    strokes = torch.cat([uniform(-4, RESOLUTION + 4, n, _STROKES, 2), uniform(-9, 9, n, _STROKES, 2),
                         uniform(0.5, 1.6, n, _STROKES, 1), uniform(0, 1, n, _STROKES, 3)], dim=2)
    shown = torch.randint(0, _STROKES + 1, (n,), generator=generator)
    return Scenes(
        shape=shape, colour=colour, texture=torch.randint(0, len(TEXTURES), (n,), generator=generator),
        background=torch.multinomial(allowed, 1, generator=generator)[:, 0] if n else colour,
        radius=radius, x=margin + room * torch.rand(n, generator=generator),
        y=margin + room * torch.rand(n, generator=generator), rotation=uniform(-math.pi / 4, math.pi / 4),
        clutter=shown if clutter is None else torch.full((n,), clutter), strokes=strokes)


def render(scenes: Scenes) -> Tensor:
    """Draw the scenes: (N, 3, 32, 32) float32 in [0, 1], on the scenes' device."""
    if len(scenes) <= _CHUNK or scenes.radius.device.type != "cpu":
        return _render(scenes)
    columns = [getattr(scenes, f.name).split(_CHUNK) for f in fields(scenes)]
    return torch.cat([_render(Scenes(*part)) for part in zip(*columns)])


def _render(scenes: Scenes) -> Tensor:
    device = scenes.radius.device
    axis = torch.arange(RESOLUTION, device=device) + 0.5
    px, py = axis[None, None, :], axis[None, :, None]                             # (1, 1, W), (1, H, 1)
    front, back, _ = (table.to(device) for table in _colour_table())

    def per(t):                                                                   # (N,) -> (N, 1, 1)
        return t[:, None, None]

    canvas = back[scenes.background][:, :, None, None].expand(-1, -1, RESOLUTION, RESOLUTION)
    for k in range(_STROKES):                                                     # clutter: thick segments
        ax, ay, dx, dy, width = (per(scenes.strokes[:, k, i]) for i in range(5))
        t = (((px - ax) * dx + (py - ay) * dy) / (dx * dx + dy * dy + 1e-6)).clamp_(0, 1)
        distance = ((px - ax - t * dx) ** 2 + (py - ay - t * dy) ** 2).sqrt_()
        alpha = (0.5 - distance + width).clamp_(0, 1) * per((scenes.clutter > k).float())
        canvas = torch.lerp(canvas, scenes.strokes[:, k, 5:8, None, None], alpha[:, None])

    cos, sin, radius = per(scenes.rotation.cos()), per(scenes.rotation.sin()), per(scenes.radius)
    u = ((px - per(scenes.x)) * cos + (py - per(scenes.y)) * sin) / radius        # object coordinates
    v = ((py - per(scenes.y)) * cos - (px - per(scenes.x)) * sin) / radius
    field = F.grid_sample(_atlas().to(device)[scenes.shape], torch.stack([u, v], -1) / _EXTENT,
                          padding_mode="border", align_corners=False)
    alpha = (0.5 - field * radius[:, None]).clamp_(0, 1)                          # one pixel of smoothing

    wave = (u * (2 * math.pi / 0.55)).sin_()
    cross = (v * (2 * math.pi / 0.55)).sin_()
    texture = per(scenes.texture)
    pattern = torch.where(texture == 1, wave, torch.where(texture == 2, 2 * wave * cross, wave + cross - 0.7))
    pattern = (0.5 + 2 * pattern).clamp_(0, 1) * (texture > 0)
    ink = front[scenes.colour]
    ink2 = 0.5 * ink + 0.25 * (1 - ink)
    paint = torch.lerp(ink[:, :, None, None], ink2[:, :, None, None], pattern[:, None])
    return torch.lerp(canvas, paint, alpha)


def caption(scenes: Scenes) -> list[str]:
    """One sentence a scene, for instance "a small red striped ring on a green background"."""
    words = []
    for shape, colour, texture, size, back in zip(*(t.tolist() for t in (
            scenes.shape, scenes.colour, scenes.texture, scenes.size, scenes.background))):
        pattern = "" if texture == 0 else TEXTURES[texture] + " "
        words.append(f"a {SIZES[size]} {COLOURS[colour]} {pattern}{SHAPES[shape]} on a {COLOURS[back]} background")
    return words


# ---------------------------------------------------------------------------- shifts
def shift(images: Tensor, kind: str, strength: float, *, generator: torch.Generator | None = None) -> Tensor:
    """Move pictures to another domain. Strength 0 returns them unchanged, 1 is the far end of the dial.

    images: (N, 3, H, W) float32 in [0, 1]; returns the same form. kind: one of SHIFTS. "noise" and "night"
    draw from the generator (CPU). Raises ValueError on an unknown kind or a strength outside [0, 1].
    """
    if kind not in SHIFTS:
        raise ValueError(f"kind: must be one of {', '.join(SHIFTS)}; got {kind!r}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: must lie in [0, 1], got {strength}")
    if strength == 0:
        return images

    def grain():
        return torch.randn(images.shape, generator=generator).to(images.device)

    def tint(*rgb):
        return torch.tensor(rgb, device=images.device)[:, None, None]

    if kind == "blur":
        return _blur(images, 2.5 * strength)
    if kind == "noise":
        return (images + 0.3 * strength * grain()).clamp(0, 1)
    if kind == "underwater":
        absorbed = images * (1 - strength * tint(0.85, 0.25, 0.10))
        return torch.lerp(_blur(absorbed, 0.8 * strength), tint(0.02, 0.35, 0.42).expand_as(images), 0.45 * strength)
    if kind == "sketch":
        grey = images.mean(1, keepdim=True)
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        lines = 1 - (1.2 * (across ** 2 + down ** 2).sum(1, keepdim=True).sqrt()).clamp(0, 1)
        desaturated = torch.lerp(images, grey.expand_as(images), strength)
        return torch.lerp(desaturated, lines.expand_as(images), strength)
    dark = images ** (1 + 0.3 * strength) * (1 - 0.75 * strength) * (1 - strength * tint(0.3, 0.2, 0.0))
    return (dark + 0.04 * strength * grain()).clamp(0, 1)


def _blur(images: Tensor, sigma: float) -> Tensor:
    reach = max(1, math.ceil(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    images = F.conv2d(F.pad(images, (reach, reach, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(images, (0, 0, reach, reach), mode="replicate"), kernel.transpose(2, 3), groups=3)


# ---------------------------------------------------------------------------- tasks
@dataclass(frozen=True)
class Task:
    """A classification task of the world: which shapes occur, and which groups of factors make a class.

    The shapes are cut into `shape_groups` equal runs and the 16 colours into `colour_groups`; a class is a
    pair of groups. `shape_groups=len(shapes), colour_groups=1` asks for the shape and ignores colour;
    `shape_groups=1, colour_groups=16` asks for the colour and ignores shape.
    """
    name: str
    shapes: tuple[str, ...]
    shape_groups: int
    colour_groups: int = 1

    def __post_init__(self):
        unknown = [s for s in self.shapes if s not in SHAPES]
        if unknown:
            raise ValueError(f"shapes: unknown {unknown}; known are {', '.join(SHAPES)}")
        for factor, count, groups in (("shape_groups", len(self.shapes), self.shape_groups),
                                      ("colour_groups", len(COLOURS), self.colour_groups)):
            if groups < 1 or count % groups:
                raise ValueError(f"{factor}: {groups} equal groups can't be cut from {count} values")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        def runs(values, groups):
            k = len(values) // groups
            return ["/".join(values[i * k:(i + 1) * k]) if groups > 1 else "" for i in range(groups)]
        return tuple(" ".join(filter(None, (c, s))) for s in runs(self.shapes, self.shape_groups)
                     for c in runs(COLOURS, self.colour_groups))

    def scenes(self, labels: Tensor, *, generator: torch.Generator) -> Scenes:
        """Scenes of the given classes; labels: (N,) int64."""
        shapes_each, colours_each = len(self.shapes) // self.shape_groups, len(COLOURS) // self.colour_groups
        index = torch.tensor([SHAPES.index(s) for s in self.shapes])
        pick = labels // self.colour_groups * shapes_each + torch.randint(0, shapes_each, labels.shape, generator=generator)
        colour = labels % self.colour_groups * colours_each + torch.randint(0, colours_each, labels.shape, generator=generator)
        return sample(index[pick], colour, generator=generator)

    def draw(self, per_class: int, *, seed: int, shift_kind: str | None = None,
             strength: float = 0.0, device="cpu") -> tuple[Tensor, Tensor]:
        """A balanced data set: images (N, 3, 32, 32) float32 in [0, 1], labels (N,) int64, N = per_class x classes."""
        if per_class < 1:
            raise ValueError(f"per_class: must be at least 1, got {per_class}")
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(len(self.classes)).repeat(per_class)
        images = render(self.scenes(labels, generator=generator).to(device))
        if shift_kind is not None:
            images = shift(images, shift_kind, strength, generator=generator)
        return images, labels.to(device)

    def stream(self, generator: torch.Generator, n: int, device="cpu") -> tuple[Tensor, Tensor]:
        """n fresh scenes with random classes, for endless training: images, labels as in `draw`."""
        labels = torch.randint(0, len(self.classes), (n,), generator=generator)
        return render(self.scenes(labels, generator=generator).to(device)), labels.to(device)


@dataclass(frozen=True)
class Parity(Task):
    """Two classes: is the sum of the shape group's and the colour group's number even or odd?

    Neither factor alone says anything about the label (each half of every group is even), so a learner must find both
    before either helps: the kind of problem of Gulcehre & Bengio (2016).
    """

    def __post_init__(self):
        super().__post_init__()
        for factor in ("shape_groups", "colour_groups"):
            if getattr(self, factor) % 2:
                raise ValueError(f"{factor}: parity needs an even number of groups, got {getattr(self, factor)}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The two labels: 0 is even, 1 is odd."""
        return ("even", "odd")

    def scenes(self, labels: Tensor, *, generator: torch.Generator) -> Scenes:
        """Scenes whose two groups add up to the labels; labels: (N,) int64, 0 or 1."""
        colour_group = torch.randint(0, self.colour_groups, labels.shape, generator=generator)
        half = torch.randint(0, self.shape_groups // 2, labels.shape, generator=generator)
        shape_group = 2 * half + (labels + colour_group) % 2
        return super().scenes(shape_group * self.colour_groups + colour_group, generator=generator)


SHAPES16 = Task("16 source shapes", SOURCE_SHAPES, 16)
TARGET10 = Task("10 new shapes", TARGET_SHAPES, 10)
DEV8 = Task("8 development shapes", DEV_SHAPES, 8)
COLOUR16 = Task("16 colours", SOURCE_SHAPES, 1, 16)
BITS = tuple(Task(f"{bits} of 4 bits on shape", SOURCE_SHAPES, 2 ** bits, 2 ** (4 - bits)) for bits in range(5))


def similarity(source: Task, target: Task) -> float:
    """How much of what the target asks the source was asked too: 0 (nothing) to 1 (the same classes).

    Fixed by construction, never by outcome: the share of the label's information (bits) that both tasks
    spend on the same factor, times (1 + the share of the target's shapes that the source has seen) / 2.
    """
    def shares(task):
        bits = torch.tensor([math.log2(task.shape_groups), math.log2(task.colour_groups)])
        return bits / bits.sum().clamp_min(1e-9)
    shared_factor = torch.minimum(shares(source), shares(target)).sum().item()
    seen = len(set(source.shapes) & set(target.shapes)) / len(target.shapes)
    if target.shape_groups == 1:      # the target asks for colour only, and all tasks share all colours
        seen = 1.0
    return shared_factor * (1 + seen) / 2
