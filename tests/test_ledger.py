"""The ledger page: every measurement that the ledger promises has a run, and the page shows it."""
from __future__ import annotations

import claims_ext
import pytest

from tlutils import claims

LEDGER = claims.ledger()
RECORDS = claims_ext.records()
PROMISED = [(name, condition) for name, entry in LEDGER.items() for condition in entry.get("measurements", {})]


@pytest.mark.parametrize(("name", "condition"), PROMISED)
def test_every_promised_measurement_has_a_run_that_agrees(name, condition):
    run = RECORDS.get((name, condition))
    assert run is not None, f"no stored notebook measures {name!r} under {condition!r}: run 'make notebooks'"
    expected = LEDGER[name]["measurements"][condition]
    interval = claims.Interval(run["mean"], run["low"], run["high"], run["n"])
    assert claims.agrees(expected["sign"], expected["margin"], interval), (run, expected)
    assert run["n"] >= 3


def test_every_run_belongs_to_a_promise():
    assert set(RECORDS) <= set(PROMISED)


def test_the_lesson_named_is_one_that_measures_the_claim():
    for name, entry in LEDGER.items():
        measured_in = {run["notebook"] for (claim, _), run in RECORDS.items() if claim == name}
        if entry.get("measurements"):
            assert f"chapters/{entry['lesson']}.ipynb" in measured_in, name


def test_the_page_names_verdict_effect_and_place():
    entry = {"statement": "It helps.", "verdict": "depends", "part": "P", "literature": ["a2020b"],
             "measurements": {"few labels": {"sign": "+", "margin": 1}, "many labels": {"sign": "-", "margin": 1}}}
    run = {"mean": 12.0, "low": 9.0, "high": 15.0, "n": 5, "notebook": "chapters/part/lesson.ipynb"}
    text = claims_ext.section("helps", entry, {("helps", "few labels"): run}, "chapters/claims.md")
    assert "Verdict: depends" in text and "{cite}`a2020b`" in text
    assert "+12.0 [+9.0, +15.0] points | 5 | [lesson](part/lesson.ipynb)" in text
    assert "| few labels | positive (by more than 1 point) | +12.0" in text
    assert "| many labels | negative (by more than 1 point) | not run yet | | |" in text


@pytest.mark.parametrize("sign, margin, unit, said", [("0", 0.5, "bits", "no difference (within 0.5 bits)"),
                                                      ("+", 5, "points", "positive (by more than 5 points)"),
                                                      ("-", 0, "points", "negative")])
def test_the_expected_sign_stands_with_its_margin(sign, margin, unit, said):
    run = {"mean": 0.334, "low": 0.294, "high": 0.375, "n": 5, "notebook": "chapters/part/lesson.ipynb"}
    entry = {"statement": "S.", "verdict": "supported", "part": "P", "literature": [],
             "measurements": {"here": {"sign": sign, "margin": margin, "unit": unit}}}
    row = claims_ext.section("id", entry, {("id", "here"): run}, "chapters/claims.md").splitlines()[-1]
    assert row.startswith(f"| here | {said} | +0.33 [+0.29, +0.38] {unit} | 5 |")      # narrow: two digits


def test_the_page_says_where_its_values_come_from():
    assert claims_ext.STORED in claims_ext.overview(LEDGER)
    assert "stored run" in claims_ext.STORED and "stops if the verdict no longer holds" in claims_ext.STORED
