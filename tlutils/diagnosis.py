"""What is wrong with this run? Likely faults in order, with the evidence and the remedy, or "nothing wrong seen".

`diagnose` reads the symptoms of a `symptoms.Case` and asks RULES, causes before consequences: labels that belong to other inputs
make a run overfit too, and it helps nobody to be told of the overfitting. Each rule turns symptoms into a strength from 0 to 1
by the THRESHOLDS; 0.5 is the line. The thresholds were set on runs of one world and one network (`clinic`); how often the
names are right elsewhere is measured in the lesson on failures.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .symptoms import Case, measure

HEALTHY = "nothing wrong seen"
# name -> (the value at which the strength is 0.5, the distance at which it is 0.88)
THRESHOLDS: dict[str, tuple[float, float]] = {
    "duplicates": (0.05, 0.02), "input_shift": (1.5, 0.3), "input_scale": (1.0, 0.2), "agreement": (2.0, 0.5), "imbalance": (4.0, 0.7),
    "recall_gap": (0.05, 0.02), "misreported": (2.5, 0.4), "frozen_statistics_moved": (0.05, 0.02), "end": (0.6, 0.08), "rise": (0.15, 0.05),
    "below_start": (0.02, 0.02), "late_fall": (0.12, 0.03), "source_lost": (0.25, 0.04), "below_baseline": (2.0, 0.4), "gap": (0.25, 0.04),
}
REMEDIES = {
    "train/test leakage": "take the duplicates out of one of the two sets, split before augmenting, split by patient, author or scene; score again",
    "wrong normalisation": "use the preprocessing that came with the weights (`zoo.load(...).preprocess`), and check it on one picture",
    "shuffled labels": "look at twenty examples with their labels; find the step after which inputs and labels are no longer sorted alike",
    "class imbalance": "report balanced accuracy and F1, weight or resample the classes in training",
    "train/eval mode mix-up": "call model.eval() before every prediction and model.train() before every step; score again",
    "frozen batch-norm drift": "keep frozen parts in evaluation mode (`freezing.freeze`), prove it with `assert_frozen`",
    "head not training": "give the optimiser the head's parameters, and check that each receives a gradient (`freezing.assert_trains`)",
    "learning rate too high": "divide the rate by 10 (by 3 once it trains), add warm-up, clip the gradient; find the edge with `rate_finder`",
    "learning rate too low": "multiply the rate by 10 (by 3 near the edge) or train longer, until the training loss is flat",
    "catastrophic forgetting": "lower the backbone's rate, freeze early layers, mix in source examples, or keep the old weights beside the new",
    "negative transfer": "start from scratch or from a nearer source; try a probe on earlier layers",
    "overfitting": "stop at the best validation score, augment, decay, train fewer layers, or get more labels",
}


@dataclass(frozen=True)
class Finding:
    """A likely fault: its name, strength from 0 to 1, what speaks for it, and what to do."""
    fault: str
    strength: float
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fault} ({self.strength:.2f}): {self.evidence}. Remedy: {self.remedy}."


@dataclass(frozen=True)
class Diagnosis:
    """findings: those whose strength is 0.5 or more, likely causes first. symptoms: all that was measured, by name.
    strengths: of every rule, by fault."""
    findings: tuple[Finding, ...]
    symptoms: Mapping[str, float]
    strengths: Mapping[str, float]

    @property
    def first(self) -> str:
        """The name of the likeliest fault, or "nothing wrong seen"."""
        return self.findings[0].fault if self.findings else HEALTHY

    def __str__(self) -> str:
        return "\n".join(f"{number}. {finding}" for number, finding in enumerate(self.findings, 1)) or HEALTHY.capitalize() + "."


def diagnose(case: Case | Mapping[str, float], thresholds: Mapping[str, tuple[float, float]] | None = None) -> Diagnosis:
    """Judge a run by its symptoms. case: a `symptoms.Case`, or the symptoms that `symptoms.measure` found in it.

    Faults are named in the order of RULES: data first, then how it was trained, then what came of it. A fault for which the case
    holds no evidence (no source examples, no baseline) is not named. thresholds: in place of some of THRESHOLDS.
    Raises ValueError for symptoms that are missing or thresholds that no rule knows.
    """
    found = measure(case) if isinstance(case, Case) else dict(case)
    limits = {**THRESHOLDS, **(thresholds or {})}
    if unknown := sorted(set(limits) - set(THRESHOLDS)):
        raise ValueError(f"thresholds: {unknown[0]!r} is unknown; they are {', '.join(THRESHOLDS)}")
    strengths, findings = {}, []
    for fault, rule in RULES.items():
        try:
            strength, evidence = rule(found, lambda name, value: _strength(value, *limits[name]))
        except KeyError as missing:
            raise ValueError(f"case: the symptom {missing} is missing; take them from symptoms.measure(case)") from None
        strengths[fault] = strength
        if strength >= 0.5:
            findings.append(Finding(fault, strength, evidence, REMEDIES[fault]))
    return Diagnosis(tuple(findings), found, strengths)


def _strength(value: float, line: float, distance: float) -> float:
    """0.5 at the line, 0.88 a distance above it; 0 for a symptom that could not be taken."""
    return 0.0 if math.isnan(value) else 1 / (1 + math.exp(-max(-40.0, min(40.0, 2 * (value - line) / distance))))


# ---------------------------------------------------------------------------- the rules, causes before consequences
def _leakage(s, at):
    return at("duplicates", s["duplicates"]), f"{s['duplicates']:.0%} of the validation examples stand in the training set"


def _normalisation(s, at):
    shift, scale = at("input_shift", s["input_shift"]), at("input_scale", s["input_scale"])
    return max(shift, scale), (f"what reaches the first batch norm lies {s['input_shift']:.1f} standard deviations from what it was pretrained on, "
                               f"its spread {2 ** s['input_scale']:.1f} times off")


def _labels(s, at):
    without = min(1 - at("agreement", s["agreement"]), 1 - at("agreement", s["validation_agreement"]))
    return without, (f"near neighbours share a label no more often than by chance ({s['agreement']:+.1f} and "
                     f"{s['validation_agreement']:+.1f} standard errors)")


def _imbalance(s, at):
    return (min(at("imbalance", s["imbalance"]), at("recall_gap", s["validation_accuracy"] - s["balanced"] + max(0.0, s["majority"]))),
            f"the largest class has {s['imbalance']:.0f} times the examples of the smallest, and its share of the answers is "
            f"{s['majority']:+.0%} off")


def _modes(s, at):
    return (max(at("misreported", s["misreported"]), 0.9 * s["training_flag"]),
            "the accuracy that was reported is not the one of evaluation mode" if not s["training_flag"] else "the model was left in training mode")


def _drift(s, at):
    return (at("frozen_statistics_moved", s["frozen_statistics_moved"]),
            f"running means of frozen layers moved by {s['frozen_statistics_moved']:.2f} standard deviations")


def _head(s, at):
    return float(s["head_moved"] < 1e-6), "the head's weights are what they were before the first step"


def _too_high(s, at):
    unlearned = min(at("end", s["end"]), at("below_start", s["start_accuracy"] - s["train_accuracy"]))
    return (max(s["broken"], at("rise", s["rise"]), min(unlearned, 1.0 if s["backbone_moved"] > 0.3 else 0.0)),
            "the loss is not finite" if s["broken"] else
            f"the training loss ends at {s['end']:.2f} of chance, {s['rise']:.2f} above its lowest, the weights moved by {s['backbone_moved']:.0%}")


def _too_low(s, at):
    return (min(at("end", s["end"]), max(at("below_start", s["start_accuracy"] - s["train_accuracy"]), at("late_fall", s["late_fall"]))),
            f"the training loss ends at {s['end']:.2f} of chance and was still falling ({s['late_fall']:.0%} of its fall came in the last third), "
            f"the weights moved by {s['backbone_moved']:.1%}")


def _forgetting(s, at):
    return at("source_lost", s["source_lost"]), f"a probe of the source task lost {100 * s['source_lost']:.0f} points"


def _negative(s, at):
    return at("below_baseline", s["below_baseline"]), f"{s['below_baseline']:.1f} standard errors below what does without the pretrained network"


def _overfitting(s, at):
    return at("gap", s["gap"]), f"training accuracy {s['train_accuracy']:.0%}, validation {s['validation_accuracy']:.0%}"


RULES: dict[str, Callable] = {
    "train/test leakage": _leakage, "wrong normalisation": _normalisation, "shuffled labels": _labels, "head not training": _head,
    "train/eval mode mix-up": _modes, "frozen batch-norm drift": _drift, "learning rate too high": _too_high, "learning rate too low": _too_low,
    "class imbalance": _imbalance, "negative transfer": _negative, "catastrophic forgetting": _forgetting, "overfitting": _overfitting,
}
FAULTS = tuple(RULES)
