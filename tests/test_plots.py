"""tlutils.plots: figures that read in any theme, with a text alternative, and may share a page."""

import re
import xml.etree.ElementTree as ET

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from tlutils import evaluation, plots
from tlutils.plots import Picture

ALT = "Accuracy of two methods over three label budgets"


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"method": m, "labels": n, "seed": s, "accuracy": 0.3 + 0.1 * i + 0.05 * rng.random()}
            for m in ("scratch", "probe")
            for i, n in enumerate((1, 5, 20))
            for s in range(3)
        ]
    )


def free_figure():
    """What an author may draw outside of the house's functions."""
    fig, axes = plots.figure(1, 2)
    axes[0].plot([0, 1], [1, 2], label="a line")
    axes[0].legend(title="legend")
    axes[0].text(0.5, 1.5, "a note")
    axes[0].set_title("title")
    axes[1].bar(["a", "b"], [1, 2])
    fig.suptitle("over both")
    return fig


FIGURES = {
    "learning_curves": lambda: plots.learning_curves(frame(), chance=0.1, title="A title")[0],
    "gaps": lambda: plots.gaps(frame(), "probe", "scratch")[0],
    "heatmap": lambda: plots.heatmap([[10, -50.0], [np.nan, 0]], ["a", "b"], ["c", "d"], title="t", xlabel="x")[0],
    "gallery": lambda: plots.gallery(torch.rand(5, 3, 8, 8), ["a", "b", "c", "d", "e"], columns=3)[0],
    "free": free_figure,
}


@pytest.fixture(scope="module", params=FIGURES)
def text(request):
    """The SVG of every kind of figure."""
    return plots.svg(FIGURES[request.param](), ALT)


# ---------------------------------------------------------------------------- the SVG
def test_the_svg_is_well_formed_and_carries_its_alternative(text):
    root = ET.fromstring(text)
    assert root.tag.endswith("svg") and root.get("role") == "img" and root.get("aria-label") == ALT
    assert not re.search(r"<\?xml|<!DOCTYPE|<metadata", text)


def test_nothing_is_black_what_is_not_coloured_takes_the_pages_colour(text):
    assert ET.fromstring(text).get("fill") == "currentColor"  # holds where matplotlib leaves black unsaid
    assert not re.search(r"#000\b|#000000|(?:fill|stroke)\s*[:=]\s*[\"']?black|rgb\(0, *0, *0\)", text)
    assert plots._INK not in text


def test_the_ground_shows_through(text):
    assert not re.search(r"fill: ?(#ffffff|white)[^>]*\"[^>]*/>", re.sub(r"<text.*?</text>", "", text, flags=re.S))


def test_letters_are_text_that_search_and_readers_find():
    text = plots.svg(FIGURES["learning_curves"](), ALT)
    words = " ".join(node.text or "" for node in ET.fromstring(text).iter() if node.tag.endswith("text"))
    for word in ("labels per class", "test accuracy (%)", "A title", "probe", "scratch", "chance"):
        assert word in words
    assert "currentColor" in text


def test_text_on_coloured_cells_keeps_its_own_dark_and_light():
    text = plots.svg(plots.heatmap([[100.0, 1.0, -100.0]], ["a"], ["b", "c", "d"])[0], ALT)
    inks = {
        node.text: re.search(r"fill: (#\w+)", node.get("style") or "")
        for node in ET.fromstring(text).iter()
        if node.tag.endswith("text")
    }
    assert inks["+1"] and inks["+1"][1] == plots._DARK
    assert inks["+100"] and inks["+100"][1] == inks["-100"][1] == "#ffffff"


def test_ids_are_unique_on_a_page_of_many_figures():
    pages = [plots.svg(make(), f"{ALT}, figure {name}") for name, make in FIGURES.items()]
    pages.append(plots.svg(FIGURES["gaps"](), f"{ALT}, once more"))
    ids = [found for page in pages for found in re.findall(r'\bid="([^"]+)"', page)]
    assert len(ids) == len(set(ids)) > 20
    for page in pages:  # and every reference stays within its own figure
        own = set(re.findall(r'\bid="([^"]+)"', page))
        assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)) and all(
            (a or b) in own for a, b in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)
        )


def test_the_same_figure_gives_the_same_bytes():
    assert plots.svg(FIGURES["learning_curves"](), ALT) == plots.svg(FIGURES["learning_curves"](), ALT)


def test_an_alternative_may_hold_any_character():
    alt = 'A "quoted" <tag> & an ampersand, 5 % > 3 %'
    assert ET.fromstring(plots.svg(FIGURES["gaps"](), alt)).get("aria-label") == alt


