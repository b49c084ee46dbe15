"""Networks built from a cell: a stem, then copies of the cell, at full, half and quarter size.

Between cells of different sizes stands a fixed reduction (2x2 max pooling, as in NAS-Bench-101; Ying et al. 2019), after
which the width doubles. In PNAS itself (Liu et al. 2018) the operations of every third cell have stride 2 instead, and
each separable convolution is applied twice.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones import Backbone, pool
from .nas_cells import Cell


def _separable(width: int, kernel: int, dilation: int = 1) -> nn.Module:
    """ReLU, one filter for each channel, a 1x1 convolution that mixes channels, batch norm."""
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(width, width, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))


MODULES: dict[str, Callable[[int], nn.Module]] = {
    "identity": lambda width: nn.Identity(),
    "sep3": lambda width: _separable(width, 3),
    "sep5": lambda width: _separable(width, 5),
    "sep7": lambda width: _separable(width, 7),
    "split7": lambda width: nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, (1, 7), padding=(0, 3), bias=False),
                                          nn.Conv2d(width, width, (7, 1), padding=(3, 0), bias=False), nn.BatchNorm2d(width)),
    "dil3": lambda width: _separable(width, 3, dilation=2),
    "avg3": lambda width: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    "max3": lambda width: nn.MaxPool2d(3, stride=1, padding=1),
}


def _fit_channels(inner: int, outer: int) -> nn.Module:
    if inner == outer:
        return nn.Identity()
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer))


class CellModule(nn.Module):
    """A cell as a layer: maps (output of the cell before the last, output of the last) to (output of the last, its own).

    cell: the blocks. channels: of the two inputs, (h2, h1). width: of every block. reduce: halve height and width first.
    A 1x1 convolution fits an input's channels to the width where they differ. Outputs of unused blocks are concatenated.
    """

    def __init__(self, cell: Cell, channels: tuple[int, int], width: int, *, reduce: bool = False):
        super().__init__()
        self.cell, self.reduce, self.out_channels = cell, reduce, width * len(cell.unused)
        seen = {source for block in cell.blocks for source, _ in block if source < 0}
        self.fit = nn.ModuleDict({f"h{-source}": _fit_channels(channels[source], width) for source in sorted(seen)})
        self.blocks = nn.ModuleList(nn.ModuleList(MODULES[operation](width) for _, operation in block) for block in cell.blocks)

    def forward(self, previous: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """previous: h2 (N, C2, H2, W2) and h1 (N, C1, H, W). Returns h1 and this cell's output (N, C, H or H/2, ...)."""
        side = previous[-1].shape[-1] // (2 if self.reduce else 1)
        outer = {-int(name[1]): fit(_to_side(previous[-int(name[1])], side)) for name, fit in self.fit.items()}
        found: list[Tensor] = []
        for block, (left, right) in zip(self.cell.blocks, self.blocks, strict=True):
            a, b = (found[source] if source >= 0 else outer[source] for source, _ in block)
            found.append(left(a) + right(b))
        ends = [found[number] for number in self.cell.unused]
        return previous[-1], ends[0] if len(ends) == 1 else torch.cat(ends, 1)


def _to_side(x: Tensor, side: int) -> Tensor:
    return x if x.shape[-1] == side else F.max_pool2d(x, x.shape[-1] // side)


class Stem(nn.Module):
    """The first layer: a 3x3 convolution (5x5 for strides above 2) and batch norm. Gives its output twice, as both inputs of the first cell."""

    def __init__(self, width: int, stride: int):
        super().__init__()
        kernel = 3 if stride < 3 else 5
        self.layers = nn.Sequential(nn.Conv2d(3, width, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, 3, H, W). Returns the same maps (N, width, H / stride, W / stride) as h2 and h1."""
        x = self.layers(x)
        return x, x


class CellBackbone(Backbone):
    """A network of cells with the stages `stem`, `cell1`, ...: each hands on the last two outputs.

    cell: stacked once for each entry of `reductions`, True where the size is halved and the width doubled first.
    width: channels of a block in the first cell. Ends in ReLU and a global average.
    """

    def __init__(self, cell: Cell, *, width: int = 16, reductions: tuple[bool, ...] = (False, True, True), stem_stride: int = 2):
        if width < 1 or not reductions:
            raise ValueError(f"a network needs width >= 1 and at least one cell; got width={width}, reductions={reductions}")
        stages: OrderedDict[str, nn.Module] = OrderedDict(stem=Stem(width, stem_stride))
        channels, at = (width, width), width
        for number, reduce in enumerate(reductions, 1):
            at *= 2 if reduce else 1
            stages[f"cell{number}"] = CellModule(cell, channels, at, reduce=reduce)
            channels = (channels[1], stages[f"cell{number}"].out_channels)
        super().__init__(stages, channels[1])
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out" if layer.groups == 1 else "fan_in", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W) float, preprocessed. Returns the features (N, width)."""
        return pool(F.relu(self.stages(x)[1]))

    def features_after(self, x: Tensor, stage: str) -> Tensor:
        """x: (N, 3, H, W) float. Returns the pooled features (N, C) after the named stage; raises ValueError if there is none."""
        names = [name for name, _ in self.stages.named_children()]
        if stage not in names:
            raise ValueError(f"stage={stage!r} is none of this backbone's stages: {', '.join(names)}")
        for name, module in self.stages.named_children():
            x = module(x)
            if name == stage:
                break
        return pool(F.relu(x[1]))


def count_parameters(module: nn.Module) -> int:
    """How many numbers the module learns."""
    return sum(p.numel() for p in module.parameters())


def width_for(cell: Cell, parameters: int, **options) -> int:
    """The width at which a network of this cell has the number of parameters nearest to the one asked for.

    options: as for `CellBackbone`. Raises ValueError if even width 1 has more than twice as many.
    """
    def size(width: int) -> int:
        return count_parameters(CellBackbone(cell, width=width, **options))

    if size(1) > 2 * parameters:
        raise ValueError(f"parameters={parameters}: even a network of width 1 of this cell has {size(1)}")
    width = 1
    while size(2 * width) < parameters:
        width *= 2
    return min(range(width, 2 * width + 1), key=lambda w: abs(size(w) - parameters))
