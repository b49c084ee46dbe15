"""What a training has changed, apart from the network it began with: counted, shipped, exchanged and interpolated.

A delta is a small state dict: the parameters that may learn, and the buffers of all modules that are not frozen (batch-norm
statistics move although no gradient reaches them). With it and the weights that everybody has, a model is whole again.
"""
from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from . import freezing, paths
from . import weights as weight_files


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The delta of a model, by name, as copies on the CPU. Raises ValueError if nothing in the model may learn."""
    names = _names(model)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"model: {type(model).__name__} has no trainable parameter, so there is nothing to ship; add a head or a method")
    now = model.state_dict()
    return {name: now[name].detach().cpu().clone().contiguous() for name in names}


def _names(model: nn.Module) -> list[str]:
    """Names of trainable parameters, and of saved buffers in modules that are not frozen."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    for prefix, part in model.named_modules():
        if not freezing.is_frozen(part):
            names += [f"{prefix}.{name}".lstrip(".") for name, _ in part.named_buffers(recurse=False)
                      if name not in part._non_persistent_buffers_set]
    return names


def size(model: nn.Module) -> int:
    """Bytes to ship for this task: the length of the safetensors file that `save` writes."""
    return len(safetensors.torch.save(trained(model)))


def save(model: nn.Module, file: str | Path) -> int:
    """Write the delta as safetensors, wholly or not at all; returns its bytes."""
    data = safetensors.torch.save(trained(model))
    paths.atomic_write(Path(file), data)
    return len(data)


def load(model: nn.Module, delta: str | Path | Mapping[str, Tensor]) -> nn.Module:
    """Put a delta (or the file of one) into a model that was prepared in the same way; returns the model.

    The last linear layer may have another number of classes than the model's: it takes that of the delta.
    Raises FileNotFoundError for a missing file, ValueError naming the first tensor that the model lacks or has in another
    shape, or that may learn in the model but is not in the delta; the model then is as it was.
    """
    what = "the delta"
    if not isinstance(delta, Mapping):
        what, delta = f"the file {delta}", weight_files.read(Path(delta))
    own = model.state_dict(keep_vars=True)
    for name in [*delta, *_names(model)]:
        if name not in own:
            raise ValueError(f"{what} has {name}, which the model lacks: prepare it with the same method and settings first")
        if name not in delta:
            raise ValueError(f"{what} lacks {name}, which may learn in this model: it was made with another method")
        if own[name].shape != delta[name].shape and not _other_classes(model, name, delta):
            raise ValueError(f"{what} has {name} in shape {tuple(delta[name].shape)}, the model in {tuple(own[name].shape)}: "
                             "prepare it with the same settings (rank, bottleneck, length)")
    with torch.no_grad():
        for name, value in delta.items():
            if own[name].shape == value.shape:
                own[name].copy_(value)
            else:
                layer, _, part = name.rpartition(".")
                linear = model.get_submodule(layer)
                setattr(linear, part, nn.Parameter(value.to(own[name].device).clone(), requires_grad=own[name].requires_grad))
                linear.out_features = len(value)
    return model


def _other_classes(model: nn.Module, name: str, delta: Mapping[str, Tensor]) -> bool:
    """Whether a tensor belongs to the model's last linear layer and differs in the number of classes only."""
    layer, _, part = name.rpartition(".")
    last = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1:]
    if [layer] != last or part not in ("weight", "bias"):
        return False
    weight, bias = (delta.get(f"{layer}.{part}") for part in ("weight", "bias"))
    linear = model.get_submodule(layer)
    return weight is not None and weight.shape[1:] == linear.weight.shape[1:] and (bias is None or len(bias) == len(weight))


class Tasks:
    """Several tasks on one network: each is a delta, and `use` puts one of them in place.

    The network stands in memory once; a task costs its delta. Begin with the model as it was prepared, before any training,
    and `keep("start")`, so that a new task can start where the first did.
    """

    def __init__(self, model: nn.Module):
        self.model, self.deltas, self.now = model, {}, None

    def keep(self, name: str) -> None:
        """Remember what the model has learned as the task `name` (again: anew)."""
        self.deltas[name], self.now = trained(self.model), name

    def use(self, name: str) -> nn.Module:
        """Switch to a task; returns the model. What was learned since the last `keep` is gone. Raises ValueError for an unknown name."""
        if name not in self.deltas:
            raise ValueError(f"name={name!r} is no task; {paths.did_you_mean(name, list(self.deltas)) if self.deltas else 'none is kept yet'}")
        self.now = name
        return load(self.model, self.deltas[name])


def interpolate(start: nn.Module, end: nn.Module, alpha: float) -> nn.Module:
    """A copy of `end` with the weights (1 - alpha) start + alpha end (WiSE-FT, Wortsman et al. 2022), in evaluation mode.

    start, end: two models of one form; for a classifier, `start` carries the head that belongs to the pretrained weights (a
    probe), or the half without it means nothing. alpha = 0 gives start and alpha = 1 gives end, bit for bit. Between them
    batch-norm statistics are interpolated like weights, which is not what the network in between would measure: run
    `adaptation.adabn` on training pictures afterwards. Whole numbers (counters) are those of the nearer end.
    Raises ValueError for an alpha outside [0, 1] and for models that differ in names or shapes.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} must lie in [0, 1]: 0 is the start, 1 the end")
    a, b = start.state_dict(), end.state_dict()
    wrong = sorted(a.keys() ^ b.keys()) or [name for name in a if a[name].shape != b[name].shape]
    if wrong:
        raise ValueError(f"start and end are not of one form, they differ in {wrong[0]} (of {len(wrong)}): take two trainings of one model")
    between = copy.deepcopy(end)
    mixed = {}
    for name in a:
        if alpha in (0, 1) or not a[name].is_floating_point():
            mixed[name] = a[name] if alpha < 0.5 else b[name]
        else:
            mixed[name] = torch.lerp(a[name], b[name], alpha)
    between.load_state_dict(mixed)
    return between.eval()
