"""The stored experiments of `image_models`: four families of networks compared, and what skip connections do to gradients.

Lab: the minis' learning rates, linear probes on every mini, fine-tuning of every mini, gradients and training of plain
towers with and without skips and batch norm. Real: how fast published networks run, what two of them say of photographs.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import evaluation, finetune, mini_cnns, paths, readers, shapes, training, zoo
from .metrics import correct
from .processes import one_thread as _one_thread

SEEDS = range(100, 120)               # of the probes: cheap, so many
TUNED_SEEDS = range(100, 105)         # of what is trained
DEV_SEEDS = range(0, 3)
FORWARD = ("shapes", "backbones", "mini_cnns", "inference", "zoo:Preprocess", "zoo:MINI", "evaluation:world")
TRAINING = (*FORWARD, "augmentation", "batches", "loop", "training", "optim", "freezing", "finetune")


# ---------------------------------------------------------------------------- the minis' own pretraining
SOURCE_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)     # tried for the pretraining of each mini
SOURCE_STEPS = 350                    # a tenth of a recipe's steps
VALIDATION_SEED = 77                  # scenes of the source classes that neither the recipes nor their cards use


def source_rates() -> list:
    """Learning rates tried for the pretraining of the VGG, Inception and EfficientNet minis, on source scenes kept apart."""
    return [partial(source_run, model, rate, threads=1) for model in mini_cnns.MINIS for rate in SOURCE_RATES]


def source_run(model: str, rate: float, seed: int = 0, steps: int = SOURCE_STEPS, threads: int | None = None) -> list[dict]:
    """A short pretraining on the 16 source shapes: one row of model, method (the rate), seed and accuracy."""
    if threads:
        torch.set_num_threads(threads)
    classifier = finetune.Classifier(zoo.load(model, None, seed=seed), 16, seed=seed)
    history = training.fit(classifier, shapes.SHAPES16.stream, steps=steps, lr=rate, weight_decay=1e-2, batch_size=128,
                           warmup=steps // 10, seed=seed)
    scores = training.evaluate(classifier, *shapes.SHAPES16.draw(50, seed=VALIDATION_SEED))
    return [{"method": f"{rate:g}", "model": model, "seed": seed, "accuracy": scores["accuracy"],
             "loss": sum(history.losses[-20:]) / 20}]


# ---------------------------------------------------------------------------- the minis as feature extractors
NETWORKS = ("resnet-mini", "vgg-mini", "inception-mini", "efficientnet-mini")
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)     # C of the probe, tried on the development shapes


def probe_rates() -> list:
    """The probe's penalty for every mini, pretrained and random, tried on the development shapes."""
    return [partial(probe_run, labels, seed, shapes.DEV8, None, threads=1) for labels in (50, 5) for seed in DEV_SEEDS]


def families() -> list:
    """Linear probes on the four minis, pretrained and random, on ten new shapes: accuracy by labels per class."""
    return [partial(probe_run, labels, seed, threads=1) for labels in (50, 20, 5) for seed in SEEDS[:12]]


def probe_run(labels: int, seed: int, task: shapes.Task = shapes.TARGET10, penalty: Callable | None = "chosen",
              networks=NETWORKS, threads: int | None = None) -> list[dict]:
    """Probes on frozen networks, one draw: rows of method, network, pretrained, labels, seed, C, accuracy.

    penalty: "chosen" takes C from CHOSEN_PENALTY; None tries every one of PENALTIES (a row each). A random network is
    drawn anew from each seed. method: the network's name, with ", random" behind it where it was never trained.
    """
    _one_thread(threads)
    x, y, x_test, y_test = evaluation.world(task)(labels, seed)
    rows = []
    for network, pretrained in product(networks, (True, False)):
        body = finetune.Features(zoo.load(network, "shapes" if pretrained else None, seed=seed))
        train, test = training.predict(body, x), training.predict(body, x_test).numpy()
        method = network if pretrained else f"{network}, random"
        for C in PENALTIES if penalty is None else (chosen_penalty(method, labels),):
            found = finetune.linear_probe(train, y, C=C).predict(test)
            rows.append({"method": method, "network": network, "pretrained": pretrained, "labels": labels, "seed": seed,
                         "C": C, "accuracy": float(correct(found, y_test).mean())})
    return rows


