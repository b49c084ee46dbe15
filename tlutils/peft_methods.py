"""Fine-tuning with few parameters: BitFit, adapters, LoRA, (IA)3 and prompts, between a probe and full fine-tuning.

`prepare` makes one of METHODS of a network that `zoo.load` gave: the network is frozen, and what the method adds or frees may
learn. The rest is as for any other method: a `finetune.Classifier`, trained by `training.fit`. `Peft` is the contestant.
LoRA and (IA)3 are those of the library peft, adapters and prompts those of `adapters`; what is shipped is a delta (`deltas`).
"""
from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from . import adapters, finetune, freezing, training, zoo
from .transformer_backbones import TextBackbone

METHODS = ("probe", "bitfit", "adapters", "lora", "ia3", "prompt", "deep prompt", "full")
# Where each method goes, by the type in the network's config: patterns for `adapters.matching`.
_BERT = {"adapters": r"(attention\.output|layer\.\d+\.output)\.dense", "lora": "query|value",
         "ia3": r"key|value|layer\.\d+\.output\.dense", "feedforward": r"layer\.\d+\.output\.dense"}
TARGETS = {
    "bert": _BERT, "roberta": _BERT,
    "distilbert": {"adapters": r"attention\.out_lin|ffn\.lin2", "lora": "q_lin|v_lin", "ia3": r"k_lin|v_lin|ffn\.lin2",
                   "feedforward": r"ffn\.lin2"},
    # GPT-2 computes queries, keys and values by one matrix: LoRA and (IA)3 take all three
    "gpt2": {"adapters": r"attn\.c_proj|mlp\.c_proj", "lora": "c_attn", "ia3": r"c_attn|mlp\.c_proj", "feedforward": r"mlp\.c_proj"},
}


def targets_of(backbone: nn.Module, method: str) -> str:
    """The pattern of the modules that a method goes to in this network, unless it is told otherwise.

    In a transformer: adapters behind the attention and the feed-forward part (Houlsby et al. 2019), LoRA on queries and values
    (Hu et al. 2022), (IA)3 on keys, values and the feed-forward part (Liu et al. 2022). In an image network: adapters behind
    each stage, LoRA and (IA)3 on all convolutions but depthwise ones. Raises ValueError for a network whose parts are not known.
    """
    if hasattr(backbone, "stages"):
        if method == "adapters":
            return r"stages\.[^.]+"
        return "|".join(name.replace(".", r"\.") for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d) and part.groups == 1)
    kind = getattr(getattr(getattr(backbone, "model", None), "config", None), "model_type", None)
    if kind not in TARGETS:
        raise ValueError(f"targets: where {method} goes in {kind or type(backbone).__name__} is not known; name modules: "
                         f"{', '.join(adapters.kinds(backbone))}")
    return TARGETS[kind][method]


