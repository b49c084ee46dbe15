"""tlutils.datasets: splits that share nothing, cards, sets read from small copies made here and from real folders."""

import hashlib
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tlutils import datasets, paths, readers, sources


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def local(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "local"
    folder.mkdir()
    monkeypatch.setenv("TLUTILS_DATA", str(folder))
    return folder


def picture(file: Path, colour: tuple[int, int, int], size=(40, 24)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)


def ants_and_bees(folder: Path) -> Path:
    """4 + 4 training and 2 + 2 test images, every one of another colour."""
    for label, name in enumerate(("ants", "bees")):
        for i in range(4):
            picture(folder / "train" / name / f"{i}.png", (100 * label, 20 * i, 0))
        for i in range(2):
            picture(folder / "val" / name / f"{i}.png", (100 * label, 20 * i, 200))
    return folder


# Splits


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=60),
    st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.6, 0.2, 0.2)]),
    st.integers(0, 5),
)
def test_parts_share_no_item_and_lose_none(items, fractions, seed):
    x, y = [f"text {content}" for content, _ in items], [label for _, label in items]
    parts = datasets.split(x, y, fractions=fractions, seed=seed)
    everything = np.concatenate(list(parts.values()))
    assert sorted(everything) == list(range(len(x)))
    contents = [{x[i] for i in indices} for indices in parts.values()]
    assert sum(map(len, contents)) == len(set(x)), "a content stands in two parts"
    assert parts.duplicates == len(x) - len(set(x))


@given(st.integers(5, 40), st.integers(1, 4), st.integers(0, 5))
def test_classes_keep_their_proportions(per_class, classes, seed):
    y = np.repeat(np.arange(classes), per_class)
    parts = datasets.split([f"{i}" for i in range(len(y))], y, fractions=(0.6, 0.2, 0.2), seed=seed)
    for part, fraction in zip(("train", "validation", "test"), (0.6, 0.2, 0.2), strict=True):
        assert np.abs(np.bincount(y[parts[part]], minlength=classes) - fraction * per_class).max() <= 1


def test_a_split_depends_on_its_seed_only():
    x = torch.rand(50, 3, 4, 4)
    first, second = datasets.split(x, seed=1), datasets.split(x, seed=1)
    assert all((first[part] == second[part]).all() for part in first)
    assert list(first["test"]) != list(datasets.split(x, seed=2)["test"])


def test_images_are_compared_by_pixels_and_texts_without_case_and_spacing():
    x = torch.rand(3, 3, 4, 4)
    x[2] = x[0]
    assert datasets.split(x).duplicates == 1
    assert datasets.split(["Good  film", "good film ", "bad film"]).duplicates == 1


@pytest.mark.parametrize("fractions", [(0.5,), (0.5, 0.6), (1.0, 0.0), (0.5, float("nan")), (0.25,) * 4])
def test_bad_fractions(fractions):
    with pytest.raises(ValueError, match="fractions="):
        datasets.split(["a", "b"], fractions=fractions)


def test_a_label_is_missing():
    with pytest.raises(ValueError, match="x has 2 items and y 1"):
        datasets.split(["a", "b"], [0])
    with pytest.raises(ValueError, match="at least one"):
        datasets.split([])


# Images


def test_as_float_takes_both_kinds():
    x = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(datasets.as_float(x) * 255, x.float())
    made = torch.rand(2, 3, 4, 4)
    assert datasets.as_float(made) is made


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.rand(3, 4, 4), "batch of images"),
        (torch.rand(2, 1, 4, 4), "three channels"),
        (torch.rand(2, 4, 4, 3), "channels first"),
        (np.zeros((2, 3, 4, 4)), "batch of images"),
        ("picture.jpg", "batch of images"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), "type"),
        (torch.rand(2, 3, 4, 4) * 255, "divide"),
    ],
)
def test_as_float_refuses_what_is_no_batch(x, message):
    with pytest.raises(ValueError, match=message):
        datasets.as_float(x)


# Sets by name


def test_digits():
    digits = datasets.digits()
    assert digits.x_train.shape[1:] == (3, 32, 32) and digits.x_train.dtype == torch.float32
    assert 0 <= digits.x_train.min() and digits.x_train.max() <= 1
    assert len(digits.x_train) + len(digits.x_test) == 1797 == digits.card["images"]
    assert sorted(digits.y_test.unique().tolist()) == list(range(10)) and digits.classes[3] == "3"
    assert torch.equal(datasets.digits().y_test, digits.y_test)
    assert not torch.equal(datasets.digits(seed=1).y_test, digits.y_test)
    assert not set(datasets.content_hashes(digits.x_train)) & set(datasets.content_hashes(digits.x_test))
    assert sum(digits.card["counts"]["test"].values()) == len(digits.y_test)


