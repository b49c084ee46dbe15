"""tlutils.checkpoint: what goes in comes out, nothing is unpickled, hashes see what matters."""
from __future__ import annotations

import functools
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from tlutils import checkpoint

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
keys = st.text(st.characters(codec="utf-8"), max_size=3).filter(lambda key: key != "__tensor__")
trees = st.recursive(leaves, lambda part: st.lists(part, max_size=3) | st.dictionaries(keys, part, max_size=3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@given(tree=trees)
def test_json_values_come_back(folder, tree):
    checkpoint.save(folder / "any.safetensors", {"tree": tree})
    assert checkpoint.load(folder / "any.safetensors") == {"tree": tree}


def test_tensors_come_back_with_type_bits_and_place(tmp_path):
    shared = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    tree = {"a": [shared, shared], "b": {"nan": torch.tensor(float("nan")), "half": torch.rand(3).bfloat16(),
                                         "empty": torch.zeros(0, 2), "count": torch.tensor(7)}, "c": (1, "x")}
    checkpoint.save(tmp_path / "t.safetensors", tree)
    found = checkpoint.load(tmp_path / "t.safetensors")
    assert all(torch.equal(part, shared) for part in found["a"])
    assert found["b"]["nan"].isnan() and found["b"]["count"] == 7 and found["b"]["empty"].shape == (0, 2)
    assert torch.equal(found["b"]["half"], tree["b"]["half"]) and found["c"] == [1, "x"]


@pytest.mark.parametrize("wrong", [{"f": print}, {"m": nn.Linear(1, 1)}, {1: 2}, {"__tensor__": "x"}, {"s": {1, 2}}])
def test_what_has_no_place_is_refused_and_nothing_is_written(tmp_path, wrong):
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "t.safetensors", {"ok": torch.zeros(1), **wrong})
    assert list(tmp_path.iterdir()) == []


def test_two_names_that_would_be_one_entry_are_kept_apart(tmp_path):
    tree = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    checkpoint.save(tmp_path / "t.safetensors", tree)
    found = checkpoint.load(tmp_path / "t.safetensors")
    assert found["a/b"] == 0 and found["a"]["b"] == 1


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_damaged_pickled_and_other_files_are_refused(tmp_path):
    file = tmp_path / "t.safetensors"
    checkpoint.save(file, {"w": torch.rand(100)})
    whole = file.read_bytes()
    for content in (whole[:-10], whole[:20], b"", pickle.dumps(Trap())):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"t\.safetensors is damaged.*delete it"):
            checkpoint.load(file)
    save_file({"w": torch.rand(2)}, file)
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoint.load(file)


def test_only_this_files_leftovers_are_removed(tmp_path):
    part = f"{'0a' * 16}.part"
    for name in (f".run.safetensors.{part}", f".run.safetensors.2.{part}", ".run.safetensors.keep", "run.safetensors"):
        (tmp_path / name).touch()
    checkpoint.remove_leftovers(tmp_path / "run.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f".run.safetensors.2.{part}", ".run.safetensors.keep", "run.safetensors"]


def test_the_leftover_of_a_real_writer_is_recognised(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.unlink", lambda *a, **k: None)
        patched.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError):
            checkpoint.save(tmp_path / "run.safetensors", {"a": 1})
    assert len(list(tmp_path.iterdir())) == 1
    checkpoint.remove_leftovers(tmp_path / "run.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_check_same_names_the_first_difference():
    checkpoint.check_same({"a": 1, "b": [1.0]}, {"b": [1.0], "a": 1}, "f")
    with pytest.raises(ValueError, match=r"written with lr=0\.1, this call has lr=0\.2"):
        checkpoint.check_same({"a": 1, "lr": 0.2}, {"a": 1, "lr": 0.1}, "f")
    with pytest.raises(ValueError, match="new=null, this call has new=1"):
        checkpoint.check_same({"new": 1}, {}, "f")


def test_in_words_tells_settings_apart_and_has_no_addresses():
    words = [checkpoint.in_words(v) for v in (
        len, functools.partial(round, ndigits=1), functools.partial(round, ndigits=2), nn.CrossEntropyLoss(),
        lambda x: x, object())]
    assert len(set(words)) == len(words) and not any("0x" in w for w in words)
    assert checkpoint.in_words((1, "a", None)) == [1, "a", None]


def test_digest_sees_names_types_shapes_and_bytes_but_not_layout():
    x = torch.rand(2, 3, 4, 4)
    assert checkpoint.digest(x) == checkpoint.digest(x.to(memory_format=torch.channels_last).clone())
    different = [checkpoint.digest(*v) for v in (
        (x,), (x + 1,), (x.reshape(-1),), (x.int(),), (x.bfloat16(),), (x, x), ({"a": x},), ({"b": x},), ("a", "b"),
        ("ab",), (["a", "b"],), (["a"], ["b"]), (torch.zeros(()),), ())]
    assert len(set(different)) == len(different)
