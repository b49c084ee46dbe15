"""The decision tree and the card of advice, read from data/decisions.yml: every advice rests on stored runs.

A leaf of the tree or a row of the card says what to do and names its evidence. Evidence is a paired comparison in a
stored result, with the sign that it must have: advice whose run says otherwise can't be shown.
"""
from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import claims, evaluation, metrics, paths, report
from .metrics import Interval


class AdviceContradicted(AssertionError):
    """A piece of advice rests on a run that says something else."""


@dataclass(frozen=True)
class Evidence:
    """A comparison in a stored result: a minus b, run by run.

    run: "lab/NAME" or "real/NAME". a, b: column -> value, which rows stand on each side (b may be empty: the value of a
    alone). b_run: the result that holds b, where it is another one with the same seeds. where: what both sides share.
    pair: the columns that make two rows a pair. sign and margin: as in the claims ledger. says: a sentence about it with
    {effect} where the number belongs. see: the page that shows it ("part/lesson" or "part/lesson#place").
    """
    name: str
    run: str
    a: dict
    says: str
    see: str
    b: dict = field(default_factory=dict)
    b_run: str = ""
    where: dict = field(default_factory=dict)
    pair: tuple[str, ...] = ("seed",)
    value: str = "accuracy"
    scale: float = 100.0
    sign: str = "+"
    margin: float = 0.0

    def interval(self) -> Interval:
        """The comparison with its 95 % interval, in points unless `scale` says otherwise.

        Raises ValueError where the stored result has no such rows, or pairs that are not unique.
        """
        sides = [self._rows(run, side) for run, side in ((self.run, self.a), (self.b_run or self.run, self.b)) if side]
        if len(sides) == 1:
            return evaluation.interval(sides[0].reset_index(), self.value).scaled(self.scale)
        a, b = (side.loc[side.index.isin(other.index)].sort_index() for side, other in (sides, sides[::-1]))
        if len(a) < 2:
            raise ValueError(f"decisions.yml: {self.name} has {len(a)} pairs in {self.run}; it needs at least two")
        if self.value == "accuracy" and "correct" in a and "correct" in b and a["correct"].notna().all() and b["correct"].notna().all():
            lengths = {len(text) for text in (*a["correct"], *b["correct"])}
            if len(lengths) == 1:
                scores = [evaluation.item_scores(side.reset_index(drop=True).assign(seed=range(len(side)))) for side in (a, b)]
                return metrics.crossed_interval(scores[0] - scores[1]).scaled(self.scale)
        return metrics.paired_interval(a[self.value], b[self.value]).scaled(self.scale)

    def _rows(self, run: str, side: dict):
        rows = frame = report.load(*run.split("/"))
        for column, value in {**self.where, **side}.items():
            if column not in rows:
                raise ValueError(f"decisions.yml: {self.name}: {run} has no column {column!r}; "
                                 f"{paths.did_you_mean(column, frame.columns)}")
            rows = rows[rows[column] == value]
            if not len(rows):
                raise ValueError(f"decisions.yml: {self.name}: {run} has no rows with {column} = {value!r}; "
                                 f"{paths.did_you_mean(value, map(str, frame[column].unique()))}")
        rows = rows.set_index(list(self.pair))
        if not rows.index.is_unique:
            raise ValueError(f"decisions.yml: {self.name}: several rows of {run} have the same {', '.join(self.pair)}; "
                             "name more columns in where, a, b or pair")
        return rows

    def sentence(self) -> str:
        """What was measured, the number put in. Raises AdviceContradicted where its sign is not the stated one."""
        found = self.interval()
        if not claims.agrees(self.sign, self.margin, found):
            raise AdviceContradicted(f"{self.name}: the advice needs {claims.SIGNS[self.sign]} (margin {self.margin}), "
                                     f"{self.run} measured {found:+.1f}")
        return self.says.format(effect=claims.in_words(found) if self.b else f"{found:.1f}")


@dataclass(frozen=True)
class Node:
    """A question with branches (answer, node), or advice with its evidence and the page that explains it."""
    text: str
    branches: tuple[tuple[str, "Node"], ...] = ()
    because: tuple[Evidence, ...] = ()
    see: str = ""

    def leaves(self) -> Iterator["Node"]:
        """The pieces of advice under this node, from top to bottom."""
        if not self.branches:
            yield self
        for _, child in self.branches:
            yield from child.leaves()


@dataclass(frozen=True)
class Row:
    """One line of the card: a situation, what to do in it, and why."""
    situation: str
    do: str
    because: tuple[Evidence, ...]
    see: str


@dataclass(frozen=True)
class Decisions:
    """The tree and the card."""
    tree: Node
    card: tuple[Row, ...]
    evidence: dict[str, Evidence]


