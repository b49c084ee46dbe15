"""The ledger page, made from data/claims.yml and the runs (a Sphinx extension).

The line `% claims` of a page becomes a table of all claims and a section for each: verdict, what was measured under
which condition, what the literature says. The measurements are read from the executed notebooks' outputs, where
`tlutils.claims.check` left them.
"""
from __future__ import annotations

import os
from pathlib import Path

from address import ROOT, notebook_paths

from tlutils import claims
from tlutils.metrics import Interval

MARK = "% claims"
STORED = ("The measured values are those of the stored run of each notebook. The build of this book repeats the run and "
          "stops if the verdict no longer holds, so a lesson's page may show a value that differs a little from the one here.")


def records(root: Path = ROOT) -> dict[tuple[str, str], dict]:
    """(claim, condition) -> the measurement stored in a notebook, with the notebook's path below `root`."""
    found = claims.measured_in([root / path for path in notebook_paths(root)])
    return {(run["claim"], run["condition"]): {**run, "notebook": Path(run["notebook"]).relative_to(root).as_posix()}
            for run in found}


def overview(ledger: dict[str, dict]) -> str:
    """One row for each claim: its words, its verdict, its section."""
    rows = [f"| [{name}](#{name}) | {entry['statement'].strip()} | {entry['verdict']} |"
            for name, entry in ledger.items()]
    counts = {verdict: sum(e["verdict"] == verdict for e in ledger.values()) for verdict in claims.VERDICTS}
    tally = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    return "\n".join([f"{len(ledger)} claims: {tally}.", "", STORED, "", "| Claim | In our words | Verdict |", "|:--|:--|:--|", *rows])


def section(name: str, entry: dict, found: dict, page: str) -> str:
    """What the ledger says of one claim, with the runs behind it. page: the path of the page that shows it."""
    lines = [f"### {name}", "", entry["statement"].strip(), "", f"**Verdict: {entry['verdict']}.**"]
    lines += [entry[field].strip() for field in ("note", "reason", "disagreement") if entry.get(field)]
    if entry.get("literature"):
        lines += ["", "Literature: {cite}`" + ",".join(entry["literature"]) + "`."]
    if entry.get("measurements"):
        lines += ["", "| Condition | Expected | Measured (95 % interval) | Runs | Where |", "|:--|:--|:--|--:|:--|"]
        lines += [_row(name, condition, expected, found, page) for condition, expected in entry["measurements"].items()]
    return "\n".join([*lines, ""])


def _row(name: str, condition: str, expected: dict, found: dict, page: str) -> str:
    run, unit = found.get((name, condition)), expected.get("unit", "points")
    sign = claims.SIGNS[expected["sign"]] + _margin(expected["sign"], expected["margin"], unit)
    if run is None:
        return f"| {condition} | {sign} | not run yet | | |"
    link = os.path.relpath(run["notebook"], Path(page).parent)
    measured = f"{claims.in_words(Interval(run['mean'], run['low'], run['high'], run['n']))} {unit}"
    return f"| {condition} | {sign} | {measured} | {run['n']} | [{Path(link).stem}]({link}) |"


def _margin(sign: str, margin: float, unit: str) -> str:
    """What the expected sign means in numbers: how large an effect must be, or how small."""
    unit = unit.removesuffix("s") if margin == 1 else unit
    if sign == "0":
        return f" (within {margin:g} {unit})"
    return f" (by more than {margin:g} {unit})" if margin else ""


def text(page: str, root: Path = ROOT) -> str:
    """The whole ledger as Markdown."""
    ledger, found = claims.ledger(root / "data" / "claims.yml"), records(root)
    parts = {entry["part"]: None for entry in ledger.values()}
    body = [overview(ledger)]
    for part in parts:
        body += [f"## {part}", *(section(n, e, found, page) for n, e in ledger.items() if e["part"] == part)]
    return "\n\n".join(body)


def _insert(app, docname: str, source: list[str]) -> None:
    if MARK not in source[0]:
        return
    root = Path(app.srcdir)
    for path in ["data/claims.yml", *notebook_paths(root)]:
        app.env.note_dependency(str(root / path))
    ledger = text(f"{docname}.md", root)
    source[0] = "\n".join(ledger if line == MARK else line for line in source[0].splitlines())


def setup(app) -> dict:
    app.connect("source-read", _insert)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
