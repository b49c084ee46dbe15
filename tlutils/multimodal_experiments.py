"""The stored experiments of `multimodal_models`: what CLIP and DALL-E in miniature can and can't do.

Every run (seed) draws its own scenes; the bundled weights stay the same. Settings of drawing were chosen on DEV_SEEDS.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import torch

from . import datasets, evaluation, finetune, image_tokens, metrics, multimodal, real_experiments, shapes, text_to_image, training, zoo

SEEDS = range(100, 110)
DEV_SEEDS = range(0, 3)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LABELS = (1, 2, 5, 10, 20, 50)
BEST_OF = 8                  # drawings that CLIP chooses from
TEMPERATURE = 0.7            # this and the guidance: chosen on DEV_SEEDS, seen pairs only (grid dalle_settings)
GUIDANCE = 2.0


@lru_cache(maxsize=None)
def clip():
    """The bundled CLIP mini."""
    return zoo.load("clip-mini")


@lru_cache(maxsize=None)
def painter() -> text_to_image.Painter:
    """The bundled DALL-E mini."""
    return text_to_image.load()


def _scenes(new: bool | None, n: int, seed: int) -> tuple[torch.Tensor, shapes.Scenes]:
    """n fresh scenes of seen pairs, of held-out ones (new) or of both (None), the same for every method of this seed."""
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    if new is None:
        shape, colour = (torch.randint(0, 16, (n,), generator=generator) for _ in range(2))
    else:
        shape, colour = multimodal.pairs(n, generator=generator, new=new)
    scenes = shapes.sample(shape, colour, generator=generator)
    return shapes.render(scenes), scenes


def _split(new: bool | None) -> str:
    return {False: "seen", True: "held out", None: "both"}[new]


# ---------------------------------------------------------------------------- CLIP: wording
def shape_prompts() -> dict[str, list[list[str]]]:
    """Ways to ask for each of the 16 source shapes."""
    names = shapes.SOURCE_SHAPES
    return {"ring": [[s] for s in names], "a ring": [[f"a {s}"] for s in names],
            "a red ring": [[f"a red {s}"] for s in names],
            "a medium red striped ring on a white background": [[f"a medium red striped {s} on a white background"] for s in names],
            "ensemble: a ring in 16 colours": [[f"a {c} {s}" for c in shapes.COLOURS] for s in names],
            "ensemble: sizes, textures and backgrounds": [
                [f"a {z} {t} {s} on a {b} background" for z in shapes.SIZES for t in shapes.TEXTURES[1:] for b in shapes.COLOURS[::4]]
                for s in names]}


def pair_prompts() -> dict[str, list[list[str]]]:
    """Ways to ask for each of the 256 pairs of shape and colour."""
    names = [(shapes.COLOURS[c], shapes.SOURCE_SHAPES[s]) for s, c in zip(*(t.tolist() for t in multimodal.combinations()))]
    return {"red ring": [[f"{c} {s}"] for c, s in names], "a red ring": [[f"a {c} {s}"] for c, s in names],
            "a ring red": [[f"a {s} {c}"] for c, s in names],
            "on a white background a red ring": [[f"on a white background a {c} {s}"] for c, s in names],
            "a medium red ring on a white background": [[f"a medium {c} {s} on a white background"] for c, s in names],
            "ensemble: sizes and backgrounds": [[f"a {z} {c} {s} on a {b} background" for z in shapes.SIZES for b in shapes.COLOURS[::4]]
                                                for c, s in names]}


def wording_run(seed: int, n: int = 512, blurs: tuple[float, ...] = (0.0, 0.5), wordings: tuple[str, ...] | None = None) -> list[dict]:
    """Zero-shot accuracy of one draw for every wording: naming the shape (16 candidates), shape and colour (256).

    blurs: strengths of blur; on clear pictures every wording may be near 100 %.
    """
    rows = []
    drawn = [(new, blur, shapes.shift(x, "blur", blur), scenes) for new in (False, True) for x, scenes in [_scenes(new, n, seed)] for blur in blurs]
    drawn = [(new, blur, multimodal.embed(clip(), x), scenes) for new, blur, x, scenes in drawn]
    for task, prompts in (("shape", shape_prompts()), ("pair", pair_prompts())):
        for wording, groups in prompts.items():
            if wordings and wording not in wordings:
                continue
            classes = multimodal.class_embeddings(clip().backbone, groups)
            for new, blur, pictures, scenes in drawn:
                truth = scenes.shape if task == "shape" else scenes.shape * 16 + scenes.colour
                right = (pictures @ classes.T).argmax(1) == truth
                rows.append({"method": wording, "task": task, "split": _split(new), "blur": blur, "seed": seed,
                             "accuracy": right.float().mean().item()})
    return rows


def clip_wording() -> list[Callable]:
    """Zero-shot accuracy by the wording of the prompt, for seen and held-out pairs of shape and colour."""
    return [partial(wording_run, seed) for seed in SEEDS]


# ---------------------------------------------------------------------------- CLIP: retrieval
def retrieval_run(seed: int, n: int = 200) -> list[dict]:
    """Recall among n scenes and their n full captions, both ways; and each caption against itself with the colours swapped.

    Both galleries hold 64 pairs, the held-out ones or as many seen ones of the same pattern, so that both are equally crowded.
    """
    rows, generator = [], torch.Generator().manual_seed(1_000_000 + seed)
    for new in (False, True):
        shape = torch.randint(0, 16, (n,), generator=generator)
        colour = 7 * (torch.randint(0, 4, (n,), generator=generator) + (0 if new else 4) - 5 * shape) % 16
        scenes = shapes.sample(shape, colour, generator=generator)
        x = shapes.render(scenes)
        pictures = multimodal.embed(clip(), x)
        captions = clip().backbone.texts(shapes.caption(scenes)).detach()
        similarity = pictures @ captions.T
        for way, table in (("picture to caption", similarity), ("caption to picture", similarity.T)):
            rows += [{"method": way, "split": _split(new), "k": k, "seed": seed, "accuracy": multimodal.recall(table, k)} for k in (1, 5)]
        swapped = clip().backbone.texts(shapes.caption(replace(scenes, colour=scenes.background, background=scenes.colour))).detach()
        right = (pictures * captions).sum(1) > (pictures * swapped).sum(1)
        rows.append({"method": "own caption or colours swapped", "split": _split(new), "k": 1, "seed": seed,
                     "accuracy": right[scenes.colour != scenes.background].float().mean().item()})
    return rows


def clip_retrieval() -> list[Callable]:
    """Recall at 1 and 5 among 200 scenes and their captions, both ways, and which of two captions with the colours swapped."""
    return [partial(retrieval_run, seed) for seed in SEEDS]


# ---------------------------------------------------------------------------- CLIP: shifts
@torch.no_grad()
def vision(pictures: torch.Tensor) -> torch.Tensor:
    """Features of CLIP's picture tower before the shared space: (N, 128)."""
    loaded = clip()
    return torch.cat([loaded.backbone.vision(loaded.preprocess(part)) for part in pictures.split(512)])


