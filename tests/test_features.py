"""tlutils.features: one pass, nothing changed, and a cache that knows what it depends on."""
from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
from tiny import data, network
from torch import nn

from tlutils import features, freezing

X, _ = data(20)


@pytest.fixture
def backbone():
    """In training mode, with batch norm and dropout: what must not matter."""
    return network(dropout=0.5)[0].train()


class Counted(nn.Module):
    """Counts the examples that pass through."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.seen = backbone, 0

    def forward(self, x):
        self.seen += len(x)
        return self.backbone(x)


def test_features_are_those_of_evaluation_mode_whatever_the_batch_size(backbone):
    with torch.no_grad():
        expected = network(dropout=0.5)[0].eval()(X)
    for batch_size in (1, 7, 100):
        found = features.extract(backbone, X, batch_size=batch_size)
        assert found.shape == (20, 8) and found.dtype == torch.float32 and not found.requires_grad
        torch.testing.assert_close(found, expected)


def test_the_backbone_is_left_as_it_was(backbone):
    backbone.stages.low.eval()
    before = [part.training for part in backbone.modules()]
    with freezing.assert_frozen(backbone):
        features.extract(backbone, X)
    assert [part.training for part in backbone.modules()] == before
    assert all(p.grad is None and p.requires_grad for p in backbone.parameters())


def test_preprocessing_of_a_loaded_network_and_of_the_call(backbone):
    loaded = SimpleNamespace(backbone=backbone, preprocess=lambda x: x * 2)
    torch.testing.assert_close(features.extract(loaded, X), features.extract(backbone, X * 2))
    tripled = features.extract(loaded, X, preprocess=lambda x: x * 3)
    torch.testing.assert_close(tripled, features.extract(backbone, X * 3))


def test_bytes_are_pictures(backbone):
    x = (X * 255).to(torch.uint8)
    torch.testing.assert_close(features.extract(backbone, x), features.extract(backbone, x.float() / 255))


class Lengths(nn.Module):
    def forward(self, texts):
        return torch.tensor([[float(len(text)), 1.0] for text in texts])


def test_texts(tmp_path):
    texts = ["a", "bcd", ""]
    for _ in range(2):
        assert features.extract(Lengths(), texts, batch_size=2, cache=tmp_path)[:, 0].tolist() == [1, 3, 0]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_second_call_reads_the_file(backbone, tmp_path):
    counted = Counted(backbone)
    first = features.extract(counted, X, cache=tmp_path / "new" / "folder")
    second = features.extract(counted, X, cache=tmp_path / "new" / "folder")
    assert counted.seen == 20 and torch.equal(first, second)


def change_weight(backbone):
    with torch.no_grad():
        next(backbone.parameters()).view(-1)[0] += 1e-3
    return backbone


def change_buffer(backbone):
    backbone.stages.low[1].running_var[0] *= 2
    return backbone


def change_stride(backbone):
    backbone.stages.low[0].stride = (1, 1)
    return backbone


@pytest.mark.parametrize("change", [
    lambda b, x: (change_weight(b), x, {}), lambda b, x: (change_buffer(b), x, {}),
    lambda b, x: (change_stride(b), x, {}),
    lambda b, x: (b, torch.cat([x[:-1], x[:1]]), {}), lambda b, x: (b, x[:10], {}),
    lambda b, x: (b, x, {"preprocess": torch.sqrt}), lambda b, x: (b, x, {"fingerprint": "v2"}),
    lambda b, x: (b, x, {"preprocess": functools.partial(torch.clamp, max=0.2)})])
def test_whatever_the_features_depend_on_is_in_the_key(backbone, tmp_path, change):
    features.extract(backbone, X, cache=tmp_path)
    changed, x, options = change(backbone, X)
    found = features.extract(changed, x, cache=tmp_path, **options)
    torch.testing.assert_close(found, features.extract(changed, x, preprocess=options.get("preprocess")))
    assert len(list(tmp_path.iterdir())) == 2


def test_partials_with_other_settings_do_not_share_a_file(backbone, tmp_path):
    for most in (0.2, 0.4):
        features.extract(backbone, X, preprocess=functools.partial(torch.clamp, max=most), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_file_is_replaced_with_a_warning(backbone, tmp_path, damage):
    from safetensors.torch import save_file

    expected = features.extract(backbone, X, cache=tmp_path)
    file, = tmp_path.iterdir()
    if damage == "other":
        save_file({"features": torch.zeros(3, 8)}, file)
    else:
        file.write_bytes(file.read_bytes()[:100] if damage == "cut" else b"")
    with pytest.warns(UserWarning, match="computed again"):
        assert torch.equal(features.extract(backbone, X, cache=tmp_path), expected)
    counted = Counted(backbone)
    assert torch.equal(features.extract(counted.backbone, X, cache=tmp_path), expected)


def test_nothing_is_left_when_it_fails(backbone, tmp_path):
    with pytest.raises(ValueError, match=r"\(20, 8, 2, 2\), not \(N, D\)"):
        features.extract(backbone.stages, X, cache=tmp_path)
    with pytest.raises(ValueError, match="empty"):
        features.extract(backbone, X[:0])
    assert not list(tmp_path.iterdir())


def test_a_forward_pass_that_changes_its_buffers_is_found():
    class Drifts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count += 1
            return x.flatten(1)

    with pytest.raises(AssertionError, match="buffer 'count'"):
        features.extract(Drifts(), X)


@pytest.mark.gpu
def test_on_a_gpu(backbone, tmp_path):
    expected = features.extract(backbone, X)
    found = features.extract(backbone.cuda(), X, cache=tmp_path)
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert features.extract(backbone, X.cuda(), cache=tmp_path).device.type == "cuda"
    assert len(list(tmp_path.iterdir())) == 1