def prepare(loaded, method: str, *, targets: str | None = None, rank: int = 8, alpha: float = 16.0, bottleneck: int = 16,
            length: int = 8, norms: bool = False, seed: int = 0):
    """The same network, in place, ready for one of METHODS: returns a `zoo.Loaded` whose backbone learns what the method trains.

    "probe"       nothing: the head alone will learn, by gradient steps (a logistic regression is `finetune.linear_probe`);
    "bitfit"      the biases (Ben Zaken, Goldberg & Ravfogel 2022); in an image network these are the batch norms' shifts;
    "adapters"    bottlenecks of width `bottleneck` (Houlsby et al. 2019), see `adapters.insert`;
    "lora"        a product of two matrices of rank `rank` beside each target, times alpha / rank (Hu et al. 2022);
    "ia3"         a factor for each feature of the targets (Liu et al. 2022);
    "prompt"      `length` learned vectors before the text, "deep prompt" in every layer (`adapters.Prompted`);
    "full"        everything.
    targets: a regular expression for other modules than `targets_of` names ("query|key"); norms: the scales and shifts of layer
    norms and batch norms learn too, as in the adapters' paper. seed: of what is drawn. Batch-norm statistics and dropout of what is
    frozen stand still. All but the prompts start as the network itself, to rounding.
    Raises ValueError for an unknown method, a rank, bottleneck or length below 1, targets that match nothing (the names that
    exist are listed), prompts for pictures, or a network that has been prepared before.
    """
    if method not in METHODS:
        raise ValueError(f"method: must be one of {', '.join(METHODS)}; got {method!r}")
    backbone = loaded.backbone
    if is_prepared(backbone):
        raise ValueError("loaded: its backbone has been prepared for a method already; load it again")
    if method == "full":
        freezing.unfreeze(backbone)
        return loaded
    freezing.freeze(backbone)
    if method == "bitfit":
        free = [name for name, _ in backbone.named_parameters() if name.endswith("bias") and ".pooler." not in name]    # BERT's pooler: unused
        if not free:
            raise ValueError(f"method: {loaded.name} has no biases, so BitFit has nothing to train")
        _free(backbone, free)
    elif method == "adapters":
        adapters.insert(backbone, targets or targets_of(backbone, method), bottleneck=bottleneck, seed=seed)
    elif method == "lora":
        lora(backbone, targets or targets_of(backbone, method), rank=rank, alpha=alpha, seed=seed)
    elif method == "ia3":
        ia3(backbone, targets or targets_of(backbone, method), feedforward=None if targets or hasattr(backbone, "stages")
            else targets_of(backbone, "feedforward"))
    elif method in ("prompt", "deep prompt"):
        if not isinstance(backbone, TextBackbone):
            raise ValueError(f"method: {method} needs a text backbone; {loaded.name} reads pictures")
        backbone = adapters.Prompted(backbone, length, deep=method == "deep prompt", seed=seed)
    if norms:
        _free(backbone, [f"{name}.{part}" for name, module in backbone.named_modules()
                         if isinstance(module, (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)) for part, _ in module.named_parameters()])
    return replace(loaded, backbone=backbone)


def _free(backbone: nn.Module, names: list[str]) -> None:
    """Let single parameters learn; their modules stay in evaluation mode."""
    for name in names:
        backbone.get_parameter(name).requires_grad_(True)


def is_prepared(backbone: nn.Module) -> bool:
    """Whether adapters, prompts, LoRA or (IA)3 are in a network already."""
    return any(hasattr(part, "adapter") or hasattr(part, "prompt") or hasattr(part, "base_layer") for part in backbone.modules())


def lora(backbone: nn.Module, targets: str, *, rank: int = 8, alpha: float = 16.0, seed: int = 0) -> list[str]:
    """Low-rank updates (Hu et al. 2022) beside the modules that `targets` matches, by peft; returns their names.

    W x becomes W x + (alpha / rank) B A x; A is drawn from `seed`, B starts at zero, so nothing has changed yet. Only A and B
    may learn. Takes linear layers, convolutions and embeddings. Raises ValueError for a rank below 1, an alpha not above 0,
    targets that match nothing (it lists the names that exist) or that peft can't replace.
    """
    from peft import LoraConfig

    adapters.check_whole(rank, "rank")
    if not alpha > 0:
        raise ValueError(f"alpha={alpha} must be greater than 0: the update is multiplied by alpha / rank")
    names = adapters.matching(backbone, targets)
    return _inject(backbone, names, LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0, bias="none",
                                              fan_in_fan_out=_transposed(backbone, names)), seed)


def ia3(backbone: nn.Module, targets: str, *, feedforward: str | None = None) -> list[str]:
    """Factors, all 1 at first, on what the matched modules give, by peft ((IA)3, Liu et al. 2022); returns the modules' names.

    feedforward: a pattern of those among them whose input is scaled instead. Raises ValueError if a pattern matches nothing.
    """
    from peft import IA3Config

    names = adapters.matching(backbone, targets)
    inner = adapters.matching(backbone, feedforward) if feedforward else []
    if other := set(inner) - set(names):
        raise ValueError(f"feedforward: {sorted(other)[0]} is not among the targets; give a part of them")
    return _inject(backbone, names, IA3Config(target_modules=names, feedforward_modules=inner,
                                             fan_in_fan_out=_transposed(backbone, names)), 0)


