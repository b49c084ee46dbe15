"""Data sets by name, each with a card, and splits that never share an item.

Images are tensors (N, 3, H, W): uint8 in 0..255 where they come from files, float32 in [0, 1] where they are made
(`digits`, the shapes world). `as_float`, every `preprocess` of the zoo and `training.fit` take both, so that only the
batch at hand is ever held as float32. Texts are lists of str. Labels are int64 tensors (N,).
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import paths, readers, sources
from .readers import Part, image_folder

__all__ = ["Dataset", "Split", "as_float", "available", "digits", "image_folder", "load", "names", "reviews", "split"]


@dataclass(frozen=True)
class Dataset:
    """x: images (N, 3, H, W) or list of str; y: (N,) int64; validation parts only where the publisher made them."""

    name: str
    x_train: Tensor | list[str]
    y_train: Tensor
    x_test: Tensor | list[str]
    y_test: Tensor
    classes: tuple[str, ...]
    card: dict[str, Any]
    x_validation: Tensor | list[str] | None = None
    y_validation: Tensor | None = None


def names() -> list[str]:
    """The data sets that `load` knows (and "digits", which comes with scikit-learn)."""
    return ["digits", *sources.SETS]


def available(name: str) -> bool:
    """Whether `load(name)` finds a local copy, so that it needs no network. Raises ValueError for an unknown name."""
    return name == "digits" or sources.find(sources.source(name), None) is not None


def as_float(x: Tensor) -> Tensor:
    """Images (N, 3, H, W) as floats in [0, 1]: uint8 is divided by 255, floats pass unchanged.

    Raises ValueError for another shape or type, and (on the CPU, where looking is cheap) for floats far beyond 1.
    """
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != 3:
        shape = tuple(x.shape) if hasattr(x, "shape") else type(x).__name__
        raise ValueError(
            f"x must be a batch of images (N, 3, H, W), not {shape}: stack them, channels first, three channels"
        )
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not x.is_floating_point():
        raise ValueError(f"x has the type {x.dtype}: give uint8 in 0..255 or floats in [0, 1]")
    if x.device.type == "cpu" and x.numel() and x.max() > 2:
        raise ValueError(f"x reaches {float(x.max()):.0f}, but float images lie in [0, 1]: divide them by 255")
    return x


def content_hashes(x: Tensor | Sequence[str]) -> list[bytes]:
    """One hash per item: of an image's pixels, or of a text without regard to case and spacing."""
    if isinstance(x, Tensor | np.ndarray):
        items = (np.ascontiguousarray(item).tobytes() for item in np.asarray(x))
    else:
        items = (" ".join(text.lower().split()).encode() for text in x)
    return [hashlib.blake2b(item, digest_size=16).digest() for item in items]


class Split(dict):
    """Index arrays by the name of the part. duplicates: how many items repeat an earlier one."""

    duplicates: int = 0


def split(
    x: Tensor | Sequence[str],
    y: Tensor | Sequence[int] | None = None,
    *,
    fractions: Sequence[float] = (0.8, 0.2),
    seed: int = 0,
) -> Split:
    """Divide items at random into parts that share no content, the classes in equal proportion.

    x: images (N, ...) or N texts; y: labels (N,) or None; fractions: of train and test, or of train, validation and
    test, summing to 1. Items with the same content (see `content_hashes`) stay on one side. Returns int64 index arrays,
    sorted, that together hold every item once. Raises ValueError for bad fractions or lengths.
    """
    parts = {2: ("train", "test"), 3: ("train", "validation", "test")}.get(len(fractions))
    if parts is None or not (min(fractions) > 0 and abs(sum(fractions) - 1) < 1e-6):
        raise ValueError(f"fractions={tuple(fractions)} must be two or three positive numbers that sum to 1")
    if len(x) == 0 or (y is not None and len(y) != len(x)):
        raise ValueError(
            f"x has {len(x)} items and y {len(y) if y is not None else 'none'}: give at least one, with a label each"
        )
    groups: dict[bytes, list[int]] = {}
    for index, digest in enumerate(content_hashes(x)):
        groups.setdefault(digest, []).append(index)
    labels = np.zeros(len(x), int) if y is None else np.asarray(y)
    by_class: dict[int, list[list[int]]] = {}
    for group in groups.values():
        by_class.setdefault(int(labels[group[0]]), []).append(group)
    generator, chosen = np.random.default_rng(seed), {part: [] for part in parts}
    for label in sorted(by_class):
        members = by_class[label]
        edges = np.round(np.cumsum(fractions) * len(members)).astype(int)[:-1]
        for part, order in zip(parts, np.split(generator.permutation(len(members)), edges), strict=True):
            chosen[part] += [index for i in order for index in members[i]]
    result = Split({part: np.sort(np.array(indices, dtype=np.int64)) for part, indices in chosen.items()})
    result.duplicates = len(x) - len(groups)
    return result