# ---------------------------------------------------------------------------- Picture and show
def test_a_picture_shows_its_alternative_as_text_and_closes_its_figure():
    fig = FIGURES["gaps"]()
    picture = Picture(fig, ALT)
    bundle = picture._repr_mimebundle_()
    assert bundle["text/plain"] == f"[Figure] {ALT}" and bundle["text/html"].startswith('<figure class="plot"><svg')
    ET.fromstring(bundle["text/html"])
    assert not plt.fignum_exists(fig.number)


@pytest.mark.parametrize("alt", ["", "figure", "a small figure"])
def test_an_alternative_is_required(alt):
    with pytest.raises(ValueError, match="alt: describe what the figure shows in a sentence"):
        Picture(FIGURES["gaps"](), alt)
    with pytest.raises(TypeError):
        plots.show(FIGURES["gaps"]())


def test_show_displays_and_returns_nothing(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []
    monkeypatch.setattr(display, "display", shown.append)
    assert plots.show(FIGURES["gaps"](), ALT) is None
    assert len(shown) == 1 and isinstance(shown[0], Picture) and shown[0].alt == ALT


# ---------------------------------------------------------------------------- what is drawn
def test_a_variant_has_the_colour_of_its_method_and_a_dashed_line():
    rows = [{"method": m, "labels": n, "seed": s, "accuracy": 0.5 + 0.1 * s} for m in ("scratch", "scratch, longer") for n in (1, 5) for s in (0, 1)]
    _, axes = plots.learning_curves(pd.DataFrame(rows))
    plain, variant = axes.lines[:2]
    assert plain.get_color() == variant.get_color() == plots.METHOD_COLOURS["scratch"] == plots.colour_of("scratch, longer")
    assert (plain.get_linestyle(), variant.get_linestyle()) == ("-", "--")


def test_methods_keep_their_colour_and_colours_stay_apart():
    assert plots.colour_of("probe") == plots.METHOD_COLOURS["probe"] == plots.colour_of("probe", 5)
    assert len({plots.colour_of("unknown", i) for i in range(8)}) == 8
    assert plots.colour_of("unknown", 0) == plots.colour_of("unknown", 8)
    methods = {m: c for m, c in plots.METHOD_COLOURS.items() if m not in ("chance", "majority")}
    assert len(set(methods.values())) == len(methods)


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("ground", ["#ffffff", "#121212"])
def test_every_line_shows_on_both_themes(ground):
    for name, colour in plots.METHOD_COLOURS.items():
        light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 2, name


def test_learning_curves_draw_means_and_intervals_in_percent():
    fig, axes = plots.learning_curves(frame(), methods=["probe"])
    table = evaluation.summary(frame())
    probe = table[table["method"] == "probe"]
    line = axes.get_lines()[0]
    assert line.get_xdata().tolist() == [1, 5, 20] and line.get_color() == plots.METHOD_COLOURS["probe"]
    assert line.get_ydata() == pytest.approx(100 * probe["mean"].to_numpy())
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(100 * probe["low"].min()) and band.max() == pytest.approx(
        100 * probe["high"].max()
    )
    assert axes.get_xscale() == "log" and [t.get_text() for t in axes.get_xticklabels()] == ["1", "5", "20"]


def test_learning_curves_can_be_drawn_into_given_axes():
    fig, axes = plots.figure(1, 2)
    found = plots.learning_curves(frame(), axes=axes[1])
    assert found[0] is fig and found[1] is axes[1] and not axes[0].get_lines()


def test_a_method_without_runs_is_named():
    with pytest.raises(ValueError, match="methods: 'magic' has no runs; there are scratch, probe"):
        plots.learning_curves(frame(), methods=["magic"])
    with pytest.raises(ValueError, match="frame: lacks the column 'labels', it has method, seed, accuracy; give rows"):
        plots.learning_curves(frame().drop(columns="labels"))


def test_names_at_the_edge_do_not_touch():
    fig, axes = plots.figure()
    axes.set_ylim(0, 100)
    plots.name_lines(axes, [(50, "a", "#000"), (50.5, "b", "#000"), (10, "c", "#000"), (51, "d", "#000")])
    heights = sorted(t.xy[1] for t in axes.texts)
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) >= 0.062 - 1e-9
    assert heights[0] == pytest.approx(0.10) and {t.get_text() for t in axes.texts} == set("abcd")


