"""tlutils.weights: files are read without unpickling, and fit a network tensor by tensor or not at all."""

import hashlib
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from tlutils import weights


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("TLUTILS_WEIGHTS", raising=False)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return open, (str(self.proof), "w")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_every_format_gives_the_same_tensors(tmp_path, suffix):
    state, file = network().state_dict(), tmp_path / f"net{suffix}"
    safetensors.torch.save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    read = weights.read(file)
    assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)


def test_half_precision_becomes_float32_and_counters_stay(tmp_path):
    torch.save(network().half().state_dict(), tmp_path / "net.pth")
    read = weights.read(tmp_path / "net.pth")
    assert read["0.weight"].dtype == torch.float32 and read["1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("protocol", ["torch", "plain pickle"])
def test_a_file_that_needs_unpickling_is_refused_and_runs_nothing(tmp_path, protocol):
    file, proof = tmp_path / "evil.pth", tmp_path / "proof"
    content = {"weight": torch.zeros(2), "more": Payload(proof)} if protocol == "torch" else Payload(proof)
    torch.save(content, file) if protocol == "torch" else file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r"evil\.pth can only be read by unpickling"):
        weights.read(file)
    assert not proof.exists()
    torch.save({"more": Payload(proof)}, tmp_path / "control.pth")
    torch.load(tmp_path / "control.pth", weights_only=False)
    assert proof.exists(), "the payload is live, so the test above means something"


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 600])
def test_a_damaged_file_says_so(tmp_path, name, keep):
    state, file = network().state_dict(), tmp_path / name
    safetensors.torch.save_file(state, file) if name.endswith("safetensors") else torch.save(state, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{name} is damaged or incomplete"):
        weights.read(file)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"state_dict": {"w": torch.zeros(1)}, "epoch": 3}, "'state_dict' is a dict"),
        ([torch.zeros(1)], "holds a list"),
        ({}, "not a state dict"),
    ],
)
def test_something_else_than_a_state_dict(tmp_path, content, message):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=message):
        weights.read(tmp_path / "net.pth")


def test_no_file_and_another_kind_of_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        weights.read(tmp_path / "net.pth")
    (tmp_path / "net.pkl").write_bytes(b"x")
    with pytest.raises(ValueError, match="must end in"):
        weights.read(tmp_path / "net.pkl")


def test_fit_loads_every_tensor():
    source, target = network(), network()
    weights.fit(target, source.state_dict(), "file")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_fit_names_the_first_wrong_tensor_and_changes_nothing():
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    other = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4)).state_dict()
    with pytest.raises(ValueError, match=r"0\.weight is \(4, 3, 5, 5\) in the file and \(4, 3, 3, 3\) in the network"):
        weights.fit(model, other, "file f")
    with pytest.raises(ValueError, match=r"file f does not fit.*lacks 1\.weight \(4,\)"):
        weights.fit(model, {key: v for key, v in before.items() if not key.startswith("1")}, "file f")
    with pytest.raises(ValueError, match=r"holds 2\.weight \(4,\), which the network does not have"):
        weights.fit(model, before | {"2.weight": torch.zeros(4)}, "file f")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_old_files_without_batch_norm_counters_fit():
    state = {key: value for key, value in network().state_dict().items() if "tracked" not in key}
    weights.fit(network(), state, "file")


def test_files_are_found_in_order_then_fetched_and_checked(tmp_path, monkeypatch):
    content = b"some weights"
    name = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / name).write_bytes(content)
    url = (tmp_path / "away" / name).as_uri()
    fetched = weights.find_or_fetch(url, weights.hub_folders())
    assert fetched == tmp_path / "cache" / "weights" / name and fetched.read_bytes() == content
    (tmp_path / "away" / name).unlink()
    assert weights.find_or_fetch(url, weights.hub_folders()) == fetched
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    fetched.rename(hub / name)
    assert weights.find_or_fetch(url, weights.hub_folders()) == hub / name
    (hub / name).write_bytes(b"others")
    with pytest.raises(ValueError, match="checksum of the file .*tiny.*delete it"):
        weights.find_or_fetch(url, weights.hub_folders())
    (hub / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}.*{url}.*weights"):
        weights.find_or_fetch(url, weights.hub_folders())
    assert not list((tmp_path / "cache" / "weights").iterdir())
