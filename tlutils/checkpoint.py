"""Nested states (dicts, lists, numbers, tensors) in one safetensors file, and content hashes of tensors.

The structure is JSON in the file's metadata, each tensor an entry beside it. Nothing is ever unpickled.
"""
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import paths

FORMAT = "tlutils.checkpoint/1"
_LEFTOVER = r"\.[0-9a-f]{32}\.part"            # what paths.replacing appends


def save(path: str | Path, tree) -> None:
    """Write a nested state so that `path` holds either the old file or all of the new one.

    tree: dicts with string keys, lists, tuples (read back as lists), numbers, strings, None and tensors.
    Raises TypeError for anything else.
    """
    from safetensors.torch import save as to_bytes

    tensors: dict[str, Tensor] = {}
    text = json.dumps(_pack(tree, "", tensors))
    paths.atomic_write(path, to_bytes(tensors, {"format": FORMAT, "tree": text}))


def load(path: str | Path):
    """The state that `save` wrote, tensors on the CPU. Raises ValueError if the file is damaged or another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is not a checkpoint of this package (format {metadata.get('format')!r}, "
                                 f"not {FORMAT!r}): give another path")
            return _unpack(json.loads(metadata["tree"]), file.get_tensor)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to start anew") from error


def remove_leftovers(path: str | Path) -> None:
    """Delete the temporary files that writers of `path` left behind when they were killed."""
    path = Path(path)
    for file in path.parent.glob(f".{path.name}.*"):
        if re.fullmatch(re.escape(f".{path.name}") + _LEFTOVER, file.name):
            file.unlink(missing_ok=True)


def check_same(wanted: Mapping, found: Mapping, path: str | Path) -> None:
    """Raise ValueError naming the first setting in which a checkpoint differs from the call that wants it."""
    for name in {**wanted, **found}:
        a, b = (json.dumps(settings.get(name)) for settings in (wanted, found))
        if a != b:
            raise ValueError(f"checkpoint {path} was written with {name}={b}, this call has {name}={a}: repeat the "
                             "call that wrote it, or delete the file to start anew")


def in_words(value):
    """A setting as a JSON value: whatever JSON lacks by its `repr`, addresses left out.

    Two functions of the same name therefore look alike.
    """
    if isinstance(value, (list, tuple)):
        return [in_words(part) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def digest(*values: Tensor | Mapping[str, Tensor] | Sequence[str] | str) -> str:
    """sha256 of tensors, state dicts, texts and lists of texts, as 64 hexadecimal digits.

    Names, types, shapes and bytes count; device and memory format do not.
    """
    sha = hashlib.sha256()
    for value in values:
        if isinstance(value, Mapping):
            for name, tensor in value.items():
                sha.update(f"{name}:{digest(tensor)}\n".encode())
        elif isinstance(value, Tensor):
            sha.update(f"{value.dtype}{tuple(value.shape)}\n".encode())
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        elif isinstance(value, str):
            sha.update(f"{len(value)}:{value}\n".encode())
        else:
            sha.update(f"[{digest(*value)}]\n".encode())
    return sha.hexdigest()


def _pack(value, name: str, tensors: dict[str, Tensor]):
    if isinstance(value, Tensor):
        while name in tensors:                  # "a/b" and "b" in "a" would be one
            name += "'"
        # a copy of its own for each: safetensors refuses tensors that share memory (tied weights)
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"__tensor__": name}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str) or key == "__tensor__"]:
            raise TypeError(f"{name or 'state'} has the key {wrong[0]!r}: the keys of a saved state are strings, "
                            "other than '__tensor__'")
        return {key: _pack(part, f"{name}/{key}" if name else key, tensors) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(part, f"{name}/{i}", tensors) for i, part in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: a saved state holds dicts, lists, numbers, strings, tensors")


def _unpack(value, read):
    if isinstance(value, dict):
        if value.keys() == {"__tensor__"}:
            return read(value["__tensor__"])
        return {key: _unpack(part, read) for key, part in value.items()}
    return [_unpack(part, read) for part in value] if isinstance(value, list) else value
