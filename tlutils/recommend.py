"""Which pretrained network, and what to do with it: an answer in seconds, with its reasons and its doubts.

    print(recommend(x, y))                                       # among the lab's ten networks for pictures
    print(recommend(x, y, candidates={"a": zoo.load("mobilenet_v2", "imagenet"), "b": features_of_b}))

Every candidate is run over the pictures once, frozen; a linear probe is learned from some of the labels and tried on
the others, in turn. With few labels the probe and LogME together name the base model. Where the whole network may be trained, one
network of each family is, for a hundred steps on some of the labels, beside scratch (`trials`): a probe measures what a network
knows, not what it can learn. What the advice costs in accuracy is measured in the lesson `choosing_a_base_model`, on tasks that
came after the rule (`choosing_experiments.JUDGED`).
"""
from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from . import datasets, features, paths, transferability, trials, zoo

STRATEGIES = ("probe", "fine-tune", "scratch", "pixels")
ENOUGH = 20          # labels per class from which on training the whole network is worth its time
BETWEEN = (10, 30)   # labels per class where probe and fine-tuning are so close that the advice calls itself unsure
NO_ERROR = 0.985     # a frozen probe that is right so often leaves nothing to gain
WIDE = 0.05          # probes so close are level (LogME decides); rivals that score so much less are a doubt
SMALL = 1_000_000    # parameters of a network that is tried without being asked: it takes seconds
VERSIONS = (None, "score", "probe")


@dataclass(frozen=True)
class Candidate:
    """One row of the table: cross-validated accuracy of a probe, seconds of processor time, parameters (None: not known)."""
    name: str
    accuracy: float
    seconds: float
    parameters: int | None


@dataclass(frozen=True)
class Advice:
    """What `recommend` says. base: the candidate's name ("" for pixels); strategy: one of STRATEGIES; sure: see reasons.

    rivals: candidates that these labels can't tell from the best. table: all whose features were tried, the best first.
    trials: (what was done with which network, share of held-out labels named rightly), the best first.
    """
    base: str
    strategy: str
    sure: bool
    reasons: tuple[str, ...]
    rivals: tuple[str, ...]
    table: tuple[Candidate, ...]
    seconds: float
    trials: tuple[tuple[str, float], ...] = ()

    @property
    def todo(self) -> str:
        """The advice in one clause."""
        return {"probe": f"keep {self.base} frozen and fit a linear probe on its features",
                "fine-tune": f"fine-tune {self.base}", "scratch": f"train {self.base} from scratch",
                "pixels": "fit a logistic regression on the pixels; none of the networks does better"}[self.strategy]

    def __str__(self) -> str:
        if self.trials:
            width = max(len(name) for name, _ in self.trials)
            lines = [f"{'Advice' if self.sure else 'Advice, unsure'}: {self.todo}.", *(f"  - {reason}" for reason in self.reasons)]
            return "\n".join(lines + [f"  {name:<{width}}  {accuracy:4.0%}" for name, accuracy in self.trials])
        width = max(len(row.name) for row in self.table)
        lines = [f"{'Advice' if self.sure else 'Advice, unsure'}: {self.todo}.", *(f"  - {reason}" for reason in self.reasons)]
        lines += [f"  {row.name:<{width}}  {row.accuracy:4.0%}" for row in self.table[:5]]
        return "\n".join(lines + ([f"  and {len(self.table) - 5} more"] if len(self.table) > 5 else []))


