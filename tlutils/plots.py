"""Figures of one style: inline SVG whose text takes the page's colour, so that it reads in any theme.

Every figure has a text alternative (`alt`), which screen readers speak and which stands in for the picture
where SVG is not shown. The same method has the same colour in the whole book: METHOD_COLOURS.
"""
from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend

# Colours that stay apart for colour-blind readers (Okabe & Ito) and show on white and on near-black.
METHOD_COLOURS = {
    "chance": "#8a8a8a", "majority": "#8a8a8a", "pixels": "#b07d00", "scratch": "#d55e00", "random frozen": "#a0785a",
    "probe": "#0b84c6", "fine-tuning": "#009e73", "lp-ft": "#cc79a7", "last-k": "#56b4e9", "gradual": "#8c6bd6",
    "resnet-mini": "#2a78d0", "vgg-mini": "#e0702a", "inception-mini": "#c65fa0", "efficientnet-mini": "#1fa37a",
    "tf-idf": "#af7b04", "bert-mini": "#05996f", "bert-mini probe": "#1080c0", "roberta-mini": "#c8749f", "gpt-mini": "#8766d2",
    "distilbert-mini": "#a8842e", "MiniLM": "#0a7fbf",
    "nearest mean": "#b5487f", "nearest neighbour": "#7d8a1a",      # of limited_data
    "neither": "#999999", "skips": "#3f9bd6", "batch norm": "#c98a1b", "both": "#2fa866",      # towers of image_models
    "plain": "#0c9b70", "warm-up": "#b8860b", "layer-wise": "#4fa9dc", "early stopping": "#c0504d", "sgd": "#6f7fc4",    # optimisation
    "kNN": "#7d72d6", "last-1": "#46a2d8", "last-2": "#1f88b8", "L2-SP": "#b5702a", "frozen": "#0e87c8", "left in train()": "#d9650f",    # extract
    "PNAS": "#d0480c", "random search": "#77808c", "evolution": "#2b9a57", "local search": "#2b7bbd", "one-shot predictor": "#9a6cc4",    # pnas
}
_CYCLE = ("#0b84c6", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#56b4e9", "#8c6bd6", "#8a8a8a")
_SPARE = ("#cc79a7", "#56b4e9", "#8c6bd6", "#b07d00", "#0b84c6", "#d55e00", "#009e73")    # for names that have none
MOST_BANDS = 5        # more lines than these get slim bars for their intervals
_INK = "#123456"      # replaced by `currentColor` in the SVG, as is matplotlib's black
_DARK = "#111111"     # stays dark in any theme, for what stands on coloured cells
STYLE = {
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "svg.fonttype": "none",
    "font.family": "sans-serif", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.alpha": 0.25, "grid.color": "#8a8a8a", "axes.titlelocation": "left", "axes.titlesize": 12,
    "axes.prop_cycle": plt.cycler(color=_CYCLE),
    "lines.linewidth": 2, "legend.frameon": False, "figure.figsize": (7.2, 4.2),
    **{key: _INK for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")},
}


def colour_of(method: str, index: int = 0) -> str:
    """The method's fixed colour, or the next of the cycle for a name that has none.

    "scratch, ten times the steps" is a variant of "scratch" and has its colour; lines of variants are dashed.
    """
    return METHOD_COLOURS.get(method.split(", ")[0], _CYCLE[index % len(_CYCLE)])


def _colours(names: Sequence[str]) -> list[str]:
    """One colour a line: each method's own; the others take those that no line of the figure has."""
    own = {name: METHOD_COLOURS.get(name.split(", ")[0]) for name in names}
    spare = iter([c for c in _SPARE if c not in own.values()] or _SPARE)
    return [own[name] or next(spare, METHOD_COLOURS["chance"]) for name in names]


def _apart(ticks: Sequence[float], share: float = 0.09) -> list[str]:
    """Labels for ticks on a log axis, the last one first; none where it would touch its neighbour to the right."""
    labels, span = {}, np.log(max(ticks) / min(ticks)) or 1
    for tick in sorted(ticks, reverse=True):
        if not labels or np.log(min(labels) / tick) > share * span:
            labels[tick] = str(tick)
    return [labels.get(tick, "") for tick in ticks]


def _side_by_side(budgets: Sequence[float], lines: int) -> np.ndarray:
    """Factors for the places of `lines` points at each budget of a log axis: together a third of the closest gap."""
    gap = np.diff(np.log(budgets)).min() if len(budgets) > 1 else 1.0
    return np.exp(np.linspace(-gap / 6, gap / 6, lines))


def _signed(value: float) -> str:
    """A whole number with its sign; "0" where nothing is left, never "-0"."""
    text = f"{value:+.0f}"
    return text if text.strip("+-0") else "0"


def figure(rows: int = 1, columns: int = 1, **options):
    """`plt.subplots` in the house style."""
    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, layout="constrained", **options)


def svg(fig: Figure, alt: str) -> str:
    """The figure as an SVG element with its text alternative; text and axes in the page's own colour."""
    for legend in fig.findobj(Legend):        # one made outside of `figure` would have a white ground
        legend.set_frame_on(False)
    buffer = io.StringIO()
    salt = hashlib.sha256(alt.encode()).hexdigest()[:8]
    with plt.rc_context({**STYLE, "svg.hashsalt": salt}):
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.05)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg"):], flags=re.S)
    text = text.replace(_INK, "currentColor").replace("#000000", "currentColor")
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{salt}-", text)      # ids stay unique on a page of many figures
    label = html.escape(alt, quote=True)
    # The page's style sheet needs the drawing's own width: a phone shrinks it by a quarter at most, then it scrolls in its box.
    pixels = float(re.search(r'\bwidth="([\d.]+)pt"', text)[1]) * 4 / 3
    # matplotlib leaves black unsaid in text and fills: there the colour of the whole picture holds
    style = f"max-width:100%;height:auto;--own-width:{pixels:.0f}px"
    return text.replace("<svg", f'<svg role="img" aria-label="{label}" fill="currentColor" style="{style}"', 1)


