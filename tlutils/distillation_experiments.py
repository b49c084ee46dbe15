"""The stored experiments of `distillation`: teachers, students alone for as long, students taught; what it is about soft labels.

Every picture is drawn in a fixed number of augmented views beforehand, and the teacher answers once for each view: as it never changes,
that is what it would say in every step (`distillation.distil` asks it anew), and student and teacher see the same crops. All students of
a pair start from the same weights and see the same batches.
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
UNLABELLED = 6400


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
    "resnet": Pair("resnet-mini", micro, labels=20, views=32),
    "vgg": Pair("vgg-mini", micro, labels=50, views=12, teacher_steps=150),
    "text": Pair("roberta-mini", short_bert, labels=20, teacher_steps=120, steps=400, batch_size=32, rates=(3e-4, 1e-3, 3e-3), text=True),
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


def all_views(x: Tensor, y: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` augmented views of every picture, and their labels."""
    views = [AUGMENT(x, batches.generator(seed, "view", number)) for number in range(count)]
    return torch.cat(views), y.repeat(count)


def train_teacher(pair: Pair, x: Tensor, y: Tensor, seed: int, *, name: str | None = None, weights: str | None = "bundled") -> nn.Module:
    """A pretrained network fine-tuned on the labelled examples, with the augmentation of the book for pictures."""
    model = finetune.Classifier(zoo.load(name or pair.teacher, weights, seed=seed), int(y.max()) + 1, seed=seed)
    training.fit(model, (x, y), lr=pair.teacher_rate, seed=seed, batch_size=16 if pair.text else 64,
                 augment=None if pair.text else AUGMENT, **pair.options(pair.teacher_steps))
    return model


@lru_cache(maxsize=1)
def classroom(name: str, seed: int, dev: bool = False) -> Classroom:
    """The pair's data and its trained teacher for one seed. dev: other shapes, or other sentences."""
    pair = PAIRS[name]
    x, y, x_test, y_test = pair.draw(seed, dev)
    teacher = train_teacher(pair, x, y, seed)
    if not pair.text:
        x, y = all_views(x, y, pair.views, seed)
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
CHOSEN = {"resnet": {"alone": 1e-2, "label smoothing": 1e-2, "taught": 1e-2},
          "vgg": {"alone": 1e-2, "label smoothing": 1e-2, "taught": 1e-2},
          "text": {"alone": 1e-3, "label smoothing": 1e-3, "taught": 1e-3}}


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


def kd_pairs() -> list:
    """Teacher, student alone for as long, with smoothed labels, and taught: three pairs."""
    return [partial(pair_run, name, seed) for name in ("vgg", "resnet", "text") for seed in SEEDS]


def pair_run(name: str, seed: int, kinds=tuple(KINDS)) -> list[dict]:
    """The teacher and every kind of student, one draw."""
    one_thread(1)
    room = classroom(name, seed)
    shown = {"pair": name, "method": "teacher", "labels": room.pair.labels, "seed": seed,
             "accuracy": metrics.accuracy(room.test.argmax(1), room.y_test),
             "train_accuracy": metrics.accuracy(room.logits.argmax(1), room.y), "agreement": 1.0, "train_agreement": 1.0,
             "rate": room.pair.teacher_rate, "temperature": 0.0, "weight": 0.0}
    return [shown, *(method(name, kind).row(name, kind, room) for kind in kinds)]


def kd_dark() -> list:
    """Is it the dark knowledge? Wrong classes shuffled or flattened, smoothed labels of the same entropy, answers to another crop; hints."""
    return [partial(dark_run, seed) for seed in SEEDS]