def recommend(x: Tensor | None, y, *, candidates=None, budget_seconds: float | None = None, try_out: bool | None = None,
              by: str | None = None, seed: int = 0) -> Advice:
    """A base model and a strategy for labelled pictures.

    x: (N, 3, H, W), uint8 or float in [0, 1] (None if all candidates are given as features). y: (N,) labels.
    candidates: None for the lab's pretrained networks; names of bundled weights ("resnet-mini-shapes"), pairs
    ("mobilenet_v2", "imagenet"), what `zoo.load` gives, or a dict from any name to one of these or to features (N, D).
    budget_seconds: of processor time; when it is spent no further candidate is looked at, and the advice names those left out;
    trials that would not fit into the rest are not made.
    try_out: whether to train one network of each family, and scratch, on some of the labels (with 20 or more per class); None:
    if they are small, of less than a million parameters, and then it takes about a minute for the lab's.
    by: an earlier version of this function: "score" (LogME with few labels, the H-score from 20 per class on, no trials) or
    "probe" (the best probe, LogME where probes are level).
    seed: of folds and trials. Raises ValueError, naming argument and value, for lengths that differ, values that are not
    finite, a single class, as many classes as examples, a class with one example, no candidates, a budget that is not
    positive, or another `by`.
    """
    started = time.process_time()
    if by not in VERSIONS:
        raise ValueError(f"by: must be None, 'score' or 'probe', got {by!r}")
    if budget_seconds is not None and not budget_seconds > 0:
        raise ValueError(f"budget_seconds: must be greater than 0, got {budget_seconds}")
    pool = _pool(candidates)
    classes = transferability.check_labels(y, *_examples(x, pool), of="y")
    few = transferability.check_pairs(classes, of="y")
    if x is not None:
        _finite(x)
    penalty = 0.1 if few <= 10 else 1.0
    right, evidence, tunable, networks, table, left = {}, {}, {}, {}, [], []
    for name, source in pool.items():
        if budget_seconds is not None and table and time.process_time() - started > budget_seconds:
            left.append(name)
            continue
        begun = time.process_time()
        found, loaded = _features(source, x)
        if loaded is not None:
            networks[name] = loaded, (time.process_time() - begun) / len(found)
        right[name] = transferability.right_by_folds(found, classes, C=penalty, seed=seed)
        evidence[name] = transferability.logme(found, classes)
        if by != "probe" and few >= ENOUGH:
            tunable[name] = transferability.h_score(found, classes) if len(found) > found.shape[1] else np.nan
        size = None if loaded is None else transferability.parameters(loaded)
        table.append(Candidate(name, float(right[name].mean()), time.process_time() - begun, size))
    if x is not None:
        begun = time.process_time()
        right["pixels"] = transferability.right_by_folds(_pixels(x), classes, _pixel_model, folds=3, seed=seed)
        table.append(Candidate("pixels", float(right["pixels"].mean()), time.process_time() - begun, 0))
    table.sort(key=lambda row: -row.accuracy)
    runners, why_not = {}, ""
    if by is None and few >= ENOUGH and max(row.accuracy for row in table if row.name != "pixels") < NO_ERROR:
        rest = None if budget_seconds is None else budget_seconds - (time.process_time() - started)
        runners, why_not = _runners(networks, tunable if np.isfinite([*tunable.values()]).all() else
                                    {name: right[name].mean() for name in tunable}, try_out, rest, seed)
    results = ()
    if runners:
        frozen = next(row.name for row in table if row.name != "pixels")
        known = {f"probe {frozen}": right[frozen]} | {name: right[name] for name in right if name == "pixels"}
        order, hits = trials.race(runners, x, torch.as_tensor(classes), known=known, seed=seed)
        base, strategy, sure, reasons, rivals = decide_by_trials(order, hits, classes)
        results = tuple((name, float(np.nanmean(hits[name]))) for name in order)
    elif by is None:
        may_train = not tunable or bool(np.isfinite([*tunable.values()]).all())
        base, strategy, sure, reasons, rivals = decide(right, classes, together(evidence, right), tunable if may_train else None, 1.0,
                                                       may_train=may_train, praise="LogME and the probe together put it first")
        if why_not:
            sure, reasons = False, (*reasons, why_not)
    else:
        level = 1.0 if by == "score" and few < ENOUGH else WIDE
        base, strategy, sure, reasons, rivals = decide(right, classes, evidence, tunable, level)
    if left:
        sure, reasons = False, (*reasons, f"the budget of {budget_seconds:g} s was spent before {', '.join(left)} could be tried")
    return Advice(base, strategy, sure, reasons, rivals, tuple(table), time.process_time() - started, results)