def test_gaps_are_the_paired_differences_in_points():
    fig, axes = plots.gaps(frame(), "probe", "scratch")
    expected = 100 * evaluation.compare(frame(), "probe", "scratch")["mean"].to_numpy()
    points = next(line for line in axes.get_lines() if len(line.get_xdata()) == 3)
    assert points.get_ydata() == pytest.approx(expected)
    assert any(list(line.get_ydata()) == [0, 0] for line in axes.get_lines()), "the zero line"
    assert axes.get_ylabel() == "probe minus scratch (points)"


def test_a_heatmap_writes_every_number_and_brackets_what_is_not_shown():
    fig, axes = plots.heatmap(
        [[10, -5], [np.nan, 3]], ["a", "b"], ["c", "d"], marks=np.array([[True, False], [True, True]])
    )
    assert [t.get_text() for t in axes.texts] == ["+10", "(-5)", "+3"]
    assert axes.images[0].get_clim() == (-10, 10)  # zero is the middle of the colours
    zero = plots.heatmap([[0.0]], ["a"], ["b"])[1]
    assert zero.images[0].get_clim() == (-1, 1)
    with pytest.raises(ValueError, match=r"values: shape \(1, 2\) does not match 2 rows and 2 columns"):
        plots.heatmap([[1, 2]], ["a", "b"], ["c", "d"])


def test_the_zero_line_runs_between_cells_of_other_sign():
    mean = np.array([[-10.0, 10.0], [-10.0, 10.0]])
    fig, axes = plots.heatmap(mean, ["a", "b"], ["c", "d"])
    limits = axes.get_xlim(), axes.get_ylim()
    plots.zero_line(axes, mean, mean - 5, mean + 5)
    places = sorted(
        round(float(path.vertices[:, 0].mean()), 3)
        for c in axes.collections
        for path in c.get_paths()
        if len(path.vertices)
    )
    assert places == [0.25, 0.5, 0.75] and (axes.get_xlim(), axes.get_ylim()) == limits
    text = plots.svg(fig, ALT)
    assert plots._DARK in text and "#000000" not in text


def test_a_table_of_one_sign_has_no_zero_line():
    fig, axes = plots.heatmap([[1.0, 2.0], [3.0, 4.0]], ["a", "b"], ["c", "d"])
    before = len(axes.collections)
    plots.zero_line(axes, [[5.0, 6.0], [7.0, 8.0]], [[4.0, 5.0], [6.0, 7.0]], [[6.0, 7.0], [8.0, 9.0]])
    assert len(axes.collections) == before


@pytest.mark.parametrize(
    "low, high, message",
    [
        ([[0.0]], [[2.0, 2.0]], "mean, low and high must have one shape"),
        ([[2.0, 0.0]], [[3.0, 3.0]], "low and high: must lie below and above the mean"),
    ],
)
def test_limits_that_do_not_fit_are_refused(low, high, message):
    fig, axes = plots.figure()
    with pytest.raises(ValueError, match=message):
        plots.zero_line(axes, [[1.0, 1.0]], low, high)


def test_a_gallery_shows_every_picture_with_its_title():
    pictures = torch.rand(5, 3, 8, 8)
    fig, axes = plots.gallery(pictures, list("abcde"), columns=3)
    assert axes.shape == (2, 3) and sum(len(ax.images) for ax in axes.flat) == 5
    assert np.allclose(axes.flat[4].images[0].get_array(), pictures[4].permute(1, 2, 0).numpy(), atol=1 / 255)
    assert [ax.get_title() for ax in axes.flat] == [*"abcde", ""]


def test_no_two_lines_of_a_figure_share_a_colour():
    rows = [{"method": m, "labels": n, "seed": s, "accuracy": 0.5 + 0.1 * s}
            for m in ("fine-tuning", "scratch", "wrong source", "worse source") for n in (1, 10) for s in (0, 1)]
    for order in (["fine-tuning", "scratch", "wrong source", "worse source"], ["worse source", "wrong source", "scratch", "fine-tuning"]):
        _, axes = plots.learning_curves(pd.DataFrame(rows), methods=order)
        colours = [line.get_color() for line in axes.get_lines()]
        assert len(set(colours)) == 4 and plots.METHOD_COLOURS["scratch"] in colours


def test_budgets_that_lie_close_are_not_written_over_each_other():
    rows = [{"method": "probe", "labels": n, "seed": s, "accuracy": 0.5} for n in range(500, 6001, 500) for s in (0, 1)]
    _, axes = plots.learning_curves(pd.DataFrame(rows))
    written = [int(tick.get_text()) for tick in axes.get_xticklabels() if tick.get_text()]
    assert written[-1] == 6000 and written[0] == 500 and min(b / a for a, b in zip(written, written[1:])) > 1.15