def test_digits_keep_their_pixels_at_their_own_size():
    from sklearn.datasets import load_digits

    digits = datasets.digits(size=8)
    images = {image.astype(np.float32).tobytes() for image in load_digits().images}
    assert all((image[0].numpy() * 16).tobytes() in images for image in digits.x_test)


def test_a_wrong_name_lists_the_near_ones():
    with pytest.raises(ValueError, match="did you mean 'hymenoptera'"):
        datasets.load("hymenopthera")
    with pytest.raises(ValueError, match="did you mean"):
        datasets.available("cifar100")


def test_a_local_copy_is_found_read_and_described(local):
    folder = ants_and_bees(local / "hymenoptera_data")
    data = datasets.load("hymenoptera", size=16)
    assert datasets.available("hymenoptera")
    assert data.x_train.shape == (8, 3, 16, 16) and data.x_train.dtype == torch.uint8 and data.x_validation is None
    assert data.classes == ("ants", "bees") and data.y_test.tolist() == [0, 0, 1, 1]
    assert data.x_test[3, :, 0, 0].tolist() == [100, 20, 200]
    assert data.card["sha256"] == paths.sha256_folder(folder) and data.card["as_listed"] is False
    assert data.card["counts"] == {"train": {"ants": 4, "bees": 4}, "test": {"ants": 2, "bees": 2}}
    assert not any(str(local) in str(value) for value in data.card.values()), "cards end up in pages: no paths"


def test_root_is_the_folder_or_the_one_above(tmp_path):
    folder = ants_and_bees(tmp_path / "elsewhere" / "hymenoptera")
    for root in (folder, folder.parent, str(folder)):
        assert len(datasets.load("hymenoptera", size=8, root=root).x_train) == 8
    with pytest.raises(FileNotFoundError, match="TLUTILS_DATA"):
        datasets.load("hymenoptera", root=tmp_path / "none")


def test_the_second_load_comes_from_the_cache_and_new_content_does_not(local, monkeypatch):
    folder = ants_and_bees(local / "hymenoptera_data")
    first = datasets.load("hymenoptera", size=8)
    monkeypatch.setattr(readers, "image", lambda *_: pytest.fail("decoded again"))
    second = datasets.load("hymenoptera", size=8)
    assert torch.equal(first.x_train, second.x_train) and torch.equal(first.y_test, second.y_test)
    assert first.classes == second.classes and first.card == second.card
    monkeypatch.undo()
    monkeypatch.setenv("TLUTILS_DATA", str(local))
    picture(folder / "train" / "ants" / "0.png", (7, 7, 7))
    assert datasets.load("hymenoptera", size=8).x_train[0, 0, 0, 0] == 7


def test_a_damaged_cache_is_made_anew(local):
    ants_and_bees(local / "hymenoptera_data")
    first = datasets.load("hymenoptera", size=8)
    (cached,) = (paths.cache_dir() / "decoded").iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    assert torch.equal(datasets.load("hymenoptera", size=8).x_train, first.x_train)


def test_copies_leave_the_training_part_and_never_the_test_part(local):
    folder = ants_and_bees(local / "hymenoptera_data")
    picture(folder / "train" / "bees" / "leak.png", (0, 0, 200))  # also a test image, there an ant
    picture(folder / "train" / "ants" / "twice.png", (0, 0, 0))
    data = datasets.load("hymenoptera", size=8)
    assert (len(data.x_train), len(data.x_test)) == (8, 4)
    assert data.card["duplicates"] == {"found": 2, "dropped": 2, "with_two_labels": 1}
    assert not set(datasets.content_hashes(data.x_train)) & set(datasets.content_hashes(data.x_test))


def test_an_incomplete_copy(local):
    folder = ants_and_bees(local / "hymenoptera_data")
    for file in (folder / "val" / "bees").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="no whole copy of hymenoptera"):
        datasets.load("hymenoptera", size=8)


