"""Small trainable modules inside a frozen network: bottleneck adapters and prompts, written out.

Each is hooked into the network that is there: no module is replaced and no weight of the network changes its name, so that
the weights in a file still fit. Which method goes where, and how it is trained, is the affair of `peft_methods`.
"""
from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from .transformer_backbones import TextBackbone, check_texts


class Adapter(nn.Module):
    """A bottleneck with a way around it: x + up(gelu(down(x))) (Houlsby et al. 2019), on the last axis of x.

    width: of x (..., width). bottleneck: the width inside. It starts as the identity, exactly: `up` is zero (the paper starts
    near zero). spatial=True takes maps (N, width, H, W) and works at each position by itself: a 1x1 convolution, the residual
    adapter of Rebuffi, Bilen & Vedaldi (2017) without its batch norm. Raises ValueError for a bottleneck below 1.
    """

    def __init__(self, width: int, bottleneck: int = 16, *, spatial: bool = False):
        super().__init__()
        check_whole(bottleneck, "bottleneck")
        self.down, self.up = ((nn.Conv2d(width, bottleneck, 1), nn.Conv2d(bottleneck, width, 1)) if spatial
                              else (nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(nn.functional.gelu(self.down(x)))


def _through(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return module.adapter(output)        # found on the module that is called: a copy of the network uses its own adapter


def insert(backbone: nn.Module, targets: str, *, bottleneck: int = 16, seed: int = 0) -> list[str]:
    """Put an adapter behind each module whose whole name matches the pattern `targets`; returns these names.

    Behind a linear layer (of a transformer: its attention's and its feed-forward part's last, so that the adapter stands before
    the residual sum) it works on the last axis, behind anything else on channels. seed: of the adapters' first matrices.
    Raises ValueError if no module matches (it lists those that exist), if one has an adapter already, or for a bottleneck
    below 1.
    """
    found = matching(backbone, targets)
    for name in found:
        if hasattr(backbone.get_submodule(name), "adapter"):
            raise ValueError(f"targets: {name} has an adapter already; load the backbone again")
    check_whole(bottleneck, "bottleneck")
    width = widths(backbone, found)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name in found:
            module = backbone.get_submodule(name)
            module.add_module("adapter", Adapter(width[name], bottleneck, spatial=not is_linear(module)))
            module.register_forward_hook(_through)
    return found


# ---------------------------------------------------------------------------- prompts
class Prompt(nn.Module):
    """`length` learned vectors that stand before a text, (length, width), drawn with the deviation 0.02."""

    def __init__(self, length: int, width: int):
        super().__init__()
        check_whole(length, "length")
        self.vectors = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, states: Tensor) -> Tensor:
        """(N, L, width) to (N, length + L, width)."""
        return torch.cat([self.vectors.expand(len(states), -1, -1), states], 1)

    def instead(self, states: Tensor) -> Tensor:
        """The first `length` of (N, length + L, width) exchanged for the learned vectors."""
        return self(states[:, len(self.vectors):])


def _before(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return module.prompt(output)


def _anew(module: nn.Module, inputs: tuple) -> tuple:
    return module.prompt.instead(inputs[0]), *inputs[1:]


class Prompted(TextBackbone):
    """A text backbone that reads learned vectors before every text: prompt tuning (Lester, Al-Rfou & Constant 2021).

    backbone: a TextBackbone; its network is shared, and from now on works only through this object. length: how many
    vectors. deep=True gives every layer vectors of its own in these places, the form of prefix tuning (Li & Liang 2021) that
    visual prompt tuning calls deep (Jia et al. 2022). The text keeps its positions, and the features remain the mean over the
    text's tokens. seed: of the vectors. Raises ValueError for a length below 1 or a network whose layers it does not know.
    """

    def __init__(self, backbone: TextBackbone, length: int = 8, *, deep: bool = False, seed: int = 0):
        check_whole(length, "length")
        super().__init__(backbone.model, backbone.tokenizer)
        layers = _layers(backbone.model)
        self.length, self.gpt = length, hasattr(backbone.model, "wte")
        first = backbone.model.wte if self.gpt else backbone.model.embeddings
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for module in [first, *layers[1:]] if deep else [first]:
                if hasattr(module, "prompt"):
                    raise ValueError("backbone: it has a prompt already; load it again")
                module.add_module("prompt", Prompt(length, self.width))
                if module is first:
                    module.register_forward_hook(_before)
                else:
                    module.register_forward_pre_hook(_anew)

    def forward(self, texts: list[str] | Tensor) -> Tensor:
        """texts: N sentences, or their tokens (N, L) int64 with padding. Returns the features (N, width)."""
        if isinstance(texts, Tensor):
            ids = texts.to(self.model.device)
            batch = {"input_ids": ids, "attention_mask": (ids != self.tokenizer.pad_token_id).long()}
        else:
            batch = dict(self.encode(check_texts(texts)))
        mask = batch["attention_mask"]
        batch["attention_mask"] = torch.cat([mask.new_ones(len(mask), self.length), mask], 1)
        if self.gpt:        # it counts positions after the embedding: the prompt shares the first, the text keeps its own
            places = torch.arange(mask.shape[1], device=mask.device)
            batch["position_ids"] = torch.cat([places.new_zeros(self.length), places])[None]
            batch["inputs_embeds"] = self.model.wte(batch.pop("input_ids"))
            batch.pop("token_type_ids", None)
        states = self.model(**batch).last_hidden_state[:, self.length:]
        return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _layers(model: nn.Module) -> list[nn.Module]:
    """The layers of one of transformers' encoders, in order."""
    for path in ("encoder.layer", "transformer.layer", "h"):
        try:
            return list(model.get_submodule(path))
        except AttributeError:
            continue
    raise ValueError(f"backbone: the layers of {type(model).__name__} are not known; use BERT, RoBERTa, DistilBERT or GPT-2")


# ---------------------------------------------------------------------------- names, widths
def matching(backbone: nn.Module, targets: str) -> list[str]:
    """Names of the modules that the regular expression `targets` matches, from the first to the last letter or after a dot.

    So "query" finds "model.encoder.layer.0.attention.self.query". Raises ValueError if it matches nothing; the error lists
    what could be meant: every kind of module with weights, its numbers written as *.
    """
    pattern = re.compile(rf"(?:.*\.)?(?:{targets})")
    names = [name for name, _ in backbone.named_modules() if name and pattern.fullmatch(name)]
    if not names:
        raise ValueError(f"targets={targets!r} matches no module of {type(backbone).__name__}; there are {', '.join(kinds(backbone))}")
    return names


def kinds(backbone: nn.Module) -> list[str]:
    """The modules with a weight matrix or kernel, one entry for all that differ in their numbers only: "model.encoder.layer.*.output.dense"."""
    found = [name for name, part in backbone.named_modules() if getattr(getattr(part, "weight", None), "ndim", 0) > 1]
    return list(dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in found if name))


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer on the last axis (GPT-2's Conv1D is one)."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def widths(backbone: nn.Module, names: list[str], side: int = 96) -> dict[str, int]:
    """How many features or channels come out of each named module.

    A linear layer says so. For the others a black picture (3, side, side) goes through the backbone, in evaluation mode.
    Raises ValueError if one of them gives no maps then.
    """
    found, modules = {}, {name: backbone.get_submodule(name) for name in names}
    for name, module in modules.items():
        if is_linear(module):
            found[name] = module.nf if hasattr(module, "nf") else module.out_features
    if len(found) < len(names):
        seen = {}
        hooks = [module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
                 for name, module in modules.items() if name not in found]
        modes = [(part, part.training) for part in backbone.modules()]
        try:
            with torch.no_grad():
                backbone.eval()(torch.zeros(1, 3, side, side, device=next(backbone.parameters()).device))
        finally:
            for hook in hooks:
                hook.remove()
            for part, mode in modes:
                part.training = mode
        for name in names:
            if name not in found and getattr(seen.get(name), "ndim", 0) != 4:
                raise ValueError(f"targets: {name} gives no maps (N, C, H, W) for a picture; name linear layers, convolutions or stages")
        found |= {name: maps.shape[1] for name, maps in seen.items()}
    return found


def check_whole(value, name: str) -> None:
    """Raise ValueError unless `value` is a whole number, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number, at least 1")
