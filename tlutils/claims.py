"""The claims ledger: what the course claims, and the check that ties a claim to a run.

`data/claims.yml` holds each claim with its verdict and, per condition, the sign that the effect must have and the
margin within which two things count as equal. A lesson's cell ends in `check(...)`: it shows the claim with
the measured effect, and stops the notebook when the two disagree.
"""
from __future__ import annotations

import html
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from . import paths
from .metrics import Interval

VERDICTS = ("supported", "depends", "refuted", "not testable here")
SIGNS = {"+": "positive", "-": "negative", "0": "no difference"}
MIME = "application/vnd.tlutils.claim+json"


class ClaimContradicted(AssertionError):
    """A run measured something else than the ledger states."""


@lru_cache(maxsize=None)
def ledger(path: str | Path | None = None) -> dict[str, dict]:
    """All claims by id. Raises ValueError naming the first entry that breaks the ledger's own rules."""
    path = Path(path or paths.data_dir() / "claims.yml")
    claims = {}
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path.name}: must be a list of claims, each with id, statement, verdict, part and literature")
    for entry in entries:
        _validate(entry, claims)
        claims[entry["id"]] = entry
    return claims


def _validate(entry: dict, earlier: dict) -> None:
    missing = {"id", "statement", "verdict", "part", "literature"} - entry.keys()
    name = entry.get("id", "without id")
    if missing:
        raise ValueError(f"claims.yml: claim {name}: {', '.join(sorted(missing))} missing")
    if name in earlier:
        raise ValueError(f"claims.yml: claim {name} stands twice")
    if entry["verdict"] not in VERDICTS:
        raise ValueError(f"claims.yml: claim {name}: verdict {entry['verdict']!r} is none of {', '.join(VERDICTS)}")
    measured = entry.get("measurements") or {}
    for condition, expected in measured.items():
        margin = expected.get("margin")
        if expected.get("sign") not in SIGNS or not isinstance(margin, (int, float)) or not margin >= 0:
            raise ValueError(f"claims.yml: claim {name}, condition {condition!r}: needs sign +, - or 0 and a margin >= 0")
        if expected["sign"] == "0" and margin == 0:
            raise ValueError(f"claims.yml: claim {name}, condition {condition!r}: no difference needs a margin above 0")
    signs = {expected["sign"] for expected in measured.values()}
    if entry["verdict"] == "depends" and len(signs) < 2:
        raise ValueError(f"claims.yml: claim {name} depends, so it needs conditions of at least two different signs")
    if entry["verdict"] == "not testable here" and not entry.get("reason"):
        raise ValueError(f"claims.yml: claim {name} is not testable here: give the reason")
    if entry["verdict"] in ("supported", "refuted") and not measured:
        raise ValueError(f"claims.yml: claim {name} is {entry['verdict']}: it needs at least one measurement")


def agrees(sign: str, margin: float, interval: Interval) -> bool:
    """Does an interval bear out a sign? "+": it lies above zero and its centre above the margin; "-": the mirror
    image; "0": all of it within the margin on either side."""
    if sign == "+":
        return interval.low > 0 and interval.mean > margin
    if sign == "-":
        return interval.high < 0 and interval.mean < -margin
    return -margin <= interval.low and interval.high <= margin


def in_words(interval: Interval) -> str:
    """Mean and limits with one decimal, or two where one would hide the interval's width."""
    return f"{interval:{'+.2f' if interval.half_width < 0.1 else '+.1f'}}"


@dataclass(frozen=True)
class Measurement:
    """One claim under one condition, as measured; shown as a box on the page, read back by the ledger page."""
    claim: str
    condition: str
    sign: str
    margin: float
    unit: str
    interval: Interval
    statement: str
    verdict: str

    def _repr_mimebundle_(self, include=None, exclude=None):
        record = {"claim": self.claim, "condition": self.condition, "sign": self.sign, "margin": self.margin,
                  "unit": self.unit, "mean": self.interval.mean, "low": self.interval.low, "high": self.interval.high,
                  "n": self.interval.n}
        value, limits = in_words(self.interval).removesuffix("]").split(" [")
        text = f"{self.claim} | {self.condition} | {in_words(self.interval)} {self.unit} ({self.interval.n} runs)"
        page = (f'<div class="claim"><p><strong>Claim under test.</strong> {html.escape(self.statement)} '
                f'<a href="../claims.html#{self.claim}"><code>{self.claim}</code></a></p>'
                f"<p>{html.escape(self.condition)}: <strong>{value} {html.escape(self.unit)}</strong>, "
                f"95 % interval {limits.replace(', ', ' to ')}, {self.interval.n} runs. "
                f"The ledger's verdict: {self.verdict}.</p></div>")
        return {"text/plain": text, "text/html": page, MIME: record}


def check(claim: str, *, condition: str, interval: Interval, effect: float | None = None) -> Measurement:
    """Compare a measured effect with what the ledger states for that condition.

    interval: in the unit that the ledger names for the condition (often points). effect: its centre, when
    that is not interval.mean. Returns the measurement (it shows itself in a notebook). Raises
    ClaimContradicted when they disagree, KeyError for an unknown claim or condition.
    """
    if claim not in ledger():
        raise KeyError(f"no claim {claim!r} in data/claims.yml")
    entry = ledger()[claim]
    conditions = entry.get("measurements") or {}
    if condition not in conditions:
        raise KeyError(f"claim {claim!r} has no condition {condition!r}; it has: {', '.join(conditions) or 'none'}")
    expected = conditions[condition]
    unit = expected.get("unit", "points")
    if effect is not None and not interval.low <= effect <= interval.high:
        raise ValueError(f"effect: {effect} lies outside its interval {interval}")
    if not agrees(expected["sign"], expected["margin"], interval):
        raise ClaimContradicted(f"claim {claim!r}, {condition}: the ledger states {SIGNS[expected['sign']]} "
                                f"(margin {expected['margin']} {unit}), this run measured {interval:+.2f} {unit}")
    return Measurement(claim, condition, expected["sign"], expected["margin"], unit, interval, entry["statement"],
                       entry["verdict"])


def measured_in(notebooks: list[Path]) -> list[dict]:
    """Read the measurements back from executed notebooks: one record each, with the notebook's path."""
    found = []
    for path in notebooks:
        for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if MIME in output.get("data", {}):
                    found.append({**output["data"][MIME], "notebook": path})
    return found
