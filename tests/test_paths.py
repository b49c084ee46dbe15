"""tlutils.paths: folders by environment, hashes, writing that is whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlutils import paths


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))


def served(tmp_path: Path, content: bytes) -> str:
    """A url that needs no network."""
    file = tmp_path / "served" / "thing.bin"
    file.parent.mkdir()
    file.write_bytes(content)
    return file.as_uri()


def test_the_book_has_its_data():
    assert (paths.data_dir() / "weights").is_dir()


def test_an_installation_without_data_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "tlutils")
    with pytest.raises(FileNotFoundError, match="incomplete"):
        paths.data_dir()
    (tmp_path / "tlutils" / "data" / "weights").mkdir(parents=True)
    assert paths.data_dir() == tmp_path / "tlutils" / "data", "in a wheel the data lie inside the package"


def test_cache_is_made_on_demand(tmp_path):
    assert paths.cache_dir() == tmp_path / "cache" and (tmp_path / "cache").is_dir()


def test_named_folders_go_before_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_DATA", f"{tmp_path / 'a'}{os.pathsep}{os.pathsep}{tmp_path / 'b'}")
    monkeypatch.delenv("TLUTILS_WEIGHTS", raising=False)
    assert paths.local_folders() == [tmp_path / "a", tmp_path / "b", tmp_path / "cache" / "data"]
    assert paths.weight_folders() == [tmp_path / "cache" / "weights"]


def test_sha256_of_known_content(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert paths.sha256_file(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


def test_sha256_of_a_folder_is_that_of_its_listing(tmp_path):
    folder = tmp_path / "set"
    for name, content in {"b.txt": b"2", "a/z.txt": b"1", "a.txt": b"3"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    listing = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in [("a.txt", b"3"), ("a/z.txt", b"1"), ("b.txt", b"2")]  # byte order: "." before "/"
    )
    assert paths.sha256_folder(folder) == hashlib.sha256(listing.encode()).hexdigest()
    (folder / "a" / "z.txt").rename(folder / "a" / "y.txt")
    assert paths.sha256_folder(folder) != hashlib.sha256(listing.encode()).hexdigest(), "names count"


def test_sha256_of_no_folder(tmp_path):
    with pytest.raises(NotADirectoryError, match="not a folder"):
        paths.sha256_folder(tmp_path / "none")


def test_atomic_write_makes_folders_and_replaces(tmp_path):
    file = tmp_path / "new" / "card.json"
    paths.atomic_write(file, "é")
    paths.atomic_write(file, b"second")
    assert file.read_bytes() == b"second" and list(file.parent.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path):
    file = tmp_path / "f"
    file.write_text("old")
    with pytest.raises(RuntimeError), paths.replacing(file) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert file.read_text() == "old" and list(tmp_path.glob("*.part")) == [] == list(tmp_path.glob(".*"))


def test_written_files_can_be_read_by_others(tmp_path):
    paths.atomic_write(tmp_path / "f", b"x")
    (tmp_path / "usual").write_bytes(b"x")
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_fetch_checks_and_keeps(tmp_path):
    url = served(tmp_path, b"weights")
    file = paths.fetch(url, tmp_path / "to" / "thing.bin", sha256=hashlib.sha256(b"weights").hexdigest()[:8])
    assert file.read_bytes() == b"weights"


def test_fetch_with_another_checksum_keeps_nothing(tmp_path):
    with pytest.raises(ValueError, match="checksum of what file.*expected 00000000.*found"):
        paths.fetch(served(tmp_path, b"weights"), tmp_path / "to" / "thing.bin", sha256="00000000")
    assert list((tmp_path / "to").iterdir()) == []


def test_fetch_of_what_is_not_there_says_what_from_where_and_whereto(tmp_path):
    url = served(tmp_path, b"") + ".gone"
    with pytest.raises(FileNotFoundError) as error:
        paths.fetch(url, tmp_path / "to" / "thing.bin", sha256="")
    assert all(part in str(error.value) for part in ("thing.bin", url, str(tmp_path / "to")))
    assert list((tmp_path / "to").iterdir()) == []


def test_near_names():
    assert paths.did_you_mean("resnet81", ["resnet18", "vgg16"]) == "did you mean 'resnet18'?"
    assert paths.did_you_mean("zzz", ["resnet18", "vgg16"]) == "known are 'resnet18', 'vgg16'"


@given(st.binary(max_size=200), st.integers(0, 64))
def test_a_checksum_passes_by_its_first_digits(tmp_path_factory, content, length):
    file = tmp_path_factory.getbasetemp() / "checked"
    file.write_bytes(content)
    whole = hashlib.sha256(content).hexdigest()
    assert paths.check_sha256(file, whole[:length], "it", "remedy") == whole
    with pytest.raises(ValueError, match="remedy"):
        paths.check_sha256(file, "x" + whole, "it", "remedy")


def test_a_slip_is_near_and_another_name_is_not():
    assert paths.near("bert-minni", ["bert-mini", "gpt-mini"]) and not paths.near("bert-base-uncased", ["bert-mini", "distilbert-mini"])