def chosen_penalty(method: str, labels: int) -> float:
    """The C that did best on the development shapes, for few (up to 10) or more labels per class."""
    return CHOSEN_PENALTY[method][0 if labels <= 10 else 1]


# What `probe_rates` says (a test compares): with 5 and with 50 labels per class.
CHOSEN_PENALTY = {"resnet-mini": (0.1, 1.0),
                  "resnet-mini, random": (0.1, 0.1),
                  "vgg-mini": (0.01, 0.1),
                  "vgg-mini, random": (10.0, 0.1),
                  "inception-mini": (10.0, 1.0),
                  "inception-mini, random": (0.1, 0.1),
                  "efficientnet-mini": (10.0, 0.1),
                  "efficientnet-mini, random": (0.01, 0.1)}


# ---------------------------------------------------------------------------- skips, batch norm and depth
DEPTHS = (2, 8, 20, 56)               # residual blocks, each of two convolutions
CELLS = ((False, False), (True, False), (False, True), (True, True))      # (skips, batch norm)
TOWER_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
TOWER_DEPTH = 20
TOWER_STEPS = 150
# What `tower_rates` says (a test compares): initialisation and learning rate of each cell.
CHOSEN_TOWER = {"neither": ("he", 0.0003), "skips": ("torch", 0.001), "batch norm": ("torch", 0.003), "both": ("he", 0.01)}


class Block(nn.Module):
    """Two 3x3 convolutions, with or without batch norm, with or without a skip connection around them (He et al. 2016)."""

    def __init__(self, width: int, *, skip: bool, norm: bool):
        super().__init__()
        self.skip = skip
        layers = []
        for activation in (nn.ReLU(), nn.Identity()):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width) if norm else nn.Identity(), activation]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x) if self.skip else self.body(x))


def tower(depth: int, *, skip: bool, norm: bool, init: str = "torch", seed: int = 0, width: int = 16) -> nn.Sequential:
    """A stem, `depth` blocks on 8x8 maps, an average and a linear layer onto 16 classes; takes scenes in [0, 1].

    init: "torch" leaves PyTorch's own initialisation of convolutions, "he" draws He et al.'s (2015), with twice the
    variance of 1 / fan-out. Raises ValueError for another name.
    """
    if init not in ("torch", "he"):
        raise ValueError(f'init: must be "torch" or "he", got {init!r}')
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        blocks = (Block(width, skip=skip, norm=norm) for _ in range(depth))
        net = nn.Sequential(Standardise(), nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), *blocks,
                            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 16))
        for layer in net.modules() if init == "he" else ():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
    return net


