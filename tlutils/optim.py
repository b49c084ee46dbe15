"""Optimizers, rates that differ by layer, schedules, and the pull back to the starting point (L2-SP)."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
SCHEDULES = ("constant", "linear", "cosine")


def build(parameters, *, lr: float, weight_decay: float = 0.0, optimizer="adamw") -> torch.optim.Optimizer:
    """An optimizer over parameters or parameter groups.

    optimizer: "adamw", "adam", "sgd" (momentum 0.9), or a factory called as `factory(groups, lr=, weight_decay=)`
    (a class of torch.optim, or a partial of one). Frozen parameters may be in it: without a gradient, torch's
    optimizers leave them alone, weight decay included. Raises ValueError for a negative rate or unknown name.
    """
    check_rate(lr, "lr")
    check_rate(weight_decay, "weight_decay")
    # copies: torch and the schedule write into the dicts, which are the caller's
    groups = [{**p, "params": list(p["params"])} if isinstance(p, dict) else p for p in parameters]
    if not groups:
        raise ValueError("parameters is empty: give the optimizer at least one parameter")
    if not isinstance(optimizer, str):
        return optimizer(groups, lr=lr, weight_decay=weight_decay)
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer={optimizer!r} is unknown: use one of {', '.join(OPTIMIZERS)}, or a factory")
    # torch's fused SGD fails when a parameter gets its first gradient later than others (gradual unfreezing)
    extra = {"momentum": 0.9} if optimizer == "sgd" else {"fused": _can_fuse(groups)}
    return OPTIMIZERS[optimizer](groups, lr=lr, weight_decay=weight_decay, **extra)


def layerwise(stages, head: nn.Module | None = None, *, lr: float, decay: float, head_lr: float | None = None,
              weight_decay: float | None = None) -> list[dict]:
    """Parameter groups whose rate falls with the distance from the top (ULMFiT, Howard & Ruder 2018).

    stages: modules from the bottom up, or a backbone whose `.stages` hold all its parameters. The top stage
    gets `lr`, each one below it `decay` times the rate above; the head gets `head_lr`, or `lr`.
    weight_decay: if given, each group carries it, and a second group of the same rate holds norms and biases
    (everything with fewer than two dimensions) without decay.
    Raises ValueError for a decay outside (0, 1], a negative rate, or a parameter that no stage holds.
    """
    check_rate(lr, "lr")
    check_rate(head_lr, "head_lr")
    check_rate(weight_decay, "weight_decay")
    if not 0 < decay <= 1:
        raise ValueError(f"decay={decay} must lie in (0, 1]: it multiplies the rate from one stage to the one below")
    named = _named_stages(stages)
    groups = [(name, module, lr * decay ** depth) for depth, (name, module) in enumerate(reversed(named))][::-1]
    if head is not None:
        groups.append(("head", head, lr if head_lr is None else head_lr))
    taken: set[int] = set()
    return [group for name, module, rate in groups
            for group in _split(name, _fresh(module, taken), rate, weight_decay) if group["params"]]


def l2_sp(module: nn.Module, reference: Mapping[str, Tensor] | None = None, *, strength: float = 0.01,
          new_strength: float = 0.0) -> Callable[..., Tensor]:
    """The penalty `strength/2 |w - w0|^2 + new_strength/2 |v|^2` (L2-SP; Li, Grandvalet & Davoine 2018).

    module: what is pulled back. reference: its starting point by parameter name (default: the weights that it
    has now). w are the parameters that the reference names, v the others (a new head). Frozen ones are left out.
    Returns `penalty(model) -> scalar` for `training.fit(..., penalty=)`; `module` must be a part of that model.
    Raises ValueError if nothing of the reference fits.
    """
    check_rate(strength, "strength")
    check_rate(new_strength, "new_strength")
    own = dict(module.named_parameters())
    reference = own if reference is None else reference
    anchors = {name: reference[name].detach().clone() for name in own if name in reference}
    if not anchors:
        raise ValueError("reference names no parameter of the module: pass the state dict of this very module")
    for name, value in anchors.items():
        if value.shape != own[name].shape:
            raise ValueError(f"reference[{name!r}] has shape {tuple(value.shape)}, the module's parameter "
                             f"{tuple(own[name].shape)}: leave it out of the reference")

    def penalty(model: nn.Module = module) -> Tensor:
        if model is not module and all(part is not module for part in model.modules()):
            raise ValueError("this L2-SP penalty belongs to another model: build it from the model that is trained")
        pulled, new = [], []
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if name in anchors:
                anchors[name] = anchors[name].to(parameter)
                pulled.append((parameter - anchors[name]).flatten())
            elif new_strength:
                new.append(parameter.flatten())
        return _half_square(pulled, strength) + _half_square(new, new_strength)

    return penalty


def schedule(kind: str | Callable[[float], float], steps: int, *, warmup: int = 0) -> Callable[[int], float]:
    """The factor on every rate as a function of the step t = 0 .. steps-1.

    For `warmup` steps it rises linearly to 1 (the first step has 1/warmup, not 0). After that, with p from 0 to
    1 the share of the remaining steps done: "constant" 1, "linear" 1 - p, "cosine" (1 + cos(pi p)) / 2 (SGDR,
    Loshchilov & Hutter 2017), or a function of p. Raises ValueError for an unknown name or warmup >= steps.
    """
    if not callable(kind) and kind not in SCHEDULES:
        raise ValueError(f"schedule={kind!r} is unknown: use one of {', '.join(SCHEDULES)}, or a function of the "
                         "share of steps done")
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup} must be at least 0 and less than steps={steps}")
    curve = {"constant": lambda p: 1.0, "linear": lambda p: 1 - p,
             "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p))}.get(kind, kind)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return float(curve((step - warmup) / (steps - warmup)))

    return factor


def restore(optimizer: torch.optim.Optimizer, state: Mapping[str, dict]) -> None:
    """Load the saved state of each parameter, by its number, into an optimizer built like the one saved."""
    whole = optimizer.state_dict()
    whole["state"] = {int(number): values for number, values in state.items()}
    optimizer.load_state_dict(whole)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            # fused kernels walk through memory: a channels_last parameter needs its averages laid out alike
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def check_rate(value: float | None, name: str) -> None:
    """Raise ValueError unless `value` is None or a finite number >= 0."""
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}={value} must be a finite number, at least 0")


def _half_square(parts: list[Tensor], strength: float) -> Tensor | float:
    return torch.cat(parts).square().sum() * (strength / 2) if parts and strength else torch.zeros(())


def _named_stages(stages) -> list[tuple[str, nn.Module]]:
    backbone = stages if isinstance(stages, nn.Module) and hasattr(stages, "stages") else None
    parts = backbone.stages if backbone is not None else stages
    if isinstance(parts, (nn.Sequential, nn.ModuleDict, nn.ModuleList)):
        named = list(parts.named_children())
    elif isinstance(parts, Iterable):
        named = [(f"stage{i}", part) for i, part in enumerate(parts)]
    else:
        raise ValueError(f"stages is a {type(stages).__name__}: give a list of modules, bottom first, or a backbone "
                         "that has .stages")
    if not named:
        raise ValueError("stages is empty: give at least one module")
    if backbone is not None:
        held = {id(p) for _, module in named for p in module.parameters()}
        left = [name for name, p in backbone.named_parameters() if id(p) not in held]
        if left:
            raise ValueError(f"the backbone's stages do not hold {', '.join(left[:5])}: list the modules yourself")
    return named


def _fresh(module: nn.Module, taken: set[int]) -> list[nn.Parameter]:
    """The module's parameters that no earlier group holds (a shared parameter goes to the lowest stage)."""
    fresh = [p for p in module.parameters() if id(p) not in taken]
    taken.update(map(id, fresh))
    return fresh


def _split(name: str, parameters: list, rate: float, weight_decay: float | None) -> list[dict]:
    if weight_decay is None:
        return [{"params": parameters, "lr": rate, "name": name}]
    return [{"params": [p for p in parameters if p.ndim > 1], "lr": rate, "weight_decay": weight_decay, "name": name},
            {"params": [p for p in parameters if p.ndim <= 1], "lr": rate, "weight_decay": 0.0,
             "name": f"{name} norms and biases"}]


def _can_fuse(groups: list) -> bool | None:
    """Fused kernels take a fifth of the time on small networks; they need plain dense tensors on CPU or CUDA."""
    tensors = [p for g in groups for p in (g["params"] if isinstance(g, dict) else [g])]
    plain = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in tensors)
    return True if plain else None
