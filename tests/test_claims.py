"""tlutils.claims: the ledger's own rules, the table of signs, and that a contradicted claim stops the page."""

import json
import math
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tlutils import claims
from tlutils.claims import ClaimContradicted, Measurement, agrees, check, ledger
from tlutils.metrics import Interval

GOOD = {
    "id": "one",
    "part": "Fundamentals",
    "statement": "A <bold> statement.",
    "verdict": "supported",
    "literature": ["key2000"],
    "measurements": {"few labels": {"sign": "+", "margin": 5, "unit": "points"}},
}


def interval(low, high, n=5):
    return Interval((low + high) / 2, low, high, n)


def write(tmp_path, *entries):
    file = tmp_path / "claims.yml"
    file.write_text(yaml.safe_dump(list(entries)), encoding="utf-8")
    return file


# ---------------------------------------------------------------------------- the rules
def test_a_ledger_is_read_by_id(tmp_path):
    other = {
        **GOOD,
        "id": "two",
        "verdict": "depends",
        "measurements": {"a": {"sign": "+", "margin": 0}, "b": {"sign": "0", "margin": 1}},
    }
    found = ledger(write(tmp_path, GOOD, other))
    assert list(found) == ["one", "two"] and found["one"]["statement"] == GOOD["statement"]


@pytest.mark.parametrize(
    "change, message",
    [
        *(({key: None}, f"{key} missing") for key in ("statement", "verdict", "part", "literature")),
        ({"verdict": "true"}, "claim one: verdict 'true' is none of supported, depends, refuted, not testable here"),
        (
            {"measurements": {"c": {"sign": "positive", "margin": 5}}},
            r"claim one, condition 'c': needs sign \+, - or 0 and a margin >= 0",
        ),
        ({"measurements": {"c": {"sign": 0, "margin": 5}}}, "condition 'c': needs sign"),
        ({"measurements": {"c": {"sign": "+"}}}, "condition 'c': needs sign .* and a margin"),
        ({"measurements": {"c": {"sign": "+", "margin": -1}}}, "a margin >= 0"),
        ({"measurements": {"c": {"sign": "+", "margin": "five"}}}, "a margin >= 0"),
        ({"measurements": {"c": {"sign": "+", "margin": None}}}, "a margin >= 0"),
        ({"measurements": {"c": {"sign": "0", "margin": 0}}}, "condition 'c': no difference needs a margin above 0"),
        ({"measurements": {}}, "claim one is supported: it needs at least one measurement"),
        ({"measurements": None, "verdict": "refuted"}, "claim one is refuted: it needs at least one measurement"),
        ({"verdict": "depends"}, "claim one depends, so it needs conditions of at least two different signs"),
        (
            {"verdict": "depends", "measurements": {"a": {"sign": "+", "margin": 1}, "b": {"sign": "+", "margin": 2}}},
            "two different signs",
        ),
        ({"verdict": "not testable here"}, "claim one is not testable here: give the reason"),
        ({"verdict": "not testable here", "reason": ""}, "give the reason"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_named(tmp_path, change, message):
    entry = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        ledger(write(tmp_path, entry))


def test_a_claim_that_stands_twice_or_has_no_id_is_refused(tmp_path):
    with pytest.raises(ValueError, match="claim one stands twice"):
        ledger(write(tmp_path, GOOD, GOOD))
    with pytest.raises(ValueError, match="claim without id: id missing"):
        ledger(write(tmp_path, {**{k: v for k, v in GOOD.items() if k != "id"}, "note": "second file"}))


@pytest.mark.parametrize("text", ["", "one: {}\n", "- just words\n"])
def test_a_file_that_is_no_list_of_claims_is_refused(tmp_path, text):
    file = tmp_path / "other.yml"
    file.write_text(text)
    with pytest.raises(ValueError, match="other.yml: must be a list of claims"):
        ledger(file)


def test_not_testable_here_needs_no_measurement(tmp_path):
    entry = {
        **{k: v for k, v in GOOD.items() if k != "measurements"},
        "verdict": "not testable here",
        "reason": "A definition.",
    }
    assert ledger(write(tmp_path, entry))["one"]["reason"] == "A definition."


# ---------------------------------------------------------------------------- agreement
@pytest.mark.parametrize(
    "sign, margin, low, high, expected",
    [
        ("+", 5, 1, 11, True),  # above zero, centre above the margin
        ("+", 5, 1, 8, False),  # centre within the margin
        ("+", 5, 1, 9, False),  # centre exactly on it
        ("+", 5, -1, 20, False),  # crosses zero: not shown
        ("+", 5, 0, 20, False),
        ("+", 5, -20, -6, False),
        ("-", 5, -11, -1, True),
        ("-", 5, -8, -1, False),
        ("-", 5, -20, 1, False),
        ("-", 5, -20, 0, False),
        ("-", 5, 6, 20, False),
        ("0", 5, -5, 5, True),  # all of it within the margin
        ("0", 5, 1, 4, True),  # even if it excludes zero
        ("0", 5, -5.1, 1, False),
        ("0", 5, -1, 5.1, False),
        ("0", 5, 6, 9, False),
    ],
)
def test_the_table_of_signs(sign, margin, low, high, expected):
    assert agrees(sign, margin, interval(low, high)) is expected


@given(st.floats(-50, 50), st.floats(0, 50), st.floats(0.1, 30))
def test_signs_exclude_each_other_and_mirror(mean, half, margin):
    found = Interval(mean, mean - half, mean + half, 5)
    assert agrees("+", margin, found) + agrees("-", margin, found) + agrees("0", margin, found) <= 1
    assert agrees("+", margin, found) == agrees("-", margin, found.scaled(-1))
    assert agrees("0", margin, found) == agrees("0", margin, found.scaled(-1))


@pytest.mark.parametrize("sign", ["+", "-", "0"])
def test_what_is_not_a_number_bears_out_nothing(sign):
    assert not agrees(sign, 1, Interval(math.nan, math.nan, math.nan, 5))


# ---------------------------------------------------------------------------- check
@pytest.fixture
def book(tmp_path, monkeypatch):
    entry = {
        **GOOD,
        "verdict": "depends",
        "measurements": {
            "few labels": {"sign": "+", "margin": 5, "unit": "points"},
            "many labels": {"sign": "0", "margin": 2},
            "wrong source": {"sign": "-", "margin": 1, "unit": "doublings"},
        },
    }
    found = ledger(write(tmp_path, entry))
    monkeypatch.setattr(claims, "ledger", lambda: found)


@pytest.mark.parametrize(
    "condition, low, high", [("few labels", 6, 12), ("many labels", -1, 1.5), ("wrong source", -4, -2)]
)
def test_a_run_that_agrees_gives_its_measurement(book, condition, low, high):
    found = check("one", condition=condition, interval=interval(low, high))
    assert isinstance(found, Measurement) and found.interval == interval(low, high) and found.condition == condition


@pytest.mark.parametrize(
    "condition, low, high, words",
    [
        (
            "few labels",
            -3,
            12,
            r"the ledger states positive \(margin 5 points\), this run measured \+4.50 \[-3.00, \+12.00\] points",
        ),
        ("few labels", -12, -6, "positive"),
        ("many labels", 3, 5, "no difference"),
        ("wrong source", 2, 4, "negative"),
    ],
)
def test_a_run_that_contradicts_stops_the_notebook(book, condition, low, high, words):
    with pytest.raises(ClaimContradicted, match=words):
        check("one", condition=condition, interval=interval(low, high))
    assert issubclass(ClaimContradicted, AssertionError)


def test_unknown_claims_and_conditions_are_named(book):
    with pytest.raises(KeyError, match="no claim 'two' in data/claims.yml"):
        check("two", condition="few labels", interval=interval(6, 9))
    with pytest.raises(KeyError, match="has no condition 'few'; it has: few labels, many labels, wrong source"):
        check("one", condition="few", interval=interval(6, 9))


def test_an_effect_outside_its_interval_is_refused(book):
    assert check("one", condition="few labels", interval=interval(6, 12), effect=7.0)
    with pytest.raises(ValueError, match=r"effect: 60 lies outside its interval 9.0 \[6.0, 12.0\]"):
        check("one", condition="few labels", interval=interval(6, 12), effect=60)


def test_a_measurement_shows_itself_and_is_read_back_from_the_notebook(book, tmp_path):
    bundle = check("one", condition="few labels", interval=interval(6, 12))._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", claims.MIME}
    assert "one | few labels | +9.0 [+6.0, +12.0] points (5 runs)" == bundle["text/plain"]
    page = bundle["text/html"]
    assert "A &lt;bold&gt; statement." in page and 'href="../claims.html#one"' in page and "+9.0 points" in page
    assert "+6.0 to +12.0" in page and "5 runs" in page
    record = bundle[claims.MIME]
    assert record | {} == {
        "claim": "one",
        "condition": "few labels",
        "sign": "+",
        "margin": 5,
        "unit": "points",
        "mean": 9.0,
        "low": 6.0,
        "high": 12.0,
        "n": 5,
    }
    notebook = tmp_path / "lesson.ipynb"
    output = {"output_type": "execute_result", "data": json.loads(json.dumps(bundle))}
    cells = [
        {"cell_type": "markdown"},
        {"cell_type": "code", "outputs": [{"output_type": "stream", "text": "x"}, output]},
    ]
    notebook.write_text(json.dumps({"cells": cells}))
    assert claims.measured_in([notebook]) == [record | {"notebook": notebook}]


# ---------------------------------------------------------------------------- the book's own ledger
def test_the_books_ledger_keeps_its_rules():
    found = ledger()
    assert found
    for name, entry in found.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), f"{name}: an id is also a link"
        assert isinstance(entry["literature"], list) and entry["statement"].strip().endswith((".", "?"))


def test_every_cited_work_is_in_the_bibliography(root):
    file = root / "references.bib"
    if not file.is_file():
        pytest.skip("references.bib is not there")
    known = set(re.findall(r"^@\w+\{([^,\s]+),", file.read_text(encoding="utf-8"), re.M))
    missing = {(name, key) for name, entry in ledger().items() for key in entry["literature"] if key not in known}
    assert not missing


def test_every_claims_lesson_is_a_page_of_the_book(root):
    for name, entry in ledger().items():
        if "lesson" in entry:
            part = entry["lesson"].split("/")[0]
            assert (root / "chapters" / part).is_dir(), f"{name}: {entry['lesson']}"


def test_a_narrow_interval_is_shown_with_two_decimals():
    assert claims.in_words(Interval(0.31, 0.28, 0.34, 5)) == "+0.31 [+0.28, +0.34]"
    assert claims.in_words(Interval(12.31, 9.0, 15.0, 5)) == "+12.3 [+9.0, +15.0]"
