"""Results that outlive a run: written by the run itself, with everything needed to judge and repeat it.

A result is one JSON file: `rows` (a list of flat dicts) and a `card` that says which code, seeds, weights,
data, versions and machine made it, when, and how long it took. Stored lab grids carry a hash of the code that
made them, so that a test can say when they are out of date.
"""
from __future__ import annotations

import ast
import datetime
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable
from importlib import metadata, util
from pathlib import Path
from typing import Any

from . import paths

KINDS = ("lab", "real")
PACKAGES = ("torch", "torchvision", "transformers", "accelerate", "scikit-learn", "numpy")


def environment() -> dict[str, Any]:
    """Versions and hardware of this run, for cards. No user names, host names or paths."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "hardware": hardware(), "date": datetime.date.today().isoformat()}


def hardware() -> str:
    """One phrase: the processor, its cores, and the GPU if torch sees one."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    text = f"{model}, {os.cpu_count()} cores"
    import torch
    return text + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")


def code_hash(*parts: str) -> str:
    """Hash of what the named code of tlutils does: comments, docstrings and layout don't count.

    parts: "module", or "module:name" for one function, class or constant of it. The same in every version of Python.
    Raises ValueError for an unknown name.
    """
    digest = hashlib.sha256()
    for part in parts:
        module, _, name = part.partition(":")
        tree = ast.parse(Path(util.find_spec(f"tlutils.{module}").origin).read_text(encoding="utf-8"))
        if name:
            found = [node for node in tree.body if name in _names(node)]
            if not found:
                raise ValueError(f"parts: tlutils.{module} has no {name!r} at its top level")
            tree = found[0]
        digest.update(_in_words(tree).encode())
    return digest.hexdigest()[:16]


def _names(node: ast.stmt) -> set[str]:
    """What a statement defines: a function, a class, or the names that it assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)} - {None}


def _in_words(node) -> str:
    """A syntax tree as text, alike in every version of Python (`ast.dump` is not), without docstrings."""
    if isinstance(node, list):
        return f"[{','.join(map(_in_words, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: getattr(node, name, None) for name in node._fields}
    documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    if documented and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):               # some versions add empty pieces to f-strings
        fields["values"] = [part for part in node.values if getattr(part, "value", None) != ""]
    said = (f"{name}={_in_words(value)}" for name, value in fields.items() if value is not None and value != [])
    return f"{type(node).__name__}({','.join(said)})"


def path(kind: str, name: str) -> Path:
    """Where the result lies. Raises ValueError for another kind than "lab" or "real"."""
    if kind not in KINDS:
        raise ValueError(f"kind: must be one of {KINDS}, got {kind!r}")
    return paths.data_dir() / "results" / kind / f"{name}.json"


def save(kind: str, name: str, rows: Iterable[dict], *, started: float, **card) -> Path:
    """Write a result atomically. started: time.time() at the run's begin; card: seeds, weights, data, code, ..."""
    rows = [{key: plain(value) for key, value in row.items()} for row in rows]
    if not rows:
        raise ValueError(f"rows: the result {name!r} is empty, nothing is written")
    card = {"name": name, **card, "seconds": round(time.time() - started, 1), **environment()}
    return _write(kind, name, card, rows)


def rewrite_card(kind: str, name: str, card: dict) -> Path:
    """Put another card on a stored result; its rows stay as they are."""
    return _write(kind, name, card, json.loads(path(kind, name).read_text(encoding="utf-8"))["rows"])


def _write(kind: str, name: str, card: dict, rows: list[dict]) -> Path:
    head = json.dumps(card, indent=1, ensure_ascii=False)
    body = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    target = path(kind, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    paths.atomic_write(target, f'{{"card": {head},\n "rows": [\n  {body}\n]}}\n')
    return target


def plain(value):
    """A number as JSON takes it, floats to six digits after the point."""
    if hasattr(value, "item"):
        value = value.item()
    return round(value, 6) if isinstance(value, float) else value


def exists(kind: str, name: str) -> bool:
    """Whether the result has been recorded."""
    return path(kind, name).exists()


def load(kind: str, name: str):
    """The rows as a pandas DataFrame; the card is in `frame.attrs["card"]`.

    Raises FileNotFoundError naming the nearest results if this one has not been recorded.
    """
    import pandas as pd
    source = path(kind, name)
    if not source.exists():
        known = sorted(p.stem for p in source.parent.glob("*.json"))
        raise FileNotFoundError(f"no {kind} result named {name!r} is recorded (python -m tlutils.experiments lists what can be "
                                f"made); {paths.did_you_mean(name, known)}")
    stored = json.loads(source.read_text(encoding="utf-8"))
    frame = pd.DataFrame(stored["rows"])
    frame.attrs["card"] = stored["card"]
    return frame


def provenance(frame) -> str:
    """One sentence on where a stored result comes from, for the page."""
    card = frame.attrs["card"]
    versions = ", ".join(f"{k} {v}" for k, v in card["versions"].items() if k in ("torch", "transformers"))
    took = f"{card['seconds'] / 60:.0f} min" if card["seconds"] >= 90 else f"{card['seconds']:.0f} s"
    return (f"Recorded {card['date']} in {took} on {card['hardware']} "
            f"({versions}); {card.get('seeds', '?')} draws. Repeat: python -m tlutils.experiments {card['name']}")
