"""The recipes behind the bundled CLIP and DALL-E minis."""
from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass

import torch
from torch import nn

from . import image_tokens, multimodal, paths, report, shapes, text_to_image, training, weights, zoo


@dataclass(frozen=True)
class Recipe:
    """What a model for pictures and captions learned, and how long. precision: of the forward pass (bfloat16 halves the time)."""
    model: str
    variant: str
    teaches: str                 # one sentence for the card
    steps: int
    lr: float
    batch_size: int
    weight_decay: float = 0.02
    seed: int = 0
    precision: str = "bf16"
    evaluate_every: int = 500
    horizon: int = 0             # > 0: the rate follows a cosine laid out for so many steps and falls to zero over the last `cooldown`
    cooldown: int = 0

    @property
    def name(self) -> str:
        """Network and variant, as in the file's name."""
        return f"{self.model}-{self.variant}"

    @property
    def warmup(self) -> int:
        """Steps over which the rate rises."""
        return (self.horizon or self.steps) // 10

    def rate(self, share: float) -> float:
        """The factor on the rate after the warm-up; share: of the steps after it that are done, 0 to 1."""
        whole, step = self.horizon or self.steps, round(self.warmup + share * (self.steps - self.warmup))
        held = self.steps - self.cooldown if self.horizon else whole
        factor = 0.5 * (1 + math.cos(math.pi * ((min(step, held) - self.warmup) / (whole - self.warmup))))
        return factor if step <= held else factor * 0.5 * (1 + math.cos(math.pi * (step - held) / self.cooldown))


RECIPES = {r.name: r for r in (
    Recipe("clip-mini", "captions", "tells which caption belongs to which scene of the shapes world; it saw 192 of the 256 pairs of "
           "shape and colour, and no class labels", steps=8500, lr=3e-3, batch_size=128),
    Recipe("vqvae-mini", "drawings", "writes a plain scene of the shapes world (no clutter, solid, near the middle) as 64 codes out of 256 and "
           "reads them back", steps=1600, lr=2e-3, batch_size=128, weight_decay=1e-4, evaluate_every=200),
    Recipe("dalle-mini", "drawings", "draws a plain scene from its caption, token by token; it saw 192 of the 256 pairs of shape and colour",
           steps=2100, lr=2e-3, batch_size=64, evaluate_every=500, horizon=4000, cooldown=600),
)}
POOL = 65_536               # scenes that the DALL-E mini learns from, turned into tokens once


def train(recipe: Recipe, *, progress: bool = True) -> dict:
    """Run the recipe, store weights and card, and return the card's entry."""
    started = time.time()
    model, history, scores = {"clip-mini": _clip, "vqvae-mini": _tokens, "dalle-mini": _dalle}[recipe.model](recipe, progress)
    card = {"recipe": f"python -m tlutils.pretrain {recipe.name}", "teaches": recipe.teaches, "seed": recipe.seed,
            "steps": recipe.steps, **{k: v for k, v in asdict(recipe).items() if k in ("batch_size", "lr", "weight_decay", "precision")},
            "pictures_seen": recipe.steps * recipe.batch_size, "training_seconds": round(history.last["seconds"], 1),
            "seconds": round(time.time() - started, 1), "threads": torch.get_num_threads(), "scores": scores,
            "code": report.code_hash("shapes", "multimodal", "image_tokens", "text_to_image"), **report.environment()}
    zoo.save_bundled(model, recipe.model, recipe.variant, card)
    _checkpoint(recipe).unlink(missing_ok=True)
    return card


def _checkpoint(recipe: Recipe):
    folder = paths.cache_dir() / "pretrain"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{recipe.name}.safetensors"


def _fit(recipe: Recipe, model: nn.Module, data, loss, validation, progress: bool):
    return training.fit(model, data, steps=recipe.steps, lr=recipe.lr, weight_decay=recipe.weight_decay, batch_size=recipe.batch_size,
                        warmup=recipe.warmup, schedule=recipe.rate if recipe.horizon else "cosine", loss=loss, clip=1.0,
                        seed=recipe.seed, precision=recipe.precision,
                        validation=validation, evaluate_every=min(recipe.evaluate_every, recipe.steps),
                        checkpoint=_checkpoint(recipe), checkpoint_every=500, callbacks=[_Tell()] if progress else [])


class _Tell:
    """Says how the run goes, one line at each look."""

    def on_evaluate(self, state) -> None:
        print({k: round(v, 4) for k, v in state.history.rows[-1].items()}, flush=True)


def _clip(recipe: Recipe, progress: bool):
    with zoo._seeded(recipe.seed):
        model = multimodal.CLIPMini()

    def stream(generator, n):
        x, numbers = multimodal.captioned(generator, n)
        return zoo.MINI(x), numbers

    def loss(pictures, numbers):
        return multimodal.contrastive_loss(pictures, model.read(numbers), model.scale)

    history = _fit(recipe, model, stream, loss, lambda m: zero_shot_scores(m, 4), progress)
    scores = {"training_loss_last_100": round(sum(history.losses[-100:]) / len(history.losses[-100:]), 4),
              **{k: round(v, 4) for k, v in zero_shot_scores(model, 20).items()}, "candidates": 256}
    return model, history, scores