Decision = tuple[str, str, bool, tuple[str, ...], tuple[str, ...]]


def together(evidence: Mapping[str, float], right: Mapping[str, np.ndarray]) -> dict[str, float]:
    """LogME plus the probe's accuracy by candidate, each in units of its own spread over the candidates."""
    def spread(values: dict) -> dict:
        centre, width = np.mean([*values.values()]), np.std([*values.values()])
        return {name: (value - centre) / width if width > 0 else 0.0 for name, value in values.items()}
    by_logme, by_probe = spread(dict(evidence)), spread({name: float(right[name].mean()) for name in evidence})
    return {name: float(by_logme[name] + by_probe[name]) for name in evidence}


def decide(right: Mapping[str, np.ndarray], classes: np.ndarray, evidence: Mapping[str, float] | None = None,
           tunable: Mapping[str, float] | None = None, level: float = WIDE, *, may_train: bool = True,
           praise: str = "its LogME is the highest") -> Decision:
    """From what each candidate's probe named rightly to base, strategy, sure, reasons and rivals.

    right: name -> (N,) 0 or 1, "pixels" among them or not; classes: (N,) from 0. evidence: name -> LogME, which decides among
    the candidates within `level`, or one standard error, of the best (left out: the best probe wins; level 1: it decides alone).
    tunable: name -> H-score, which decides instead where the network is to be fine-tuned, unless one is NaN (no more examples than features).
    may_train=False: a probe or pixels, however many labels there are. praise: what is said where evidence decided.
    """
    few, guess = int(np.bincount(classes).min()), np.bincount(classes).max() / len(classes)
    means = {name: float(hits.mean()) for name, hits in right.items()}
    best = frozen = max((name for name in means if name != "pixels"), key=means.get)
    train = may_train and few >= ENOUGH
    if evidence:
        near = means[best] - max(level, (means[best] * (1 - means[best]) / len(classes)) ** 0.5)
        best = max((name for name in evidence if means[name] >= near), key=evidence.get)
    by_h_score = bool(tunable) and train and means[best] < NO_ERROR and not np.isnan([*tunable.values()]).any()
    if by_h_score:
        best = max(tunable, key=tunable.get)
    rivals = tuple(name for name in means if name not in (best, "pixels") and not told_apart(right[best], right[name]))
    reasons = [f"a linear probe on {best}, frozen, names {means[best]:.0%} of held-out labels rightly (guessing: {guess:.0%})"]
    doubts = []
    if means.get("pixels", -1.0) >= means[best] and not train:
        strategy = "pixels"
        reasons.append(f"a regression on plain pixels names {means['pixels']:.0%}")
    elif few < ENOUGH:
        strategy = "probe"
        reasons.append(f"{few} labels per class are too few to train the whole network")
    elif means[best] >= NO_ERROR:
        strategy = "probe"
        reasons.append("the frozen probe leaves nothing to gain")
    elif not may_train:
        strategy = "probe"
        doubts.append("there are no more pictures than features, and nothing was trained to see what it can learn: it stays frozen")
    else:
        strategy = "fine-tune"
        reasons.append(f"{few} labels per class are enough to train the whole network")
        if by_h_score:
            reasons.append(f"its H-score is the highest, {tunable[best]:.2f}: that counts for training it, more than what it knows frozen")
        elif tunable:
            doubts.append("there are too few pictures for the H-score, the better guide to fine-tuning: the probe chose")
    if level >= 1.0 and best != frozen and strategy == "probe":
        reasons.append(f"{praise}; by the probe alone it would be {frozen} ({means[frozen]:.0%})")
    if means[frozen] > means[best] and told_apart(right[frozen], right[best]):
        doubts.append(f"frozen, {frozen} is shown to be better ({means[frozen]:.0%}): try both on labels kept apart")
    if not told_apart(right[best], classes == np.bincount(classes).argmax()):
        doubts.append("no candidate is shown to be better than guessing: label more, or find a nearer source")
    elif "pixels" in right and not told_apart(right[best], right["pixels"]):
        doubts.append(f"{best} can't be told from plain pixels ({means['pixels']:.0%})")
    far = [name for name in rivals if means[best] - means[name] > WIDE]
    if rivals:
        reasons.append(f"with {len(classes)} labels it can't be told from {', '.join(rivals)}")
    if far:
        doubts.append(f"{far[-1]} scores {100 * (means[best] - means[far[-1]]):.0f} points less and may still be the better one")
    if BETWEEN[0] < few < BETWEEN[1]:
        doubts.append(f"with {few} labels per class probe and fine-tuning are close: try both on labels kept apart")
    return "" if strategy == "pixels" else best, strategy, not doubts, (*reasons, *doubts), rivals


