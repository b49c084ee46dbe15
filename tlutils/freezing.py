"""Freezing parts of a model, and proof that what was frozen stayed as it was.

A frozen module gets no gradient *and* stays in evaluation mode: in training mode the running statistics of
its batch norms would drift and its dropout would blur the features, although no parameter changes.
"""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

_MARK = "_tlutils_frozen"


def freeze(module: nn.Module) -> nn.Module:
    """Stop `module` and everything in it from learning: no gradients, evaluation mode now and in `train_mode`.

    The mark sits on each submodule, so a part can be unfrozen again, and a module added to a frozen one later
    (an adapter) is free. Returns the module.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for part in module.modules():
        setattr(part, _MARK, True)
        part.training = False
    return module


def unfreeze(module: nn.Module) -> nn.Module:
    """Let `module` and everything in it learn again. Its mode changes at the next `train_mode`. Returns the module."""
    for parameter in module.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
    for part in module.modules():
        part.__dict__.pop(_MARK, None)
    return module


def is_frozen(module: nn.Module) -> bool:
    """True if `freeze` marked this module (for a model frozen in part, ask its parts)."""
    return getattr(module, _MARK, False)


def train_mode(model: nn.Module) -> nn.Module:
    """`model.train()`, but modules marked by `freeze` stay in evaluation mode. Returns the model."""
    model.train()
    for part in model.modules():
        if getattr(part, _MARK, False):
            part.training = False
    return model


def trainable_parameters(model: nn.Module) -> int:
    """How many single numbers of the model receive gradients (a shared parameter counts once)."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def frozen_snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers by name (buffers that are not saved with the model included)."""
    return {name: tensor.clone() for name, tensor in frozen_tensors(module).items()}


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that `assert_frozen` watches, by name, sharing memory with the module."""
    parameters = module.named_parameters(remove_duplicate=False)
    return {name: t.detach() for name, t in (*parameters, *module.named_buffers(remove_duplicate=False))}


def restore(module: nn.Module, snapshot: Mapping[str, Tensor]) -> None:
    """Copy the values of a `frozen_snapshot` back, in place. Raises ValueError if the names differ."""
    now = frozen_tensors(module)
    if wrong := snapshot.keys() ^ now.keys():
        raise ValueError(f"snapshot does not fit this module, it differs in {_shorten(sorted(wrong))}")
    for name, value in snapshot.items():
        now[name].copy_(value)


def restore_marks(module: nn.Module, trainable: Iterable[str], frozen: Iterable[str]) -> None:
    """Make exactly the named parameters trainable, and mark exactly the named modules as frozen."""
    trainable, frozen = set(trainable), set(frozen)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trainable)
    for name, part in module.named_modules():
        part.__dict__.pop(_MARK, None)
        if name in frozen:
            setattr(part, _MARK, True)


class FrozenChanged(AssertionError):
    """Something that had to stay as it was has changed."""


def assert_frozen(module: nn.Module, before: dict[str, Tensor] | None = None):
    """Prove that parameters and buffers are bit for bit what they were; the error names the first that is not.

    Either `with assert_frozen(backbone): ...`, or `before = frozen_snapshot(backbone)` first and
    `assert_frozen(backbone, before)` afterwards. Raises FrozenChanged (an AssertionError).
    """
    if before is None:
        return _Watch(module)
    _compare(module, before)


def assert_trains(model: nn.Module, loss: Tensor | Callable[[], Tensor], *, nonzero: bool = False) -> None:
    """Prove that every trainable parameter is reached by the loss; the error names those that are not.

    loss: a scalar with a graph, or a function that computes one. Nothing is stepped and no `.grad` is touched.
    Reached means that a gradient exists. It may be zero: LoRA's first matrix starts with a zero gradient by
    design. `nonzero=True` asks for more. Raises AssertionError, also if nothing is trainable.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise AssertionError(f"{type(model).__name__} has no trainable parameter: unfreeze a part or add a head")
    value = loss() if callable(loss) else loss
    gradients = [None] * len(named)
    if value.requires_grad:
        gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True, retain_graph=True)
    missed = [name for name, g in zip(named, gradients, strict=True) if g is None or (nonzero and not g.any())]
    if missed:
        raise AssertionError(f"{len(missed)} of {len(named)} trainable parameters receive no gradient: "
                             f"{_shorten(missed)}. Their output is never used, or was cut off by detach or no_grad")


class _Watch:
    """The context manager behind `assert_frozen(module)`."""

    def __init__(self, module: nn.Module):
        self.module, self.used = module, False

    def __enter__(self) -> nn.Module:
        self.used, self.before = True, frozen_snapshot(self.module)
        return self.module

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:                        # an error inside the block says more than ours would
            _compare(self.module, self.before)

    def __del__(self):
        if not self.used:
            warnings.warn("assert_frozen(module) checked nothing: use it in a `with` statement, or pass `before`",
                          stacklevel=2)


def _compare(module: nn.Module, before: dict[str, Tensor]) -> None:
    now = frozen_tensors(module)
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    if missing := before.keys() ^ now.keys():
        raise FrozenChanged(f"the parameters or buffers are not the same as before: {_shorten(sorted(missing))}")
    for name, old in before.items():
        new = now[name]
        if not _same_bits(old, new):
            kind = "parameter" if name in parameters else "buffer"
            raise FrozenChanged(f"{kind} {name!r} changed{_by_how_much(old, new)}: {_REASONS[kind]}")


_REASONS = {"parameter": "it was trained; call freezing.freeze on its module before the optimizer steps",
            "buffer": "its module ran in training mode (batch-norm statistics drift there even when no parameter "
                      "is trained); use freezing.freeze and freezing.train_mode"}


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (t.cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)                    # bytes: NaN equals itself, and -0.0 is not 0.0


def _by_how_much(a: Tensor, b: Tensor) -> str:
    if a.shape != b.shape or a.dtype != b.dtype:
        return f" from {a.dtype} {tuple(a.shape)} to {b.dtype} {tuple(b.shape)}"
    return f" by up to {(a.cpu().double() - b.cpu().double()).abs().max():.3g}"


def _shorten(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