class Picture:
    """A figure that shows itself in a notebook: SVG for the page, its text alternative for everyone else."""

    def __init__(self, fig: Figure, alt: str):
        if len(alt.split()) < 4:
            raise ValueError(f"alt: describe what the figure shows in a sentence, got {alt!r}")
        self.alt, self.svg = alt, svg(fig, alt)
        plt.close(fig)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": f"[Figure] {self.alt}", "text/html": f'<figure class="plot">{self.svg}</figure>'}


def show(fig: Figure, alt: str) -> None:
    """Display the figure with its text alternative, and close it."""
    from IPython.display import display
    display(Picture(fig, alt))


def learning_curves(frame, *, methods: Sequence[str] | None = None, chance: float | None = None, axes=None,
                    title: str = "", xlabel: str = "labels per class", value: str = "accuracy",
                    ylim: tuple[float, float] = (0, 102)):
    """Mean and 95 % interval of every method over label budgets (log axis), each line named at its end.

    Up to five lines have their interval as a band; more have slim bars, set side by side, since bands would cover each other.
    frame: rows of method, labels, seed, accuracy, as from `evaluation.learning_curve`. Returns (fig, axes).
    Raises ValueError for a frame that lacks one of these columns, and for a method without runs.
    """
    from . import evaluation
    if lacks := [column for column in ("method", "labels", value) if column not in frame]:
        raise ValueError(f"frame: lacks the column {lacks[0]!r}, it has {', '.join(map(str, frame.columns)) or 'none'}; give rows "
                         "as from evaluation.learning_curve")
    fig, axes = (axes.figure, axes) if axes is not None else figure()
    table = evaluation.summary(frame, value)
    names = list(methods or table["method"].unique())
    ends, budgets = [], sorted(table["labels"].unique())
    beside = _side_by_side(budgets, len(names)) if len(names) > MOST_BANDS else None
    for i, (name, colour) in enumerate(zip(names, _colours(names))):
        line = table[table["method"] == name].sort_values("labels")
        if line.empty:
            raise ValueError(f"methods: {name!r} has no runs; there are {', '.join(table['method'].unique())}")
        x, mean, low, high = (line["labels"].to_numpy(), *(100 * line[c].to_numpy() for c in ("mean", "low", "high")))
        drawn = {"color": colour, "marker": "o", "markersize": 4, "linestyle": "--" if ", " in name else "-"}
        if beside is None:
            axes.plot(x, mean, **drawn)
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        else:
            axes.errorbar(x * beside[i], mean, [mean - low, high - mean], elinewidth=1.1, **drawn | {"linewidth": 1.4})
        ends.append((float(100 * line["mean"].iloc[-1]), name, colour))
    if chance is not None:
        axes.axhline(100 * chance, color=METHOD_COLOURS["chance"], linestyle=":", linewidth=1.5)
        ends.append((100 * chance, "chance", METHOD_COLOURS["chance"]))
    axes.set(xscale="log", xlabel=xlabel, ylabel="test accuracy (%)", ylim=ylim)
    axes.set_title(title, loc="left")
    axes.set_xticks(budgets, _apart(budgets))
    axes.minorticks_off()
    name_lines(axes, ends)
    return fig, axes


