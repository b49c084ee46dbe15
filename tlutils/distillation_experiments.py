"""The stored experiments of `distillation`: teachers, students alone for as long, students taught; what it is about soft labels.

Every example is drawn in a fixed number of views beforehand (pictures augmented, sentences with words left out), and the teacher answers
once for each view: as it never changes, that is what it would say in every step (`distillation.distil` asks it anew), and student and
teacher see the same views. All students of a pair start from the same weights and see the same batches.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import backbones, batches, compression, distillation, evaluation, finetune, metrics, mini_transformers, shapes, text, training, zoo
from .methods import AUGMENT
from .processes import one_thread
from .transformer_backbones import TextBackbone, as_texts

SEEDS = range(100, 105)
DEV_SEEDS = range(0, 1)               # rates are chosen on this, on other shapes and other sentences
TEMPERATURE = 4.0                     # this and the weight as in the CIFAR-100 benchmark of Tian et al. 2020; not tuned here
WEIGHT = 0.9
SMOOTHING = 0.1
WEIGHT_DECAY = 0.05
UNLABELLED = 3200
DROPPED = 0.2                         # share of the words that a view of a sentence lacks


# ---------------------------------------------------------------------------- networks
def micro(seed: int, widths: tuple[int, int, int] = (8, 16, 32)) -> zoo.Loaded:
    """resnet-mini made narrower, with random weights: for widths of 8, 16, 32 a quarter of its parameters."""
    first, second, third = widths
    block, widen = backbones.BasicBlock, backbones._widen
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        stem = nn.Sequential(nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True))
        stages = OrderedDict(stem=stem, layer1=block(first, first), layer2=widen(first, second), layer3=widen(second, third))
        backbone = backbones.Backbone(stages, width=third)
        backbones._initialise(backbone)
    return zoo.Loaded("resnet-micro", backbone, third, zoo.MINI)


def short_bert(seed: int, layers: int = 1, width: int = 64) -> zoo.Loaded:
    """A DistilBERT of one narrow layer with random weights, which reads the tokens of the text minis."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = mini_transformers.network("distilbert-mini", layers=layers, width=width, heads=2)
    backbone = TextBackbone(mini_transformers.encoder(net), mini_transformers.tokenizer("bert-mini"))
    return zoo.Loaded("bert-micro", backbone, width, as_texts)


class WordMeans(nn.Module):
    """A backbone for tokens: the mean of the words' vectors and one hidden layer. It can't see their order."""

    def __init__(self, vocabulary: int = 1600, vectors: int = 32, width: int = 64):
        super().__init__()
        self.table, self.hidden, self.width = nn.Embedding(vocabulary, vectors, padding_idx=mini_transformers.PAD), nn.Linear(vectors, width), width

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) tokens with padding to features (N, width)."""
        there = (tokens != mini_transformers.PAD).unsqueeze(-1).float()
        return F.relu(self.hidden((self.table(tokens) * there).sum(1) / there.sum(1).clamp(min=1)))


def word_means(seed: int) -> zoo.Loaded:
    """`WordMeans` with random weights: 55,000 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        backbone = WordMeans()
    return zoo.Loaded("word-means", backbone, backbone.width, as_texts)