def digits(*, seed: int = 0, size: int = 32) -> Dataset:
    """Scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, made `size` wide, 60 % for training.

    x: (N, 3, size, size) float32 in [0, 1], bilinear, three equal channels, ink bright. seed: of the split.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    x = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    parts = split(x, raw.target, fractions=(0.6, 0.4), seed=seed)
    x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
    y = torch.tensor(raw.target, dtype=torch.int64)
    pairs = {part: (x[indices].contiguous(), y[indices]) for part, indices in parts.items()}
    card = {
        "what": "handwritten digits, 8x8 pixels of 17 grey levels (Alpaydin & Kaynak 1998)",
        "source": "scikit-learn's load_digits, the test part of the UCI set",
        "licence": "CC BY 4.0 (UCI Machine Learning Repository)",
        "images": len(x),
        "caveat": "13 people wrote them and it is not said who wrote which, so the same hands are in both parts",
        "split": f"60 % / 40 %, stratified, seed {seed}",
        "duplicates": {"found": parts.duplicates},
    }
    return _dataset("digits", pairs, tuple(map(str, range(10))), card)


REVIEW_DOMAINS = ("books", "films", "kitchen", "restaurants", "apps")
NEAR_DUPLICATE = 0.3  # cosine of two reviews' TF-IDF vectors from which on they stay in one part


def reviews(domain: str | None = None, *, seed: int = 0) -> Dataset:
    """800 short reviews written for this book: five domains, each 80 negative and 80 positive; 300 are for testing.

    domain: one of REVIEW_DOMAINS, or None for all, which stand one after the other in that order. Of each class of each
    domain 50 are for training and 30 for testing. Reviews that resemble each other (NEAR_DUPLICATE) stay in one part.
    seed: of the split, which is the same for a domain alone and for all of them.
    Raises ValueError for an unknown domain.
    """
    if domain not in (None, *REVIEW_DOMAINS):
        raise ValueError(f"domain={domain!r}: the reviews are about {', '.join(REVIEW_DOMAINS)}")
    file = paths.data_dir() / "reviews.csv"
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    strata = np.array([2 * REVIEW_DOMAINS.index(r["domain"]) + (r["label"] == "positive") for r in rows])
    groups = _near_duplicates([r["text"] for r in rows])
    in_test = _grouped_split(strata, groups, test=3 / 8, seed=seed)
    pairs = {}
    for part, chosen in (("train", ~in_test), ("test", in_test)):
        wanted = [d for d, name in enumerate(REVIEW_DOMAINS) if domain in (None, name)]
        index = [i for d in wanted for i in np.flatnonzero(chosen & (strata // 2 == d))]
        pairs[part] = [rows[i]["text"] for i in index], torch.as_tensor(strata[index] % 2)
    card = {
        "what": "short reviews, positive and negative, written for this course: no customer wrote them",
        "source": "data/reviews.csv of this repository",
        "licence": "CC BY 4.0, as the text of the book",
        "sha256": paths.sha256_file(file),
        "domain": domain or "all five",
        "caveat": "one workshop's idea of a review; irony and mixed feelings are commoner than in a shop",
        "split": f"5/8 and 3/8, by domain and class, near-duplicates together, seed {seed}",
        "near_duplicates": int(len(rows) - len(set(groups))),
    }
    return _dataset("reviews", pairs, ("negative", "positive"), card)


def _near_duplicates(texts: Sequence[str]) -> np.ndarray:
    """A number for each text; texts that resemble each other, directly or through others, share it."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    return connected_components(vectors @ vectors.T >= NEAR_DUPLICATE, directed=False)[1]