def name_lines(axes, ends: Sequence[tuple[float, str, str]], gap: float = 0.062) -> None:
    """Write each line's name at the right edge, at its height, moved apart where they would touch."""
    low, high = axes.get_ylim()
    ends = sorted(ends)
    wanted = (np.array([y for y, _, _ in ends]) - low) / (high - low)
    at = wanted.copy()
    for _ in range(200):                      # push neighbours apart, evenly, until none touch
        short = gap - np.diff(at)
        if (short <= 1e-9).all():
            break
        push = np.clip(short, 0, None) / 2
        at[:-1] -= push
        at[1:] += push
    at[-1] = min(at[-1], 1.0)                 # and none above the axes, where a title may stand
    for i in range(len(at) - 1, 0, -1):
        at[i - 1] = min(at[i - 1], at[i] - gap)
    for y, (_, name, colour) in zip(at, ends):
        axes.annotate(name, (1.01, y), xycoords="axes fraction", color=colour, va="center", fontsize=10,
                      annotation_clip=False)


def gaps(frame, a: str, b: str, *, axes=None, title: str = "", xlabel: str = "labels per class"):
    """Paired difference a - b in points at every budget, with 95 % intervals and the zero line. Returns (fig, axes)."""
    from . import evaluation
    fig, axes = (axes.figure, axes) if axes is not None else figure(figsize=(7.2, 3.4))
    table = evaluation.compare(frame, a, b)
    mean, x = 100 * table["mean"], np.arange(len(table))
    error = [mean - 100 * table["low"], 100 * table["high"] - mean]
    axes.errorbar(x, mean, error, fmt="o", color=colour_of(a), capsize=4)
    axes.axhline(0, color="#8a8a8a", linewidth=1.5)
    axes.set_xticks(x, [str(n) for n in table["labels"]])
    axes.set(xlabel=xlabel, ylabel=f"{a} minus {b} (points)")
    axes.set_title(title, loc="left")
    return fig, axes


def effects(table, *, title: str = "", xlabel: str = "points", axes=None):
    """One line an effect: a dot with its 95 % interval, and the zero line; several groups side by side, in the cycle's colours.

    table: columns name, mean, low, high, and group where there are several; the names stand from top to bottom in their
    order. Returns (fig, axes). Raises ValueError for a table that lacks one of these columns.
    """
    if lacks := [column for column in ("name", "mean", "low", "high") if column not in table]:
        raise ValueError(f"table: lacks the column {lacks[0]!r}, it has {', '.join(map(str, table.columns)) or 'none'}")
    names, groups = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["group"])) if "group" in table else [None]
    fig, axes = (axes.figure, axes) if axes is not None else figure(figsize=(7.2, 1.2 + (0.25 + 0.2 * len(groups)) * len(names)))
    for i, group in enumerate(groups):
        part = table if group is None else table[table["group"] == group]
        y = np.array([names.index(name) for name in part["name"]]) + 0.22 * (i - (len(groups) - 1) / 2)
        error = [part["mean"] - part["low"], part["high"] - part["mean"]]
        axes.errorbar(part["mean"], y, xerr=error, fmt="o", color=_CYCLE[i % len(_CYCLE)], capsize=4, label=group)
    axes.axvline(0, color="#8a8a8a", linewidth=1.5)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
    axes.set_title(title, loc="left")
    if len(groups) > 1:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return fig, axes