def shift_run(seed: int, kinds: tuple[str, ...] = shapes.SHIFTS, strengths: tuple[float, ...] = STRENGTHS, per_class: int = 40) -> list[dict]:
    """Naming the 16 source shapes under shift: CLIP by prompt, probes on the same picture tower, a ResNet trained on labels."""
    task = shapes.SHAPES16
    classes = multimodal.class_embeddings(clip().backbone, [[f"a {s}"] for s in task.classes])
    probes = {}
    for labels in (5, 50):
        x, y = task.draw(labels, seed=seed * 1000 + labels)
        probes[f"probe, {labels} labels per class"] = finetune.linear_probe(vision(x), y, C=0.1)
    rows = []
    for kind in kinds:
        for strength in strengths:
            x, y = task.draw(per_class, seed=1_000_000 + seed, shift_kind=kind, strength=strength)
            features = vision(x).numpy()
            said = {"zero-shot": (multimodal.embed(clip(), x) @ classes.T).argmax(1).numpy(),
                    "resnet-mini, trained on labels": zoo.load("resnet-mini", "shapes").logits(x).argmax(1).numpy(),
                    **{name: probe.predict(features) for name, probe in probes.items()}}
            rows += [{"method": name, "shift": kind, "strength": strength, "seed": seed, "accuracy": metrics.accuracy(answer, y.numpy())}
                     for name, answer in said.items()]
    return rows


