"""The real experiments of distillation: MiniLM taught to SST-2 and BANKING77, and students with two of its six layers.

Protocol: settings are chosen on development texts (SST-2's validation part; a tenth of BANKING77's training texts) with a
seed of their own; the test texts are read once, at the end. Runs and trained weights are kept in the cache.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import compression, datasets, distillation, finetune, optim, paths, report, training, zoo
from .practice_text_experiments import Bucketed, Tokens, judged, kept
from .sentiment_experiments import MINILM, tfidf

SEEDS = range(200, 203)               # students that are shown
SCRATCH_SEEDS = ()
DEV_SEED = 199                        # settings are chosen with this seed; it is the teacher's too
LONGEST = 64                          # tokens
BATCH = 64
HEAD = 10                             # the new head learns so much faster than the layers that are taken over
EPOCHS = {"sst2": {"teacher": 3, "student": 3}, "banking77": {"teacher": 4, "student": 4}}
TEACHER_RATES = {"sst2": (2e-4,), "banking77": (2e-4, 4e-4)}      # SST-2's was found by `sst2_tuning`
RATES = {"alone": (3e-4, 6e-4, 1.2e-3), "taught": (3e-4, 6e-4, 1.2e-3), "from scratch": (6e-4, 1.2e-3)}
LAYERS = ((0, 1), (0, 3), (0, 5))     # which two of the six the student may take over
LOSSES = {"alone": {"temperature": 1.0, "weight": 0.0, "hint": 0.0}, "taught": {"temperature": 4.0, "weight": 0.9, "hint": 1.0}}


# ---------------------------------------------------------------------------- texts and networks
@lru_cache(maxsize=2)
def texts(name: str) -> dict[str, tuple[list[str], Tensor]]:
    """The parts train, dev and test of a set: texts and labels. Of BANKING77, which has no validation part, every tenth text is for dev."""
    data = datasets.load(name)
    parts = {"train": (data.x_train, data.y_train), "dev": (data.x_validation, data.y_validation), "test": (data.x_test, data.y_test)}
    if data.x_validation is None:
        held = every_tenth(data.y_train)
        for part, mask in (("train", ~held), ("dev", held)):
            parts[part] = [data.x_train[i] for i in np.flatnonzero(mask)], data.y_train[torch.as_tensor(mask)]
    return parts


def every_tenth(y: Tensor, seed: int = 0) -> np.ndarray:
    """(N,) True for a random tenth of each class."""
    held, rng = np.zeros(len(y), bool), np.random.default_rng(seed)
    for c in np.unique(y):
        held[rng.permutation(np.flatnonzero(np.asarray(y) == c))[::10]] = True
    return held


@lru_cache(maxsize=2)
def tokens(name: str) -> dict[str, Tokens]:
    """The same parts as token numbers."""
    tokenizer = zoo.load(MINILM).tokenizer
    return {part: Tokens(x, tokenizer, LONGEST) for part, (x, _) in texts(name).items()}


class Answering(nn.Module):
    """A classifier that gives logits and sentence vector in one row, (N, classes + width): a student is taught by both."""

    def __init__(self, classifier: finetune.Classifier):
        super().__init__()
        self.backbone, self.head = classifier.backbone, classifier.head

    def forward(self, tokens: Tensor) -> Tensor:
        vectors = self.backbone(tokens)
        return torch.cat([self.head(vectors), vectors], 1)

    @property
    def bert(self) -> nn.Module:
        """The transformer: embeddings and encoder."""
        return self.backbone.model


def network(name: str, layers: tuple[int, ...] | None = None, *, weights: str | None = "DEFAULT", seed: int = 0) -> Answering:
    """MiniLM without its pooler (of its layers those given, or all), under a new head for the classes of the set."""
    loaded = zoo.load(MINILM, weights, seed=seed)
    bert = loaded.backbone.model
    bert.pooler = None                # not used: the sentence vector is a mean over the tokens
    if layers is not None:
        bert.encoder.layer = nn.ModuleList(bert.encoder.layer[i] for i in layers)
        bert.config.num_hidden_layers = len(layers)
    return Answering(finetune.Classifier(loaded, int(texts(name)["train"][1].max()) + 1, seed=seed))


# ---------------------------------------------------------------------------- teaching
def loss(classes: int, *, temperature: float, weight: float, hint: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Hinton's loss (see `distillation.loss`) and hint times the cosine distance of the sentence vectors, as in DistilBERT.

    Of outputs (N, classes + width) and targets (N, 1 + classes + width) the first columns are logits (in targets after the label), the others
    sentence vectors. The student's are as wide as the teacher's, so no layer is needed between them. With weight and hint 0: fine-tuning.
    """
    def total(outputs: Tensor, y: Tensor) -> Tensor:
        labels, said = y[:, 0].long(), y[:, 1:]
        if not weight and not hint:
            return nn.functional.cross_entropy(outputs[:, :classes], labels)
        value = distillation.loss(outputs[:, :classes], said[:, :classes], labels, temperature=temperature, weight=weight)
        return value + hint * distillation.cosine_distance(outputs[:, classes:], said[:, classes:]) if hint else value
    return total