# ---------------------------------------------------------------------------- many lines, crossing lines, small screens
def many(lines):
    rng = np.random.default_rng(0)
    return pd.DataFrame([{"method": f"m{i}", "labels": n, "seed": s, "accuracy": 0.5 + 0.02 * i + 0.1 * rng.random()}
                         for i in range(lines) for n in (1, 2, 10) for s in range(4)])


@pytest.mark.parametrize("lines, bands", [(plots.MOST_BANDS, True), (plots.MOST_BANDS + 1, False)])
def test_many_lines_have_bars_side_by_side_where_bands_would_cover_each_other(lines, bands):
    _, axes = plots.learning_curves(many(lines))
    assert (len(axes.containers) == 0) is bands
    at_one = [line.get_xdata()[0] for line in axes.get_lines()]
    assert len(set(at_one)) == (1 if bands else lines)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "10"]
    if not bands:
        assert np.log(max(at_one) / min(at_one)) == pytest.approx(np.log(2) / 3)       # a third of the way to the next budget
        assert np.prod(at_one) == pytest.approx(1)                                     # and centred on it


def test_the_bars_are_the_intervals():
    _, axes = plots.learning_curves(many(7))
    table = evaluation.summary(many(7))
    found = [segment[:, 1] for collection in axes.collections for segment in collection.get_segments()]
    low, high = np.sort([part.min() for part in found]), np.sort([part.max() for part in found])
    assert low == pytest.approx(np.sort(100 * table["low"])) and high == pytest.approx(np.sort(100 * table["high"]))


def test_one_budget_of_many_methods_is_drawn_too():
    frame = many(7)
    _, axes = plots.learning_curves(frame[frame["labels"] == 2])
    assert len({line.get_xdata()[0] for line in axes.get_lines()}) == 7


def test_names_stay_below_the_top_of_the_axes():
    fig, axes = plots.figure()
    axes.set_ylim(0, 100)
    plots.name_lines(axes, [(99, "a", "#000"), (98.5, "b", "#000"), (98, "c", "#000"), (20, "d", "#000")])
    heights = sorted(t.xy[1] for t in axes.texts)
    assert heights[-1] <= 1 and min(np.diff(heights)) >= 0.062 - 1e-9 and heights[0] == pytest.approx(0.2)


def test_no_number_of_a_heatmap_is_minus_zero():
    _, axes = plots.heatmap([[-0.3, 0.2, -0.6]], ["a"], ["b", "c", "d"], marks=np.array([[True, False, True]]))
    assert [t.get_text() for t in axes.texts] == ["0", "(0)", "-1"]


def test_a_number_moves_aside_where_the_zero_line_crosses_it_and_only_there():
    mean = np.array([[-10.0, -10.0, -10.0], [0.0, 0.0, 0.0], [10.0, 10.0, 10.0], [30.0, 30.0, 30.0]])     # zero along the second row
    _, axes = plots.heatmap(mean, list("abcd"), list("xyz"))
    plots.zero_line(axes, mean, mean - 1, mean + 1)
    for text, (row, column) in zip(axes.texts, np.ndindex(mean.shape), strict=True):
        x, y = text.get_position()
        assert abs(x - column) < 0.5 and abs(y - row) < 0.5, "within its own cell"
        assert bool(np.hypot(x - column, y - row) > 0.15) == (row == 1), (text.get_text(), x, y)


def test_a_drawing_says_how_wide_it_is_so_that_a_phone_need_not_shrink_it_out_of_sight():
    root = ET.fromstring(plots.svg(FIGURES["gaps"](), ALT))
    own = float(re.search(r"--own-width:(\d+)px", root.get("style"))[1])
    assert own == pytest.approx(float(root.get("width").removesuffix("pt")) * 4 / 3, abs=1) and 400 < own < 1000


# ---------------------------------------------------------------------------- effects
def test_effects_stand_from_top_to_bottom_group_by_group():
    table = pd.DataFrame([{"name": name, "group": group, "mean": 1.0, "low": -1.0, "high": 2.0} for group in ("few", "many") for name in "ba"])
    fig, axes = plots.effects(table, title="t")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["b", "a"] and axes.get_ylim()[0] > axes.get_ylim()[1]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["few", "many"]
    fig, axes = plots.effects(table[table["group"] == "few"].drop(columns="group"))
    assert axes.get_legend() is None
    with pytest.raises(ValueError, match="table: lacks the column 'low'"):
        plots.effects(table.drop(columns="low"))