def dark_run(seed: int, only: tuple[str, ...] | None = None, name: str = "resnet") -> list[dict]:
    """What the teacher says, altered, one draw. only: some of the methods."""
    one_thread(1)
    room, taught = classroom(name, seed), method(name, "taught")
    soft = distillation.entropy(room.logits, temperature=TEMPERATURE)
    eps = distillation.smoothing_of(soft, room.classes)
    plain = training.predict(room.teacher, room.pair.draw(seed)[0])
    altered = {
        "shuffled": lambda: {"logits": distillation.shuffle_wrong(room.logits, room.y, torch.Generator().manual_seed(seed))},
        "flattened": lambda: {"logits": distillation.flatten_wrong(room.logits, room.y, temperature=TEMPERATURE)},
        "same entropy": lambda: {"logits": distillation.smoothed_teacher(room.y, room.classes, eps, temperature=TEMPERATURE)},
        "another crop": lambda: {"logits": plain.repeat(room.pair.views, 1)},
        "hints, then taught": lambda: {},
    }
    found = []
    for kind in only or altered:
        used = replace(taught, hints=0.25) if kind.startswith("hints") else taught
        found.append(used.row(name, kind, room, **altered[kind]()) | {"entropy": soft, "smoothing": eps})
    return found


def kd_teachers() -> list:
    """Other teachers for the same student: untrained, half pretrained, its own twin, and one four times as large."""
    return [partial(teacher_run, seed) for seed in SEEDS]


def teacher_run(seed: int, name: str = "resnet") -> list[dict]:
    """The student of a pair taught by four other teachers, one draw; `teacher_accuracy` is theirs, `agreement` is with them."""
    one_thread(1)
    room, pair, taught = classroom(name, seed), PAIRS[name], method(name, "taught")
    x, y, *_ = pair.draw(seed)
    twin = replace(room, seed=seed + 1000)
    teachers = {
        "untrained": finetune.Classifier(zoo.load(pair.teacher, None, seed=seed), room.classes, seed=seed),
        "half pretrained": train_teacher(pair, x, y, seed, weights="half"),
        "its twin": method(name, "alone").fit(twin),
        "four times larger": train_teacher(replace(pair, teacher_steps=150), x, y, seed, name="vgg-mini"),
    }
    found = []
    for kind, teacher in teachers.items():
        answers = training.predict(teacher.eval(), room.x_test)
        changed = replace(room, test=answers, logits=training.predict(teacher, room.x))
        found.append(taught.row(name, kind, changed) | {"teacher_accuracy": metrics.accuracy(answers.argmax(1), room.y_test)})
    return found


def kd_unlabelled() -> list:
    """No labels for the student: the teacher's pictures, 6,400 new ones, as many of other shapes; and hard answers for soft ones."""
    return [partial(unlabelled_run, seed) for seed in SEEDS]


