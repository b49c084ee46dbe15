"""The table of minutes and memory on the page of running times (a Sphinx extension).

`make notebooks` records what each notebook took; here the record becomes a table, in the place of the line
`% runtimes` of a page. The numbers stand in one file only.
"""
from __future__ import annotations

import json
from pathlib import Path

RECORD = Path("data/runtimes.json")
MARK = "% runtimes"


def table(record: dict) -> str:
    """The record of `make notebooks` as a Markdown table, with the machine it was measured on."""
    rows = [f"| [](/{row['notebook']}) | {row['seconds']:.0f} | {row['peak_mib'] or 'not measured'} |"
            for row in record["rows"]]
    total = sum(row["seconds"] for row in record["rows"])
    card = record["card"]
    return "\n".join([
        "| Notebook | Seconds | Peak memory (MiB) |", "|:--|--:|--:|", *rows,
        f"| All {len(rows)}, one after the other | {total:.0f} | |", "",
        f"Measured on {card['date']}: {card['hardware']}, Python {card['versions']['python']}, "
        f"torch {card['versions']['torch']}."])


def _insert_table(app, docname: str, source: list[str]) -> None:
    if MARK not in source[0]:
        return
    path = Path(app.srcdir) / RECORD
    app.env.note_dependency(str(path))
    text = table(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else (
        "Not measured yet: `make notebooks` does it.")
    source[0] = "\n".join(text if line == MARK else line for line in source[0].splitlines())


def setup(app) -> dict:
    app.connect("source-read", _insert_table)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