def learn(model: Answering, name: str, *, rate: float, epochs: int, seed: int, how: str = "alone") -> training.History:
    """Train all weights on the training texts, from labels alone or also from the teacher; a development score after each epoch."""
    own, dev, truth = tokens(name)["train"], tokens(name)["dev"], texts(name)["dev"][1]
    classes, y = model.head.out_features, texts(name)["train"][1].float().unsqueeze(1)
    if how == "taught":
        y = torch.cat([y, answers(name, "train")], 1)
    loader = torch.utils.data.DataLoader(list(range(len(own))), batch_sampler=Bucketed(own, BATCH), collate_fn=lambda i: (own.batch(i), y[i]))
    groups = optim.layerwise([model.bert.embeddings, *model.bert.encoder.layer], model.head, lr=rate, decay=1.0, head_lr=HEAD * rate,
                             weight_decay=0.01)
    steps = epochs * len(loader)

    def score(network) -> dict:
        return {"accuracy": float((dev.outputs(network)[:, :classes].argmax(1) == truth).float().mean())}
    return training.fit(model, loader, steps=steps, groups=groups, lr=rate, schedule="linear", warmup=steps // 10, clip=1.0, seed=seed,
                        loss=loss(classes, **LOSSES[how]), precision="bf16", validation=score, evaluate_every=len(loader))


def code() -> str:
    """Hash of what decides a run here, and goes into the names of what is kept."""
    own = ("texts", "every_tenth", "tokens", "Answering", "network", "loss", "learn", "LONGEST", "BATCH", "HEAD", "LOSSES")
    return report.code_hash(*(f"distillation_real_experiments:{part}" for part in own))


def stored(name: str, who: str) -> Path:
    """Where the weights of a trained network lie in the cache."""
    return paths.cache_dir() / "distillation" / f"{name}-{who}-{code()}.safetensors"


@lru_cache(maxsize=1)
def teacher(name: str) -> Answering:
    """The fine-tuned MiniLM that all students of a set have, in evaluation mode. Raises FileNotFoundError before `teacher_run`."""
    return restored(name, "teacher", network(name))


def restored(name: str, who: str, model: Answering) -> Answering:
    """`model` with the weights that a run has left in the cache, in evaluation mode."""
    from safetensors.torch import load_model

    load_model(model, stored(name, who))
    return model.eval()


@lru_cache(maxsize=2)
def answers(name: str, part: str) -> Tensor:
    """(N, classes + width): what the teacher says to the texts of a part. Texts have no random crops: asked once, it has said it all."""
    from safetensors.torch import load_file, save_file

    file = stored(name, f"answers-{part}")
    if not file.exists():
        found = tokens(name)[part].outputs(teacher(name))
        save_file({"answers": found.contiguous()}, written := file.with_suffix(".part"))
        written.replace(file)
    return load_file(file)["answers"]


# ---------------------------------------------------------------------------- runs
def trained_run(name: str, method: str, layers: tuple[int, ...] | None, rate: float, epochs: int, seed: int, test: bool, code: str) -> list[dict]:
    """One training: a development row per epoch and, if asked for, the row of the test part; the weights of DEV_SEED's teacher are kept."""
    torch.set_num_threads(1)
    how = "taught" if method == "taught" else "alone"
    if how == "taught":
        answers(name, "train")                                # of the teacher's time, not of the student's
    began = time.process_time()
    model = network(name, layers, weights=None if method == "from scratch" else "DEFAULT", seed=seed)
    history = learn(model, name, rate=rate, epochs=epochs, seed=seed, how=how)
    common = {"data": name, "method": method, "layers": "all" if layers is None else "+".join(map(str, layers)), "seed": seed, "rate": rate,
              "epochs": epochs}
    rows = [{**common, "part": "dev", "epoch": epoch, "accuracy": row["validation_accuracy"], "loss": row["loss"]}
            for epoch, row in enumerate(history.rows, 1)]
    rows[-1]["seconds"] = time.process_time() - began
    if test:
        classes, (_, y) = model.head.out_features, texts(name)["test"]
        if method == "teacher" or seed == SEEDS[0]:
            keep(model, stored(name, method))
        found = tokens(name)["test"].outputs(model)[:, :classes].argmax(1)
        same = found if method == "teacher" else answers(name, "test")[:, :classes].argmax(1)
        rows.append({**common, "part": "test", "epoch": epochs, **judged(found, y), "agreement": float((found == same).float().mean()),
                     "training_accuracy": on_training(model, name)})
    return rows


