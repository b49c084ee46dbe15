"""Keep the execution cache honest: a page never shows what older code, data or packages computed.

Jupyter's cache knows a notebook by its own cells only. Here its folder is named after everything else that
can change a result, so that a change of any of it starts an empty cache and reads every page again.
Used as a Sphinx extension (listed in _config.yml); the key itself needs the standard library only.
"""
from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

# Recorded about the run of the book itself, shown in one table, computed with by nobody.
NOT_AN_INPUT = ("runtimes.json",)
PAGE_FILES = {".ipynb", ".md", ".py", ".css", ".svg", ".js"}


def inputs(root: Path) -> list[Path]:
    """The files that a page's results depend on, besides its own cells, in a fixed order."""
    data = root / "data"
    files = [*(root / "tlutils").rglob("*.py"), root / "requirements.txt", root / "pyproject.toml",
             *(path for path in data.rglob("*") if path.relative_to(data).as_posix() not in NOT_AN_INPUT)]
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def cache_key(root: Path) -> str:
    """16 hexadecimal digits that change with the code, the data, the pins or the Python version."""
    return _key(root, inputs(root), str(sys.version_info[:2]))


def site_key(root: Path) -> str:
    """16 hexadecimal digits that change with anything that the site is made from."""
    own = [root / name for name in ("_config.yml", "_toc.yml", "references.bib")]
    pages = [path for folder in ("chapters", "book") for path in (root / folder).rglob("*")
             if path.suffix in PAGE_FILES and not _hidden(path.relative_to(root))]
    return _key(root, sorted({*inputs(root), *own, *pages}))


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _key(root: Path, files: list[Path], start: str = "") -> str:
    digest = hashlib.sha256(f"{start}\n".encode())
    for path in filter(Path.is_file, files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{content}  {path.relative_to(root).as_posix()}\n".encode())
    return digest.hexdigest()[:16]


def fresh_cache(root: Path, caches: Path) -> Path:
    """The cache folder for the present state of `root`; those of other states are removed."""
    current = caches / cache_key(root)
    for path in caches.iterdir() if caches.is_dir() else ():
        if path != current:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    current.mkdir(parents=True, exist_ok=True)
    return current


def _set_cache(app, config) -> None:
    config.nb_execution_cache_path = str(fresh_cache(Path(app.srcdir), Path(app.outdir).parent / ".jupyter_cache"))


def setup(app) -> dict:
    app.connect("config-inited", _set_cache)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