def unlabelled_run(seed: int, name: str = "resnet") -> list[dict]:
    """A student that sees no label, one draw: the teacher's own pictures, new ones, pictures of other shapes, and hard answers to new ones."""
    one_thread(1)
    room, blind = classroom(name, seed), method(name, "taught", weight=1.0)
    new, _ = shapes.TARGET10.draw(UNLABELLED // 10, seed=seed * 1000 + 999)
    other, _ = shapes.SHAPES16.draw(UNLABELLED // 16, seed=seed * 1000 + 998)
    about_new, about_other = (training.predict(room.teacher, x) for x in (new, other))
    nothing = torch.zeros(UNLABELLED, dtype=torch.int64)
    return [blind.row(name, "its pictures", room), blind.row(name, "new pictures", room, x=new, y=nothing, logits=about_new),
            blind.row(name, "other shapes", room, x=other, y=nothing, logits=about_other),
            method(name, "alone").row(name, "new pictures, hard answers", room, x=new, y=about_new.argmax(1), logits=about_new)]


TEMPERATURES = (1.0, 4.0, 16.0)
WEIGHTS_TRIED = (0.5, 1.0)


def kd_temperature() -> list:
    """Temperature times weight of the teacher's word, at the rate chosen for one of them."""
    return [partial(temperature_run, seed, temperature) for seed in SEEDS for temperature in TEMPERATURES]


def temperature_run(seed: int, temperature: float, name: str = "resnet", weights=WEIGHTS_TRIED) -> list[dict]:
    """A student taught at one temperature, with each weight, one draw."""
    one_thread(1)
    room = classroom(name, seed)
    return [method(name, "taught", temperature=temperature, weight=w).row(name, f"T {temperature:g}, weight {w:g}", room) for w in weights]


def kd_patience() -> list:
    """Three times the steps, for the student alone and for the taught one: does the gain last?"""
    return [partial(patience_run, seed, kind) for seed in SEEDS for kind in ("taught", "alone")]


def patience_run(seed: int, kind: str, name: str = "resnet", times: int = 3) -> list[dict]:
    """One student trained `times` as long."""
    one_thread(1)
    room = classroom(name, seed)
    return [method(name, kind, steps=times * room.pair.steps).row(name, kind, room) | {"steps": times * room.pair.steps}]


# ---------------------------------------------------------------------------- what it costs
COST_ROUNDS = 15
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
LAB: dict = {f.__name__: f for f in (kd_rates, kd_pairs, kd_dark, kd_teachers, kd_unlabelled, kd_temperature, kd_patience, kd_cost)}
REAL: dict = {}
_BELOW = ("shapes", "augmentation", "backbones", "batches", "loop", "inference", "training", "optim", "freezing", "finetune", "methods:AUGMENT",
          "evaluation:world", "zoo:Preprocess", "zoo:MINI", "distillation:loss", "distillation:soft_targets", "distillation:agreement")
_TEXT = ("text", "text_words", "mini_transformers", "transformer_backbones:TextBackbone")
_OWN = ("micro", "Pair", "PAIRS", "Classroom", "all_views", "train_teacher", "classroom", "Method", "KINDS", "TEMPERATURE", "WEIGHT",
        "WEIGHT_DECAY", "SEEDS")
_HERE = {
    "kd_rates": ("kd_rates", "rate_run", "short_bert", "SMOOTHING", "DEV_SEEDS"),
    "kd_pairs": ("kd_pairs", "pair_run", "short_bert", "SMOOTHING", "CHOSEN", "method"),
    "kd_dark": ("kd_dark", "dark_run", "CHOSEN", "method"),
    "kd_teachers": ("kd_teachers", "teacher_run", "CHOSEN", "method"),
    "kd_unlabelled": ("kd_unlabelled", "unlabelled_run", "CHOSEN", "method", "UNLABELLED"),
    "kd_temperature": ("kd_temperature", "temperature_run", "CHOSEN", "method", "TEMPERATURES", "WEIGHTS_TRIED"),
    "kd_patience": ("kd_patience", "patience_run", "CHOSEN", "method"),
    "kd_cost": ("kd_cost", "cost_run", "short_bert", "CHOSEN", "method", "COST_ROUNDS", "COST_BATCH"),
}
_MORE = {"kd_rates": (*_TEXT, "mini_cnns"), "kd_pairs": (*_TEXT, "mini_cnns"), "kd_teachers": ("mini_cnns",),
         "kd_cost": (*_TEXT, "mini_cnns", "compression"),
         "kd_dark": ("distillation:shuffle_wrong", "distillation:flatten_wrong", "distillation:smoothed_teacher", "distillation:smoothing_of",
                     "distillation:entropy", "distillation:Hints", "distillation:learn_hints", "distillation:_output_of")}
CODE: dict[str, tuple[str, ...]] = {
    name: (*_BELOW, *_MORE.get(name, ()), *(f"distillation_experiments:{part}" for part in (*_OWN, *parts))) for name, parts in _HERE.items()}
_BOTH = ("resnet-mini-shapes", "vgg-mini-shapes", "roberta-mini-text")
WEIGHTS: dict[str, tuple[str, ...]] = {
    "kd_rates": _BOTH, "kd_pairs": _BOTH, "kd_cost": _BOTH, "kd_teachers": ("resnet-mini-shapes", "resnet-mini-half", "vgg-mini-shapes"),
    **dict.fromkeys(("kd_dark", "kd_unlabelled", "kd_temperature", "kd_patience"), ("resnet-mini-shapes",))}


def provenance(name: str, rows: list[dict]) -> dict:
    """No real experiment stands here."""
    raise KeyError(f"{name} is no real experiment of this module")