def on_training(model: Answering, name: str, n: int = 1000) -> float:
    """Accuracy on the first n of the shuffled training texts, for seeing whether a network has learned all it could."""
    own, y = tokens(name)["train"], texts(name)["train"][1]
    index = sorted(np.random.default_rng(0).permutation(len(y))[:n].tolist(), key=lambda i: len(own.rows[i]))
    hits = [training.predict(model, own.batch(index[i:i + 64]))[:, :model.head.out_features].argmax(1) == y[index[i:i + 64]]
            for i in range(0, len(index), 64)]
    return float(torch.cat(hits).float().mean())


def keep(model: nn.Module, file: Path) -> None:
    """Write the weights, atomically."""
    from safetensors.torch import save_model

    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_model(model, str(part))
    part.replace(file)


def counted_run(name: str, strengths: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0, 300.0)) -> list[dict]:
    """Counted words and a logistic regression, its C chosen on the development part: the baseline without a transformer."""
    (x, y), (x_dev, y_dev), (x_test, y_test) = (texts(name)[part] for part in ("train", "dev", "test"))
    began = time.process_time()
    fitted = {C: tfidf(C).fit(x, y.numpy()) for C in strengths}
    scores = {C: float((model.predict(x_dev) == y_dev.numpy()).mean()) for C, model in fitted.items()}
    best = max(scores, key=scores.get)
    return [{"data": name, "method": "counted words", "seed": 0, "C": best, "part": "dev", "accuracy": scores[best],
             "seconds": time.process_time() - began},
            {"data": name, "method": "counted words", "seed": 0, "C": best, "part": "test", **judged(fitted[best].predict(x_test), y_test)}]


def best(runs: list[list[dict]], key: str):
    """The setting of the run that scored best on the development part after its last epoch."""
    return max(runs, key=lambda run: run[-1]["accuracy"])[-1][key]


def study(name: str) -> list[dict]:
    """The whole of a set: the teacher, the choice of layers and rates after one epoch each, students alone and taught, baselines."""
    run = partial(kept, trained_run, name, code=code())
    epochs, rates, rows = EPOCHS[name], TEACHER_RATES[name], kept(counted_run, name)
    tried = [run("teacher", None, rate=rate, epochs=1, seed=DEV_SEED, test=False) for rate in rates if len(rates) > 1]
    rate = best(tried, "rate") if tried else rates[0]
    rows += run("teacher", None, rate=rate, epochs=epochs["teacher"], seed=DEV_SEED, test=True)
    if not stored(name, "teacher").exists():
        raise FileNotFoundError(f"{stored(name, 'teacher')} is gone: delete the cache's folder 'practice', so that the teacher is trained again")
    pairs = [run("alone", pair, rate=RATES["alone"][1], epochs=1, seed=DEV_SEED, test=False) for pair in LAYERS]
    pair, tried = tuple(map(int, best(pairs, "layers").split("+"))), tried + pairs
    for method, seeds in (("alone", SEEDS), ("taught", SEEDS), ("from scratch", SCRATCH_SEEDS)):
        runs = [run(method, pair, rate=rate, epochs=1, seed=DEV_SEED, test=False) for rate in RATES[method] if seeds]
        for seed in seeds:
            rows += run(method, pair, rate=best(runs, "rate"), epochs=epochs["student"], seed=seed, test=True)
        tried += runs
    return rows + [row for i, tries in enumerate(tried) if tries not in tried[:i] for row in tries]


def distillation_sst2() -> list[dict]:
    """SST-2: students with two of MiniLM's layers, fine-tuned on labels alone or taught by the fine-tuned MiniLM as well."""
    return study("sst2")


def distillation_banking77() -> list[dict]:
    """BANKING77: students with two of MiniLM's layers, fine-tuned on labels alone or taught by the fine-tuned MiniLM as well."""
    return study("banking77")


# ---------------------------------------------------------------------------- what a sentence costs
TIMED = 256                           # test sentences, in batches of 32 of like length
FORMS = ("32 bits", "8-bit weights", "8 bits", "8 bits, embeddings too")


def in_form(model: Answering, form: str) -> Answering:
    """A copy of the network in one of FORMS: linear layers by `compression.quantised`, in the last form the embeddings' tables as well."""
    if form == "32 bits":
        return model
    made = compression.quantised(model, "weights" if form == "8-bit weights" else "weights and activations")
    if form == "8 bits, embeddings too":
        from torchao.quantization import IntxWeightOnlyConfig, PerAxis, quantize_

        rows = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
        quantize_(made, rows, filter_fn=lambda part, _: isinstance(part, nn.Embedding))
    return made