def decide_by_trials(order: list[str], hits: Mapping[str, np.ndarray], classes: np.ndarray) -> Decision:
    """From a race (`trials.race`) to base, strategy, sure, reasons and rivals.

    order: "fine-tune NAME", "scratch NAME", "probe NAME", "pixels", the best first, at least two. hits: name -> (N,) 0, 1 or NaN.
    """
    winner, second = order[:2]
    shares = {name: float(np.nanmean(hits[name])) for name in order}

    def both(name):
        shared = ~np.isnan(hits[winner]) & ~np.isnan(hits[name])
        return hits[name][shared], hits[winner][shared]
    guess = np.bincount(classes).max() / len(classes)
    rivals = tuple(name for name in order[1:] if not told_apart(*both(name)))
    reasons = [f"in a trial on labels kept apart, {winner} names {shares[winner]:.0%} rightly (guessing: {guess:.0%})",
               f"next comes {second} with {shares[second]:.0%}"]
    if rivals:
        reasons.append(f"these labels can't tell it from {', '.join(rivals)}")
    judged, doubts = ~np.isnan(hits[winner]), []
    if not told_apart(hits[winner][judged], (classes == np.bincount(classes).argmax())[judged]):
        doubts.append("nothing is shown to be better than guessing: label more, or find a nearer source")
    gap, half = _gap(*both(second))
    if gap + half > WIDE:
        doubts.append(f"{second} may still be better by more than {100 * WIDE:.0f} points: label more, or try both again")
    strategy, _, base = winner.partition(" ")
    return base, strategy, not doubts, (*reasons, *doubts), rivals


def _runners(networks: Mapping, order: Mapping[str, float], try_out: bool | None, rest: float | None, seed: int) -> tuple[dict, str]:
    """Who runs in the trials: one network of each family, the one that `order` has first, and scratch; or nobody, and why.

    networks: name -> (loaded, seconds for a picture). rest: seconds left of the budget (None: no limit).
    """
    if not networks or try_out is False:
        return {}, "nothing was trained to see what it can learn" + (" (try_out=False)" if networks else ": there are only features")
    chosen = {}
    for name, (loaded, _) in networks.items():
        if loaded.name not in chosen or order[name] > order[chosen[loaded.name]]:
            chosen[loaded.name] = name
    if try_out is None and (large := [name for name in chosen.values() if transferability.parameters(networks[name][0]) >= SMALL]):
        return {}, f"nothing was trained, since {large[0]} is large; try_out=True does, and may take long"
    needed = 3 * trials.trained_pictures(len(chosen)) * max(networks[name][1] for name in chosen.values())    # a step: three passes
    if rest is not None and needed > rest:
        return {}, f"nothing was trained: trials would take about {needed:.0f} s of processor time, {max(rest, 0):.0f} are left"
    first = next(iter(chosen))
    return ({f"fine-tune {name}": trials.learner(networks[name][0]) for name in chosen.values()}
            | {f"scratch {first}": trials.learner(zoo.load(first, None, seed=seed), scratch=True)}, "")


