"""The real experiments of Part 3 on texts: SST-2 probed and fine-tuned, product reviews across five domains.

Protocol: rates chosen once per method on validation texts, three seeds for what is shown, test texts only at the end.
Every run is kept in the cache under its settings and code, so that a stopped experiment goes on where it was.
"""
from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch

from . import datasets, finetune, freezing, optim, paths, report, training, zoo
from .sentiment_experiments import MINILM, encode

SEEDS = range(200, 203)
DEV_SEED = 199                        # settings are chosen with this seed


def kept(run: Callable[..., list[dict]], *settings, **more) -> list[dict]:
    """run(*settings, **more), or what it gave before with the same settings and the same code of its own."""
    where = run.__module__.rpartition(".")[2]
    key = json.dumps([report.code_hash(f"{where}:{run.__name__}"), settings, sorted(more.items())], default=str)
    file = paths.cache_dir() / "practice" / f"{run.__name__}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if not file.exists():
        rows = [{k: report.plain(v) for k, v in row.items()} for row in run(*settings, **more)]
        file.parent.mkdir(parents=True, exist_ok=True)
        paths.atomic_write(file, json.dumps(rows))
        print(*({k: v for k, v in row.items() if len(str(v)) < 50} for row in rows[-3:]), sep="\n", flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def judged(found, y) -> dict:
    """accuracy and, item by item, a digit string: 1 where the answer was right."""
    hits = np.asarray(found) == np.asarray(y)
    return {"accuracy": float(hits.mean()), "correct": "".join(map(str, hits.astype(int)))}


# ---------------------------------------------------------------------------- SST-2
BATCH = 32
SETTING = {"start": "probe", "decay": 1.0, "weight_decay": 0.01}
RATES = (1e-4, 2e-4, 4e-4)            # tried for one epoch each
EPOCHS = 3                            # of the runs that are shown, at the best of the rates


class Tokens:
    """Sentences as token numbers; batches of one length or nearly so, so that padding costs next to nothing."""

    def __init__(self, texts: Sequence[str], tokenizer, longest: int = 128):
        self.rows = [torch.tensor(row[:longest]) for row in tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]]
        self.pad = tokenizer.pad_token_id

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Sequence[int]) -> torch.Tensor:
        """(len(index), longest of them) int64, padded."""
        return torch.nn.utils.rnn.pad_sequence([self.rows[i] for i in index], batch_first=True, padding_value=self.pad)

    def groups(self, size: int) -> list[list[int]]:
        """All sentences once, in a random order of batches; a batch is cut from sixteen batches' worth sorted by length."""
        order = torch.randperm(len(self)).tolist()
        pools = [sorted(order[i:i + 16 * size], key=lambda k: len(self.rows[k])) for i in range(0, len(order), 16 * size)]
        cut = [pool[i:i + size] for pool in pools for i in range(0, len(pool), size)]
        return [cut[i] for i in torch.randperm(len(cut)).tolist()]

    def outputs(self, model: torch.nn.Module) -> torch.Tensor:
        """(N, width) float32: what the model gives, sentences of like length together."""
        order = sorted(range(len(self)), key=lambda k: len(self.rows[k]))
        found = torch.cat([training.predict(model, self.batch(order[i:i + 64])) for i in range(0, len(order), 64)])
        return found[torch.argsort(torch.tensor(order))]

    def predict(self, model: torch.nn.Module) -> torch.Tensor:
        """(N,) class numbers."""
        return self.outputs(model).argmax(1)


class Bucketed:
    """An epoch of batches for a DataLoader, drawn anew each time."""

    def __init__(self, tokens: Tokens, size: int):
        self.tokens, self.size = tokens, size

    def __iter__(self):
        return iter(self.tokens.groups(self.size))

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.size)


@lru_cache(maxsize=1)
def _sst2():
    return datasets.load("sst2")


def _groups(model: finetune.Classifier, rate: float, decay: float, weight_decay: float) -> list[dict]:
    network = model.backbone.model
    stages = [network.embeddings, *network.encoder.layer]
    return optim.layerwise(stages, model.head, lr=rate, decay=decay, head_lr=rate, weight_decay=weight_decay)


def _head(vectors: torch.Tensor, y: torch.Tensor) -> torch.nn.Linear:
    """The probe as a layer. MiniLM has a feature that is zero but for rounding; standardised, its weight in the layer would be 1e31."""
    return finetune.as_linear(finetune.linear_probe(torch.where(vectors.std(0) < 1e-6, 0.0, vectors), y, C=0.01))