def clip_shift() -> list[Callable]:
    """Zero-shot, probes on the same tower and a supervised network under five shifts at five strengths."""
    return [partial(shift_run, seed) for seed in SEEDS]


# ---------------------------------------------------------------------------- CLIP: words or labels
def labels_run(seed: int, budgets: tuple[int, ...] = LABELS, per_class: int = 40) -> list[dict]:
    """Probes on the picture tower by labels per class, and no labels at all: for shapes that have words and for new ones."""
    rows = []
    for task in (shapes.SHAPES16, shapes.TARGET10):
        x, y = task.draw(per_class, seed=1_000_000 + seed)
        features = {"probe on clip-mini": vision, "probe on resnet-mini": _resnet}
        for labels in budgets:
            few, truth = task.draw(labels, seed=seed * 1000 + labels)
            for name, extract in features.items():
                answer = finetune.linear_probe(extract(few), truth, C=0.1).predict(extract(x).numpy())
                rows.append({"method": name, "task": task.name, "labels": labels, "seed": seed, "accuracy": metrics.accuracy(answer, y.numpy())})
        rows.append({"method": "zero-shot", "task": task.name, "labels": 0, "seed": seed, "accuracy": _by_words(task, x, y, seed)})
    return rows


@torch.no_grad()
def _resnet(pictures: torch.Tensor) -> torch.Tensor:
    loaded = zoo.load("resnet-mini", "shapes")
    return torch.cat([loaded.backbone(loaded.preprocess(part)) for part in pictures.split(512)])


def _by_words(task, x, y, seed: int) -> float:
    """Zero-shot; for shapes without a word, each gets the known word that fits best, found on 50 labelled scenes a class."""
    from scipy.optimize import linear_sum_assignment

    words = multimodal.class_embeddings(clip().backbone, [[f"a {s}"] for s in shapes.SOURCE_SHAPES])
    if task is shapes.SHAPES16:
        return ((multimodal.embed(clip(), x) @ words.T).argmax(1) == y).float().mean().item()
    other, truth = task.draw(50, seed=seed * 1000 + 999)
    said = (multimodal.embed(clip(), other) @ words.T).argmax(1)
    counts = torch.zeros(len(task.classes), len(words)).index_put_((truth, said), torch.ones(len(truth)), accumulate=True)
    _, borrowed = linear_sum_assignment(-counts.numpy())
    return ((multimodal.embed(clip(), x) @ words[torch.tensor(borrowed)].T).argmax(1) == y).float().mean().item()


def clip_labels() -> list[Callable]:
    """How many labels a prompt is worth, and what happens to shapes that have no word."""
    return [partial(labels_run, seed) for seed in SEEDS]


