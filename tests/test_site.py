"""The built site, read as files: whole with no network, every link leads somewhere, nothing leaks."""
from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from conftest import ROOT, SITE

pytestmark = pytest.mark.site
LOADED = {"script": ("src",), "img": ("src",), "link": ("href",), "source": ("src",), "video": ("src",),
          "audio": ("src",), "iframe": ("src",), "object": ("data",), "embed": ("src",)}
KEPT_ELSEWHERE = {"canonical"}  # a link element that names an address and loads nothing


class Page(HTMLParser):
    """What a page links to, loads, and can be linked at."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loads, self.anchors, self.title, self.unnamed = [], [], set(), "", []
        self._in_title = False
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self._in_title = self._in_title or (tag == "title" and not self.title)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if not (tag == "link" and attributes.get("rel") in KEPT_ELSEWHERE):
            self.loads += [attributes[name] for name in LOADED.get(tag, ()) if attributes.get(name)]
        if tag == "img" and not attributes.get("alt"):
            self.unnamed.append(attributes.get("src"))

    def handle_data(self, data):
        if self._in_title:
            self.title += data

    def handle_endtag(self, tag):
        self._in_title = self._in_title and tag != "title"


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """path in the site -> page, without the redirect at the root."""
    found = {path.relative_to(SITE).as_posix(): Page(path) for path in sorted(SITE.rglob("*.html"))
             if "_static" not in path.parts}
    return {name: page for name, page in found.items() if name != "index.html"}


def outside(link: str) -> bool:
    return bool(urlsplit(link).scheme or link.startswith("//"))


def test_every_page_of_the_contents_is_built(pages):
    listed = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())
    assert {f"{name}.html" for name in listed} <= set(pages)


def test_the_root_leads_to_the_first_page():
    assert "chapters/index.html" in (SITE / "index.html").read_text()


def test_every_page_has_its_own_title(pages):
    titles = [page.title.strip() for page in pages.values()]
    assert all(titles) and len(set(titles)) == len(titles)


def test_every_internal_link_leads_somewhere(pages):
    broken = []
    for name, page in pages.items():
        for link in page.links:
            if outside(link):
                continue
            target = urlsplit(urljoin(name, link))
            path = unquote(target.path) or name
            if path in pages:
                if target.fragment and unquote(target.fragment) not in pages[path].anchors:
                    broken.append(f"{name}: {link} (no such place on the page)")
            elif not (SITE / path).is_file():
                broken.append(f"{name}: {link}")
    assert not broken, "\n".join(broken)


def test_links_to_the_outside_are_encrypted(pages):
    assert not [link for page in pages.values() for link in page.links if link.startswith("http:")]


def test_nothing_is_loaded_from_elsewhere(pages):
    loaded = [f"{name}: {link}" for name, page in pages.items() for link in page.loads
              if outside(link) and not link.startswith("data:")]
    assert not loaded, "\n".join(loaded)
    for path in SITE.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_what_is_loaded_exists(pages):
    missing = [f"{name}: {link}" for name, page in pages.items() for link in page.loads if not outside(link)
               and not (SITE / unquote(urlsplit(urljoin(name, link)).path)).is_file()]
    assert not missing, "\n".join(missing)


def test_every_picture_is_described(pages):
    assert not {name: page.unnamed for name, page in pages.items() if page.unnamed}


def test_no_page_shows_a_failed_cell(pages):
    failed = [name for name, page in pages.items()
              if re.search(r"Traceback \(most recent call last\)|class=\"[^\"]*\btraceback\b", page.text)]
    assert not failed


def hidden_tests() -> list[str]:
    """The lines of all hidden tests, but those that stand in the open part of any notebook too."""
    nbformat = pytest.importorskip("nbformat")
    from address import notebook_paths

    region = re.compile(r"BEGIN HIDDEN TESTS\n(.*?)\n[^\n]*END HIDDEN TESTS", re.DOTALL)
    texts = ["\n".join(cell.source for cell in nbformat.read(ROOT / path, as_version=4).cells)
             for path in notebook_paths(ROOT)]
    opened = {line.strip() for text in texts for line in region.sub("", text).splitlines()}
    hidden = {line.strip() for text in texts for found in region.findall(text) for line in found.splitlines()}
    return sorted(line for line in hidden - opened if len(line) > 20)


def test_hidden_tests_are_nowhere_on_the_site():
    lines = hidden_tests()
    if not lines:
        pytest.skip("no exercise notebook yet")
    leaks = []
    for path in SITE.rglob("*"):
        if path.suffix in {".html", ".js", ".ipynb", ".txt", ".md", ".json"} and "_static" not in path.parts:
            text = path.read_text(encoding="utf-8")
            plain = re.sub(r"<[^>]+>", "", text)
            for line in lines:
                escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
                forms = (line, escaped, escaped.replace('"', "&quot;").replace("'", "&#39;"), line.replace('"', '\\"'))
                if any(form in text or form in plain for form in forms):
                    leaks.append(f"{path.relative_to(SITE)}: {line}")
    assert not leaks, "\n".join(leaks)
    assert "HIDDEN TESTS" not in "".join(path.read_text() for path in SITE.rglob("*.ipynb"))


def test_the_student_forms_are_published(pages):
    from address import is_exercise, notebook_paths, student_path

    for path in filter(is_exercise, notebook_paths(ROOT)):
        published = SITE / student_path(path)
        assert published.is_file() and published.read_bytes() == (SITE / "_sources" / path).read_bytes()
        assert "YOUR CODE HERE" in published.read_text() and "BEGIN SOLUTION" not in published.read_text()


def test_search_knows_fine_tuning():
    index = (SITE / "searchindex.js").read_text()
    assert "fine" in index and "tune" in index


def test_no_page_names_a_folder_of_the_machine_that_built_it(pages):
    leaks = [name for name, page in pages.items() if str(ROOT) in page.text or str(Path.home()) + "/" in page.text]
    assert not leaks