def _grouped_split(strata: np.ndarray, groups: np.ndarray, *, test: float, seed: int) -> np.ndarray:
    """(N,) True for the test items: the same share of each stratum, and no group in two parts.

    The large groups are dealt out first, so that the single items can fill up what is missing.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == g) for g in rng.permutation(np.unique(groups))]
    left = np.round(np.bincount(strata) * test).astype(int)
    free = np.bincount(strata) - left
    chosen = np.zeros(len(strata), bool)
    for group in sorted(members, key=len, reverse=True):
        need = np.bincount(strata[group], minlength=len(left))
        fits = [(need <= left).all(), (need <= free).all()]
        to_test = fits[0] and (not fits[1] or rng.random() < left.sum() / (left.sum() + free.sum()))
        chosen[group] = to_test
        (left if to_test else free).__isub__(need)
    return chosen



def load(
    name: str,
    *,
    size: int | None = None,
    root: str | Path | None = None,
    domain: str | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Dataset:
    """A real data set by name, from a local folder or else from its public source.

    size: side of the images (shorter side resized, centre cut out), None for the set's default.
    root: its folder, or the one above, instead of `paths.local_folders()`.
    domain: of "pacs" and "amazon" (None: the first); classes: only these, numbered in this order.
    seed: of the split, where none was published (70 % / 30 %).
    Published test parts stay as they are; training and validation parts hold each item once and none of the test's.
    Raises ValueError (wrong name, domain, class, damaged file), FileNotFoundError (no local copy, no public source).
    """
    if name == "digits":
        return digits(seed=seed, size=size or 32)
    source = sources.source(name)
    if domain not in (None, *source.domains):
        raise ValueError(f"domain={domain!r}: {name} has {', '.join(source.domains) or 'no domains'}")
    if size is not None and (source.size is None or size < 1):
        raise ValueError(
            f"size={size}: " + ("must be at least 1" if source.size else f"{name} is a set of texts, leave it out")
        )
    folder = sources.find(source, root) or sources.fetch(name, source, root)
    digest = paths.sha256_folder(folder)
    domain = domain or next(iter(source.domains), None)
    try:
        parts, found = _read(source, folder / (domain or "."), size or source.size, digest)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{folder} is no whole copy of {name} ({error}): get it again from {source.source}") from None
    if classes is not None:
        parts, found = _only(parts, found, tuple(classes))
    card = {"what": source.what, "source": source.source, "licence": source.licence, "sha256": digest}
    card |= {
        "as_listed": digest == source.sha256,
        "size": size or source.size,
        "domain": domain,
        "caveat": source.caveat,
    }
    card["split"] = "as published" if "all" not in parts else f"70 % / 30 %, stratified, seed {seed}"
    parts, card["duplicates"] = _each_once(parts)
    if "all" in parts:
        x, y = parts["all"]
        parts = {part: _pick((x, y), i) for part, i in split(x, y, fractions=(0.7, 0.3), seed=seed).items()}
    return _dataset(name, parts, found, {key: value for key, value in card.items() if value not in (None, "")})


def _read(
    source: sources.Source, folder: Path, size: int | None, digest: str
) -> tuple[dict[str, Part], tuple[str, ...]]:
    if source.size is None:
        return source.read(folder)
    if isinstance(source.read, partial):  # folders of image files: decoded once, then cached
        return readers.cached(f"{folder.resolve().name}-{size}-{digest[:16]}", lambda: source.read(folder, size))
    return source.read(folder, size)


def _only(
    parts: dict[str, Part], found: tuple[str, ...], classes: tuple[str, ...]
) -> tuple[dict[str, Part], tuple[str, ...]]:
    for name in classes:
        if name not in found:
            raise ValueError(f"classes: {name!r} is none of {', '.join(found[:20])}")
    number = torch.full((len(found),), -1)
    number[[found.index(name) for name in classes]] = torch.arange(len(classes))
    kept = {}
    for part, (x, y) in parts.items():
        x, y = _pick((x, number[y]), torch.nonzero(number[y] >= 0).flatten().numpy())
        kept[part] = x, y
    return kept, classes


def _pick(part: Part, indices: np.ndarray) -> Part:
    x, y = part
    return (x[torch.as_tensor(indices)] if isinstance(x, Tensor) else [x[i] for i in indices]), y[
        torch.as_tensor(indices)
    ]


def _each_once(parts: dict[str, Part]) -> tuple[dict[str, Part], dict[str, int]]:
    """Drop from every part but the test part what repeats an item of it or of a part that comes later."""
    hashes = {part: content_hashes(x) for part, (x, _) in parts.items()}
    labels = {}
    for part, (_, y) in parts.items():
        for digest, label in zip(hashes[part], y.tolist(), strict=True):
            labels.setdefault(digest, set()).add(label)
    total = sum(map(len, hashes.values()))
    seen, kept, dropped = set(hashes.get("test", ())), dict(parts), 0
    for part in (p for p in ("validation", "train", "all") if p in parts):
        new = []
        for index, digest in enumerate(hashes[part]):
            if digest not in seen:
                seen.add(digest)
                new.append(index)
        dropped += len(hashes[part]) - len(new)
        kept[part] = _pick(parts[part], np.array(new, dtype=np.int64))
    two = sum(len(found) > 1 for found in labels.values())
    return kept, {"found": total - len(labels), "dropped": dropped, "with_two_labels": two}


def _dataset(name: str, parts: dict[str, Part], classes: tuple[str, ...], card: dict[str, Any]) -> Dataset:
    counts = {}
    for part, (_, y) in parts.items():
        of = Counter(y.tolist())
        counts[part] = {label: of[i] for i, label in enumerate(classes)}
    validation = parts.get("validation", (None, None))
    return Dataset(
        name, *parts["train"], *parts["test"], classes, {"name": name, **card, "counts": counts}, *validation
    )