# ---------------------------------------------------------------------------- CLIP: how many pairs must be seen
def tiny_clip(seen_colours: int, seed: int, steps: int = 250, **options):
    """A small CLIP trained on plain scenes in which every shape comes in so many of the 16 colours. Returns model and history."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = multimodal.CLIPMini(widths=(16, 32, 64), text_width=48)

    def stream(generator, n):
        shape = torch.randint(0, 16, (n,), generator=generator)
        colour = (shape * 5 + torch.randint(0, seen_colours, (n,), generator=generator)) % 16
        scenes = image_tokens.plain_scenes(shape, colour, generator=generator)
        return zoo.MINI(shapes.render(scenes)), multimodal.tokens(multimodal.describe(scenes, generator=generator))

    def loss(pictures, numbers):
        return multimodal.contrastive_loss(pictures, model.read(numbers), model.scale)
    history = training.fit(model, stream, steps=steps, lr=4e-3, weight_decay=0.02, batch_size=128, warmup=steps // 10, loss=loss, clip=1.0,
                           seed=seed, **options)
    return model, history


@torch.no_grad()
def seen_run(seen_colours: int, seed: int) -> list[dict]:
    """Zero-shot accuracy (256 candidates) of a small CLIP on pairs that it saw and on pairs that it never saw."""
    torch.set_num_threads(1)
    with torch.enable_grad():
        model, history = tiny_clip(seen_colours, seed, precision="bf16")
    shape, colour = multimodal.combinations()
    words = multimodal.class_embeddings(model, pair_prompts()["a red ring"])
    scenes = image_tokens.plain_scenes(shape.repeat(4), colour.repeat(4), generator=torch.Generator().manual_seed(1_000_000 + seed))
    said = (training.predict(model, zoo.MINI(shapes.render(scenes))) @ words.T).argmax(1)
    known = (scenes.colour - scenes.shape * 5) % 16 < seen_colours
    rows = []
    for split, rows_of in (("seen", known), ("held out", ~known)):
        if rows_of.any():
            truth = {"pair": said == scenes.shape * 16 + scenes.colour, "shape": said // 16 == scenes.shape, "colour": said % 16 == scenes.colour}
            rows += [{"method": split, "factor": factor, "colours": seen_colours, "seed": seed, "accuracy": right[rows_of].float().mean().item(),
                      "loss": sum(history.losses[-50:]) / 50} for factor, right in truth.items()]
    return rows


def clip_seen() -> list[Callable]:
    """How many colours of each shape must a small CLIP see before it names the rest?"""
    return [partial(seen_run, colours, seed) for seed in SEEDS[:5] for colours in (2, 12)]


# ---------------------------------------------------------------------------- DALL-E
def drawn_scenes(new: bool, n: int, seed: int) -> shapes.Scenes:
    """n plain scenes whose captions are to be drawn, of seen or of held-out pairs."""
    generator = torch.Generator().manual_seed(2_000_000 + seed)
    return image_tokens.plain_scenes(*multimodal.pairs(n, generator=generator, new=new), generator=generator)


def fidelity(pictures: torch.Tensor, scenes: shapes.Scenes) -> dict[str, float]:
    """Share of pictures in which the judge sees the caption's shape, colour, both, and background."""
    seen = text_to_image.judge(pictures)
    right = {factor: seen[factor] == getattr(scenes, factor) for factor in ("shape", "colour", "background")}
    right["shape and colour"] = right["shape"] & right["colour"]
    return {factor: hit.float().mean().item() for factor, hit in right.items()}


def _rows(method: str, pictures, scenes, **columns) -> list[dict]:
    return [{"method": method, "factor": factor, "accuracy": value, **columns} for factor, value in fidelity(pictures, scenes).items()]


def settings_run(seed: int, temperature: float, guidance: float, new: bool = False, n: int = 128) -> list[dict]:
    """Fidelity of n drawings at one temperature and guidance."""
    torch.set_num_threads(1)
    scenes = drawn_scenes(new, n, seed)
    pictures = painter().draw(text_to_image.drawing_captions(scenes), seed=seed, temperature=temperature, guidance=guidance)
    return _rows(f"temperature {temperature:g}, guidance {guidance:g}", pictures, scenes, temperature=temperature, guidance=guidance,
                 split=_split(new), seed=seed, spread=_spread(pictures, scenes))


def _spread(pictures: torch.Tensor, scenes: shapes.Scenes) -> float:
    """How far drawings of the same caption differ: the mean standard deviation of a pixel over drawings of one pair, or 0."""
    groups = [pictures[(scenes.shape == s) & (scenes.colour == c) & (scenes.background == b)]
              for s, c, b in {*zip(scenes.shape.tolist(), scenes.colour.tolist(), scenes.background.tolist())}]
    spreads = [group.std(0).mean().item() for group in groups if len(group) > 1]
    return sum(spreads) / len(spreads) if spreads else 0.0


def dalle_settings() -> list[Callable]:
    """Drawing at several temperatures and guidances, seen pairs, development seeds: where the settings come from."""
    return [partial(settings_run, seed, temperature, guidance) for seed in DEV_SEEDS for guidance in (1.0, 2.0)
            for temperature in (0.0, 0.4, 0.7, 1.0)]


def dalle_temperature() -> list[Callable]:
    """Fidelity of drawings by temperature, and with the chosen guidance, for seen and held-out pairs, by shape, colour and background."""
    settings = [(temperature, 1.0) for temperature in (0.0, 0.4, 0.7, 1.0, 1.3)] + [(TEMPERATURE, GUIDANCE)]
    return [partial(settings_run, seed, *setting, new) for seed in SEEDS[:5] for setting in settings for new in (False, True)]


def ceiling_run(seed: int, n: int = 512) -> list[dict]:
    """What the judge sees in real scenes of the drawn kind, and in the same scenes written as tokens and read back."""
    torch.set_num_threads(1)
    rows = []
    for new in (False, True):
        scenes = drawn_scenes(new, n, seed)
        x = shapes.render(scenes)
        again = torch.cat([painter().tokens.decode(painter().tokens.encode(part)) for part in x.split(256)])
        for method, pictures in (("real scenes", x), ("written and read back", again)):
            rows += _rows(method, pictures, scenes, split=_split(new), seed=seed)
    return rows