def test_sets_without_a_published_split_are_split_alike_every_time(local):
    for domain in ("photo", "sketch"):
        for label, name in enumerate(("dog", "house")):
            for i in range(10):
                picture(local / "pacs" / domain / name / f"{i}.png", (label * 50, i * 9, len(domain)))
    data, again = (datasets.load("pacs", size=8, domain="sketch") for _ in range(2))
    assert (len(data.x_train), len(data.x_test)) == (14, 6) and data.card["domain"] == "sketch"
    assert data.x_train[0, 2, 0, 0] == len("sketch")
    assert torch.equal(data.x_test, again.x_test)
    assert data.card["counts"]["train"] == {"dog": 7, "house": 7}
    assert datasets.load("pacs", size=8).card["domain"] == "photo"
    with pytest.raises(ValueError, match="domain='clipart': pacs has photo"):
        datasets.load("pacs", domain="clipart")
    with pytest.raises(ValueError, match="has no domains"):
        datasets.load("hymenoptera", domain="photo")


def test_some_classes_only_in_the_order_asked_for(local):
    for i, name in enumerate(("covid19", "no_finding", "pneumonia")):
        for j in range(10):
            picture(local / "chest_xray" / name / f"{j}.png", (i, j * 9, 0))
    data = datasets.load("chest_xray", size=8, classes=("pneumonia", "no_finding"))
    assert data.classes == ("pneumonia", "no_finding") and len(data.y_train) + len(data.y_test) == 20
    assert data.x_train[data.y_train == 0][:, 0].unique().tolist() == [2]
    with pytest.raises(ValueError, match="'healthy' is none of"):
        datasets.load("chest_xray", size=8, classes=("healthy",))


def test_text_sets(local):
    (local / "sst2").mkdir()
    for part, lines in {
        "train": 'a "fine\tfilm\t1\ndull\t0\nDull\t0\n',
        "dev": "well\t1\n",
        "test": "bad\t0\n",
    }.items():
        (local / "sst2" / f"{part}.tsv").write_text(lines)
    data = datasets.load("sst2")
    assert data.x_train == ['a "fine\tfilm', "dull"] and data.y_train.tolist() == [1, 0]
    assert data.x_validation == ["well"] and data.y_validation.tolist() == [1]
    assert data.card["duplicates"]["dropped"] == 1

    (local / "banking77").mkdir()
    for part in ("train", "test"):
        (local / "banking77" / f"{part}.csv").write_text(f'text,category\n"where, {part}?",card\n{part} lost,atm\n')
    assert datasets.load("banking77").x_test == ["where, test?", "test lost"]

    for label in ("negative", "positive"):
        (local / "amazon_reviews" / "dvd").mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{label} {i}\n" for i in range(10)) * 2
        (local / "amazon_reviews" / "dvd" / f"review_{label}.txt").write_text(lines)
    data = datasets.load("amazon", domain="dvd")
    assert (len(data.x_train), len(data.x_test)) == (14, 6)
    assert all(text.startswith(data.classes[y]) for text, y in zip(data.x_test, data.y_test.tolist(), strict=True))
    with pytest.raises(ValueError, match="set of texts"):
        datasets.load("sst2", size=32)


def test_omniglot(local):
    ink = np.random.default_rng(0).integers(0, 2, (40, 105 * 105), dtype=np.uint8)
    (local / "omniglot").mkdir()
    np.savez(
        local / "omniglot" / "omniglot_8_alphabets.npz",
        images=np.packbits(ink, axis=1),
        character=np.repeat([0, 1], 20),
        character_names=np.array(["Greek/character01", "Latin/character01"]),
    )
    data = datasets.load("omniglot", size=105)
    assert data.classes[1] == "Latin/character01" and len(data.x_train) == 28
    known = {(row.reshape(105, 105) * 255).tobytes() for row in ink}
    assert all(image[0].numpy().tobytes() in known for image in data.x_test)
    assert datasets.load("omniglot").x_train.shape[1:] == (3, 32, 32)


# Public sources, without a network


