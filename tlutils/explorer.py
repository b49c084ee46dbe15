"""A scatter plot to walk through in a page of its own making: no script, no network, mouse or keyboard.

Every point is a link to its row in the table below, with its name and numbers beside it while the mouse or the keyboard's
focus is on it. Buttons above choose what the horizontal axis shows and which family stands out.
"""
from __future__ import annotations

import hashlib
import html
import math
import re
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 430, 52, 48, 12, 12
GREY = "#8a8a8a"


class Explorer:
    """The plot and its table, as HTML; shows itself in a notebook.

    points: rows with `name`, `y` (a number), each of `axes`, and optionally `group`. axes: column -> the label of a
    horizontal (log) axis; the first one is shown first. groups: group -> colour; others are grey. note: column -> format
    of what the label and the table say, e.g. {"parameters": "{:.1f} M parameters"}. alt: the figure in a sentence.
    Raises ValueError for no points, a `y` that is not finite, a number that is not positive on an axis, or an empty alt.
    """

    def __init__(self, points: Sequence[Mapping], *, y: str, axes: Mapping[str, str], note: Mapping[str, str],
                 groups: Mapping[str, str], ylabel: str, alt: str):
        if len(alt.split()) < 4:
            raise ValueError(f"alt: describe what the figure shows in a sentence, got {alt!r}")
        if not points:
            raise ValueError("points: there are none to draw")
        for point in points:
            if not math.isfinite(point[y]):
                raise ValueError(f"{point['name']!r}: {y} is {point[y]}; leave out what has no value")
            for axis in axes:
                if not (point[axis] > 0 and math.isfinite(point[axis])):
                    raise ValueError(f"{point['name']!r}: {axis} is {point[axis]}; a log axis takes positive numbers only")
        self.alt, self.points, self.y, self.axes, self.note, self.groups, self.ylabel = alt, points, y, axes, note, groups, ylabel
        self.key = "x" + hashlib.sha256(alt.encode()).hexdigest()[:6]

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": f"[Figure] {self.alt}", "text/html": self.html()}

    # ------------------------------------------------------------------ parts of the page
    def html(self) -> str:
        """The whole: buttons, one plot for each axis, the table in a fold."""
        k, axes = self.key, list(self.axes)
        buttons = [_radios(f"{k}-axis", "Across:", [(f"{k}-axis-{i}", self.axes[a]) for i, a in enumerate(axes)]),
                   _radios(f"{k}-group", "Show:", [(f"{k}-all", "all"), *((f"{k}-{_slug(g)}", g) for g in self.groups)])]
        plots = "".join(self._plot(axis, i) for i, axis in enumerate(axes))
        return (f'<figure class="plot explorer" id="{k}"><style>{self._style()}</style>{"".join(buttons)}{plots}'
                f"<details><summary>All {len(self.points)} as a table</summary>{self._table()}</details></figure>")

    def _style(self) -> str:
        k = f"#{self.key}"
        rules = [f"{k} a text{{visibility:hidden}}", f"{k} a:hover text,{k} a:focus text{{visibility:visible}}",
                 f"{k} a:hover circle,{k} a:focus circle{{stroke:currentColor;stroke-width:2.5;fill-opacity:1}}",
                 f"{k} a:focus{{outline:none}}", f"{k} tr:target{{outline:2px solid}}", f"{k} fieldset{{border:0;margin:0;padding:0}}",
                 f"@media(max-width:600px){{{k} svg{{font-size:20px}}{k} circle{{r:8px}}}}",       # a phone shows half the size
                 f"{k} label{{margin-right:.8em;white-space:nowrap}}", f"{k} a text{{pointer-events:none;font-weight:600}}"]
        for i in range(len(self.axes)):
            rules.append(f"{k}:has({k}-axis-{i}:checked) svg:not(.axis-{i}){{display:none}}")
        for group in self.groups:
            slug = _slug(group)
            rules.append(f"{k}:has({k}-{slug}:checked) a:not(.g-{slug}){{opacity:.15}}")
        return "".join(rules)

    def _plot(self, axis: str, number: int) -> str:
        low, high = min(p[axis] for p in self.points), max(p[axis] for p in self.points)
        ys = [p[self.y] for p in self.points]
        bottom, top = 5 * math.floor(min(ys) / 5), 5 * math.ceil(max(ys) / 5)

        def across(value):
            return LEFT + (math.log(value) - math.log(low * 0.85)) / math.log(high * 1.18 / (low * 0.85)) * (WIDTH - LEFT - RIGHT)

        def up(value):
            return HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - BOTTOM - TOP)

        parts = []
        for value in range(bottom, top + 1, 5):
            parts.append(f'<path d="M{LEFT} {up(value):.0f}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-opacity=".3"/>'
                         f'<text x="{LEFT - 6}" y="{up(value) + 4:.0f}" text-anchor="end">{value}</text>')
        for value in _ticks(low * 0.85, high * 1.18):
            parts.append(f'<path d="M{across(value):.0f} {TOP}V{HEIGHT - BOTTOM}" stroke="{GREY}" stroke-opacity=".2"/>'
                         f'<text x="{across(value):.0f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>')
        parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(self.axes[axis])}</text>'
                     f'<text transform="translate(14 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">{html.escape(self.ylabel)}</text>')
        # the named groups last, so that no grey point covers them
        order = sorted(range(len(self.points)), key=lambda i: self.points[i].get("group") in self.groups)
        parts += [self._point(i, across(self.points[i][axis]), up(self.points[i][self.y])) for i in order]
        return (f'<svg class="axis-{number}" role="group" aria-label="{html.escape(self.alt)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
                f'font-size="12" fill="currentColor" style="max-width:100%;height:auto">{"".join(parts)}</svg>')

    def _point(self, index: int, x: float, y: float) -> str:
        point = self.points[index]
        group, said = point.get("group", ""), html.escape(f"{point['name']}: {self._said(point)}")
        colour, named = self.groups.get(group, GREY), group in self.groups
        # labels open towards the middle and stay on the picture
        anchor, at = ("end", -9) if x > WIDTH / 2 else ("start", 9)
        return (f'<a href="#{self.key}-r{index}" class="g-{_slug(group)}" aria-label="{said}"><title>{said}</title>'
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5.5 if named else 4}" fill="{colour}" fill-opacity="{0.85 if named else 0.5}"/>'
                f'<text x="{x + at:.0f}" y="{y - 9:.0f}" text-anchor="{anchor}">{said}</text></a>')

    def _said(self, point: Mapping) -> str:
        return ", ".join(form.format(point[column]) for column, form in self.note.items())

    def _table(self) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in ("name", *self.note))
        body = "".join(
            f'<tr id="{self.key}-r{i}"><th>{html.escape(point["name"])}</th>'
            + "".join(f"<td>{html.escape(form.format(point[column]))}</td>" for column, form in self.note.items()) + "</tr>"
            for i, point in enumerate(self.points))
        return f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()) or "other"


def _radios(name: str, legend: str, choices: Sequence[tuple[str, str]]) -> str:
    inputs = "".join(f'<label><input type="radio" name="{name}" id="{key}"{" checked" if i == 0 else ""}> {html.escape(text)}</label>'
                     for i, (key, text) in enumerate(choices))
    return f"<fieldset><span>{legend} </span>{inputs}</fieldset>"


def _ticks(low: float, high: float) -> list[float]:
    """1, 10, 100, ... within the limits, and 3 times each where there is room."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 3) if len(decades) < 7 else (1,)
    return [step * 10.0 ** d for d in decades for step in steps if low <= step * 10.0 ** d <= high]