class Standardise(nn.Module):
    """The minis' preprocessing as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25


SCALE = 1e25      # the loss is multiplied by it and the gradients divided: 1e-48 would be zero in single precision


def gradient_norms(net: nn.Module, x: Tensor, y: Tensor) -> list[float]:
    """Norm of the loss's gradient in the first convolution of every block, in depth order.

    x: (N, 3, 32, 32) in [0, 1], y: (N,) int64. Batch norm takes the batch's own statistics. Gradients are linear in the
    loss, so it is scaled up for the way back, and norms from about 1e-65 to 1e13 can be told. The network keeps the gradients.
    """
    net.train()
    (SCALE * F.cross_entropy(net(x), y)).backward()
    return [float(block.body[0].weight.grad.double().norm()) / SCALE for block in net if hasattr(block, "body")]


def cell(skip: bool, norm: bool) -> str:
    """The name of a cell of the two by two."""
    return {(False, False): "neither", (True, False): "skips", (False, True): "batch norm", (True, True): "both"}[skip, norm]


def gradients() -> list:
    """Gradient in the first and the last block, before training, by depth, skips, batch norm and initialisation."""
    return [partial(gradient_run, depth, seed, threads=1) for depth in sorted(DEPTHS, reverse=True) for seed in SEEDS[:10]]


def gradient_run(depth: int, seed: int, cells=CELLS, inits=("torch", "he"), threads: int | None = None) -> list[dict]:
    """All cells at one depth, on 32 fresh scenes: rows of method, init, depth, seed, value and last (log10 of the norms)."""
    _one_thread(threads)
    x, y = shapes.SHAPES16.draw(2, seed=seed)
    rows = []
    for init, (skip, norm) in product(inits, cells):
        norms = gradient_norms(tower(depth, skip=skip, norm=norm, init=init, seed=seed), x, y)
        rows.append({"method": cell(skip, norm), "init": init, "depth": depth, "seed": seed,
                     "value": float(np.log10(norms[0])), "last": float(np.log10(norms[-1]))})
    return rows


def tower_rates() -> list:
    """Learning rate and initialisation of each tower of 20 blocks, tried on a seed of their own."""
    return [partial(tower_run, skip, norm, init, rate, DEV_SEEDS[0], threads=1)
            for (skip, norm), init, rate in product(CELLS, ("torch", "he"), TOWER_RATES)]


def towers() -> list:
    """Do towers of 20 blocks train? Accuracy in naming 16 colours after 150 steps, each with its best settings."""
    return [partial(tower_run, skip, norm, *CHOSEN_TOWER[cell(skip, norm)], seed, threads=1)
            for (skip, norm), seed in product(CELLS, TUNED_SEEDS)]


def tower_run(skip: bool, norm: bool, init: str, rate: float, seed: int, depth: int = TOWER_DEPTH, steps: int = TOWER_STEPS,
              threads: int | None = None) -> list[dict]:
    """One training of a tower on 16 colours (AdamW, 32 scenes a step): a row of method, init, rate, depth, seed, accuracy, loss, diverged.

    A loss that is no longer finite ends the run: it counts as chance.
    """
    _one_thread(threads)
    net = tower(depth, skip=skip, norm=norm, init=init, seed=seed)
    row = {"method": cell(skip, norm), "init": init, "rate": rate, "depth": depth, "seed": seed}
    try:
        history = training.fit(net, shapes.COLOUR16.stream, steps=steps, lr=rate, batch_size=32, warmup=steps // 10, seed=seed)
    except training.NonFiniteLoss:
        return [row | {"accuracy": 1 / 16, "loss": None, "diverged": True}]
    scores = training.evaluate(net, *shapes.COLOUR16.draw(50, seed=evaluation.TEST_SEED + seed))
    return [row | {"accuracy": scores["accuracy"], "loss": sum(history.losses[-20:]) / 20, "diverged": False}]


# ---------------------------------------------------------------------------- real: speed and photographs
SPEED = {"resnet18": 224, "resnet50": 224, "vgg16": 224, "inception_v3": 299, "googlenet": 224, "efficientnet_b0": 224,
         "mobilenet_v2": 224}         # pixels a side that torchvision states for each
SPEED_BATCH, SPEED_ROUNDS = 4, 7
MINI_BATCH = 64


def image_speed() -> list[dict]:
    """Pictures a second of processor time on one core, through torchvision's networks and the minis, with random weights.

    Processor time leaves out what other programs take in between. Round by round, so that a slow minute hits all alike.
    """
    torch.set_num_threads(1)
    tasks = {name: (zoo.load(name, None), torch.rand(SPEED_BATCH, 3, side, side)) for name, side in SPEED.items()}
    tasks |= {name: (zoo.load(name, None), torch.rand(MINI_BATCH, 3, 32, 32)) for name in NETWORKS}
    tasks = {name: (loaded.backbone.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last))
             for name, (loaded, x) in tasks.items()}
    rows = []
    for number in range(-1, SPEED_ROUNDS):        # -1 warms up
        for name, (backbone, x) in tasks.items():
            seconds = min(_seconds(backbone, x) for _ in range(3 if name in SPEED else 20))
            if number >= 0:
                rows.append({"method": name, "seed": number, "value": len(x) / seconds, "pixels": x.shape[-1], "batch": len(x)})
    return rows


@torch.no_grad()
def _seconds(backbone: nn.Module, x: Tensor) -> float:
    start = time.process_time()
    backbone(x)
    return time.process_time() - start


PHOTO_NETWORKS = {"MobileNetV2, TensorFlow's padding": ("mobilenet_v2", "imagenet", "tensorflow"),
                  "MobileNetV2, torchvision's padding": ("mobilenet_v2", "imagenet", "torchvision"),
                  "SqueezeNet": ("squeezenet1_0", "imagenet_pruned", None)}


def imagenet_sample() -> list[dict]:
    """One training photograph of each ImageNet class: top-1 and top-5 of MobileNetV2 (both paddings) and SqueezeNet."""
    x, y = _photographs()
    rows = []
    for name, (network, weights, padding) in PHOTO_NETWORKS.items():
        loaded = zoo.load(network, weights, padding=padding)
        with torch.no_grad():
            top = torch.cat([loaded.logits(part).topk(5).indices for part in x.split(20)])
        hits = top == y[:, None]
        rows.append({"method": name, "seed": 0, "accuracy": float(hits[:, 0].double().mean()),
                     "top5": float(hits.any(1).double().mean()), "correct": _digits(hits[:, 0]), "correct5": _digits(hits.any(1))})
        print(rows[-1]["method"], rows[-1]["accuracy"], rows[-1]["top5"], flush=True)
    return rows


def _digits(hits: Tensor) -> str:
    return "".join(str(int(hit)) for hit in hits)


def _photographs() -> tuple[Tensor, Tensor]:
    """The folder's pictures as (1000, 3, 224, 224) uint8, cut from the middle at 256 pixels, and their classes."""
    folder = _sample_folder()
    classes = sorted(part for part in folder.iterdir() if part.is_dir())
    files = [(file, label) for label, part in enumerate(classes) for file in sorted(part.iterdir())]
    pictures = [torch.from_numpy(readers.image(file, 256)[:, 16:240, 16:240].copy()) for file, _ in files]
    return torch.stack(pictures), torch.tensor([label for _, label in files])