def load(path: str | Path | None = None) -> Decisions:
    """Read and check the file (default: the bundled data/decisions.yml).

    Raises ValueError naming the place for a node with neither question nor advice, a single branch, unknown evidence,
    advice without any, or evidence that nothing uses.
    """
    import yaml

    raw = yaml.safe_load(Path(path or paths.data_dir() / "decisions.yml").read_text(encoding="utf-8"))
    evidence = {}
    for name, entry in raw["evidence"].items():
        if entry.get("sign", "+") not in claims.SIGNS:
            raise ValueError(f"decisions.yml: {name} has the sign {entry['sign']!r}; use one of {', '.join(claims.SIGNS)}")
        if not set(entry) <= set(Evidence.__dataclass_fields__) or not {"run", "a", "says", "see"} <= set(entry):
            raise ValueError(f"decisions.yml: {name} needs run, a, says, see, and may have b, b_run, where, pair, value, scale, "
                             f"sign, margin; it has {', '.join(entry)}")
        evidence[name] = Evidence(name, **{k: tuple(v) if k == "pair" else v for k, v in entry.items()})
    used: set[str] = set()

    def reasons(entry: dict) -> tuple[Evidence, ...]:
        names = entry.get("because") or []
        if unknown := [name for name in names if name not in evidence]:
            raise ValueError(f"decisions.yml: {entry['do']!r} rests on {unknown[0]!r}; {paths.did_you_mean(unknown[0], evidence)}")
        if not names:
            raise ValueError(f"decisions.yml: {entry['do']!r} rests on nothing: name its evidence under because")
        used.update(names)
        return tuple(evidence[name] for name in names)

    def node(entry: dict) -> Node:
        if ("ask" in entry) == ("do" in entry):
            raise ValueError(f"decisions.yml: a node needs either ask or do; one has {', '.join(entry)}")
        if "do" in entry:
            return Node(entry["do"], (), reasons(entry), entry["see"])
        if len(entry.get("branches") or ()) < 2:
            raise ValueError(f"decisions.yml: {entry['ask']!r} has fewer than two branches")
        return Node(entry["ask"], tuple((branch["if"], node({k: v for k, v in branch.items() if k != "if"})) for branch in entry["branches"]))

    tree = node(raw["tree"])
    card = tuple(Row(row["situation"], row["do"], reasons(row), row["see"]) for row in raw["card"])
    if idle := [name for name in evidence if name not in used]:
        raise ValueError(f"decisions.yml: nothing rests on {', '.join(idle)}; use it or take it out")
    return Decisions(tree, card, evidence)


# ---------------------------------------------------------------------------- shown on a page
def _page(see: str, root: str) -> str:
    name, hash_, place = see.partition("#")
    return f"{root}{name}.html{hash_}{place}"


class Shown:
    """HTML that shows itself in a notebook, with a plain text beside it."""

    def __init__(self, page: str, text: str):
        self.page, self.text = page, text

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": self.text, "text/html": self.page}


def runs(decisions: Decisions):
    """The stored results behind the advice: a DataFrame of run, what was recorded when, and the command that repeats it."""
    import pandas as pd

    rows = []
    for name in sorted({evidence.run for evidence in decisions.evidence.values()}):
        recorded = report.load(*name.split("/")).attrs["card"]
        rows.append({"run": name, "recorded": recorded["date"], "minutes": round(recorded["seconds"] / 60, 1),
                     "repeat with": f"python -m tlutils.experiments {recorded['name']}"})
    return pd.DataFrame(rows).set_index("run")


def outline(tree: Node, *, root: str = "../") -> Shown:
    """The tree as a nested list: every question, every answer, every advice with its reasons."""
    def item(node: Node) -> str:
        if node.branches:
            inner = "".join(f"<li><strong>{html.escape(answer)}.</strong> {item(child)}</li>" for answer, child in node.branches)
            return f"{html.escape(node.text)}<ul>{inner}</ul>"
        return f"{_advice(node, root)}"

    def plain(node: Node, depth: int) -> str:
        if node.branches:
            lines = [f"{node.text}"] + [f"{'  ' * depth}- {answer}: {plain(child, depth + 1)}" for answer, child in node.branches]
            return "\n".join(lines)
        return node.text + "".join(f"\n{'  ' * depth}  ({reason.sentence()})" for reason in node.because)
    return Shown(f'<div class="decision-outline">{item(tree)}</div>', plain(tree, 0))


def _advice(leaf: Node | Row, root: str) -> str:
    text = leaf.text if isinstance(leaf, Node) else leaf.do
    return f'<a href="{_page(leaf.see, root)}">{html.escape(text)}</a>{_reasons(leaf.because, root)}'