def told_apart(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two classifiers' hits (N,) on the same items differ: the 95 % interval of the difference leaves zero out.

    One half is added to either count of items that only one named rightly (Agresti & Min 2005).
    """
    gap, half = _gap(a, b)
    return bool(abs(gap) > half)


def _gap(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Share of items that only a named rightly, less that of b, and half of the width of its 95 % interval."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    more, fewer, n = (a > b).sum() + 0.5, (a < b).sum() + 0.5, len(a) + 2
    gap = (more - fewer) / n
    return float(gap), float(1.96 * np.sqrt(more + fewer - n * gap ** 2) / n)


# ---------------------------------------------------------------------------- what is tried
def _pool(candidates) -> dict[str, object]:
    """Candidates by name, in the order in which they are tried."""
    if candidates is None:
        candidates = [f"{name}-{variant}" for name in zoo.MINIS for variant in zoo.variants(name)]
    if isinstance(candidates, str) or not isinstance(candidates, Iterable):
        raise ValueError(f"candidates: give a list or a dict of base models, got {candidates!r}")
    if not isinstance(candidates, Mapping):
        candidates = {_name(one): one for one in candidates}
    if not candidates:
        raise ValueError("candidates: the list is empty; name at least one base model, or leave it out for the lab's networks")
    return dict(candidates)


def _name(candidate) -> str:
    if isinstance(candidate, zoo.Loaded):
        return f"{candidate.name}-{candidate.card.get('weights') or 'random'}"
    if isinstance(candidate, str):
        return candidate
    if isinstance(candidate, tuple) and len(candidate) == 2:
        return f"{candidate[0]}-{candidate[1] or 'random'}"
    raise ValueError(f"candidates: {candidate!r} is none of a bundled name, a pair (network, weights), a loaded network; features "
                     "need a dict that names them")


def _examples(x: Tensor | None, pool: Mapping) -> tuple[int, str]:
    """How many examples there are, and the name of the argument that says so. Features must have as many as x."""
    given = {name: source for name, source in pool.items() if isinstance(source, (Tensor, np.ndarray))}
    if x is None and (networks := [name for name in pool if name not in given]):
        raise ValueError(f"x: None, but the candidate {networks[0]!r} is a network; give the pictures, or its features")
    rows, said_by = (len(x), "x") if x is not None else (len(next(iter(given.values()))), "features")
    for name, source in given.items():
        if len(source) != rows:
            raise ValueError(f"candidates: {name!r} has features of {len(source)} examples, {said_by} has {rows}")
        transferability.check_finite(transferability.as_array(source), f"candidates[{name!r}]")
    return rows, said_by


def _features(source, x: Tensor | None) -> tuple[np.ndarray, zoo.Loaded | None]:
    """A candidate's features of x, and its network; or the features that were given, and None."""
    if isinstance(source, (Tensor, np.ndarray)):
        return transferability.as_array(source), None
    loaded = _loaded(source)
    return features.extract(loaded, x).numpy(), loaded


def _loaded(source):
    if isinstance(source, str):
        if source not in zoo.cards():
            raise ValueError(f"candidates: {source!r} is none of the bundled weights; {paths.did_you_mean(source, zoo.cards())}")
        source = source.rsplit("-", 1)
    return source if isinstance(source, zoo.Loaded) else zoo.load(*source)


def _finite(x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise ValueError(f"x: must be a tensor of pictures (N, 3, H, W), got {type(x).__name__} {tuple(getattr(x, 'shape', ()))}")
    if x.is_floating_point() and not torch.isfinite(x).all():
        first = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"x: picture {first} has a value that is {float(x[first][~torch.isfinite(x[first])][0])}")


def _pixels(x: Tensor) -> np.ndarray:
    """Pictures as rows, 32 pixels a side."""
    x = datasets.as_float(x)
    if x.shape[-2:] != (32, 32):
        x = F.interpolate(x, (32, 32), mode="bilinear", antialias=True, align_corners=False)
    return x.flatten(1).numpy()


def _pixel_model(x: np.ndarray, y: np.ndarray):
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(x, y)