def cifar_batches(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        rows = generator.integers(0, 256, (4, 3073), dtype=np.uint8)
        rows[:, 0] = [0, 3, 9, 3]
        rows.tofile(folder / f"{name}.bin")
    return folder


def serve(monkeypatch, name: str, archive: Path, top: str, sha256: str | None = None) -> None:
    facts = (archive.as_uri(), sha256 or paths.sha256_file(archive), top)
    monkeypatch.setitem(sources.SETS, name, replace(sources.SETS[name], archive=facts))


def test_cifar10_is_fetched_checked_and_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.delenv("TLUTILS_DATA", raising=False)
    folder = cifar_batches(tmp_path / "away" / "cifar-10-batches-bin")
    with tarfile.open(tmp_path / "away" / "cifar.tar.gz", "w:gz") as archive:
        archive.add(folder, "cifar-10-batches-bin")
    serve(monkeypatch, "cifar10", tmp_path / "away" / "cifar.tar.gz", "cifar-10-batches-bin")
    assert not datasets.available("cifar10")
    data = datasets.load("cifar10")
    assert data.x_train.shape == (20, 3, 32, 32) and data.y_test.tolist() == [0, 3, 9, 3]
    first = np.fromfile(folder / "test_batch.bin", np.uint8)[1:3073]
    assert torch.equal(data.x_test[0].flatten(), torch.from_numpy(first)), "channels first, rows in order"
    (tmp_path / "away" / "cifar.tar.gz").unlink()
    assert datasets.available("cifar10") and len(datasets.load("cifar10").x_test) == 4
    assert [p.name for p in (paths.cache_dir() / "data").iterdir()] == ["cifar-10-batches-bin"]


def test_a_zip_is_fetched_too_and_one_put_there_by_hand_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("TLUTILS_DATA", raising=False)
    folder = ants_and_bees(tmp_path / "away" / "hymenoptera_data")
    hand = paths.cache_dir() / "data" / "ants.zip"
    hand.parent.mkdir()
    with zipfile.ZipFile(hand, "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder.parent))
    sha256 = paths.sha256_file(hand)
    facts = ((tmp_path / "gone" / "ants.zip").as_uri(), sha256, "hymenoptera_data")
    monkeypatch.setitem(sources.SETS, "hymenoptera", replace(sources.SETS["hymenoptera"], archive=facts))
    assert len(datasets.load("hymenoptera", size=8).x_train) == 8


def test_without_a_network_one_error_says_what_from_where_and_whereto(tmp_path, monkeypatch):
    monkeypatch.delenv("TLUTILS_DATA", raising=False)
    gone = tmp_path / "gone.zip"
    serve(monkeypatch, "hymenoptera", gone, "hymenoptera_data", hashlib.sha256(b"").hexdigest())
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("hymenoptera")
    assert all(part in str(error.value) for part in (gone.as_uri(), "gone.zip", str(paths.cache_dir() / "data")))
    with pytest.raises(FileNotFoundError, match="clothing-dataset-small on GitHub.*TLUTILS_DATA"):
        datasets.load("clothing10")
    assert not datasets.available("clothing10")


def test_a_download_with_another_checksum_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("TLUTILS_DATA", raising=False)
    (tmp_path / "bad.zip").write_bytes(b"not the archive")
    serve(monkeypatch, "hymenoptera", tmp_path / "bad.zip", "hymenoptera_data", "0" * 64)
    with pytest.raises(ValueError, match="checksum"):
        datasets.load("hymenoptera")
    assert list((paths.cache_dir() / "data").iterdir()) == []


# The real folders


def present(name: str) -> None:
    if not datasets.available(name):
        pytest.skip(f"needs a local copy of {name}; TLUTILS_DATA names no folder that holds one")


@pytest.mark.real
@pytest.mark.parametrize("name", ["hymenoptera", "chest_xray", "cifar10", "omniglot", "sst2", "amazon", "banking77"])
def test_real_sets(name):
    present(name)
    data = datasets.load(name, **({"size": 32} if sources.SETS[name].size else {}))
    assert len(data.x_train) == len(data.y_train) > 0 and len(data.x_test) == len(data.y_test) > 0
    assert set(data.y_train.tolist()) <= set(range(len(data.classes))) and data.card["source"] and data.card["licence"]
    assert sum(data.card["counts"]["train"].values()) == len(data.x_train)
    assert not set(datasets.content_hashes(data.x_train)) & set(datasets.content_hashes(data.x_test))


@pytest.mark.real
def test_every_domain_of_pacs_has_the_same_classes():
    present("pacs")
    found = {datasets.load("pacs", size=16, domain=domain).classes for domain in sources.SETS["pacs"].domains}
    assert found == {("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")}


@pytest.mark.real
def test_ants_and_bees_as_listed():
    present("hymenoptera")
    data = datasets.load("hymenoptera", size=16)
    if not data.card["as_listed"]:
        pytest.skip("the local copy of hymenoptera is another one than the one whose numbers are known")
    assert data.card["counts"] == {"train": {"ants": 123, "bees": 121}, "test": {"ants": 70, "bees": 83}}