def tuned_run(rate: float, epochs: int, start: str, decay: float, weight_decay: float, seed: int, test: bool) -> list[dict]:
    """MiniLM with all its weights trained on SST-2: a validation row per epoch and, if asked for, the row of the test part."""
    torch.set_num_threads(1)
    began, data = time.process_time(), _sst2()
    loaded = zoo.load(MINILM)
    model = finetune.Classifier(loaded, 2, seed=seed)
    freezing.freeze(loaded.backbone.model.pooler)             # not used: the features are a mean over the tokens
    if start == "probe":
        model.head = _head(encode(data.x_train), data.y_train)
    train, validation = (Tokens(x, loaded.tokenizer) for x in (data.x_train, data.x_validation))
    loader = torch.utils.data.DataLoader(list(range(len(train))), batch_sampler=Bucketed(train, BATCH),
                                         collate_fn=lambda index: (train.batch(index), data.y_train[index]))
    steps = epochs * len(loader)
    settings = {"rate": rate, "epochs": epochs, "start": start, "decay": decay, "weight_decay": weight_decay}

    def score(network) -> dict:
        return {"accuracy": float((validation.predict(network) == data.y_validation).float().mean())}
    at_start = score(model)["accuracy"]
    history = training.fit(model, loader, steps=steps, groups=_groups(model, rate, decay, weight_decay), lr=rate, schedule="linear",
                           warmup=steps // 10, clip=1.0, seed=seed, precision="bf16", validation=score, evaluate_every=len(loader))
    common = {"method": "fine-tuned", "labels": len(train), "seed": seed, **settings}
    rows = [{**common, "part": "validation", "epoch": 0, "accuracy": at_start}]
    rows += [{**common, "part": "validation", "epoch": row["step"] // len(loader), "accuracy": row["validation_accuracy"],
              "loss": row["loss"]} for row in history.rows]
    if test:
        found = Tokens(data.x_test, loaded.tokenizer).predict(model)
        rows.append({**common, "part": "test", "epoch": epochs, **judged(found, data.y_test)})
    rows[-1]["seconds"] = time.process_time() - began
    return rows


def probe_run(labels: int | None, seed: int, strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)) -> list[dict]:
    """A linear probe on MiniLM's frozen vectors of SST-2: its C chosen on the validation part, then the test part.

    labels: per class, drawn by seed; None takes all. seconds: of the probe alone, the vectors are in the cache.
    """
    torch.set_num_threads(1)
    data = _sst2()
    train, validation, test = (encode(x) for x in (data.x_train, data.x_validation, data.x_test))
    rng, y = np.random.default_rng([seed, labels or 0]), np.asarray(data.y_train)
    index = np.arange(len(y)) if labels is None else np.concatenate([rng.permutation(np.flatnonzero(y == c))[:labels] for c in (0, 1)])
    began = time.process_time()
    tried = {C: finetune.linear_probe(train[index], data.y_train[index], C=C) for C in strengths}
    scores = {C: float((probe.predict(validation.numpy()) == data.y_validation.numpy()).mean()) for C, probe in tried.items()}
    best = max(scores, key=scores.get)
    found = tried[best].predict(test.numpy())
    common = {"method": "probe", "labels": len(index), "seed": seed, "C": best}
    return [{**common, "part": "validation", "accuracy": scores[best]},
            {**common, "part": "test", **judged(found, data.y_test), "seconds": time.process_time() - began}]


def vectors_run() -> list[dict]:
    """What the frozen vectors of all parts of SST-2 cost: a row of seconds, without the cache."""
    torch.set_num_threads(1)
    data, loaded, began = _sst2(), zoo.load(MINILM), time.process_time()
    for x in (data.x_train, data.x_validation, data.x_test):
        Tokens(x, loaded.tokenizer).outputs(loaded.backbone)
    return [{"method": "frozen vectors", "labels": len(data.y_train), "seed": 0, "seconds": time.process_time() - began}]


def sst2_tuning() -> list[dict]:
    """SST-2 with all its training sentences: MiniLM probed and with all weights trained, settings chosen on the validation part."""
    rows = [row for labels in (20, 100, 500, 2000) for seed in SEEDS for row in kept(probe_run, labels, seed)]
    rows += kept(probe_run, None, 0)
    tried = [kept(tuned_run, rate=rate, epochs=1, **SETTING, seed=DEV_SEED, test=False) for rate in RATES]
    best = max(tried, key=lambda run: run[-1]["accuracy"])[-1]["rate"]
    rows += [row for run in tried for row in run]
    for seed in SEEDS:
        rows += kept(tuned_run, rate=best, epochs=EPOCHS, **SETTING, seed=seed, test=True)
    return rows + kept(vectors_run)


LAB: dict = {}
REAL: dict = {f.__name__: f for f in (sst2_tuning,)}
CODE: dict[str, tuple[str, ...]] = {}
WEIGHTS: dict[str, tuple[str, ...]] = {}


def provenance(name: str, rows: list[dict]) -> dict:
    """sha256 of the data sets and weights behind a real experiment, and what its numbers need to be read."""
    return {"weights_sha256": {MINILM: zoo.load(MINILM).card.get("sha256", "from the hub")}, "data_sha256": {"sst2": _sst2().card["sha256"]},
            "note": "fine-tuned in bfloat16 (forward and backward; weights in float32) on one core, from the probe's head on (LP-FT); the "
                    "rate chosen on the published validation part after one epoch; seconds are CPU seconds from texts to predictions, the "
                    "vectors for the probe's head left out (see frozen vectors)"}
