"""tlutils.nas_predictors: what cells look like as numbers, and guesses that order cells larger than all that were seen."""

import random

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tlutils.nas_cells import BENCHMARK_SPACE, Cell
from tlutils.nas_predictors import WIDTH, Predictor, encode

WORTH = {"identity": 0.0, "sep3": 0.10, "avg3": -0.04, "max3": 0.03}


def worth(cell):
    """A made-up accuracy: operations on the chain count more than those on the shortcut."""
    return 0.3 + sum(WORTH[operation] * (1.0 if source >= 0 else 0.4) for block in cell.blocks for source, operation in block)


SMALL = BENCHMARK_SPACE.cells(1) + random.Random(1).sample(BENCHMARK_SPACE.cells(2), 40)
LARGE = BENCHMARK_SPACE.cells(3)[::10]


def test_a_block_is_four_ones():
    cells = [Cell.parse("h1 sep3 + h2 max3"), Cell.parse("h1 sep3 + h1 sep3; b1 max3 + h1 sep3")]
    blocks, lengths = encode(cells)
    assert blocks.shape == (2, 2, WIDTH) and lengths.tolist() == [1, 2]
    assert blocks.sum(2).tolist() == [[4, 0], [4, 4]]
    assert not torch.equal(blocks[1, 0], blocks[1, 1])
    swapped, _ = encode([Cell.parse("h2 max3 + h1 sep3")])
    assert torch.equal(swapped[0, 0], blocks[0, 0])


def test_the_block_before_looks_the_same_at_every_place():
    blocks, _ = encode([Cell.parse("h1 sep3 + h1 sep3; b1 max3 + h1 sep3; b2 max3 + h1 sep3")])
    assert torch.equal(blocks[0, 1], blocks[0, 2])


@pytest.mark.parametrize("kinds", [("mlp",), ("lstm",), ("mlp", "lstm")])
def test_cells_one_block_larger_than_all_seen_are_put_in_order(kinds):
    predictor = Predictor(kinds, members=3).fit(SMALL, [worth(cell) for cell in SMALL])
    assert spearmanr(predictor.predict(LARGE), [worth(cell) for cell in LARGE])[0] > 0.9
    assert spearmanr(predictor.predict(SMALL), [worth(cell) for cell in SMALL])[0] > 0.95


def test_guesses_are_in_the_unit_of_the_accuracies_and_repeat():
    values = [100 * worth(cell) for cell in SMALL]
    one, other = (Predictor(members=2, steps=60, seed=3).fit(SMALL, values) for _ in range(2))
    assert np.array_equal(one.predict(LARGE), other.predict(LARGE))
    assert one.guesses(LARGE).shape == (4, len(LARGE)) and one.predict([]).shape == (0,)
    assert abs(one.predict(SMALL).mean() - np.mean(values)) < 3


def test_members_differ_and_a_single_one_sees_all():
    found = Predictor(("mlp",), members=3, steps=20).fit(SMALL, [worth(cell) for cell in SMALL]).guesses(LARGE)
    assert not np.allclose(found[0], found[1])
    assert Predictor(("mlp",), members=1, steps=5).fit(SMALL[:2], [0.1, 0.2]).guesses(LARGE).shape == (1, len(LARGE))


def test_warm_keeps_what_was_learned_elsewhere():
    few, values = SMALL[:10], [worth(cell) / 2 for cell in SMALL[:10]]
    truth = [worth(cell) for cell in LARGE]
    warm = Predictor(members=2).fit(SMALL, [worth(cell) for cell in SMALL]).fit(few, values, warm=True)
    cold = Predictor(members=2).fit(few, values)
    assert spearmanr(warm.predict(LARGE), truth)[0] > spearmanr(cold.predict(LARGE), truth)[0]


def test_equal_accuracies_are_no_trouble():
    assert np.allclose(Predictor(members=1, steps=40).fit(SMALL, [0.5] * len(SMALL)).predict(LARGE), 0.5, atol=0.2)


@pytest.mark.parametrize("do, says", [
    (lambda: Predictor(("tree",)), "kinds: give some of mlp, lstm"),
    (lambda: Predictor(members=0), "members >= 1"),
    (lambda: Predictor().fit(SMALL[:1], [0.1]), "two cells or more"),
    (lambda: Predictor().fit(SMALL[:3], [0.1]), "got 3 cells, 1 accuracies"),
    (lambda: Predictor().fit(SMALL[:2], [0.1, float("nan")]), "not finite at h1"),
    (lambda: Predictor().fit(SMALL[:2], [0.1, 0.2], warm=True), "goes on from an earlier fit"),
    (lambda: Predictor().predict(SMALL), "call fit first"),
])
def test_bad_input(do, says):
    with pytest.raises(ValueError, match=says):
        do()
