"""Cells and spaces of cells, as in progressive neural architecture search (PNAS; Liu et al. 2018).

A cell is a list of blocks; a block applies one operation to each of two inputs and adds the results. An input is the output
of an earlier cell (`h1`, the cell before, or `h2`, the one before that) or of an earlier block of the same cell (`b1`,
`b2`, ...). What no block uses is the cell's output. As text, "h1 sep3 + h1 identity; b1 max3 + h1 sep3" is a cell of two
blocks: the second takes the first one's output through a max pooling.

Many lists of blocks describe one cell, since addition has no order, nor have blocks that don't see each other.
`Cell.canonical` gives them one form.
"""
from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from . import paths

OPERATIONS = ("identity", "sep3", "sep5", "sep7", "split7", "dil3", "avg3", "max3")     # the eight of the paper


class Branch(NamedTuple):
    """An input and the operation on it. source: -1 is the cell before, -2 the one before that, 0 and up the cell's own blocks."""

    source: int
    operation: str


Block = tuple[Branch, Branch]


@dataclass(frozen=True)
class Cell:
    """The blocks of a cell, in an order in which each sees earlier ones only.

    Raises ValueError for an empty cell, an unknown operation or an input that does not exist yet.
    """

    blocks: tuple[Block, ...]

    def __post_init__(self):
        if not self.blocks:
            raise ValueError("blocks is empty: a cell needs at least one block")
        blocks = tuple(tuple(Branch(*branch) for branch in block) for block in self.blocks)
        for number, block in enumerate(blocks):
            if len(block) != 2:
                raise ValueError(f"block {number + 1} has {len(block)} branches: give it two, each an input and an operation")
            for branch in block:
                if branch.operation not in OPERATIONS:
                    raise ValueError(f"block {number + 1} has the unknown operation {branch.operation!r}; "
                                     f"{paths.did_you_mean(branch.operation, OPERATIONS)}")
                if not -2 <= branch.source < number:
                    known = ", ".join(_name(source) for source in (-1, -2, *range(number)))
                    raise ValueError(f"block {number + 1} takes {_name(branch.source)}, which does not exist yet: it can take {known}")
        object.__setattr__(self, "blocks", blocks)

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell that a text like "h1 sep3 + h2 identity; b1 max3 + h1 sep3" describes. Raises ValueError if it describes none."""
        return cls(tuple(tuple(_branch(part, text) for part in block.split("+")) for block in text.split(";")))

    def __str__(self) -> str:
        return "; ".join(" + ".join(f"{_name(source)} {operation}" for source, operation in block) for block in self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    @cached_property
    def unused(self) -> tuple[int, ...]:
        """The blocks whose output no block takes: together they are the cell's output."""
        used = {branch.source for block in self.blocks for branch in block}
        return tuple(number for number in range(len(self)) if number not in used)

    def canonical(self) -> Cell:
        """The one form shared by all cells that differ only in the order of branches and of blocks."""
        return self._canonical

    @cached_property
    def _canonical(self) -> Cell:
        # What a block computes, whatever the order, is its key; deeper blocks come later, so each still sees earlier ones
        # only. Blocks of equal keys are twins with weights of their own: try their orders, and keep the smallest form.
        keys: list[tuple] = []
        for block in self.blocks:
            parts = sorted((operation, keys[source] if source >= 0 else (0, source)) for source, operation in block)
            keys.append((1 + max(part[1][0] for part in parts), tuple(parts)))
        twins = [list(group) for _, group in itertools.groupby(sorted(range(len(self)), key=keys.__getitem__), keys.__getitem__)]
        orders = (list(itertools.chain(*order)) for order in itertools.product(*map(itertools.permutations, twins)))
        found = Cell(min(map(self._reordered, orders)))
        found.__dict__["_canonical"] = found
        return found

    def _reordered(self, order: list[int]) -> tuple[Block, ...]:
        place = {number: i for i, number in enumerate(order)}
        return tuple(tuple(sorted(Branch(place.get(source, source), operation) for source, operation in self.blocks[number]))
                     for number in order)


def _name(source: int) -> str:
    return f"b{source + 1}" if source >= 0 else f"h{-source}"


def _branch(part: str, text: str) -> Branch:
    words = part.split()
    if len(words) != 2 or words[0][0] not in "hb" or not words[0][1:].isdecimal() or int(words[0][1:]) < 1:
        raise ValueError(f"{part.strip()!r} in {text!r} is no branch: write an input (h1, h2, b1, ...) and an operation, as in 'h1 sep3'")
    number = int(words[0][1:])
    return Branch(number - 1 if words[0][0] == "b" else -number, words[1])