def _sample_folder():
    found = next((part / "imagenet_sample" for part in paths.local_folders() if (part / "imagenet_sample").is_dir()), None)
    if found is None:
        raise FileNotFoundError("imagenet_sample is in no folder that TLUTILS_DATA names: get EliSchwartz/imagenet-sample-images "
                                "from GitHub, one folder per class named by its WordNet id")
    return found


# ---------------------------------------------------------------------------- what the command finds
LAB: dict = {f.__name__: f for f in (source_rates, probe_rates, families, gradients, tower_rates, towers)}
REAL: dict = {f.__name__: f for f in (image_speed, imagenet_sample)}
_HERE = {
    "source_rates": ("source_run", "SOURCE_RATES", "SOURCE_STEPS", "VALIDATION_SEED"),
    "probe_rates": ("probe_rates", "probe_run", "NETWORKS", "PENALTIES", "DEV_SEEDS"),
    "families": ("families", "probe_run", "chosen_penalty", "CHOSEN_PENALTY", "NETWORKS", "SEEDS"),
    "gradients": ("gradients", "gradient_run", "gradient_norms", "SCALE", "tower", "Block", "Standardise", "cell", "DEPTHS", "CELLS", "SEEDS"),
    "tower_rates": ("tower_rates", "tower_run", "tower", "Block", "Standardise", "cell", "CELLS", "TOWER_RATES", "TOWER_DEPTH",
                    "TOWER_STEPS", "DEV_SEEDS"),
    "towers": ("towers", "tower_run", "tower", "Block", "Standardise", "cell", "CELLS", "CHOSEN_TOWER", "TOWER_DEPTH", "TOWER_STEPS",
               "TUNED_SEEDS"),
}
_BELOW = {"source_rates": TRAINING, "probe_rates": (*FORWARD, "finetune", "metrics:correct"),
          "families": (*FORWARD, "finetune", "metrics:correct"), "gradients": ("shapes",)}
CODE: dict[str, tuple[str, ...]] = {
    name: (*_BELOW.get(name, TRAINING), *(f"image_experiments:{part}" for part in parts)) for name, parts in _HERE.items()}
WEIGHTS: dict[str, tuple[str, ...]] = {
    name: tuple(f"{network}-shapes" for network in NETWORKS) for name in ("probe_rates", "families")}


def provenance(name: str, rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind a real experiment, for its card."""
    if name == "image_speed":
        return {"threads": 1, "weights_sha256": "random initialisation"}
    weights = {label: zoo.load(network, weights, padding=padding).card["sha256"]
               for label, (network, weights, padding) in PHOTO_NETWORKS.items()}
    return {"weights_sha256": weights, "data_sha256": {"imagenet_sample": paths.sha256_folder(_sample_folder())}}
