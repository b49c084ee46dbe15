"""tlutils.explorer: a scatter plot that works with a mouse, with a keyboard, and without scripts or network."""

import re
from html.parser import HTMLParser

import pytest

from tlutils.explorer import Explorer

POINTS = [{"name": "vgg<16>", "accuracy": 71.6, "size": 138.4, "cost": 15.5, "group": "VGG"},
          {"name": "resnet18", "accuracy": 69.8, "size": 11.7, "cost": 1.8, "group": "ResNet"},
          {"name": "alexnet", "accuracy": 56.5, "size": 61.1, "cost": 0.7, "group": ""}]
OPTIONS = dict(y="accuracy", axes={"size": "million parameters", "cost": "GFLOPs"}, ylabel="top-1 (%)",
               note={"accuracy": "{:.1f} %", "size": "{:.0f} M"}, groups={"VGG": "#d55e00", "ResNet": "#0b84c6"},
               alt="Accuracy against size for three networks.")


class Tree(HTMLParser):
    """Every tag with its attributes; complains about tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("input",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def page():
    return Explorer(POINTS, **OPTIONS).html()


def test_every_point_is_a_link_to_its_row_on_every_axis(page):
    tree = Tree(page)
    rows = {row["id"] for row in tree.all("tr") if "id" in row}
    links = [a["href"].removeprefix("#") for a in tree.all("a")]
    assert len(rows) == 3 and sorted(links) == sorted([*rows, *rows])
    assert len(tree.all("circle")) == 6 and len(tree.all("svg")) == 2
    assert all(svg["aria-label"] == OPTIONS["alt"] and svg["role"] == "group" for svg in tree.all("svg"))


def test_hover_and_focus_show_name_and_numbers(page):
    assert page.count("<title>resnet18: 69.8 %, 12 M</title>") == 2
    assert "a:hover text" in page and "a:focus text" in page
    assert "vgg&lt;16&gt;" in page and "vgg<16>" not in page, "names are escaped"


def test_it_needs_no_script_and_no_network(page):
    assert "<script" not in page and "http" not in page and " on" not in re.sub(r">[^<]*<", "><", page)
    names = {radio["name"] for radio in Tree(page).all("input")}
    assert len(names) == 2, "one choice of axis, one of family"
    assert page.count(" checked>") == 2, "each with a default"


def test_higher_is_higher_and_further_right_is_more(page):
    first = page.split("<svg")[1]
    at = {name: (float(x), float(y)) for name, x, y in re.findall(r'<title>([^:]*):.*?cx="([\d.]+)" cy="([\d.]+)"', first)}
    assert at["resnet18"][0] < at["alexnet"][0] < at["vgg&lt;16&gt;"][0]
    assert at["vgg&lt;16&gt;"][1] < at["resnet18"][1] < at["alexnet"][1]


def test_ids_differ_from_figure_to_figure(page):
    other = Explorer(POINTS, **OPTIONS | {"alt": "Another figure of these three networks."}).html()
    assert not {i for i in re.findall(r'id="([^"]+)"', page)} & {i for i in re.findall(r'id="([^"]+)"', other)}


def test_it_shows_itself_in_a_notebook(page):
    bundle = Explorer(POINTS, **OPTIONS)._repr_mimebundle_()
    assert bundle == {"text/plain": f"[Figure] {OPTIONS['alt']}", "text/html": page}


@pytest.mark.parametrize("change, message", [
    ({"alt": "A plot"}, "describe what the figure shows"),
    ({"points": []}, "there are none"),
    ({"points": [POINTS[0] | {"accuracy": float("nan")}]}, "'vgg<16>': accuracy is nan; leave out"),
    ({"points": [POINTS[0] | {"size": 0}]}, "'vgg<16>': size is 0; a log axis"),
])
def test_bad_input(change, message):
    options = {"points": POINTS} | OPTIONS | change
    with pytest.raises(ValueError, match=message):
        Explorer(options.pop("points"), **options)
