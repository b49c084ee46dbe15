"""What a network costs: parameters, bytes on disk, milliseconds; and 8-bit weights by torchao."""
from __future__ import annotations

import copy
import io
import time
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

INT8 = ("weights", "weights and activations")


def parameters(model: nn.Module) -> int:
    """How many numbers the network holds, frozen ones included (a shared parameter counts once)."""
    return sum(p.numel() for p in model.parameters())


def disk_bytes(model: nn.Module) -> int:
    """Size in bytes of the network's state, written by `torch.save`: 8-bit weights take one byte each, and their scales four."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def milliseconds(models: Mapping[str, nn.Module], x, *, repeats: int = 15) -> dict[str, list[float]]:
    """Processor time of a forward pass of x through each network, `repeats` times, in turn so that all share the machine's mood.

    models: name -> network, in evaluation mode. The first round warms up and is left out. Processor time leaves out what other programs
    take in between; with one thread (`torch.set_num_threads(1)`) it is the time that the pass takes on a free core.
    Raises ValueError for repeats < 1 or a network in training mode.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    for name, model in models.items():
        if model.training:
            raise ValueError(f"{name} is in training mode: call eval() before you time it")
    taken: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for number in range(-1, repeats):
            for name, model in models.items():
                start = time.process_time()
                model(x)
                if number >= 0:
                    taken[name].append(1000 * (time.process_time() - start))
    return taken


def quantised(model: nn.Module, kind: str = "weights") -> nn.Module:
    """A copy of the network whose linear layers hold 8-bit weights (torchao, one scale per output); the original stays as it is.

    kind: "weights" stores 8 bits and computes in float32; "weights and activations" rounds the inputs of each layer too, as they come,
    and multiplies whole numbers. Only `nn.Linear` is touched: convolutions, embeddings and norms keep their 32 bits (see `share_in_linear`).
    Nothing is trained. Raises ValueError for another kind, a network in training mode or one without linear layers.
    """
    if kind not in INT8:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(map(repr, INT8))}")
    if model.training:
        raise ValueError("the network is in training mode: 8 bits are for finished networks, call eval() first")
    if not any(isinstance(part, nn.Linear) for part in model.modules()):
        raise ValueError("the network has no linear layer: torchao's 8-bit settings touch no other, nothing would change")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

        config = Int8WeightOnlyConfig() if kind == "weights" else Int8DynamicActivationInt8WeightConfig()
        made = copy.deepcopy(model)
        quantize_(made, config)
    return made.eval()


def share_in_linear(model: nn.Module) -> float:
    """The share of the parameters that lies in weights of linear layers: what 8-bit weights can shrink."""
    inside = {id(part.weight): part.weight.numel() for part in model.modules() if isinstance(part, nn.Linear)}
    return sum(inside.values()) / parameters(model)


def rounded_to_8_bits(weight: torch.Tensor) -> torch.Tensor:
    """What symmetric 8-bit rounding leaves of a weight (outputs, inputs): each row divided by its largest / 127.5, rounded, put back.

    This is the idea in full; `quantised` stores the whole numbers instead of the result.
    """
    scale = weight.abs().amax(1, keepdim=True) / 127.5
    return torch.where(scale > 0, (weight / scale.clamp(min=1e-12)).round().clamp(-128, 127) * scale, weight)


def median(values) -> float:
    """The middle one of some times: a slow minute does not move it."""
    return float(np.median(values))