def heatmap(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, marks: np.ndarray | None = None,
            xlabel: str = "", ylabel: str = "", title: str = "", unit: str = "points", axes=None):
    """A signed table in colour (blue above zero, orange below), each cell with its number. Returns (fig, axes).

    values: (R, C). marks: (R, C) bool, cells whose interval excludes zero (others are written in brackets).
    """
    values = np.asarray(values, dtype=float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"values: shape {values.shape} does not match {len(rows)} rows and {len(columns)} columns")
    fig, axes = (axes.figure, axes) if axes is not None else figure(figsize=(1.2 + 0.85 * len(columns), 1.3 + 0.55 * len(rows)))
    limit = np.nanmax(np.abs(values)) or 1.0
    image = axes.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
    for r, c in np.ndindex(values.shape):
        if np.isfinite(values[r, c]):
            red, green, blue, _ = image.cmap(image.norm(values[r, c]))
            ink = _DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"
            text = _signed(values[r, c]) if marks is None or marks[r, c] else f"({_signed(values[r, c])})"
            axes.text(c, r, text, ha="center", va="center", color=ink, fontsize=10, label="number",
                      bbox={"facecolor": (red, green, blue), "edgecolor": "none", "pad": 1})   # its own ground keeps lines off it
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left")
    axes.grid(False)
    with plt.rc_context(STYLE):
        fig.colorbar(image, ax=axes, label=unit, fraction=0.04)
    return fig, axes


def zero_line(axes, mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Draw on a heatmap where its values cross zero, interpolated between cells: solid for the mean, dashed for the
    limits of its interval, so that the dashed lines enclose where the solid one may lie. A number that a line would cross
    moves aside within its cell.

    mean, low, high: (R, C), cell by cell as in `heatmap`; NaN cells are left out. A table of one sign gets no line. Raises ValueError where
    the shapes differ or a limit lies on the wrong side of the mean.
    """
    mean, low, high = (np.asarray(values, dtype=float) for values in (mean, low, high))
    if not mean.shape == low.shape == high.shape:
        raise ValueError(f"mean, low and high must have one shape; got {mean.shape}, {low.shape} and {high.shape}")
    if (low > mean).any() or (mean > high).any():
        raise ValueError("low and high: must lie below and above the mean in every cell")
    limits, lines = (axes.get_xlim(), axes.get_ylim()), []
    for values, style, width in ((low, "--", 1.2), (high, "--", 1.2), (mean, "-", 2.5)):
        if np.nanmin(values) < 0 < np.nanmax(values):
            drawn = axes.contour(values, levels=[0], colors=_DARK, linestyles=style, linewidths=width)
            lines += [part for part in drawn.allsegs[0] if len(part)]
    axes.set(xlim=limits[0], ylim=limits[1])
    if lines:
        _move_aside([text for text in axes.texts if text.get_label() == "number"], lines)


def _move_aside(numbers, lines: Sequence[np.ndarray]) -> None:
    """Put each number of a heatmap at that place of its cell which the fewest points of the lines touch, the middle first."""
    share = np.linspace(0, 1, 50)[:, None, None]
    dense = np.concatenate([(a + share * (b - a)).reshape(-1, 2) for a, b in ((part[:-1], part[1:]) for part in lines)])
    places = sorted(((x, y) for x in (0, -0.18, 0.18) for y in (0, -0.27, 0.27)), key=lambda place: np.hypot(*place))
    for number in numbers:
        wanted = np.array(number.get_position()) + places
        reach = (0.07 * len(number.get_text()) + 0.03, 0.2)       # half the width and height of what is written, in cells
        touched = (np.abs(dense[:, None] - wanted) < reach).all(axis=2).sum(axis=0)
        number.set_position(wanted[touched.argmin()])             # the first of those that are equally free


def gallery(images, titles: Sequence[str] = (), *, columns: int = 8, size: float = 1.0):
    """A grid of pictures. images: (N, 3, H, W) in [0, 1]. Returns (fig, axes)."""
    images = images.detach().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy() if hasattr(images, "permute") else images
    rows = -(-len(images) // columns)
    fig, axes = figure(rows, columns, figsize=(size * columns, (size + (0.25 if len(titles) else 0)) * rows), squeeze=False)
    for i, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if i < len(images):
            ax.imshow(images[i], interpolation="nearest")
            if i < len(titles):
                ax.set_title(titles[i], fontsize=8, loc="center")
    return fig, axes