def dalle_ceiling() -> list[Callable]:
    """The judge's accuracy on real scenes and on scenes that only went through the tokens: the ceiling of all drawings."""
    return [partial(ceiling_run, seed) for seed in SEEDS[:5]]


@torch.no_grad()
def rerank_run(seed: int, new: bool, n: int = 64, temperature: float = 1.0) -> list[dict]:
    """One drawing against the best of eight by CLIP, as judged by CLIP itself and by the independent judge."""
    torch.set_num_threads(1)
    scenes = drawn_scenes(new, n, seed)
    captions = text_to_image.drawing_captions(scenes)
    pictures = painter().draw([c for c in captions for _ in range(BEST_OF)], seed=seed, temperature=temperature).unflatten(0, (n, BEST_OF))
    seen = multimodal.embed(clip(), pictures.flatten(0, 1)).unflatten(0, (n, BEST_OF))
    score = (seen * clip().backbone.texts(captions)[:, None]).sum(2)
    candidates = multimodal.class_embeddings(clip().backbone, pair_prompts()["a red ring"])
    rows = []
    for method, choice in (("first drawing", torch.zeros(n, dtype=torch.long)), (f"best of {BEST_OF} by CLIP", score.argmax(1))):
        chosen, own = pictures[torch.arange(n), choice], seen[torch.arange(n), choice]
        rows += _rows(method, chosen, scenes, judge="independent", split=_split(new), seed=seed)
        agreed = (own @ candidates.T).argmax(1) == scenes.shape * 16 + scenes.colour
        rows.append({"method": method, "factor": "shape and colour", "accuracy": agreed.float().mean().item(), "judge": "CLIP",
                     "split": _split(new), "seed": seed})
    return rows


def dalle_rerank() -> list[Callable]:
    """The best of eight drawings by CLIP's choice, judged by CLIP and by a judge that had no say."""
    return [partial(rerank_run, seed, new) for seed in SEEDS[:5] for new in (False, True)]


# ---------------------------------------------------------------------------- reading the grids
def assert_agrees(stored, rows: list[dict], *, slack: float = 0.03) -> None:
    """Prove that rows computed on this machine stand in the stored grid, run by run; rounding may move an accuracy by `slack`.

    Raises evaluation.SliceDisagrees naming the first row that is missing or differs.
    """
    keys = [c for c in rows[0] if c not in ("accuracy", "loss", "spread")]
    known = {tuple(row[k] for k in keys): row["accuracy"] for row in stored.to_dict("records")}
    for row in rows:
        before = known.get(tuple(row[k] for k in keys))
        if before is None or abs(before - row["accuracy"]) > slack:
            raise evaluation.SliceDisagrees(f"{[row[k] for k in keys]}: stored {before}, this run {row['accuracy']:.3f}; the stored grid is "
                                            "out of date (run python -m tlutils.experiments) or this machine computes differently")


# ---------------------------------------------------------------------------- real: CLIP itself on photographs
REAL_CLIP = "openai/clip-vit-base-patch32"
PHOTO_PROMPTS = {"a photo of an ant": ("a photo of {}",), "ant": ("{}",),
                 "ensemble of five": ("a photo of {}", "a close-up photo of {}", "a blurry photo of {}", "a macro photograph of {}", "{}")}


