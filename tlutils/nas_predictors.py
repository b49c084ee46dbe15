"""What an untrained cell will reach, guessed from the cells that were trained: ensembles of small MLPs and LSTMs.

As in PNAS (Liu et al. 2018): an MLP sees the mean over the blocks of a cell, an LSTM sees the blocks one after another, so
both take cells of any size; an ensemble's members each leave out a part of the cells, and their mean is the guess.
Unlike there, an input block is named by how far back it lies, not by its number: so a cell one block larger than all that
were trained holds nothing that the networks have never seen.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .nas_cells import OPERATIONS, Cell

KINDS = ("mlp", "lstm")
FARTHEST = 8                                            # an input block that lies farther back counts as this far
_SOURCES = 2 + FARTHEST
WIDTH = 2 * (_SOURCES + len(OPERATIONS))                # numbers that describe one block


@lru_cache(maxsize=100_000)
def _codes(cell: Cell) -> tuple[tuple[int, ...], ...]:
    """For each block the places of the four ones in its description."""
    half = WIDTH // 2

    def place(number: int, source: int) -> int:
        return -source - 1 if source < 0 else 1 + min(number - source, FARTHEST)

    return tuple(tuple(side * half + code for side, (source, operation) in enumerate(block)
                       for code in (place(number, source), _SOURCES + OPERATIONS.index(operation)))
                 for number, block in enumerate(cell.blocks))


def encode(cells: Sequence[Cell]) -> tuple[Tensor, Tensor]:
    """Cells in canonical form as numbers: blocks (N, L, WIDTH) float32 of zeros and ones, and how many count, (N,) int64."""
    codes = [_codes(cell.canonical()) for cell in cells]
    lengths = torch.tensor([len(code) for code in codes])
    index = [(n, b, place) for n, code in enumerate(codes) for b, block in enumerate(code) for place in block]
    blocks = torch.zeros(len(codes), int(lengths.max()), WIDTH)
    blocks[tuple(torch.tensor(index).T)] = 1
    return blocks, lengths


class _Members(nn.Module):
    """Several networks of one form that are trained side by side; their parameters have a leading axis (members, ...)."""

    def __init__(self, members: int, generator: torch.Generator):
        super().__init__()
        self.members, self._generator = members, generator

    def _matrix(self, inner: int, outer: int) -> nn.Parameter:
        bound = 1 / math.sqrt(inner)
        return nn.Parameter(torch.empty(self.members, inner, outer).uniform_(-bound, bound, generator=self._generator))

    def _bias(self, outer: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(self.members, 1, outer))

    def _repeat(self, x: Tensor) -> Tensor:
        return x.expand(self.members, *x.shape)


class _MLPs(_Members):
    def __init__(self, members: int, hidden: int, generator: torch.Generator):
        super().__init__(members, generator)
        sizes = (WIDTH, hidden, hidden, 1)
        self.weights = nn.ParameterList(self._matrix(a, b) for a, b in zip(sizes, sizes[1:]))
        self.biases = nn.ParameterList(self._bias(b) for b in sizes[1:])

    def forward(self, blocks: Tensor, lengths: Tensor) -> Tensor:
        x = self._repeat(blocks.sum(1) / lengths[:, None])
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, F.relu(x) if i else x, weight)
        return x[..., 0]


class _LSTMs(_Members):
    def __init__(self, members: int, hidden: int, generator: torch.Generator):
        super().__init__(members, generator)
        self.hidden = hidden
        self.inward, self.onward, self.outward = self._matrix(WIDTH, 4 * hidden), self._matrix(hidden, 4 * hidden), self._matrix(hidden, 1)
        self.bias, self.last_bias = self._bias(4 * hidden), self._bias(1)

    def forward(self, blocks: Tensor, lengths: Tensor) -> Tensor:
        state = memory = blocks.new_zeros(self.members, len(blocks), self.hidden)
        for step in range(blocks.shape[1]):
            gates = torch.baddbmm(self.bias, self._repeat(blocks[:, step]), self.inward) + state @ self.onward
            take, keep, show, new = gates.chunk(4, -1)
            updated = torch.sigmoid(keep + 1) * memory + torch.sigmoid(take) * torch.tanh(new)
            there = (step < lengths)[None, :, None]
            memory = torch.where(there, updated, memory)
            state = torch.where(there, torch.sigmoid(show) * torch.tanh(updated), state)
        return torch.baddbmm(self.last_bias, state, self.outward)[..., 0]


class Predictor:
    """Guesses accuracies of cells: an ensemble of `members` networks of each of the `kinds`.

    kinds: some of "mlp" and "lstm". hidden: their width. steps, lr: of AdamW, on all cells at once. fold: each member leaves
    out every `fold`-th cell, another one each (a single member sees all). decay: weight decay. One thread fits 50 cells in 0.1 s.
    Raises ValueError for settings that make no ensemble.
    """

    def __init__(self, kinds: Sequence[str] = KINDS, *, members: int = 5, hidden: int = 16, steps: int = 80, lr: float = 1e-2, decay: float = 1.0,
                 fold: int = 5, seed: int = 0):
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not kinds:
            raise ValueError(f"kinds: give some of {', '.join(KINDS)}; got {tuple(kinds)}")
        if members < 1 or steps < 1 or fold < 2:
            raise ValueError(f"a predictor needs members >= 1, steps >= 1 and fold >= 2; got {members}, {steps} and {fold}")
        self.kinds, self.members, self.hidden, self.fold, self.seed = tuple(kinds), members, hidden, fold, seed
        self.steps, self.lr, self.decay = steps, lr, decay
        self.networks: nn.ModuleList | None = None

    def fit(self, cells: Sequence[Cell], accuracies: Sequence[float], *, warm: bool = False) -> Predictor:
        """Learn from trained cells; accuracies: (N,), N >= 2. Returns itself.

        warm: go on from the weights of the last fit (on another task, say) for a third of the steps, at a third of the
        rate, instead of beginning anew. Raises ValueError for fewer than two cells, lengths that differ, values that are
        not finite, or warm without an earlier fit.
        """
        values = torch.from_numpy(np.array(accuracies, dtype=np.float64))
        if len(cells) < 2 or len(cells) != len(values):
            raise ValueError(f"a predictor learns from two cells or more, with an accuracy each; got {len(cells)} cells, {len(values)} accuracies")
        if not torch.isfinite(values).all():
            raise ValueError(f"accuracies: not finite at {cells[int((~torch.isfinite(values)).nonzero()[0])]}")
        if warm and self.networks is None:
            raise ValueError("warm=True goes on from an earlier fit, but this predictor has none: fit it on the other task first")
        if not warm:
            generator = torch.Generator().manual_seed(self.seed)
            made = {"mlp": _MLPs, "lstm": _LSTMs}
            self.networks = nn.ModuleList(made[kind](self.members, self.hidden, generator) for kind in self.kinds)
        self.mean, self.scale = float(values.mean()), float(values.std()) or 1.0
        target = ((values - self.mean) / self.scale).float().expand(self.members, -1)
        seen = torch.ones(self.members, len(cells))
        if self.members > 1 and len(cells) >= self.fold:
            order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(self.seed + 1))
            for member in range(self.members):
                seen[member, order[member % self.fold::self.fold]] = 0
        blocks, lengths = encode(cells)
        share = 1 / 3 if warm else 1.0
        optimizer = torch.optim.AdamW(self.networks.parameters(), lr=self.lr * share, weight_decay=self.decay)
        for _ in range(max(1, round(self.steps * share))):
            optimizer.zero_grad(set_to_none=True)
            errors = sum(F.smooth_l1_loss(network(blocks, lengths), target, reduction="none") for network in self.networks)
            (errors * seen).mean(1).sum().backward()
            optimizer.step()
        return self

    def guesses(self, cells: Sequence[Cell]) -> np.ndarray:
        """(members of all kinds, N) float64: each member's guess. Raises ValueError before the first fit."""
        if self.networks is None:
            raise ValueError("this predictor has learned nothing yet: call fit first")
        if not len(cells):
            return np.zeros((len(self.kinds) * self.members, 0))
        with torch.no_grad():
            inputs = encode(cells)
            found = torch.cat([network(*inputs) for network in self.networks])
        return found.double().numpy() * self.scale + self.mean

    def predict(self, cells: Sequence[Cell]) -> np.ndarray:
        """(N,) float64: the mean of all guesses, in the accuracies' unit."""
        return self.guesses(cells).mean(0)
