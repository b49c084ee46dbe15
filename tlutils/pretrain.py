"""The recipes behind the bundled weights: `python -m tlutils.pretrain NAME`.

Every recipe is one row of RECIPES. It trains from a fixed seed, can be killed and started again (it goes on
from its last checkpoint), and writes the weights in half precision with a card beside them.
"""
from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

import torch

from . import mini_cnns, paths, pretrain_multimodal, pretrain_text, report, shapes, training, zoo
from .finetune import Classifier


@dataclass(frozen=True)
class Recipe:
    """What a source network learned, and how long."""
    model: str
    variant: str
    task: shapes.Task
    teaches: str                 # one sentence for the card
    steps: int = 3500
    lr: float = 4e-3
    weight_decay: float = 1e-2
    batch_size: int = 128
    seed: int = 0
    noise_scenes: int = 0        # > 0: that many fixed scenes with random labels instead of the task's own

    @property
    def name(self) -> str:
        """Network and variant, as in the file's name."""
        return f"{self.model}-{self.variant}"


_FULL = Recipe("resnet-mini", "shapes", shapes.SHAPES16, "tells the 16 source shapes apart, whatever their colour")
RECIPES = {r.name: r for r in (
    _FULL,
    replace(_FULL, variant="colours", task=shapes.COLOUR16, teaches="tells 16 colours apart, whatever the shape"),
    replace(_FULL, variant="noise", noise_scenes=2048, teaches="learned random labels of 2,048 scenes by heart"),
    replace(_FULL, variant="half", steps=350, teaches="tells the 16 source shapes apart, stopped after a tenth of the steps"),
    *(replace(_FULL, variant=f"bits{b}", task=shapes.BITS[b],
              teaches=f"tells {2 ** b} groups of shapes x {2 ** (4 - b)} groups of colours apart") for b in (1, 2, 3)),
    *(replace(_FULL, model=f"{family.lower()}-mini", lr=lr, teaches=f"{_FULL.teaches}, with {family}'s blocks")
      for family, lr in (("VGG", 1e-2), ("Inception", 3e-2), ("EfficientNet", 3e-2))),      # rates: grid `source_rates`
)}


def train(recipe: Recipe, *, progress: bool = True) -> dict:
    """Run the recipe, store weights and card, and return the card's entry."""
    started = time.time()
    loaded = zoo.load(recipe.model, weights=None, seed=recipe.seed)
    model = Classifier(loaded, len(recipe.task.classes), seed=recipe.seed)
    if recipe.noise_scenes:
        generator = torch.Generator().manual_seed(recipe.seed)
        x, _ = recipe.task.stream(generator, recipe.noise_scenes)
        data = (x, torch.randint(0, len(recipe.task.classes), (len(x),), generator=generator))
    else:
        data = recipe.task.stream
    folder = paths.cache_dir() / "pretrain"
    folder.mkdir(parents=True, exist_ok=True)
    history = training.fit(model, data, steps=recipe.steps, lr=recipe.lr, weight_decay=recipe.weight_decay,
                           batch_size=recipe.batch_size, warmup=recipe.steps // 10, seed=recipe.seed,
                           checkpoint=folder / f"{recipe.name}.safetensors", checkpoint_every=500, progress=progress)
    scores = {"training_loss_last_100": round(sum(history.losses[-100:]) / len(history.losses[-100:]), 4)}
    if recipe.noise_scenes:
        scores["training_accuracy"] = round(training.evaluate(model, *data)["accuracy"], 4)
    else:
        test = recipe.task.draw(100, seed=-recipe.seed - 1)
        scores["source_accuracy"] = round(training.evaluate(model, *test)["accuracy"], 4)
    card = {"recipe": f"python -m tlutils.pretrain {recipe.name}", "teaches": recipe.teaches, "task": recipe.task.name,
            "classes": list(recipe.task.classes), "seed": recipe.seed, "steps": recipe.steps,
            "batch_size": recipe.batch_size, "lr": recipe.lr, "weight_decay": recipe.weight_decay,
            "pictures_seen": recipe.steps * recipe.batch_size, "training_seconds": round(history.last["seconds"], 1),
            "seconds": round(time.time() - started, 1), "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in loaded.backbone.parameters()), "scores": scores,
            "code": report.code_hash("shapes", "training", "loop", "batches", "optim", "backbones", *_of(recipe.model)), **report.environment()}
    zoo.save_bundled(loaded.backbone, recipe.model, recipe.variant, card, head=model.head)
    (folder / f"{recipe.name}.safetensors").unlink(missing_ok=True)
    return card


def _of(model: str) -> tuple[str, ...]:
    """The module, besides `backbones`, that builds a mini."""
    return ("mini_cnns",) if model in mini_cnns.MINIS else ()


def recipes() -> dict:
    """Every recipe of the book by name: networks for pictures (here), for text, for both."""
    return RECIPES | pretrain_text.RECIPES | pretrain_multimodal.RECIPES


def _trainer(name: str):
    return next((family.train for family in (pretrain_text, pretrain_multimodal) if name in family.RECIPES), train)


def main(arguments: list[str] | None = None) -> None:
    """The command: train the named recipes, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tlutils.pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(recipes())}; or: all")
    names = parser.parse_args(arguments).names
    if not names:
        parser.print_help()
        return
    names = list(recipes()) if names == ["all"] else names
    torch.set_num_threads(1)      # sums taken in another order give other weights: one thread repeats them to the bit
    unknown = [n for n in names if n not in recipes()]
    if unknown:
        parser.error(f"unknown recipe {', '.join(unknown)}; choose from {', '.join(recipes())}")
    for name in names:
        card = _trainer(name)(recipes()[name])
        print(f"{name}: {card['scores']} after {card['seconds']} s")


if __name__ == "__main__":
    main()
