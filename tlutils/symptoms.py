"""What can be read off a finished training run, one function per instrument: curves, weights, features, data, modes.

`Case` holds what a practitioner has after a run. Each instrument takes a case and returns named numbers without a judgement;
NaN where the case does not hold what it needs. `measure` asks them all; `tlutils.diagnosis` judges.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from . import finetune, inference
from .history import History

NEIGHBOURS = 5
MOST = 1000             # examples that an instrument looks at
NAN = float("nan")


@dataclass
class Case:
    """A run as it stands when it is over.

    model: a `finetune.Classifier` (parts `preprocess`, `backbone`, `head`), trained; before: a copy from before the first step.
    history: what `training.fit` returned. train, validation: (x, y), pictures (N, 3, H, W) or texts, y (N,) int64.
    reported: the validation accuracy that the project goes by, however it was computed. baseline: validation accuracy of the best
    rival that does not use the pretrained network (scratch, pixels, word counts). source: labelled examples (x, y) of the task
    that the network was pretrained on, where that skill still matters.
    """
    model: nn.Module
    before: nn.Module
    history: History
    train: tuple
    validation: tuple
    reported: float | None = None
    baseline: float | None = None
    source: tuple | None = None

    def __post_init__(self):
        for name in ("model", "before"):
            missing = [part for part in ("preprocess", "backbone", "head") if not hasattr(getattr(self, name), part)]
            if missing:
                raise ValueError(f"{name}: has no {missing[0]}; give a finetune.Classifier, or a module with preprocess, backbone and head")
        if self.model is self.before:
            raise ValueError("before: is the trained model itself; keep copy.deepcopy(model) from before the first step")
        if not self.history.losses:
            raise ValueError("history: holds no step; give what training.fit returned")
        for name in ("train", "validation", "source"):
            pair = getattr(self, name)
            if pair is not None:
                finetune.check_labelled(*pair, name=f"{name}[1]", of=f"{name}[0]")


def measure(case: Case) -> dict[str, float]:
    """All symptoms of a case by name, those of every function in INSTRUMENTS."""
    return {name: float(value) for instrument in INSTRUMENTS for name, value in instrument(case).items()}


# ---------------------------------------------------------------------------- curves
def curves(case: Case) -> dict[str, float]:
    """The training loss in units of chance (log K) and its course; validation loss and accuracy along the run.

    start, end: mean of the first and of the last tenth of the steps (at least 5); rise: how far the smoothed loss climbs from its
    lowest value to its end; late_fall: the share of the whole fall that the last third of the steps still brought; roughness: the
    mean step-to-step change over the mean loss, in the last half; broken: 1 if a loss is not finite; validation_rise: the last
    validation loss minus the least, in units of chance; validation_fall: the best validation accuracy minus the last.
    """
    losses = np.asarray(case.history.losses, dtype=float)
    chance = np.log(max(2, _classes(case)))
    finite = np.isfinite(losses)
    if not finite.all():
        losses = losses[: max(1, int(np.argmin(finite)))]
        losses = losses[np.isfinite(losses)] if np.isfinite(losses).any() else np.array([chance])
    width = max(1, min(len(losses), max(5, len(losses) // 10)))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    start, end, third = smooth[0], smooth[-1], smooth[-max(1, len(smooth) // 3)]
    late = losses[len(losses) // 2:]
    rows = case.history.rows
    validation = [row["validation_loss"] for row in rows if "validation_loss" in row]
    right = [row["validation_accuracy"] for row in rows if "validation_accuracy" in row]
    return {"start": start / chance, "end": end / chance, "rise": (end - smooth.min()) / chance, "broken": float(not finite.all()),
            "late_fall": (third - end) / max(start - smooth.min(), 1e-9),
            "roughness": np.abs(np.diff(late)).mean() / max(late.mean(), 1e-3) if len(late) > 1 else NAN,
            "validation_rise": (validation[-1] - min(validation)) / chance if len(validation) > 1 else NAN,
            "validation_fall": max(right) - right[-1] if len(right) > 1 else NAN}


# ---------------------------------------------------------------------------- scores
def scores(case: Case) -> dict[str, float]:
    """Accuracies in evaluation mode, and what was reported beside them.

    train, validation: accuracy; gap: train minus validation; balanced: mean recall on validation; misreported: size of reported minus
    validation, in standard errors; below_baseline: baseline minus validation, in standard errors (of two independent shares);
    majority: share of the validation answers that fall on the most frequent training class, minus that class's share.
    """
    (x, y), (xv, yv) = case.train, case.validation
    some = _some(len(y))
    answers = inference.predict(case.model, _take(xv, range(len(yv)))).argmax(1)
    train = float((inference.predict(case.model, _take(x, some)).argmax(1) == y[some]).float().mean())
    validation = float((answers == yv).float().mean())
    error = max(np.sqrt(validation * (1 - validation) / len(yv)), 0.5 / len(yv))
    often = int(torch.bincount(y).argmax())
    found = {"train_accuracy": train, "validation_accuracy": validation, "gap": train - validation,
             "chance": float(torch.bincount(yv).max() / len(yv)),
             "balanced": float(balanced_accuracy_score(yv.numpy(), answers.numpy())),
             "majority": float((answers == often).float().mean() - (yv == often).float().mean()), "misreported": NAN, "below_baseline": NAN}
    if case.reported is not None:
        found["misreported"] = abs(case.reported - validation) / error
    if case.baseline is not None:
        rival = np.sqrt(case.baseline * (1 - case.baseline) / len(yv))
        found["below_baseline"] = (case.baseline - validation) / np.hypot(error, rival)
    return found


def modes(case: Case) -> dict[str, float]:
    """training_flag: 1 if the model was handed over in training mode; mode_gap: size of the difference in validation accuracy between
    evaluation mode and training mode (batches of 32), 0 where no part of the network tells the two apart."""
    xv, yv = case.validation
    flags = [(part, part.training) for part in case.model.modules()]
    buffers = {name: value.clone() for name, value in case.model.named_buffers()}
    evaluated = float((inference.predict(case.model, _take(xv, range(len(yv)))).argmax(1) == yv).float().mean())
    try:
        case.model.train()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            order = torch.randperm(len(yv))
            parts = [chunk for chunk in order.split(32) if len(chunk) > 1]
            hits = [(case.model(_take(xv, chunk)).argmax(1) == yv[chunk]).float() for chunk in parts]
    finally:
        for part, flag in flags:
            part.training = flag
        for name, value in case.model.named_buffers():
            value.copy_(buffers[name])
    return {"training_flag": float(any(flag for _, flag in flags)), "mode_gap": abs(float(torch.cat(hits).mean()) - evaluated)}


# ---------------------------------------------------------------------------- weights and statistics
def movement(case: Case) -> dict[str, float]:
    """How far the run moved things, relative to their size before it.

    backbone, head: norm of the change of all parameters over their norm; statistics: the largest change of a running mean of a batch norm
    whose own parameters did not move, in its running standard deviations.
    """
    statistics = 0.0
    old = dict(case.before.named_modules())
    for name, part in case.model.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None and name in old:
            still = all(torch.equal(a, b) for a, b in zip(part.parameters(), old[name].parameters()))
            if still:
                moved = (part.running_mean - old[name].running_mean).abs() / (old[name].running_var + 1e-5).sqrt()
                statistics = max(statistics, float(moved.mean()))
    return {"backbone_moved": _moved(case.before.backbone, case.model.backbone), "head_moved": _moved(case.before.head, case.model.head),
            "frozen_statistics_moved": statistics}


def _moved(before: nn.Module, after: nn.Module) -> float:
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    shared = [name for name in old if name in new]
    change = sum(float((new[name] - old[name]).detach().double().pow(2).sum()) for name in shared)
    size = sum(float(old[name].detach().double().pow(2).sum()) for name in shared)
    return (change / max(size, 1e-12)) ** 0.5


# ---------------------------------------------------------------------------- data
def data(case: Case) -> dict[str, float]:
    """Do labels and inputs belong together, and are train and validation apart?

    agreement: how much more often an example shares its label with its NEIGHBOURS nearest in the training set than chance would have
    it, in standard errors, in the features before or in the pixels, whichever is larger; validation_agreement: likewise from
    validation to training; duplicates: share of the validation examples that stand in the training set too, to rounding, beyond
    the share of training examples that stand there twice; imbalance: size of the largest training class over the smallest.
    """
    (x, y), (xv, yv) = case.train, case.validation
    some, some_v = _some(len(y)), _some(len(yv))
    y, yv = y[some], yv[some_v]
    spaces = [_features(case.before, _take(x, some), _take(xv, some_v))]
    if isinstance(x, Tensor):
        spaces.append((_flat(x[some]), _flat(xv[some_v])))
    counts = torch.bincount(y)
    found = {"agreement": max(_agreement(a, y, a, y, own=True) for a, _ in spaces),
             "validation_agreement": max(_agreement(a, y, b, yv) for a, b in spaces),
             "imbalance": float(counts.max() / max(1, int(counts[counts > 0].min())))}
    if isinstance(x, Tensor):
        found["duplicates"] = _close(_flat(case.train[0]), spaces[1][1]) - _close(spaces[1][0], spaces[1][0], own=True)
    else:
        seen = set(case.train[0])
        found["duplicates"] = float(np.mean([text in seen for text in _take(xv, some_v)]))
    return found


def _agreement(a: np.ndarray, y: Tensor, b: np.ndarray, yb: Tensor, own: bool = False) -> float:
    """Shared labels of the neighbours beyond chance, in standard errors (examples counted once, not once per neighbour)."""
    k = min(NEIGHBOURS + own, len(a))
    index = NearestNeighbors(n_neighbors=k).fit(a).kneighbors(b, return_distance=False)[:, int(own):]
    shared = (y.numpy()[index] == yb.numpy()[:, None]).mean(1)
    chance = np.bincount(y.numpy(), minlength=int(yb.max()) + 1)[yb.numpy()] / len(y)
    spread = np.sqrt(np.maximum(chance * (1 - chance), 1e-6).mean() / (max(1, index.shape[1]) * len(yb)))
    return float((shared - chance).mean() / spread)


def _close(train: np.ndarray, others: np.ndarray, own: bool = False) -> float:
    """Share of the others that lie on a training example: nearer than 1 % of the typical distance between two examples."""
    distance, _ = NearestNeighbors(n_neighbors=min(1 + own, len(train))).fit(train).kneighbors(others)
    typical = np.median(np.linalg.norm(train[: len(train) // 2] - train[-(len(train) // 2):], axis=1)) if len(train) > 1 else 1.0
    return float((distance[:, -1] < 0.01 * max(typical, 1e-12)).mean())


def inputs(case: Case) -> dict[str, float]:
    """Do the inputs look like those of pretraining? Read at the first batch norm of the network as it was before the run.

    input_shift: mean size of (channel mean - running mean) / running standard deviation; input_scale: size of the logarithm (base 2) of the
    ratio of the channels' standard deviations, its mean. NaN for a network without batch norm, and for texts.
    """
    x = case.train[0]
    first = next((part for part in case.before.backbone.modules()
                  if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None), None)
    if first is None or not isinstance(x, Tensor):
        return {"input_shift": NAN, "input_scale": NAN}
    seen = []
    hook = first.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().transpose(0, 1).flatten(1)))
    try:
        inference.predict(_Network(case.before, case.model.preprocess), x[_some(len(x), 256)])
    finally:
        hook.remove()
    values = torch.cat(seen, 1)
    spread = (first.running_var + first.eps).sqrt()
    return {"input_shift": float(((values.mean(1) - first.running_mean).abs() / spread).mean()),
            "input_scale": float((values.std(1).clamp_min(1e-6) / spread).log2().abs().mean())}


# ---------------------------------------------------------------------------- features
def features(case: Case) -> dict[str, float]:
    """What the run did to the features.

    drift: 1 - linear CKA (Kornblith et al. 2019) between the features before and after on validation; start_accuracy: accuracy of a linear
    probe on the features before, on validation; source_lost: accuracy of a linear probe on source examples (half to fit, half to
    judge), before minus after; collapsed: share of the features that hardly vary after the run.
    """
    (x, y), (xv, yv) = case.train, case.validation
    some, some_v = _some(len(y)), _some(len(yv))
    old, old_v = _features(case.before, _take(x, some), _take(xv, some_v))
    new_v = _features(case.model, _take(xv, some_v))[0]
    probe = finetune.linear_probe(old, y[some])
    found = {"drift": 1 - cka(old_v, new_v), "start_accuracy": float(probe.score(old_v, yv[some_v].numpy())), "source_lost": NAN,
             "collapsed": float((new_v.std(0) < 1e-4 * max(new_v.std(), 1e-12)).mean() - (old_v.std(0) < 1e-4 * max(old_v.std(), 1e-12)).mean())}
    if case.source is not None:
        xs, ys = case.source
        index = np.random.default_rng(0).permutation(len(ys))[:2 * MOST]
        fit, judge = index[::2], index[1::2]
        kept = []
        for model in (case.before, case.model):
            a, b = _features(model, _take(xs, fit), _take(xs, judge))
            kept.append(finetune.linear_probe(a, ys[fit]).score(b, ys[judge].numpy()))
        found["source_lost"] = float(kept[0] - kept[1])
    return found


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Linear centred kernel alignment of features (N, D) and (N, E) of the same examples: 1 for equal up to rotation and scale.

    Kornblith et al. 2019. Raises ValueError for different numbers of examples. Features that do not vary give 0.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(a) != len(b):
        raise ValueError(f"a and b: {len(a)} and {len(b)} examples; the same examples must stand in both")
    a, b = a - a.mean(0), b - b.mean(0)
    size = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(a.T @ b) ** 2 / size) if size > 1e-20 else 0.0


INSTRUMENTS: tuple[Callable[[Case], dict[str, float]], ...] = (curves, scores, modes, movement, data, inputs, features)


# ---------------------------------------------------------------------------- help
class _Network(nn.Module):
    """The backbone of one model behind the preprocessing of another, or its own."""

    def __init__(self, model: nn.Module, preprocess: Callable | None = None):
        super().__init__()
        self.backbone, self.preprocess = model.backbone, preprocess or model.preprocess

    def forward(self, x):
        return self.backbone(self.preprocess(x))


def _features(model: nn.Module, *sets) -> tuple[np.ndarray, ...]:
    return tuple(np.nan_to_num(inference.predict(_Network(model), x).flatten(1).numpy(), nan=0.0, posinf=1e6, neginf=-1e6) for x in sets)


def _flat(x: Tensor) -> np.ndarray:
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    if x.ndim == 4 and min(x.shape[-2:]) > 32:
        x = nn.functional.adaptive_avg_pool2d(x, 32)
    return x.flatten(1).numpy()


def _some(count: int, most: int = MOST) -> np.ndarray:
    """Row numbers of at most so many examples, the same each time."""
    return np.arange(count) if count <= most else np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _take(x, index):
    return x[torch.as_tensor(np.asarray(index))] if isinstance(x, Tensor) else [x[int(i)] for i in index]


def _classes(case: Case) -> int:
    return int(max(case.train[1].max(), case.validation[1].max())) + 1