def _reasons(because: tuple[Evidence, ...], root: str) -> str:
    lines = "".join(f'<li>{html.escape(e.sentence())} <a href="{_page(e.see, root)}" aria-label="the run behind: {html.escape(e.name)}">'
                    f"<code>{html.escape(e.run)}</code></a></li>" for e in because)
    return f"<ul>{lines}</ul>"


def card(decisions: Decisions, *, root: str = "../") -> Shown:
    """The card as a table: situation, what to do, what was measured."""
    rows = "".join(f'<tr><th scope="row">{html.escape(row.situation)}</th><td><a href="{_page(row.see, root)}">{html.escape(row.do)}</a></td>'
                   f"<td>{_reasons(row.because, root)}</td></tr>" for row in decisions.card)
    head = "".join(f'<th scope="col">{title}</th>' for title in ("You have", "Do this", "Because, measured"))
    text = "\n".join(f"{row.situation}: {row.do}\n" + "\n".join(f"    {e.sentence()}" for e in row.because) for row in decisions.card)
    style = ("<style>table.decision-card td,table.decision-card th{white-space:normal!important;text-align:left!important;vertical-align:top}"
             "table.decision-card ul{padding-left:1.1em;margin:0}table.decision-card{min-width:40em}</style>")
    return Shown(f'{style}<table class="table decision-card"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>', text)


# ---------------------------------------------------------------------------- the picture
BOX, GAP, LINE, PAD, ROW = 226, 32, 16, 8, 10      # widths and heights in pixels
LETTERS = 28                                       # that fit on a line of a box


def picture(tree: Node, *, alt: str, root: str = "../") -> Shown:
    """The tree as a drawing, from left to right; each advice is a link to its page. alt: the drawing in a sentence.

    The answer that leads to a box stands in its first lines, in italics. Raises ValueError for an alt that says nothing.
    """
    if len(alt.split()) < 4:
        raise ValueError(f"alt: describe what the figure shows in a sentence, got {alt!r}")
    parts: list[str] = []
    size = {"width": 0.0, "bottom": 6.0}

    def draw(node: Node, answer: str, x: float) -> float:
        """Draw a node and all below it; returns the height of its middle."""
        lines = [("a", line) for line in textwrap.wrap(answer, LETTERS)] + [("t", line) for line in textwrap.wrap(node.text, LETTERS)]
        tall = LINE * len(lines) + 2 * PAD
        size["width"] = max(size["width"], x + BOX)
        if node.branches:
            top = size["bottom"]
            ends = [draw(child, words, x + BOX + GAP) for words, child in node.branches]
            middle = max((ends[0] + ends[-1]) / 2, top + tall / 2)
            size["bottom"] = max(size["bottom"], middle + tall / 2 + ROW)
            right, turn, left = x + BOX, x + BOX + GAP / 2, x + BOX + GAP
            parts.extend(f'<path d="M{right:.0f} {middle:.0f}C{turn:.0f} {middle:.0f} {turn:.0f} {end:.0f} {left:.0f} {end:.0f}" '
                         'fill="none" stroke="currentColor" stroke-opacity=".5"/>' for end in ends)
        else:
            middle = size["bottom"] + tall / 2
            size["bottom"] += tall + ROW
        parts.append(_box(node, lines, x, middle - tall / 2, tall, root))
        return middle

    draw(tree, "", 4)
    style = ("<style>.decision-tree a{color:inherit;text-decoration:none}"
             ".decision-tree a:hover rect,.decision-tree a:focus rect{stroke-width:3}</style>")
    svg = (f'<svg role="group" aria-label="{html.escape(alt)}" viewBox="0 0 {size["width"] + 6:.0f} {size["bottom"]:.0f}" font-size="13" '
           f'fill="currentColor" style="min-width:{0.85 * size["width"]:.0f}px;max-width:100%;height:auto">{"".join(parts)}</svg>')
    return Shown(f'<figure class="plot decision-tree">{style}{svg}</figure>', f"[Figure] {alt}")


def _box(node: Node, lines: list[tuple[str, str]], x: float, y: float, tall: float, root: str) -> str:
    colour = "#8a8a8a" if node.branches else "#009e73"
    slant = {"a": ' font-style="italic"', "t": ""}
    text = "".join(f'<tspan x="{x + PAD:.0f}" y="{y + PAD + 12 + LINE * i:.0f}"{slant[kind]}>{html.escape(line)}</tspan>'
                   for i, (kind, line) in enumerate(lines))
    box = (f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX}" height="{tall:.0f}" rx="{4 if node.branches else 12}" fill="{colour}" '
           f'fill-opacity=".12" stroke="{colour}"/><text>{text}</text>')
    return box if node.branches else f'<a href="{_page(node.see, root)}">{box}</a>'