def clip_photographs(name: str = REAL_CLIP, budgets: tuple[int, ...] = (1, 5, 20, 50)) -> list[dict]:
    """CLIP itself on photographs of ants and bees: zero-shot by wording, and probes on its picture tower by labels per class."""
    loaded = zoo.load(name, "DEFAULT")
    photographs = datasets.load("hymenoptera", size=loaded.preprocess.size)
    words = ["an ant" if c.startswith("ant") else "a bee" if c.startswith("bee") else f"a {c}" for c in photographs.classes]
    with torch.no_grad():
        x_train, x_test = (torch.cat([loaded.backbone.vision(loaded.preprocess(part)) for part in x.split(32)])
                           for x in (photographs.x_train, photographs.x_test))
        pictures = multimodal.embed(loaded, photographs.x_test, 32)
    rows = []

    def add(method, labels, seed, answer):
        right = metrics.correct(answer, photographs.y_test.numpy())
        rows.append({"method": method, "data": "hymenoptera", "labels": labels, "seed": seed, "accuracy": float(right.mean()),
                     "correct": "".join(str(int(r)) for r in right)})
    for seed in real_experiments.DRAWS:
        for method, forms in PHOTO_PROMPTS.items():
            classes = multimodal.class_embeddings(loaded.backbone, [[form.format(word.split()[1] if form == "{}" else word) for form in forms]
                                                                    for word in words])
            add(f"zero-shot: {method}", 0, seed, (pictures @ classes.T).argmax(1).numpy())
        for labels in budgets:
            index, y, *_ = evaluation.pool(real_experiments.by_index(photographs))(labels, seed)
            add("probe on CLIP's picture tower", labels, seed, finetune.linear_probe(x_train[index], y).predict(x_test.numpy()))
    return rows


LAB: dict = {f.__name__: f for f in (clip_wording, clip_retrieval, clip_shift, clip_labels, clip_seen, dalle_settings, dalle_ceiling,
                                     dalle_temperature, dalle_rerank)}
REAL: dict = {"clip_photographs": clip_photographs}
_CLIP = ("shapes", "multimodal", "multimodal_experiments:_scenes", "multimodal_experiments:SEEDS", "multimodal_experiments:clip")
_DRAW = ("shapes", "multimodal", "image_tokens", "text_to_image", "multimodal_experiments:SEEDS", "multimodal_experiments:painter",
         "multimodal_experiments:drawn_scenes", "multimodal_experiments:fidelity")


def _code(*names: str) -> tuple[str, ...]:
    return tuple(f"multimodal_experiments:{name}" for name in names)


CODE: dict[str, tuple[str, ...]] = {
    "clip_wording": _CLIP + _code("clip_wording", "wording_run", "shape_prompts", "pair_prompts"),
    "clip_retrieval": _CLIP + _code("clip_retrieval", "retrieval_run"),
    "clip_shift": (*_CLIP, "finetune:linear_probe") + _code("clip_shift", "shift_run", "vision", "STRENGTHS"),
    "clip_labels": (*_CLIP, "finetune:linear_probe") + _code("clip_labels", "labels_run", "vision", "LABELS", "_resnet", "_by_words"),
    "clip_seen": ("shapes", "multimodal", "training", "loop", "batches", "optim", "image_tokens:plain_scenes")
    + _code("SEEDS", "clip_seen", "seen_run", "tiny_clip", "pair_prompts"),
    "dalle_settings": _DRAW + _code("dalle_settings", "settings_run", "DEV_SEEDS"),
    "dalle_ceiling": _DRAW + _code("dalle_ceiling", "ceiling_run"),
    "dalle_temperature": _DRAW + _code("dalle_temperature", "settings_run", "TEMPERATURE", "GUIDANCE"),
    "dalle_rerank": _DRAW + _code("dalle_rerank", "rerank_run", "BEST_OF", "clip", "pair_prompts"),
}
_JUDGES, _PAIR = ("resnet-mini-shapes", "resnet-mini-colours"), ("vqvae-mini-drawings", "dalle-mini-drawings")
WEIGHTS: dict[str, tuple[str, ...]] = {
    "clip_wording": ("clip-mini-captions",), "clip_retrieval": ("clip-mini-captions",),
    "clip_shift": ("clip-mini-captions", "resnet-mini-shapes"), "clip_labels": ("clip-mini-captions", "resnet-mini-shapes"), "clip_seen": (),
    "dalle_settings": (*_PAIR, *_JUDGES), "dalle_ceiling": (*_PAIR, *_JUDGES), "dalle_temperature": (*_PAIR, *_JUDGES),
    "dalle_rerank": (*_PAIR, *_JUDGES, "clip-mini-captions"),
}


def provenance(name: str, rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind a real experiment, for its card."""
    sets = {row["data"] for row in rows}
    return {"weights_sha256": {REAL_CLIP: zoo.load(REAL_CLIP, "DEFAULT").card.get("sha256", "from the hub")},
            "data_sha256": {data: datasets.load(data).card["sha256"] for data in sorted(sets)}}
