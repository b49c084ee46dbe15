"""Builds of a small book with the real settings: what must fail fails, and what must stay hidden does."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

nbformat = pytest.importorskip("nbformat", reason="needs the book's own tools: pip install -r requirements.txt")

from address import Address
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tasks import BUILD_BOOK

pytestmark = pytest.mark.slow
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
EXERCISE = "chapters/part/exercises/lesson"


def graded(name: str, *, solution: bool, points: int = 0) -> dict:
    cell = {"schema_version": 3, "grade_id": name, "solution": solution, "grade": not solution,
            "locked": not solution, "task": False}
    return {"nbgrader": cell | ({} if solution else {"points": points})}


def notebook(*cells) -> nbformat.NotebookNode:
    return new_notebook(cells=[new_markdown_cell("# A page"), *cells], metadata=KERNEL)


def exercise() -> nbformat.NotebookNode:
    """One exercise in nbgrader's source form, its secrets spelled so that they can be searched for."""
    return notebook(
        new_code_cell("def double(x):\n    '''Twice x.'''\n    ### BEGIN SOLUTION\n    return x + x  # secret answer\n"
                      "    ### END SOLUTION", metadata=graded("double", solution=True)),
        new_code_cell("assert double(2) == 4, 'open check'\n### BEGIN HIDDEN TESTS\n"
                      "assert double(7) == 14, 'hidden check'\n### END HIDDEN TESTS",
                      metadata=graded("check", solution=False, points=2)),
        new_code_cell("### BEGIN HIDDEN TESTS\nassert double(9) == 18, 'hidden cell'\n### END HIDDEN TESTS",
                      metadata=graded("hidden", solution=False, points=1)))


def small_book(folder: Path, pages: dict[str, nbformat.NotebookNode]) -> Path:
    """A book of its own with this book's settings, tools and the given notebooks."""
    for name in ("_config.yml", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tlutils", folder / "tlutils", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("data", "chapters/part/exercises"):
        (folder / name).mkdir(parents=True)
    (folder / "data" / "claims.yml").write_text("[]\n")
    (folder / "tlutils" / "__init__.py").write_text("number = 41\n")
    (folder / "references.bib").write_text("")
    (folder / "chapters" / "index.md").write_text("# Home\n\nWelcome to the small book.\n")
    for stray in (".venv/lib/README.md", ".pytest_cache/README.md", "README.md", "tests/notes.md"):
        (folder / stray).parent.mkdir(parents=True, exist_ok=True)
        (folder / stray).write_text("# Not a page of the book\n")
    for name, page in pages.items():
        nbformat.write(page, folder / f"{name}.ipynb")
    toc = {"format": "jb-book", "root": "chapters/index", "chapters": [{"file": name} for name in pages]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
    return folder


def build(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *BUILD_BOOK], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(folder)})


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    folder = small_book(tmp_path_factory.mktemp("book"), {
        "chapters/part/lesson": notebook(new_code_cell("import tlutils\nprint('the number is', tlutils.number)")),
        EXERCISE: exercise()})
    done = build(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def page(folder: Path, name: str) -> str:
    """The text of a built page, without markup."""
    return re.sub(r"<[^>]+>", "", (folder / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8"))


def test_the_exercise_page_shows_stub_solution_and_open_check(book):
    text = page(book, EXERCISE)
    for expected in ("raise NotImplementedError()", "Show the solution", "secret answer", "open check"):
        assert expected in text
    assert text.index("raise NotImplementedError()") < text.index("Show the solution") < text.index("secret answer")
    assert "BEGIN SOLUTION" not in text


def test_the_solution_is_folded(book):
    html = (book / "_build" / "html" / f"{EXERCISE}.html").read_text(encoding="utf-8")
    folded = re.findall(r"<details.*?</details>", html, re.DOTALL)
    assert any("secret answer" in part for part in folded)
    assert "secret answer" not in re.sub(r"<details.*?</details>", "", html, flags=re.DOTALL)


def test_only_the_pages_of_the_contents_are_built(book):
    html = book / "_build" / "html"
    built = {path.relative_to(html).as_posix() for path in html.rglob("*.html") if "_static" not in path.parts}
    assert built == {"index.html", "genindex.html", "search.html", "chapters/index.html", "chapters/part/lesson.html",
                     f"{EXERCISE}.html"}


def test_hidden_tests_are_nowhere_on_the_site(book):
    files = [path for path in (book / "_build" / "html").rglob("*") if path.is_file()]
    assert len(files) > 20
    leaks = [path for path in files if re.search(rb"hidden (check|cell)", path.read_bytes())]
    assert not leaks


def test_downloads_and_published_forms_are_the_students(book):
    html = book / "_build" / "html"
    texts = [(html / name).read_text() for name in ("student/part/lesson.ipynb", f"_sources/{EXERCISE}.ipynb")]
    assert texts[0] == texts[1]
    assert "YOUR CODE HERE" in texts[0] and "open check" in texts[0] and "secret" not in texts[0]
    lesson = (html / "_sources/chapters/part/lesson.ipynb").read_text()
    assert "the number is" in lesson


def test_the_launch_button_of_an_exercise_opens_the_student_form(book):
    html = (book / "_build" / "html" / f"{EXERCISE}.html").read_text(encoding="utf-8")
    links = set(re.findall(r'href="(https://colab[^"]+)"', html))
    assert links == {Address.read(book).colab(f"{EXERCISE}.ipynb")}
    assert all("/student/part/lesson.ipynb" in link for link in links)


def test_no_page_loads_anything_from_elsewhere(book):
    for path in (book / "_build" / "html").rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        assert not re.search(r"<(script|img|iframe|source)[^>]+src=[\"'](https?:)?//", html), path
        assert not re.search(r"<link(?![^>]+canonical)[^>]+href=[\"'](https?:)?//", html), path
        assert "unpkg.com" not in html and "cdnjs" not in html and "jsdelivr" not in html, path


def test_a_change_of_the_package_is_seen_by_the_next_build(book):
    assert "the number is 41" in page(book, "chapters/part/lesson")
    (book / "tlutils" / "__init__.py").write_text("number = 42\n")
    done = build(book)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the number is 42" in page(book, "chapters/part/lesson")


def test_an_unchanged_book_executes_nothing_again(book):
    build(book)
    (book / "chapters" / "index.md").write_text("# Home\n\nWelcome back.\n")
    done = build(book)
    assert done.returncode == 0
    assert "Executing notebook" not in done.stdout + done.stderr
    assert "Welcome back" in page(book, "chapters/index")


@pytest.mark.parametrize(("cell", "complaint"), [
    (new_code_cell("1 / 0  # fails on purpose"), "ZeroDivisionError"),
    (new_markdown_cell("[a link](nowhere_at_all.md)"), "nowhere_at_all"),
    (new_markdown_cell("{cite}`nobody2000`"), "nobody2000"),
], ids=["failed cell", "broken link", "unknown citation"])
def test_a_fault_fails_the_build_and_is_named(tmp_path, cell, complaint):
    done = build(small_book(tmp_path, {"chapters/part/lesson": notebook(cell)}))
    assert done.returncode != 0
    assert complaint in done.stderr + done.stdout


def test_a_failed_cell_fails_the_build_even_without_warnings_as_errors(tmp_path):
    folder = small_book(tmp_path, {"chapters/part/lesson": notebook(new_code_cell("1 / 0"))})
    lenient = [part for part in BUILD_BOOK if part not in ("-W", "-n", "--keep-going")]
    done = subprocess.run([sys.executable, *lenient], cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0
