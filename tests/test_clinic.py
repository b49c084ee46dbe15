"""tlutils.clinic: each sick run is sick in the way that its name says, the same run for the same seed, and bad input."""

from dataclasses import replace

import pytest
import torch

from tlutils import clinic, diagnosis, symptoms

WARD = replace(clinic.shapes_ward(), steps=8, labels=12)


@pytest.fixture(scope="module")
def healthy() -> dict:
    return symptoms.measure(clinic.sick_run(WARD, diagnosis.HEALTHY, 0))


def test_there_is_a_run_for_every_fault_and_for_none():
    assert set(clinic.MAKERS) == {*diagnosis.FAULTS, diagnosis.HEALTHY}


def test_the_same_seed_gives_the_same_run():
    a, b = (clinic.sick_run(WARD, diagnosis.HEALTHY, 3) for _ in range(2))
    assert a.history == b.history and a.reported == b.reported
    assert all(torch.equal(p, q) for p, q in zip(a.model.state_dict().values(), b.model.state_dict().values()))
    assert clinic.sick_run(WARD, diagnosis.HEALTHY, 4).history != a.history


@pytest.mark.parametrize("fault, symptom, above", [
    ("train/test leakage", "duplicates", 0.05), ("frozen batch-norm drift", "frozen_statistics_moved", 0.01), ("class imbalance", "imbalance", 4),
    ("wrong normalisation", "input_scale", 0.3),
])
def test_the_fault_shows_in_its_symptom_and_not_in_a_healthy_run(fault, symptom, above, healthy):
    assert symptoms.measure(clinic.sick_run(WARD, fault, 0))[symptom] > above
    assert healthy[symptom] < above


def test_a_dead_head_stands_still_and_the_rest_moves():
    found = symptoms.movement(clinic.sick_run(WARD, "head not training", 1))
    assert found["head_moved"] == 0 and found["backbone_moved"] > 0


def test_a_rate_far_too_high_leaves_a_case_even_if_the_loss_breaks():
    case = clinic.sick_run(replace(WARD, high=(1e6, 1e7)), "learning rate too high", 0)
    assert case.history.losses and diagnosis.diagnose(case).first == "learning rate too high"


def test_bad_input():
    with pytest.raises(ValueError, match="fault: 'flu' has no run; they are nothing wrong seen, train/test leakage"):
        clinic.sick_run(WARD, "flu", 0)
    with pytest.raises(ValueError, match="names no `bad` weights"):
        clinic.sick_run(replace(WARD, bad=None), "negative transfer", 0)