# ---------------------------------------------------------------------------- pairs
@dataclass(frozen=True)
class Pair:
    """A teacher, a student, what they learn, and for how long. rate: of the teacher; rates: of the student, tried on development data."""
    teacher: str
    student: Callable[[int], zoo.Loaded]
    labels: int
    views: int = 1
    teacher_rate: float = 1e-3
    teacher_steps: int = 300
    steps: int = 600
    batch_size: int = 64
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    text: bool = False

    def draw(self, seed: int, dev: bool = False):
        """x, y, x_test, y_test: scenes, or sentences as tokens (N, L)."""
        if not self.text:
            return evaluation.world(shapes.DEV8 if dev else shapes.TARGET10)(self.labels, seed)
        x, y, x_test, y_test = text.world(text.TOPIC, split="dev" if dev else "target")(self.labels, seed)
        tokens = short_bert(0).backbone.encode([*x, *x_test])["input_ids"]
        return tokens[:len(x)], y, tokens[len(x):], y_test

    def options(self, steps: int) -> dict:
        """What every training of this pair has in common."""
        own = {"clip": 1.0, "channels_last": False} if self.text else {}
        return {"steps": steps, "weight_decay": WEIGHT_DECAY, "warmup": steps // 10, **own}


PAIRS = {
    "shapes": Pair("resnet-mini", micro, labels=20, views=32, steps=400, rates=(1e-2, 3e-2, 1e-1)),
    "text": Pair("roberta-mini", short_bert, labels=20, views=8, teacher_steps=120, steps=400, batch_size=32, rates=(1e-3, 3e-3, 1e-2), text=True),
    "words": Pair("roberta-mini", word_means, labels=20, views=8, teacher_steps=120, rates=(1e-2, 3e-2, 1e-1), text=True),
}


@dataclass
class Classroom:
    """One draw of a pair: its data in all views, the trained teacher, and what it says. logits: (N, K) for x; test: for x_test."""
    pair: Pair
    seed: int
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    teacher: nn.Module
    logits: Tensor
    test: Tensor

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.logits.shape[1]

    def student(self) -> finetune.Classifier:
        """The untrained student of this seed: the same for all methods."""
        return finetune.Classifier(self.pair.student(self.seed), self.classes, seed=self.seed)


def without_words(tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Each word of each sentence left out with this probability, the others moved together; tokens: (N, L) with padding."""
    special = tokens < SPECIAL
    gone = (torch.rand(tokens.shape, generator=generator) < share) & ~special
    order = gone.to(torch.int8).argsort(dim=1, stable=True)
    return tokens.masked_fill(gone, mini_transformers.PAD).gather(1, order)


SPECIAL = 5                           # tokens below this are marks: padding, unknown, start, end, mask


def all_views(x: Tensor, y: Tensor, count: int, seed: int, text: bool = False) -> tuple[Tensor, Tensor]:
    """`count` changed views of every example, and their labels: pictures augmented, sentences with words left out."""
    def change(number: int) -> Tensor:
        draws = batches.generator(seed, "view", number)
        return without_words(x, DROPPED, draws) if text else AUGMENT(x, draws)
    return torch.cat([change(number) for number in range(count)]), y.repeat(count)


def train_teacher(pair: Pair, x: Tensor, y: Tensor, seed: int, *, name: str | None = None) -> nn.Module:
    """A pretrained network fine-tuned on the labelled examples, with the augmentation of the book for pictures."""
    model = finetune.Classifier(zoo.load(name or pair.teacher, seed=seed), int(y.max()) + 1, seed=seed)
    training.fit(model, (x, y), lr=pair.teacher_rate, seed=seed, batch_size=16 if pair.text else 64,
                 augment=None if pair.text else AUGMENT, **pair.options(pair.teacher_steps))
    return model


@lru_cache(maxsize=1)
def classroom(name: str, seed: int, dev: bool = False) -> Classroom:
    """The pair's data and its trained teacher for one seed. dev: other shapes, or other sentences."""
    pair = PAIRS[name]
    x, y, x_test, y_test = pair.draw(seed, dev)
    teacher = train_teacher(pair, x, y, seed)
    x, y = all_views(x, y, pair.views, seed, pair.text)
    return Classroom(pair, seed, x, y, x_test, y_test, teacher, training.predict(teacher, x), training.predict(teacher, x_test))


# ---------------------------------------------------------------------------- methods
@dataclass(frozen=True)
class Method:
    """How a student learns. weight=0 is labels alone (smoothed, if asked); hints: share of the steps spent on FitNets' first stage."""
    rate: float
    weight: float = 0.0
    temperature: float = TEMPERATURE
    smoothing: float = 0.0
    hints: float = 0.0
    steps: int | None = None

    def fit(self, room: Classroom, *, x: Tensor | None = None, y: Tensor | None = None, logits: Tensor | None = None) -> finetune.Classifier:
        """The trained student. x, y, logits: other examples, labels, or another teacher's answers than the room's."""
        student, pair, k = room.student(), room.pair, room.classes
        x, y, logits = (room.x if x is None else x), (room.y if y is None else y), (room.logits if logits is None else logits)
        steps = self.steps or pair.steps
        first = int(self.hints * steps)
        if first:
            distillation.learn_hints(student, room.teacher, (x, None), student_layer=student.backbone.stages[2],
                                     teacher_layer=room.teacher.backbone.stages[2], lr=self.rate, batch_size=pair.batch_size, seed=room.seed,
                                     **pair.options(first))

        def loss(outputs: Tensor, both: Tensor) -> Tensor:
            labels, said = both[:, :k], both[:, k:]
            if self.smoothing:
                return F.cross_entropy(outputs, labels, label_smoothing=self.smoothing)
            return distillation.loss(outputs, said, labels, temperature=self.temperature, weight=self.weight)
        together = torch.cat([F.one_hot(y, k).float(), logits], 1)
        training.fit(student, (x, together), lr=self.rate, loss=loss, batch_size=pair.batch_size, seed=room.seed, **pair.options(steps - first))
        return student

    def row(self, name: str, method: str, room: Classroom, **other) -> dict:
        """Train, and measure on the test items: accuracy, agreement with the room's teacher, accuracy on what was trained on."""
        said = training.predict(student := self.fit(room, **other), room.x_test)
        own = training.predict(student, room.x[-2000:])
        return {"pair": name, "method": method, "labels": room.pair.labels, "seed": room.seed,
                "accuracy": metrics.accuracy(said.argmax(1), room.y_test), "train_accuracy": metrics.accuracy(own.argmax(1), room.y[-2000:]),
                "agreement": distillation.agreement(said, room.test),
                "train_agreement": distillation.agreement(own, room.logits[-2000:]), "rate": self.rate,
                "temperature": self.temperature if self.weight else 0.0, "weight": self.weight}


KINDS = {"alone": Method(0.0), "label smoothing": Method(0.0, smoothing=SMOOTHING), "taught": Method(0.0, weight=WEIGHT)}
# What `kd_rates` says (a test compares).
CHOSEN = {"shapes": {"alone": 0.01, "label smoothing": 0.01, "taught": 0.03},
          "text": {"alone": 0.003, "label smoothing": 0.003, "taught": 0.001},
          "words": {"alone": 0.1, "label smoothing": 0.1, "taught": 0.1}}


def method(name: str, kind: str, **more) -> Method:
    """"alone", "label smoothing" or "taught" at the rate chosen for this pair; more: settings that are turned."""
    return replace(KINDS[kind], rate=CHOSEN[name][kind], **more)


# ---------------------------------------------------------------------------- the grids
def kd_rates() -> list:
    """Learning rates of the students alone, with smoothed labels and taught, on development shapes and sentences: three each."""
    return [partial(rate_run, name, kind, seed) for name in PAIRS for seed in DEV_SEEDS for kind in KINDS]


def rate_run(name: str, kind: str, seed: int) -> list[dict]:
    """One kind of student at each of the pair's rates, on development data."""
    one_thread(1)
    room = classroom(name, seed, True)
    return [replace(KINDS[kind], rate=rate).row(name, kind, room) for rate in room.pair.rates]


def teacher_row(name: str, room: Classroom) -> dict:
    """The room's teacher, as a row beside those of its students."""
    return {"pair": name, "method": "teacher", "labels": room.pair.labels, "seed": room.seed,
            "accuracy": metrics.accuracy(room.test.argmax(1), room.y_test),
            "train_accuracy": metrics.accuracy(room.logits.argmax(1), room.y), "agreement": 1.0, "train_agreement": 1.0,
            "rate": room.pair.teacher_rate, "temperature": 0.0, "weight": 0.0}


def altered(room: Classroom) -> dict[str, Tensor]:
    """What the teacher says, changed: the wrong classes shuffled, or flattened, or labels smoothed to the same mean entropy."""
    soft = distillation.entropy(room.logits, temperature=TEMPERATURE)
    eps = distillation.smoothing_of(soft, room.classes)
    return {"shuffled": distillation.shuffle_wrong(room.logits, room.y, torch.Generator().manual_seed(room.seed)),
            "flattened": distillation.flatten_wrong(room.logits, room.y, temperature=TEMPERATURE),
            "same entropy": distillation.smoothed_teacher(room.y, room.classes, eps, temperature=TEMPERATURE)}


def kd_shapes() -> list:
    """resnet-mini teaches a quarter of itself ten new shapes: alone (at two rates), taught, answers altered, hints first, no labels."""
    return [partial(shapes_run, seed) for seed in SEEDS]


def shapes_run(seed: int, only: tuple[str, ...] | None = None) -> list[dict]:
    """The teacher and all its students on shapes, one draw. only: some of them."""
    one_thread(1)
    room, name = classroom("shapes", seed), "shapes"
    taught = method(name, "taught")
    new, _ = shapes.TARGET10.draw(UNLABELLED // 10, seed=seed * 1000 + 999)
    said, nothing = training.predict(room.teacher, new), torch.zeros(len(new), dtype=torch.int64)
    plans = {kind: (method(name, kind), {}) for kind in KINDS}
    plans |= {kind: (taught, {"logits": logits}) for kind, logits in altered(room).items() if kind != "same entropy"}
    plans |= {"alone, the taught one's rate": (replace(method(name, "alone"), rate=taught.rate), {}),
              "hints, then taught": (replace(taught, hints=0.25), {}),
              "new pictures, no labels": (replace(taught, weight=1.0), {"x": new, "y": nothing, "logits": said})}
    return [teacher_row(name, room), *(way.row(name, kind, room, **more) for kind, (way, more) in plans.items() if only is None or kind in only)]


def kd_text() -> list:
    """roberta-mini teaches a BERT of one narrow layer the eight topics: alone, with smoothed labels, taught."""
    return [partial(text_run, seed) for seed in SEEDS]


def text_run(seed: int, name: str = "text") -> list[dict]:
    """The teacher and every kind of student, one draw."""
    one_thread(1)
    room = classroom(name, seed)
    return [teacher_row(name, room), *(method(name, kind).row(name, kind, room) for kind in KINDS)]


TEMPERATURES = (1.0, 4.0, 16.0)
WEIGHTS_TRIED = (0.5, 0.9, 1.0)
PATIENT = 4                           # times the steps


def kd_words() -> list:
    """roberta-mini teaches a network that averages word vectors the eight topics: every ablation."""
    return [partial(words_run, seed) for seed in SEEDS]


def words_run(seed: int, parts: tuple[str, ...] = ("pair", "dark", "settings", "patience", "unlabelled", "teachers")) -> list[dict]:
    """All students of the word means, one draw; `part` says which question a row belongs to."""
    one_thread(1)
    room, name = classroom("words", seed), "words"
    taught, alone = method(name, "taught"), method(name, "alone")
    rows: list[dict] = []

    def add(part: str, kind: str, way: Method, room: Classroom = room, columns: dict | None = None, **other) -> None:
        if part in parts:
            rows.append(way.row(name, kind, room, **other) | {"part": part} | (columns or {}))
    rows.append(teacher_row(name, room) | {"part": "pair"})
    for kind in KINDS:
        add("pair", kind, method(name, kind))
    for kind, logits in altered(room).items():
        add("dark", kind, taught, logits=logits)
    for temperature in TEMPERATURES:
        for weight in WEIGHTS_TRIED:
            add("settings", f"T {temperature:g}, weight {weight:g}", replace(taught, temperature=temperature, weight=weight))
    for kind, way in (("alone", alone), ("taught", taught)):
        add("patience", f"{kind}, {PATIENT} times the steps", replace(way, steps=PATIENT * room.pair.steps))
    if "unlabelled" in parts:
        unlabelled(room, add, taught, alone)
    if "teachers" in parts:
        for kind, teacher in other_teachers(room, alone).items():
            answers = training.predict(teacher.eval(), room.x_test)
            changed = replace(room, test=answers, logits=training.predict(teacher, room.x))
            right = {"teacher_accuracy": metrics.accuracy(answers.argmax(1), room.y_test), "teacher_parameters": compression.parameters(teacher)}
            add("teachers", kind, taught, changed, right)
    return rows


def unlabelled(room: Classroom, add: Callable, taught: Method, alone: Method) -> None:
    """Students that see no label: the labelled sentences, new ones, sentences of another task; soft answers and hard ones."""
    blind, encode = replace(taught, weight=1.0), short_bert(0).backbone.encode
    for kind, task in (("new sentences", text.TOPIC), ("another task's sentences", text.ACCEPTABILITY)):
        said, _ = task.draw(UNLABELLED // len(task.classes), seed=room.seed * 1000 + 999)
        tokens = encode([*said])["input_ids"]
        answers, nothing = training.predict(room.teacher, tokens), torch.zeros(len(tokens), dtype=torch.int64)
        add("unlabelled", kind, blind, x=tokens, y=nothing, logits=answers)
        add("unlabelled", f"{kind}, hard answers", alone, x=tokens, y=answers.argmax(1), logits=answers)


def other_teachers(room: Classroom, alone: Method) -> dict[str, nn.Module]:
    """Teachers in place of the room's: untrained, the student's twin, a BERT of one layer from scratch, bert-mini."""
    pair, seed = room.pair, room.seed
    x, y, *_ = pair.draw(seed)
    small = replace(PAIRS["text"], rates=())
    return {"untrained": finetune.Classifier(zoo.load(pair.teacher, None, seed=seed), room.classes, seed=seed),
            "its twin": alone.fit(replace(room, seed=seed + 1000)),
            "a BERT of one layer": method("text", "alone").fit(replace(room, pair=small)),
            "bert-mini": train_teacher(pair, x, y, seed, name="bert-mini")}


# ---------------------------------------------------------------------------- what it costs
COST_ROUNDS = 9
COST_BATCH = 64


def kd_cost() -> list:
    """Parameters, bytes and milliseconds of teachers and students, as they are and with 8-bit linear layers; accuracy for the text pair."""
    return [partial(cost_run, seed) for seed in SEEDS]


def cost_run(seed: int, rounds: int = COST_ROUNDS) -> list[dict]:
    """The text pair trained, then in 8 bits; the picture networks by size and time alone: torchao leaves convolutions as they are.

    Rows of method, network, bits, seed, accuracy (None for pictures), parameters, bytes, linear (share in linear layers), milliseconds
    for 64 examples (median of processor time).
    """
    one_thread(1)
    room = classroom("text", seed)
    trained = {"teacher": room.teacher, "taught": method("text", "taught").fit(room)}
    pictures = {"resnet-mini": zoo.load("resnet-mini"), "vgg-mini": zoo.load("vgg-mini"), "resnet-micro": micro(seed)}
    pictures = {name: finetune.Classifier(loaded, 10, seed=seed).eval() for name, loaded in pictures.items()}
    rows = []
    for group, x in ((trained, room.x_test[:COST_BATCH]), (pictures, torch.rand(COST_BATCH, 3, 32, 32))):
        every = {(name, bits): net if bits == "32" else compression.quantised(net, bits)
                 for name, net in group.items() for bits in ("32", *compression.INT8)}
        taken = compression.milliseconds(every, x, repeats=rounds)
        for (name, bits), net in every.items():
            right = metrics.accuracy(training.predict(net, room.x_test).argmax(1), room.y_test) if group is trained else None
            rows.append({"method": f"{name}, {bits}", "network": name, "bits": bits, "seed": seed, "accuracy": right,
                         "parameters": compression.parameters(group[name]), "bytes": compression.disk_bytes(net),
                         "linear": compression.share_in_linear(group[name]), "milliseconds": compression.median(taken[name, bits])})
    return rows


# ---------------------------------------------------------------------------- what the command finds
LAB: dict = {f.__name__: f for f in (kd_rates, kd_shapes, kd_text, kd_words, kd_cost)}
REAL: dict = {}
_BELOW = ("shapes", "augmentation", "backbones", "batches", "loop", "inference", "training", "optim", "freezing", "finetune", "methods:AUGMENT",
          "evaluation:world", "zoo:Preprocess", "zoo:MINI", "distillation:loss", "distillation:soft_targets", "distillation:agreement")
_TEXT = ("text", "text_words", "mini_transformers", "transformer_backbones:TextBackbone")
_OWN = ("Pair", "PAIRS", "Classroom", "all_views", "train_teacher", "classroom", "Method", "KINDS", "TEMPERATURE", "WEIGHT", "WEIGHT_DECAY", "SEEDS",
        "micro", "short_bert", "word_means", "WordMeans", "without_words", "SPECIAL", "DROPPED")
_DARK = tuple(f"distillation:{part}" for part in ("shuffle_wrong", "flatten_wrong", "smoothed_teacher", "smoothing_of", "entropy"))
_SHOWN = ("CHOSEN", "method", "teacher_row")
_HERE = {
    "kd_rates": ("kd_rates", "rate_run", "SMOOTHING", "DEV_SEEDS"),
    "kd_shapes": ("kd_shapes", "shapes_run", "altered", "SMOOTHING", "UNLABELLED", *_SHOWN),
    "kd_text": ("kd_text", "text_run", "SMOOTHING", *_SHOWN),
    "kd_words": ("kd_words", "words_run", "altered", "unlabelled", "other_teachers", "SMOOTHING", "UNLABELLED", "TEMPERATURES",
                 "WEIGHTS_TRIED", "PATIENT", *_SHOWN),
    "kd_cost": ("kd_cost", "cost_run", "COST_ROUNDS", "COST_BATCH", *_SHOWN),
}
_MORE = {"kd_shapes": (*_DARK, "distillation:Hints", "distillation:learn_hints", "distillation:_output_of"),
         "kd_words": _DARK, "kd_cost": ("compression",)}
CODE: dict[str, tuple[str, ...]] = {
    name: (*_BELOW, *_TEXT, *_MORE.get(name, ()), *(f"distillation_experiments:{part}" for part in (*_OWN, *parts))) for name, parts in _HERE.items()}
_READER = ("roberta-mini-text",)
WEIGHTS: dict[str, tuple[str, ...]] = {
    "kd_rates": ("resnet-mini-shapes", *_READER), "kd_shapes": ("resnet-mini-shapes",), "kd_text": _READER, "kd_cost": _READER,
    "kd_words": (*_READER, "bert-mini-text")}


def provenance(name: str, rows: list[dict]) -> dict:
    """No real experiment stands here."""
    raise KeyError(f"{name} is no real experiment of this module")
