"""How exercises appear on the site and leave it (a Sphinx extension).

The repository holds each exercise notebook in nbgrader's source form, with solutions and hidden tests. Before
a page is executed and rendered, its hidden tests are taken out and its solutions are folded away under the
stub that a student would see. What can be downloaded, and what Colab opens, is the student form, made by
nbgrader's own preprocessors, so that it is what `make classroom` hands out.
"""
from __future__ import annotations

import copy
import logging
import re
from pathlib import Path

import nbformat
from address import Address, is_exercise, student_path, without_badge
from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions, SaveCells
from nbgrader.utils import is_solution

MARKER = re.compile(r"^\s*#+ (BEGIN|END) (SOLUTION|HIDDEN TESTS)\s*$\n?", re.MULTILINE)


# -- the two forms ----------------------------------------------------------------------------------

def student_form(notebook: NotebookNode) -> NotebookNode:
    """What a student receives: stubs instead of solutions, no hidden tests, no outputs."""
    notebook, resources = without_badges(notebook), {"nbgrader": {}}
    for preprocessor in GenerateAssignment.preprocessors.default_args[0]:
        if preprocessor is not SaveCells:  # it fills the gradebook, which only a course has
            notebook, resources = preprocessor().preprocess(notebook, resources)
    return notebook


def site_form(notebook: NotebookNode) -> NotebookNode:
    """What the site shows and runs: no hidden tests, each solution folded under its stub."""
    clear = ClearHiddenTests()
    clear.log.setLevel(logging.ERROR)
    notebook = copy.deepcopy(notebook)
    cells = []
    for cell in notebook.cells:
        had_text = bool(cell.source.strip())
        clear.preprocess_cell(cell, {}, 0)
        if had_text and not cell.source.strip():
            continue
        if is_solution(cell):
            cells.append(_stub(cell))
            _fold(cell)
        cells.append(cell)
    notebook.cells = cells
    return notebook


def without_badges(notebook: NotebookNode) -> NotebookNode:
    """A copy without the Colab badge: its image lies beside the book, not beside the copy."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = without_badge(cell.source)
    return notebook


def _stub(cell: NotebookNode) -> NotebookNode:
    """A Markdown cell that shows what the student starts from."""
    stub, _ = ClearSolutions().preprocess_cell(copy.deepcopy(cell), {"language": "python"}, 0)
    text = f"```python\n{stub.source}\n```" if cell.cell_type == "code" else stub.source
    return nbformat.v4.new_markdown_cell(text)


def _fold(cell: NotebookNode) -> None:
    cell.source = MARKER.sub("", cell.source).strip("\n")
    if cell.cell_type == "markdown":
        cell.source = f"::::{{dropdown}} Show the solution\n{cell.source}\n::::"
        return
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-cell"]
    cell.metadata.setdefault("mystnb", {}).update(
        code_prompt_show="Show the solution", code_prompt_hide="Hide the solution")


# -- Sphinx -----------------------------------------------------------------------------------------

def _exercise_path(app, docname: str) -> Path | None:
    """The notebook behind a page, if it holds exercises."""
    path = Path(app.env.doc2path(docname))
    return path if path.suffix == ".ipynb" and is_exercise(docname) else None


def _show_site_form(app, docname: str, source: list[str]) -> None:
    if _exercise_path(app, docname):
        source[0] = nbformat.writes(site_form(nbformat.reads(source[0], as_version=4)))


def _launch_student_form(app, docname: str, template: str, context: dict, doctree) -> None:
    if doctree is None or not _exercise_path(app, docname):
        return
    link = Address.read(Path(app.srcdir)).colab(f"{docname}.ipynb")
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            for button in group["buttons"]:
                button["url"] = link


def _publish_student_forms(app, error) -> None:
    if error or app.builder.format != "html":
        return
    for docname in sorted(app.env.found_docs):
        path = _exercise_path(app, docname)
        if not path:
            continue
        text = nbformat.writes(student_form(nbformat.read(path, as_version=4)))
        for target in (f"_sources/{docname}.ipynb", student_path(f"{docname}.ipynb")):
            target = Path(app.outdir) / target
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text + "\n", encoding="utf-8")


def setup(app) -> dict:
    app.add_config_value("site_branch", "gh-pages", "")
    app.connect("source-read", _show_site_form)
    app.connect("html-page-context", _launch_student_form, priority=900)
    app.connect("build-finished", _publish_student_forms)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
