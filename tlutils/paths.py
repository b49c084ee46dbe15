"""Where files are: the package's own data, the cache, local data and weights; hashes, safe writing, names."""

import difflib
import hashlib
import http.client
import os
import shutil
import sys
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def data_dir() -> Path:
    """The book's data folder: `<package>/data` in an installed wheel, `<checkout>/data` in a checkout.

    Raises FileNotFoundError if the installation has neither.
    """
    for folder in (PACKAGE / "data", PACKAGE.parent / "data"):
        if (folder / "weights").is_dir():
            return folder
    raise FileNotFoundError(
        f"No folder data/weights in {PACKAGE} or {PACKAGE.parent}: the installation of tlutils is incomplete; "
        "install it again from the repository with `pip install .`"
    )


def cache_dir() -> Path:
    """The folder for everything that can be made again: $TLUTILS_CACHE, else `~/.cache/tlutils`. Created on demand."""
    folder = Path(os.environ.get("TLUTILS_CACHE") or "~/.cache/tlutils").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def local_folders() -> list[Path]:
    """Folders searched for real data sets, in order: those of $TLUTILS_DATA, then `cache_dir()/data`."""
    return _search_path("TLUTILS_DATA", "data")


def weight_folders() -> list[Path]:
    """Folders searched for pretrained weights, in order: those of $TLUTILS_WEIGHTS, then `cache_dir()/weights`."""
    return _search_path("TLUTILS_WEIGHTS", "weights")


def _search_path(variable: str, name: str) -> list[Path]:
    named = [Path(part).expanduser() for part in os.environ.get(variable, "").split(os.pathsep) if part.strip()]
    return [*named, cache_dir() / name]


def sha256_file(path: str | Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: str | Path) -> str:
    """The sha256 of a folder: that of one line `<sha256>  <relative path>` for each file, paths in byte order.

    Independent of the machine: relative paths are written with `/`. Raises NotADirectoryError if `path` is none.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise NotADirectoryError(f"path={str(path)!r} is not a folder: give the folder whose files are to be hashed")
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    lines = (f"{sha256_file(files[name])}  {name}\n" for name in sorted(files, key=os.fsencode))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`: put in its place if the block succeeds, removed if it fails.

    So `path` holds either the old content or all of the new one, even if the process is killed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, wholly or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def fetch(url: str, path: str | Path, *, sha256: str, timeout: float = 30.0) -> Path:
    """Download `url` to `path` and return it; nothing is left behind if anything fails.

    sha256: the digest of the file, or its first digits. timeout: seconds without an answer.
    Raises FileNotFoundError if the file can't be had (no network, gone), ValueError if its checksum is another.
    """
    path = Path(path)
    print(f"fetching {path.name} from {url}", file=sys.stderr)
    with replacing(path) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer, open(temporary, "wb") as file:
                shutil.copyfileobj(answer, file)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise FileNotFoundError(
                f"{path.name} is in no local folder and could not be fetched ({reason}): "
                f"download it from {url} and put it into {path.parent}"
            ) from None
        check_sha256(temporary, sha256, f"what {url} sent", "try again later, or fetch it from elsewhere")
    return path


def check_sha256(path: str | Path, expected: str, what: str, remedy: str) -> str:
    """Raise ValueError naming `what`, both checksums and the `remedy` unless the file's sha256 begins with `expected`.

    Returns the full checksum.
    """
    found = sha256_file(path)
    if not found.startswith(expected):
        raise ValueError(f"checksum of {what}: expected {expected[:12]}..., found {found[:12]}...; {remedy}")
    return found


def near(word: str, known: Iterable[str]) -> bool:
    """Whether `word` looks like one of the known names with a slip in it."""
    return bool(difflib.get_close_matches(word, list(known), n=1, cutoff=0.85))


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known ones, or all of them if none is near."""
    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known are {', '.join(map(repr, known)) or 'none'}"
