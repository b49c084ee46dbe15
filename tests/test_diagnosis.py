"""tlutils.diagnosis: every fault by its own symptoms, causes before consequences, and bad input."""

import math

import pytest

from tlutils import diagnosis
from tlutils.diagnosis import FAULTS, HEALTHY, diagnose

WELL = {"start": 1.0, "end": 0.1, "rise": 0.0, "late_fall": 0.02, "roughness": 0.2, "broken": 0.0, "validation_rise": 0.0, "validation_fall": 0.0,
        "train_accuracy": 0.95, "validation_accuracy": 0.9, "gap": 0.05, "chance": 0.125, "balanced": 0.9, "majority": 0.0, "misreported": 0.1,
        "below_baseline": -3.0, "training_flag": 0.0, "mode_gap": 0.01, "backbone_moved": 0.2, "head_moved": 1.0, "frozen_statistics_moved": 0.0,
        "agreement": 30.0, "validation_agreement": 30.0, "duplicates": 0.0, "imbalance": 1.0, "input_shift": 0.2, "input_scale": 0.2, "drift": 0.2,
        "start_accuracy": 0.7, "source_lost": 0.05, "collapsed": 0.0}
SICK = {
    "train/test leakage": {"duplicates": 0.3},
    "wrong normalisation": {"input_scale": 4.0},
    "shuffled labels": {"agreement": 0.1, "validation_agreement": -0.5},
    "head not training": {"head_moved": 0.0},
    "train/eval mode mix-up": {"misreported": 8.0},
    "frozen batch-norm drift": {"frozen_statistics_moved": 0.5},
    "learning rate too high": {"rise": 0.6, "end": 0.9},
    "learning rate too low": {"end": 1.1, "late_fall": 0.3, "train_accuracy": 0.2, "backbone_moved": 0.001},
    "class imbalance": {"imbalance": 12.0, "balanced": 0.7, "majority": 0.2},
    "negative transfer": {"below_baseline": 6.0},
    "catastrophic forgetting": {"source_lost": 0.6},
    "overfitting": {"gap": 0.5},
}


def test_a_healthy_run_has_nothing():
    found = diagnose(WELL)
    assert found.first == HEALTHY and not found.findings and str(found) == "Nothing wrong seen."
    assert set(found.strengths) == set(FAULTS) and max(found.strengths.values()) < 0.5


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_first_by_its_own_symptoms(fault):
    found = diagnose({**WELL, **SICK[fault]})
    assert found.first == fault
    assert found.findings[0].remedy == diagnosis.REMEDIES[fault] and found.findings[0].evidence
    assert str(found).startswith(f"1. {fault} (")


def test_a_cause_comes_before_what_follows_from_it():
    found = diagnose({**WELL, **SICK["shuffled labels"], **SICK["overfitting"], **SICK["negative transfer"]})
    assert [finding.fault for finding in found.findings] == ["shuffled labels", "negative transfer", "overfitting"]


def test_a_loss_that_breaks_is_a_rate_too_high():
    assert diagnose({**WELL, "broken": 1.0}).first == "learning rate too high"


def test_what_was_not_measured_accuses_nobody():
    unknown = {name: math.nan for name in ("misreported", "below_baseline", "source_lost", "input_shift", "input_scale")}
    assert diagnose({**WELL, **unknown}).first == HEALTHY


@pytest.mark.parametrize("name", ("duplicates", "gap", "source_lost", "below_baseline", "frozen_statistics_moved"))
def test_the_line_decides_and_can_be_moved(name):
    line = diagnosis.THRESHOLDS[name][0]
    assert diagnose({**WELL, name: line * 1.01}).first != HEALTHY
    assert diagnose({**WELL, name: line * 0.99}).first == HEALTHY
    assert diagnose({**WELL, name: line * 1.01}, {name: (2 * line, line / 10)}).first == HEALTHY


def test_every_rule_has_its_remedy():
    assert set(diagnosis.REMEDIES) == set(diagnosis.RULES)


def test_bad_input():
    with pytest.raises(ValueError, match="the symptom 'gap' is missing"):
        diagnose({name: value for name, value in WELL.items() if name != "gap"})
    with pytest.raises(ValueError, match="thresholds: 'gaps' is unknown"):
        diagnose(WELL, {"gaps": (0.1, 0.1)})