def _transposed(backbone: nn.Module, names: list[str]) -> bool:
    """Whether the weights are stored the other way round, as in GPT-2's Conv1D."""
    return type(backbone.get_submodule(names[0])).__name__ == "Conv1D"


def _inject(backbone: nn.Module, names: list[str], config, seed: int) -> list[str]:
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            inject_adapter_in_model(config, backbone)
        except ValueError as error:
            raise ValueError(f"targets: {names[0]} and {len(names) - 1} more can't all be replaced ({str(error).splitlines()[0][:160]}); "
                             "name linear layers or convolutions") from None
    return names


def merged(module: nn.Module) -> nn.Module:
    """A copy in which LoRA or (IA)3 are multiplied into the weights they stand beside: the plain network, no slower than before.

    It gives the same outputs up to rounding. Raises ValueError if there is nothing to merge (adapters and prompts can't be).
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(module)
    found = [(name, part) for name, part in plain.named_modules() if isinstance(part, BaseTunerLayer)]
    if not found:
        raise ValueError(f"module: {type(module).__name__} has no LoRA or (IA)3 in it; other methods can't be merged")
    for name, part in found:
        part.merge()
        parent, _, child = name.rpartition(".")
        setattr(plain.get_submodule(parent), child, part.get_base_layer())
    return plain.eval()


def share(backbone: nn.Module) -> float:
    """Trainable parameters of a prepared backbone over the parameters that it had before."""
    added = sum(p.numel() for name, p in backbone.named_parameters() if _is_added(name))
    return freezing.trainable_parameters(backbone) / (sum(p.numel() for p in backbone.parameters()) - added)


def _is_added(name: str) -> bool:
    return any(part in f".{name}" for part in (".adapter.", ".prompt.", ".lora_", ".ia3_"))


@dataclass(frozen=True)
class Peft:
    """A contestant: one of METHODS on one network of the zoo, with a linear head. weights=None: random ones, drawn from the seed.

    lr: of everything that learns. steps: a number, or a function of the labels per class. settings: for `prepare` (rank,
    bottleneck, ...). options: for `training.fit`. Called as the contestants of `methods` and, through `fit`, as those on texts.
    """
    method: str
    lr: float
    steps: object = 300
    model: str = "bert-mini"
    weights: str | None = "bundled"
    settings: dict = field(default_factory=dict)
    augment: Callable | None = field(default=None, repr=False)
    weight_decay: float = 0.05
    batch_size: int = 32
    options: dict = field(default_factory=dict)

    def classifier(self, classes: int, seed: int) -> finetune.Classifier:
        """The model before any training; equal seeds give equal heads whatever the method."""
        loaded = prepare(zoo.load(self.model, self.weights, seed=seed), self.method, seed=seed, **self.settings)
        return finetune.Classifier(loaded, classes, seed=seed)

    def run(self, x, y: Tensor, seed: int, **more) -> finetune.Run:
        """Train on N pictures or texts and return the whole run, with its history. Raises ValueError as `finetune.check_labelled` does."""
        x = x if isinstance(x, Tensor) else list(x)
        finetune.check_labelled(x, y)
        model = self.classifier(int(y.max()) + 1, seed)
        steps = self.steps(len(y) // len(y.unique())) if callable(self.steps) else self.steps
        options = {"clip": 1.0, "channels_last": isinstance(x, Tensor)} | self.options | more
        history = training.fit(model, (x, y), steps=steps, lr=self.lr, seed=seed, weight_decay=self.weight_decay, warmup=steps // 10,
                               batch_size=self.batch_size, augment=self.augment, **options)
        return finetune.Run(model, history)

    def fit(self, x, y: Tensor, seed: int = 0) -> Callable:
        """Trained on N pictures or texts; returns a function from such to predicted labels."""
        run = self.run(x, y, seed)
        return lambda new: run.predict(new if isinstance(new, Tensor) else list(new)).numpy()

    def __call__(self, x, y, x_test, seed) -> np.ndarray:
        return self.fit(x, y, seed)(x_test)
