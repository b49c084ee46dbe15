"""tlutils.nas_cells: one form for each cell, and spaces that are closed and counted right."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlutils.nas_cells import BENCHMARK_SPACE, OPERATIONS, Branch, Cell, Space

TINY = Space(("sep3", "max3"), blocks=3, back=1)
SPACES = [Space(), Space(("sep3", "identity"), blocks=4, back=2), TINY, BENCHMARK_SPACE]


@st.composite
def cells(draw, most=5):
    """Any cell, in any order of writing."""
    def branch(number):
        return Branch(draw(st.integers(-2, number - 1)), draw(st.sampled_from(OPERATIONS[:3])))
    return Cell(tuple((branch(number), branch(number)) for number in range(draw(st.integers(1, most)))))


def rewritten(cell, dice):
    """The same cell with its blocks in another possible order and the branches of some swapped."""
    order, waiting = [], list(range(len(cell)))
    while waiting:
        ready = [n for n in waiting if all(source < 0 or source in order for source, _ in cell.blocks[n])]
        order.append(dice.choice(ready))
        waiting.remove(order[-1])
    place = {number: i for i, number in enumerate(order)}
    blocks = [[Branch(place.get(source, source), operation) for source, operation in cell.blocks[n]] for n in order]
    return Cell(tuple(tuple(block[::dice.choice((1, -1))]) for block in blocks))


# ---------------------------------------------------------------------------- canonical form
@settings(max_examples=150, deadline=None)
@given(cell=cells(), seed=st.integers(0, 10**6))
def test_all_ways_to_write_a_cell_have_one_form(cell, seed):
    other = rewritten(cell, random.Random(seed))
    assert other.canonical() == cell.canonical()
    assert cell.canonical().canonical() == cell.canonical() and len(cell.canonical()) == len(cell)
    assert len(other.unused) == len(cell.unused)


@settings(max_examples=60, deadline=None)
@given(cell=cells())
def test_printed_and_read_again_it_is_the_same(cell):
    assert Cell.parse(str(cell)) == cell


def test_different_cells_have_different_forms():
    twice = Cell.parse("h1 sep3 + h1 sep3; h1 sep3 + h1 sep3; b1 max3 + b1 max3")     # the second block is left over
    both = Cell.parse("h1 sep3 + h1 sep3; h1 sep3 + h1 sep3; b1 max3 + b2 max3")
    assert twice.canonical() != both.canonical()
    assert len(twice.unused) == 2 and len(both.unused) == 1
    assert Cell.parse("h1 sep3 + h1 sep3; h1 sep3 + h1 sep3; b2 max3 + b2 max3").canonical() == twice.canonical()


def all_forms(cell):
    """Every way to write the cell, by brute force."""
    for order in itertools.permutations(range(len(cell))):
        place = {number: i for i, number in enumerate(order)}
        blocks = [tuple((place.get(source, source), operation) for source, operation in cell.blocks[n]) for n in order]
        if all(source < i for i, block in enumerate(blocks) for source, _ in block):
            yield from itertools.product(*[(block, block[::-1]) for block in blocks])


@pytest.mark.parametrize("operations, back, blocks, raw", [
    (("sep3", "max3"), 1, 2, 64), (("sep3",), 2, 3, 4 * 9 * 16), (("sep3", "max3"), 1, 3, 2304)])
def test_the_space_holds_each_different_cell_once(operations, back, blocks, raw):
    space = Space(operations, blocks=blocks, back=back)
    branches = [list(itertools.product([*range(-back, 0), *range(number)], operations)) for number in range(blocks)]
    written = [Cell(blocks) for blocks in itertools.product(*(itertools.product(b, b) for b in branches))]
    different = {min(all_forms(cell)) for cell in written}
    found = space.cells()
    assert len(written) == raw and len(found) == len(set(found)) == len(different)
    assert {min(all_forms(cell)) for cell in found} == different
    assert {cell.canonical() for cell in written} == set(found)


def test_known_sizes():
    assert len(Space().first_level()) == 136                       # the paper's 256 cells of one block, without duplicates
    assert [len(BENCHMARK_SPACE.cells(blocks)) for blocks in (1, 2, 3)] == [10, 160, 2560]
    written = {Cell(tuple(blocks)).canonical() for blocks in itertools.product(*[
        itertools.product([Branch(-1, o) for o in BENCHMARK_SPACE.operations],
                          [Branch(number - 1, o) for o in BENCHMARK_SPACE.operations]) for number in range(3)])}
    assert written == set(BENCHMARK_SPACE.cells(3))


# ---------------------------------------------------------------------------- spaces
@settings(max_examples=25, deadline=None)
@given(space=st.sampled_from(SPACES), seed=st.integers(0, 999))
def test_a_space_is_closed(space, seed):
    dice = random.Random(seed)
    cell = space.random(dice, blocks=dice.randint(1, space.blocks))
    children, around = space.children(cell), space.neighbours(cell)
    assert cell in space and cell == cell.canonical()
    assert (children == []) == (len(cell) == space.blocks)
    for found in children[:40], around:
        assert all(other in space and other == other.canonical() for other in found) and len(found) == len(set(found))
    assert all(len(child) == len(cell) + 1 for child in children[:40])
    assert cell not in around and {len(other) for other in around} <= {len(cell)}
    assert space.mutate(cell, dice) in around


def test_neighbours_differ_by_one_step_and_see_each_other():
    space = BENCHMARK_SPACE
    cell = space.random(random.Random(0))
    around = space.neighbours(cell)
    assert 15 <= len(around) <= 6 * 3
    assert all(cell in space.neighbours(other) for other in around)


def test_expanding_all_cells_gives_all_larger_ones():
    assert set(TINY.expand(TINY.cells(2))) == set(TINY.cells(3))
    one, two = BENCHMARK_SPACE.cells(1)[:2]
    assert len(BENCHMARK_SPACE.expand([one, two, one])) == 32 and len(BENCHMARK_SPACE.children(one)) == 16


def test_what_is_not_in_a_space():
    assert Cell.parse("h1 sep5 + h1 sep3") not in BENCHMARK_SPACE                          # another operation
    assert Cell.parse("h2 sep3 + h1 sep3") not in BENCHMARK_SPACE                          # another input
    assert Cell.parse("h1 sep3 + h1 sep3; h1 sep3 + h1 sep3") not in BENCHMARK_SPACE       # no chain
    assert Cell.parse("; ".join(["h1 sep3 + h1 sep3"] * 6)) not in Space()                 # too large


def test_the_output_is_what_nothing_uses():
    assert Cell.parse("h1 sep3 + h2 max3; b1 sep3 + h1 sep3; h1 sep3 + b1 max3").unused == (1, 2)


# ---------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("text, says", [
    ("h1 sep3 + b1 max3", "block 1 takes b1, which does not exist yet: it can take h1, h2"),
    ("h1 sep3 + h1 max3; b2 sep3 + h1 sep3", "block 2 takes b2, which does not exist yet: it can take h1, h2, b1"),
    ("h3 sep3 + h1 max3", "block 1 takes h3"),
    ("h1 sep33 + h1 max3", "block 1 has the unknown operation 'sep33'; did you mean 'sep3'"),
    ("h1 sep3", "block 1 has 1 branches"),
    ("h1 sep3 + max3", "'max3' in .* is no branch"),
    ("h1 sep3 + h0 max3", "'h0 max3' in .* is no branch"),
    ("", "is no branch"),
])
def test_a_cell_that_can_not_be_says_why(text, says):
    with pytest.raises(ValueError, match=says):
        Cell.parse(text)


def test_bad_spaces_and_empty_cells():
    with pytest.raises(ValueError, match="at least one block"):
        Cell(())
    with pytest.raises(ValueError, match="operations: 'conv' is unknown"):
        Space(("conv",))
    with pytest.raises(ValueError, match="each once"):
        Space(("sep3", "sep3"))
    with pytest.raises(ValueError, match="blocks >= 1 and back 1 or 2"):
        Space(blocks=0)
