"""tlutils.compression: sizes that can be counted by hand, and what 8 bits leave."""

import pytest
import torch
from torch import nn

from tlutils import compression


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 64), nn.ReLU(), nn.Linear(64, 10)).eval()


X = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_parameters_are_counted_once():
    shared = nn.Linear(4, 3, bias=False)
    assert compression.parameters(nn.Sequential(shared, nn.ReLU(), shared)) == 12
    assert compression.parameters(network()) == 3 * 4 * 9 + 4 + 144 * 64 + 64 + 640 + 10


def test_bytes_on_disk_follow_the_numbers():
    small, large = nn.Linear(100, 100), nn.Linear(100, 1100)
    assert compression.disk_bytes(large) - compression.disk_bytes(small) == pytest.approx(4 * 101 * 1000, rel=0.02)


@pytest.mark.parametrize("kind", compression.INT8)
def test_eight_bits_stay_close_and_leave_the_original_and_the_convolutions_alone(kind):
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = compression.quantised(net, kind)
    with torch.no_grad():
        gap = (made(X) - net(X)).abs().max()
    assert 0 < gap < 0.02 and not made.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert type(made[0].weight) is nn.Parameter and torch.equal(made[0].weight, net[0].weight)
    saved = 3 * (144 * 64 + 640)
    assert compression.disk_bytes(net) - compression.disk_bytes(made) == pytest.approx(saved, rel=0.2)


def test_what_is_stored_are_the_rounded_weights():
    net = network()
    made, weight = compression.quantised(net), net[2].weight.detach()
    rounded, stored = compression.rounded_to_8_bits(weight), made[2].weight.dequantize().detach()
    step = weight.abs().amax(1, keepdim=True) / 127.5
    assert ((stored - weight).abs() <= step).all() and ((rounded - weight).abs() <= step).all()
    assert ((stored - rounded).abs() <= 1.01 * step).all()
    assert len(torch.unique(rounded[0])) <= 256


def test_a_row_of_zeros_stays_zero():
    assert not compression.rounded_to_8_bits(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))[0].any()


def test_the_share_that_can_shrink():
    assert compression.share_in_linear(network()) == pytest.approx((144 * 64 + 640) / compression.parameters(network()))
    assert compression.share_in_linear(nn.Conv2d(1, 1, 3)) == 0


def test_times_are_taken_in_turn():
    class Log(nn.Module):
        def forward(self, x):
            order.append(id(self))
            return x

    order, a, b = [], Log().eval(), Log().eval()
    taken = compression.milliseconds({"a": a, "b": b}, X, repeats=3)
    assert order == [id(a), id(b)] * 4 and [len(t) for t in taken.values()] == [3, 3]
    assert all(t >= 0 for t in taken["a"]) and compression.median([3, 1, 9]) == 3


def test_bad_input():
    with pytest.raises(ValueError, match="kind='int4' must be one of 'weights', 'weights and activations'"):
        compression.quantised(network(), "int4")
    with pytest.raises(ValueError, match="training mode"):
        compression.quantised(network().train())
    with pytest.raises(ValueError, match="no linear layer"):
        compression.quantised(nn.Conv2d(1, 1, 3).eval())
    with pytest.raises(ValueError, match="it is in training mode|a is in training mode"):
        compression.milliseconds({"a": network().train()}, X)
    with pytest.raises(ValueError, match="repeats=0"):
        compression.milliseconds({"a": network()}, X, repeats=0)
