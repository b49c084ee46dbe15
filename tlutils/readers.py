"""Reading data sets from disk: folders of images, CIFAR's and Omniglot's arrays, texts; archives from the network."""

import csv
import json
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from . import paths

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Part = tuple[Tensor | list[str], Tensor]  # items and labels (N,) int64


def image(file: Path, size: int) -> np.ndarray:
    """One image as (3, size, size) uint8: turned upright, shorter side resized to `size` (antialiased), centre cut out.

    Raises ValueError naming a file that is not a readable image.
    """
    try:
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            square = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} is not a readable image ({error}): remove it or get it again") from None
    return np.asarray(square).transpose(2, 0, 1)


def image_folder(folder: str | Path, size: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """A folder with one subfolder of images per class: x (N, 3, size, size) uint8, y (N,) int64, class names.

    Classes and files are in alphabetical order. Raises NotADirectoryError, and ValueError if there is no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"folder={str(folder)!r} does not exist: give a folder with one subfolder per class")
    files = sorted(f for f in folder.glob("*/*") if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))
    if not files:
        raise ValueError(f"folder={str(folder)!r} holds no images: expected <class>/<name>.jpg (or png, bmp, webp)")
    classes = sorted({f.parent.name for f in files})
    x = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for i, file in enumerate(files):
        x[i] = torch.from_numpy(image(file, size).copy())
    return x, torch.tensor([classes.index(f.parent.name) for f in files]), tuple(classes)


def image_parts(folder: Path, size: int, parts: dict[str, str]) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Several image folders with the same classes: parts and class names. parts: name of the part -> subfolder."""
    read, classes = {}, None
    for part, sub in parts.items():
        x, y, found = image_folder(folder / sub, size)
        if classes not in (None, found):
            raise ValueError(
                f"{folder / sub} has the classes {found}, but {folder} has {classes}: the copy is incomplete"
            )
        read[part], classes = (x, y), found
    return read, classes


def cached(key: str, read) -> tuple[dict[str, Part], tuple[str, ...]]:
    """What `read()` (image parts and class names) returned the last time it was called under this key.

    Kept decoded in cache_dir()/decoded; a damaged file is made anew.
    """
    file = paths.cache_dir() / "decoded" / f"{key}.safetensors"
    if file.is_file():
        try:
            with safetensors.safe_open(file, "pt") as stored:
                arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
                facts = json.loads(stored.metadata()["facts"])
            return {part: (arrays[f"{part}.x"], arrays[f"{part}.y"]) for part in facts["parts"]}, tuple(
                facts["classes"]
            )
        except (safetensors.SafetensorError, KeyError, TypeError):
            file.unlink()
    parts, classes = read()
    arrays = {f"{part}.{axis}": value for part, pair in parts.items() for axis, value in zip("xy", pair, strict=True)}
    facts = {"facts": json.dumps({"parts": list(parts), "classes": classes})}
    with paths.replacing(file) as temporary:
        safetensors.torch.save_file(arrays, temporary, facts)
    return parts, classes


def resize(x: Tensor, size: int) -> Tensor:
    """uint8 images (N, C, H, W) to (N, C, size, size), bilinear and antialiased; unchanged if they have that size."""
    if x.shape[-2:] == (size, size):
        return x
    batches = (F.interpolate(b.float(), (size, size), mode="bilinear", antialias=True) for b in x.split(512))
    return torch.cat([b.round().clamp(0, 255).to(torch.uint8) for b in batches])


def cifar10(folder: Path, size: int) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The subset's npz, or the official binary batches: one label byte, then 3 x 32 x 32 bytes for each image."""
    if (folder / "cifar10_subset.npz").is_file():
        with np.load(folder / "cifar10_subset.npz") as stored:
            arrays = {
                part: (stored[f"x_{part}"].transpose(0, 3, 1, 2), stored[f"y_{part}"]) for part in ("train", "test")
            }
    else:
        batches = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
        arrays = {}
        for part, names in batches.items():
            rows = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
            arrays[part] = rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64)
    parts = {p: (resize(torch.tensor(np.ascontiguousarray(x)), size), torch.tensor(y)) for p, (x, y) in arrays.items()}
    return parts, CIFAR10_CLASSES


def omniglot(folder: Path, size: int) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Omniglot's characters as (N, 3, size, size) uint8, ink white on black; class names are alphabet/character."""
    with np.load(folder / "omniglot_8_alphabets.npz") as stored:
        ink = np.unpackbits(stored["images"], axis=1)[:, : 105 * 105].reshape(-1, 1, 105, 105)
        characters, classes = stored["character"], stored["character_names"].tolist()
    x = resize(torch.from_numpy(ink * 255), size).expand(-1, 3, -1, -1).contiguous()
    return {"all": (x, torch.from_numpy(characters.astype(np.int64)))}, tuple(classes)


def sst2(folder: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Tab-separated sentence and label, no header, quotes as they stand."""
    files = {"train": "train", "validation": "dev", "test": "test"}
    return {part: _table(folder / f"{name}.tsv") for part, name in files.items()}, ("negative", "positive")


def _table(file: Path) -> Part:
    rows = [line.rsplit("\t", 1) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return [row[0] for row in rows], torch.tensor([int(row[1]) for row in rows])


def amazon(folder: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """One review per line, the label in the file's name."""
    classes, texts, labels = ("negative", "positive"), [], []
    for label, name in enumerate(classes):
        lines = (folder / f"review_{name}.txt").read_text(encoding="utf-8").split("\n")
        kept = [line.strip() for line in lines if line.strip()]
        texts, labels = texts + kept, labels + [label] * len(kept)
    return {"all": (texts, torch.tensor(labels))}, classes


def banking77(folder: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """csv with the header text,category."""
    rows = {}
    for part in ("train", "test"):
        with open(folder / f"{part}.csv", newline="", encoding="utf-8") as file:
            rows[part] = list(csv.DictReader(file))
    classes = sorted({row["category"] for row in rows["train"]})
    number = {name: i for i, name in enumerate(classes)}
    labels = {part: torch.tensor([number[row["category"]] for row in found]) for part, found in rows.items()}
    return {part: ([row["text"] for row in found], labels[part]) for part, found in rows.items()}, tuple(classes)


def fetch_archive(url: str, sha256: str, top: str) -> Path:
    """Download a zip or tar.gz whose top folder is `top`; unpack it as cache_dir()/data/top, whole or not at all.

    Raises what `paths.fetch` raises.
    """
    target = paths.cache_dir() / "data" / top
    archive = target.parent / url.rsplit("/", 1)[-1]
    if archive.is_file():  # put there by hand, as the error of `fetch` advises
        paths.check_sha256(archive, sha256, f"the file {archive}", "delete it and load again, so that it is fetched")
    else:
        paths.fetch(url, archive, sha256=sha256)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as stored:
                stored.extractall(temporary)
        else:
            with tarfile.open(archive) as stored:
                stored.extractall(temporary, filter="data")
        (Path(temporary) / top).replace(target)
    archive.unlink()
    return target