@torch.no_grad()
def zero_shot_scores(model: nn.Module, each: int, seed: int = -1) -> dict[str, float]:
    """Share of fresh scenes whose shape and colour are both named rightly among all 256 pairs, seen and held out.

    each: scenes of every pair. Prompts: "a {colour} {shape}".
    """
    shape, colour = multimodal.combinations()
    prompts = model.texts([f"a {shapes.COLOURS[c]} {shapes.SHAPES[s]}" for s, c in zip(shape, colour)])
    truth = torch.arange(len(shape)).repeat(each)
    generator = torch.Generator().manual_seed(seed)
    scenes = shapes.sample(shape.repeat(each), colour.repeat(each), generator=generator)
    right = (training.predict(model, zoo.MINI(shapes.render(scenes))) @ prompts.T).argmax(1) == truth
    new = multimodal.held_out(scenes.shape, scenes.colour)
    return {"zero_shot_seen": right[~new].float().mean().item(), "zero_shot_held_out": right[new].float().mean().item()}


def _tokens(recipe: Recipe, progress: bool):
    with zoo._seeded(recipe.seed):
        model = image_tokens.ImageTokens()
    history = _fit(recipe, model, image_tokens.plain_pictures, image_tokens.drawing_loss, lambda m: token_scores(m, 2), progress)
    scores = {"training_loss_last_100": round(sum(history.losses[-100:]) / len(history.losses[-100:]), 4),
              **{k: round(v, 4) for k, v in token_scores(model, 8).items()}}
    return model, history, scores


@torch.no_grad()
def token_scores(model: nn.Module, each: int, seed: int = -1) -> dict[str, float]:
    """Pictures of all 256 pairs, written as tokens and read back: mean squared error, and what the judge still sees in them."""
    model.eval()
    shape, colour = multimodal.combinations()
    scenes = image_tokens.plain_scenes(shape.repeat(each), colour.repeat(each), generator=torch.Generator().manual_seed(seed))
    x = shapes.render(scenes)
    again = torch.cat([model.decode(model.encode(part)) for part in x.split(256)])
    return {"squared_error": (again - x).square().mean().item(), **judged(again, scenes)}


def judged(pictures: torch.Tensor, scenes: shapes.Scenes) -> dict[str, float]:
    """Share of pictures in which the judge sees the scenes' shape and colour, for seen and held-out pairs."""
    seen = text_to_image.judge(pictures)
    right = (seen["shape"] == scenes.shape) & (seen["colour"] == scenes.colour)
    new = multimodal.held_out(scenes.shape, scenes.colour)
    return {"faithful_seen": right[~new].float().mean().item(), "faithful_held_out": right[new].float().mean().item()}


def _dalle(recipe: Recipe, progress: bool):
    with zoo._seeded(recipe.seed):
        model = text_to_image.DALLEMini()
        tokens = image_tokens.ImageTokens()
    file, _ = zoo.bundled_file("vqvae-mini", recipe.variant)
    weights.fit(tokens, weights.read(file), f"weights file {file}")
    painter = text_to_image.Painter(tokens.eval(), model)
    stream = _drawn(tokens, recipe.seed)

    def sequences(generator, n):
        captions, numbers = stream(generator, n)
        return model.join(captions, numbers), numbers

    history = _fit(recipe, model, sequences, None, lambda m: drawing_scores(painter, 1), progress)
    scores = {"training_loss_last_100": round(sum(history.losses[-100:]) / len(history.losses[-100:]), 4),
              **{k: round(v, 4) for k, v in drawing_scores(painter, 4).items()}}
    return model, history, scores


def _drawn(tokens: nn.Module, seed: int):
    """Captions and image tokens of a fixed pool of scenes; some captions leave out the background, some everything."""
    generator = torch.Generator().manual_seed(seed)
    scenes = image_tokens.plain_scenes(*multimodal.pairs(POOL, generator=generator), generator=generator)
    numbers = torch.cat([tokens.encode(shapes.render(shapes.Scenes(*part)))
                         for part in zip(*(column.split(256) for column in vars(scenes).values()))])
    captions = torch.stack([text_to_image.caption_tokens(text_to_image.drawing_captions(scenes)),
                            text_to_image.caption_tokens(text_to_image.drawing_captions(scenes, background=False)),
                            text_to_image.no_caption(POOL)], 1)
    detail = torch.tensor([0.65, 0.25, 0.10])

    def stream(generator, n):
        which = torch.randint(0, POOL, (n,), generator=generator)
        return captions[which, torch.multinomial(detail, n, True, generator=generator)], numbers[which]
    return stream


@torch.no_grad()
def drawing_scores(painter, each: int, seed: int = -1) -> dict[str, float]:
    """All 256 pairs drawn `each` times from "a {colour} {shape} on a {background} background", judged."""
    shape, colour = multimodal.combinations()
    scenes = image_tokens.plain_scenes(shape.repeat(each), colour.repeat(each), generator=torch.Generator().manual_seed(seed))
    return judged(painter.draw(text_to_image.drawing_captions(scenes), seed=0), scenes)