@dataclass(frozen=True)
class Space:
    """A space of cells that is closed under adding blocks. All its cells are in canonical form.

    operations: those that may occur. blocks: the most that a cell has. back: how many earlier cells a block may see, 1 or 2.
    chained: every block takes the block before it and an earlier cell, so that cells are chains with a shortcut to their
    input; otherwise a block takes any two inputs. Raises ValueError for settings that make no space.
    """

    operations: tuple[str, ...] = OPERATIONS
    blocks: int = 5
    back: int = 2
    chained: bool = False

    def __post_init__(self):
        object.__setattr__(self, "operations", tuple(self.operations))
        for operation in self.operations:
            if operation not in OPERATIONS:
                raise ValueError(f"operations: {operation!r} is unknown; {paths.did_you_mean(operation, OPERATIONS)}")
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise ValueError(f"operations: give at least one, each once; got {self.operations}")
        if self.blocks < 1 or self.back not in (1, 2):
            raise ValueError(f"a space needs blocks >= 1 and back 1 or 2; got blocks={self.blocks}, back={self.back}")

    def choices(self, number: int) -> list[Block]:
        """Every block that can stand at place `number` (from 0), each once."""
        outside = [Branch(-i, o) for i in range(1, self.back + 1) for o in self.operations]
        if not self.chained:
            inside = [Branch(i, o) for i in range(number) for o in self.operations]
            return list(itertools.combinations_with_replacement(sorted(outside + inside), 2))
        if number == 0:
            return list(itertools.combinations_with_replacement(sorted(outside), 2))
        return [(earlier, Branch(number - 1, o)) for earlier in sorted(outside) for o in self.operations]

    def first_level(self) -> list[Cell]:
        """All cells of one block."""
        return [Cell((block,)) for block in self.choices(0)]

    def children(self, cell: Cell) -> list[Cell]:
        """All cells that one block more makes of this one, each once; none if it is full."""
        if len(cell) >= self.blocks:
            return []
        found = {Cell((*cell.blocks, block)).canonical(): None for block in self.choices(len(cell))}
        return list(found)

    def expand(self, cells) -> list[Cell]:
        """The children of several cells, each once."""
        return list(dict.fromkeys(child for cell in cells for child in self.children(cell)))

    def cells(self, blocks: int | None = None) -> list[Cell]:
        """Every cell with so many blocks (default: the most). Grows quickly: 4 operations, chained, 3 blocks make 2,560."""
        return list(_level(self, self.blocks if blocks is None else blocks))

    def __contains__(self, cell: Cell) -> bool:
        cell = cell.canonical()
        return len(cell) <= self.blocks and all(tuple(sorted(block)) in self._allowed[number] for number, block in enumerate(cell.blocks))

    @cached_property
    def _allowed(self) -> list[set[Block]]:
        return [{tuple(sorted(block)) for block in self.choices(number)} for number in range(self.blocks)]

    def random(self, dice: random.Random, blocks: int | None = None) -> Cell:
        """A cell of full size (or of so many blocks), each block drawn evenly from its choices."""
        return Cell(tuple(dice.choice(self.choices(number)) for number in range(blocks or self.blocks))).canonical()

    def neighbours(self, cell: Cell) -> list[Cell]:
        """All other cells that differ from this one by one operation or by one input."""
        found = {Cell(blocks).canonical(): None for blocks in self._edits(cell)}
        return [other for other in found if other in self and other != cell.canonical()]

    def mutate(self, cell: Cell, dice: random.Random) -> Cell:
        """A neighbour at random (Real et al. 2019: one operation or one input changes)."""
        return dice.choice(self.neighbours(cell))

    def _edits(self, cell: Cell) -> Iterator[tuple[Block, ...]]:
        for number, block in enumerate(cell.blocks):
            sources = [-i for i in range(1, self.back + 1)] + list(range(number))
            for side, (source, operation) in enumerate(block):
                changed = [Branch(source, o) for o in self.operations] + [Branch(s, operation) for s in sources]
                for branch in changed:
                    new = (branch, block[1]) if side == 0 else (block[0], branch)
                    yield (*cell.blocks[:number], new, *cell.blocks[number + 1:])


@lru_cache(maxsize=16)
def _level(space: Space, blocks: int) -> tuple[Cell, ...]:
    return tuple(space.expand(_level(space, blocks - 1)) if blocks > 1 else space.first_level())


BENCHMARK_SPACE = Space(("identity", "sep3", "avg3", "max3"), blocks=3, back=1, chained=True)
