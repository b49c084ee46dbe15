"""The picture on the landing page and in the README, drawn from the stored grids of the first lesson.

    python book/first_figure.py            draw chapters/figures/first_result.svg anew
    python book/first_figure.py --check    say whether it was drawn from the grid as it is (exit status 1 if not)
"""
from __future__ import annotations

import argparse
import hashlib
import sys

import pandas as pd
from address import ROOT

from tlutils import plots, report

TARGET = ROOT / "chapters" / "figures" / "first_result.svg"
GRIDS = ("why_transfer", "patient")
METHODS = ("probe", "fine-tuning", "scratch", "scratch, ten times the steps", "pixels", "random frozen")
INK = "#737a85"  # an <img> can't take the page's colour: a grey that reads on white and on near-black
ALT = ("Test accuracy against labels per class for ten new shapes: a linear probe on a borrowed network leads while labels "
       "are few, a network trained from scratch catches up as they grow and, with ten times the steps, overtakes.")


def data_mark() -> str:
    """A comment that ties the picture to the rows it was drawn from."""
    rows = b"".join(report.path("lab", name).read_bytes().split(b'"rows"')[1] for name in GRIDS)
    return f"<!-- drawn from data/results/lab/, {' and '.join(GRIDS)}, rows {hashlib.sha256(rows).hexdigest()[:16]} -->"


def draw() -> str:
    """The SVG text."""
    grids = pd.concat([report.load("lab", name) for name in GRIDS])
    fig, _ = plots.learning_curves(grids, methods=METHODS, chance=0.1,
                                   title="Ten new shapes: what a borrowed network is worth")
    return plots.svg(fig, ALT).replace("currentColor", INK) + data_mark() + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args(arguments).check:
        current = TARGET.is_file() and data_mark() in TARGET.read_text(encoding="utf-8")
        print("up to date" if current else f"out of date: {TARGET.relative_to(ROOT)}; run python book/first_figure.py")
        return int(not current)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(draw(), encoding="utf-8")
    print(f"written: {TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