def seconds(model: Answering, batches: list[Tensor]) -> tuple[float, float]:
    """Processor seconds of a pass over the batches: in all, and in the encoder's layers."""
    spent, began = [], []
    hooks = [model.bert.encoder.register_forward_pre_hook(lambda *_: began.append(time.process_time())),
             model.bert.encoder.register_forward_hook(lambda *_: spent.append(time.process_time() - began[-1]))]
    start = time.process_time()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    whole = time.process_time() - start
    for hook in hooks:
        hook.remove()
    return whole, sum(spent)


def operations(model: Answering, batch: Tensor) -> int:
    """Multiplications and additions of the encoder's layers on a batch, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, depth=10)
    with torch.no_grad(), counter:
        model(batch)
    return sum(sum(found.values()) for module, found in counter.get_flop_counts().items() if module.endswith("bert.encoder")
               or module.endswith("backbone.model.encoder"))


def cost_run(name: str, layers: tuple[int, ...], repeats: int, code: str) -> list[dict]:
    """Teacher and taught student in 32 and 8 bits: size, test score, and processor time in batches and sentence by sentence."""
    torch.set_num_threads(1)
    test, (_, y) = tokens(name)["test"], texts(name)["test"]
    whole = {"teacher": restored(name, "teacher", network(name)), "taught": restored(name, "taught", network(name, layers))}
    made = {(who, form): in_form(model, form) for who, model in whole.items() for form in FORMS}
    picked = sorted(np.random.default_rng(0).permutation(len(test))[:TIMED].tolist(), key=lambda i: len(test.rows[i]))
    batches = [test.batch(picked[i:i + 32]) for i in range(0, len(picked), 32)]
    single = [test.batch([i]) for i in picked[::16]]
    rows, times = [], {key: [] for key in made}
    for number in range(-1, repeats):                         # in turn, so that all share the machine's mood; the first round warms up
        for key, model in made.items():
            found = seconds(model, batches), seconds(model, single)
            times[key] += [found] if number >= 0 else []
    for (who, form), model in made.items():
        classes, encoder = model.head.out_features, whole[who].bert.encoder
        found = test.outputs(model)[:, :classes].argmax(1)
        common = {"data": name, "method": who, "form": form}
        rows.append({**common, "part": "test", "seed": 0, **judged(found, y), "bytes": compression.disk_bytes(model),
                     "parameters": compression.parameters(whole[who]), "encoder_parameters": compression.parameters(encoder),
                     "encoder_operations": operations(whole[who], batches[len(batches) // 2]) / len(batches[0])})
        rows += [{**common, "part": "time", "seed": repeat, "sentences_per_second": len(picked) / batched[0],
                  "milliseconds": 1000 * batched[0] / len(picked), "encoder_milliseconds": 1000 * batched[1] / len(picked),
                  "single_milliseconds": 1000 * alone[0] / len(single)}
                 for repeat, (batched, alone) in enumerate(times[who, form])]
    return rows


def distillation_text_cost() -> list[dict]:
    """MiniLM and its taught student of two layers on the sets that were studied, in 32 and in 8 bits: bytes, processor time, score."""
    rows = []
    for name in (name for name in EPOCHS if report.path("real", f"distillation_{name}").exists()):
        taught = report.load("real", f"distillation_{name}").query("method == 'taught'").iloc[0]
        rows += kept(cost_run, name, tuple(map(int, taught["layers"].split("+"))), repeats=5, code=code())
    return rows


LAB: dict = {}
REAL: dict = {f.__name__: f for f in (distillation_sst2, distillation_banking77, distillation_text_cost)}
CODE: dict[str, tuple[str, ...]] = {}
WEIGHTS: dict[str, tuple[str, ...]] = {}


def provenance(name: str, rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind a real experiment, and what its numbers need to be read."""
    sets = sorted({row["data"] for row in rows})
    note = ("one teacher and the first of its taught students per set; processor seconds of one thread, on 256 test sentences in batches of 32 of "
            "like length and on 16 of them one by one; 8 bits by torchao" if name == "distillation_text_cost" else
            "all weights trained in bfloat16 (forward and backward; weights in float32) on one core, judged in float32; one teacher per set, five "
            "seeds of students; layers and rates chosen on development texts after one epoch; seconds are processor seconds of the training, its "
            "development scores included, without the teacher's answers")
    return {"weights_sha256": {MINILM: zoo.load(MINILM).card.get("sha256", "from the hub")},
            "data_sha256": {s: datasets.load(s).card["sha256"] for s in sets}, "note": note}
