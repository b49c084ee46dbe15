"""Features of a frozen backbone: computed in one pass, kept on disk under what they depend on."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from . import checkpoint, freezing, inference, paths


def extract(backbone, x, *, preprocess: Callable[[Tensor], Tensor] | None = None, batch_size: int = 256,
            cache: str | Path | None = None, fingerprint: str | None = None) -> Tensor:
    """The backbone's features of x, in evaluation mode and without gradients; the model is left as it was.

    backbone: a module, or anything with `.backbone` and `.preprocess` (what `zoo.load` gives). x: (N, ...) or N
    texts, N >= 1. preprocess(batch) -> the backbone's input; it overrides the loaded one's.
    Returns (N, D) float32 on the device of x (for texts on the CPU).
    cache: a folder. The features lie there under the sha256 of the weights and buffers, the architecture, the
    bytes of x and the description of the preprocessing; a second call reads them, and a damaged file is replaced
    with a warning. fingerprint describes the preprocessing (default: its `repr`); give one to tell apart two
    functions of the same name, which look alike.
    Raises ValueError for an empty x, or a backbone whose output is not (N, D).
    """
    module = backbone if isinstance(backbone, nn.Module) else backbone.backbone
    if preprocess is None and module is not backbone:
        preprocess = backbone.preprocess
    if cache is None:
        return _compute(module, x, preprocess, batch_size)
    file = Path(cache) / f"{_key(module, x, preprocess, fingerprint)}.safetensors"
    found = _read(file, len(x))
    if found is None:
        found = _compute(module, x, preprocess, batch_size)
        _write(file, found)
    return found.to(x.device) if isinstance(x, Tensor) else found


def _compute(module: nn.Module, x, preprocess, batch_size: int) -> Tensor:
    prepared = module if preprocess is None else _Prepared(module, preprocess)
    with freezing.assert_frozen(module):
        features = inference.predict(prepared, x, batch_size)
    if features.ndim != 2:
        raise ValueError(f"the backbone gives {tuple(features.shape)}, not (N, D): pool and "
                         "flatten its output first")
    return features


class _Prepared(nn.Module):
    def __init__(self, module: nn.Module, preprocess: Callable[[Tensor], Tensor]):
        super().__init__()
        self.module, self.preprocess = module, preprocess

    def forward(self, x: Tensor) -> Tensor:
        return self.module(self.preprocess(x))


def _key(module: nn.Module, x, preprocess, fingerprint: str | None) -> str:
    if fingerprint is None:
        fingerprint = "" if preprocess is None else str(checkpoint.in_words(preprocess))
    # its words show what has no weights: strides, activations, pooling
    return checkpoint.digest(checkpoint.in_words(module), freezing.frozen_tensors(module), x, fingerprint)


def _read(file: Path, n: int) -> Tensor | None:
    if not file.exists():
        return None
    from safetensors.torch import load_file

    try:
        features = load_file(file)["features"]
    except Exception as error:                  # whatever is wrong with it, it can be made again
        warnings.warn(f"{file} can't be read ({error}): the features are computed again", stacklevel=3)
        return None
    if features.ndim != 2 or len(features) != n or features.dtype != torch.float32:
        warnings.warn(f"{file} holds {features.dtype} {tuple(features.shape)}, not float32 ({n}, D): the features are "
                      "computed again", stacklevel=3)
        return None
    return features


def _write(file: Path, features: Tensor) -> None:
    from safetensors.torch import save

    paths.atomic_write(file, save({"features": features.cpu().contiguous()}))
