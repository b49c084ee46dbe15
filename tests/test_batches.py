"""tlutils.batches: every batch follows from the seed and the step alone."""
from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import stream
from torch.utils.data import DataLoader, TensorDataset

from tlutils import batches

CPU = torch.device("cpu")


def source(train, batch_size=4, accumulate=1, seed=0, channels_last=False):
    return batches.source(train, batch_size=batch_size, accumulate=accumulate, seed=seed, device=CPU,
                          channels_last=channels_last)


def numbered(n: int):
    return torch.arange(n, dtype=torch.float32).reshape(n, 1), torch.arange(n)


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 3))
def test_an_epoch_uses_no_example_twice_and_batches_are_full(n, batch_size, seed):
    draw = source(numbered(n), batch_size, seed=seed)
    size = min(n, batch_size)
    per_epoch = n // size
    for epoch in range(2):
        seen = torch.cat([draw(epoch * per_epoch + i).y for i in range(per_epoch)])
        assert len(seen) == per_epoch * size == len(set(seen.tolist()))
    batch = draw(3)
    assert torch.equal(batch.x[:, 0].long(), batch.y) and torch.equal(batch.indices, batch.y)


def test_over_many_epochs_every_example_is_used_alike():
    draw = source(numbered(10), 4)
    seen = torch.cat([draw(step).y for step in range(2000)])
    assert torch.bincount(seen).float().sub(800).abs().max() < 60


def loaders(seed=None):
    data = TensorDataset(*numbered(10))
    own = torch.Generator().manual_seed(5)
    return {"shuffled": DataLoader(data, 4, shuffle=True), "with a generator": DataLoader(data, 4, shuffle=True,
                                                                                          generator=own)}


def trains():
    return {"in memory": numbered(10), "stream": stream, **loaders()}


@pytest.mark.parametrize("kind", trains())
def test_any_step_can_be_drawn_first(kind):
    """What exact resume rests on."""
    straight = source(trains()[kind])
    expected = [straight(step) for step in range(9)]
    torch.manual_seed(99)                       # the global generator plays no part
    later = source(trains()[kind])
    for step in (5, 6, 8):
        found = later(step)
        assert torch.equal(found.x, expected[step].x) and torch.equal(found.y, expected[step].y)


@pytest.mark.parametrize("kind", trains())
def test_other_seeds_give_other_batches(kind):
    a, b = (torch.cat([source(trains()[kind], seed=seed)(step).y for step in range(2)]) for seed in (0, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("kind", trains())
def test_drawing_leaves_the_global_generator_alone(kind):
    draw = source(trains()[kind])
    draw(0)
    before = torch.get_rng_state()
    draw(1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_loaders_epochs_differ_and_hold_everything():
    draw = source(loaders()["shuffled"])
    epochs = [torch.cat([draw(e * 3 + i).y for i in range(3)]).tolist() for e in range(2)]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))


def test_accumulated_batches_are_the_same_examples_as_one_large_batch():
    for step in range(4):
        assert torch.equal(source(numbered(20), 3, accumulate=2)(step).y, source(numbered(20), 6)(step).y)
    joined = source(DataLoader(TensorDataset(*numbered(12)), 3), accumulate=2)
    assert joined(0).y.tolist() == [0, 1, 2, 3, 4, 5]


def test_bytes_become_floats_and_channels_come_last():
    x = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8)
    batch = source((x, torch.arange(6)), 4, channels_last=True)(0)
    assert batch.x.dtype == torch.float32 and batch.x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.x, x[batch.indices].float() / 255)


def test_writing_into_a_batch_does_not_reach_the_data():
    x, y = numbered(4)
    source((x, y), 10)(0).x.zero_()
    assert torch.equal(x, numbered(4)[0])


def test_texts():
    draw = source((["a", "b", "c", "d", "e"], torch.arange(5)), 2)
    batch = draw(0)
    assert batch.x == ["abcde"[i] for i in batch.y.tolist()]


@given(seed=st.integers(), counter=st.integers(0, 10**6))
def test_derived_seeds_suit_torch_and_depend_on_the_purpose(seed, counter):
    a, b = (batches.derived_seed(seed, purpose, counter) for purpose in ("order", "augment"))
    assert 0 <= a < 2**63 and a != b
    batches.generator(seed, "order", counter)


@pytest.mark.parametrize("wrong, message", [
    ((torch.zeros(0, 3), torch.zeros(0)), "empty"), (([], torch.zeros(0)), "empty"),
    ((torch.zeros(4, 3), torch.zeros(3)), "x has 4 examples, y has 3"),
    ((torch.zeros(4, 3).double(), torch.zeros(4)), "float64"), (torch.zeros(4), "not Tensor"),
    ((torch.zeros(4), [1, 2, 3, 4]), "tuple of Tensor, list"), ((torch.zeros(4),), "tuple of Tensor"),
    (("text", torch.zeros(4)), "tuple of str"), (None, "NoneType")])
def test_bad_data(wrong, message):
    with pytest.raises(ValueError, match=f"train.*{message}"):
        source(wrong)


def test_bad_streams_and_loaders():
    with pytest.raises(ValueError, match="batch of the stream"):
        source(lambda generator, n: torch.zeros(n))(0)
    with pytest.raises(ValueError, match="batch of the DataLoader"):
        source(DataLoader(torch.zeros(4)))(0)
    with pytest.raises(ValueError, match="without a single batch"):
        source(DataLoader(TensorDataset(*numbered(3)), 4, drop_last=True))(0)
