"""The two forms of an exercise: what the site shows, and what a student receives."""
from __future__ import annotations

import pytest

pytest.importorskip("nbgrader", reason="needs the book's own tools: pip install -r requirements.txt")

import classroom
import exercises_ext
import nbformat
from address import is_exercise, notebook_paths
from conftest import ROOT
from nbformat.v4 import new_markdown_cell
from test_build import exercise, graded

EXERCISES = [path for path in notebook_paths(ROOT) if is_exercise(path)]


def sources(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells)


def test_the_site_form_hides_tests_and_folds_solutions():
    shown = exercises_ext.site_form(exercise())
    text = sources(shown)
    assert "hidden" not in text and "BEGIN" not in text and "open check" in text
    stub, solution = shown.cells[1], shown.cells[2]
    assert stub.cell_type == "markdown" and "NotImplementedError" in stub.source and "secret" not in stub.source
    assert "hide-cell" in solution.metadata.tags and solution.metadata.mystnb["code_prompt_show"] == "Show the solution"
    compile(solution.source, "solution", "exec")
    assert len(shown.cells) == 4  # the cell of nothing but hidden tests is gone
    nbformat.validate(shown)


def test_a_written_answer_is_folded_too():
    notebook = exercise()
    answer = new_markdown_cell("### BEGIN SOLUTION\nBecause.\n### END SOLUTION", metadata=graded("why", solution=True))
    notebook.cells.append(answer)
    shown = exercises_ext.site_form(notebook)
    assert shown.cells[-2].source == "YOUR ANSWER HERE"
    assert shown.cells[-1].source == "::::{dropdown} Show the solution\nBecause.\n::::"


def test_the_forms_leave_the_notebook_as_it_was():
    notebook = exercise()
    before = nbformat.writes(notebook)
    exercises_ext.site_form(notebook)
    exercises_ext.student_form(notebook)
    assert nbformat.writes(notebook) == before


def test_the_student_form_has_stubs_open_checks_and_locks():
    student = exercises_ext.student_form(exercise())
    text = sources(student)
    assert "YOUR CODE HERE" in text and "open check" in text
    assert "secret" not in text and "hidden" not in text
    assert len(student.cells) == 4
    assert student.cells[2].metadata.editable is False and student.cells[2].metadata.nbgrader.checksum


@pytest.mark.parametrize("region", ["SOLUTION", "HIDDEN TESTS"])
def test_a_region_without_an_end_is_an_error(region):
    notebook = exercise()
    cell = notebook.cells[1 if region == "SOLUTION" else 2]
    cell.source = cell.source.replace(f"### END {region}", "")
    with pytest.raises(RuntimeError, match="(?i)no end"):
        exercises_ext.student_form(notebook)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Object of type")
def test_a_class_from_release_to_marks(tmp_path, monkeypatch):
    """nbgrader end to end: the release is the published student form; solutions reach all marks, stubs none."""
    path = tmp_path / "book" / "chapters" / "part" / "exercises" / "lesson.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(exercise(), path)
    course = tmp_path / "course"
    marks = classroom.run_class(tmp_path / "book", course)
    assert marks == {"part": {"solution": {"lesson": (3, 3)}, "stub": {"lesson": (0, 3)}}}
    released = nbformat.read(course / "release" / "part" / "lesson.ipynb", as_version=4)
    published = exercises_ext.student_form(nbformat.read(path, as_version=4))
    assert released.cells == published.cells


def test_a_book_without_exercises_is_named(tmp_path):
    (tmp_path / "chapters").mkdir()
    with pytest.raises(FileNotFoundError, match="nothing to hand out"):
        classroom.new_course(tmp_path, tmp_path / "course")


@pytest.mark.skipif(not EXERCISES, reason="no exercise notebook yet")
@pytest.mark.parametrize("path", EXERCISES or ["none"])
def test_every_exercise_has_stubs_checks_and_hidden_tests(path):
    """At least three graded exercises each, and the student's copy gives nothing away."""
    notebook = nbformat.read(ROOT / path, as_version=4)
    graded_cells = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert sum("BEGIN SOLUTION" in cell.source for cell in notebook.cells) >= 3
    assert sum("BEGIN HIDDEN TESTS" in cell.source for cell in graded_cells) >= 3
    text = sources(exercises_ext.student_form(notebook))
    assert "SOLUTION" not in text and "HIDDEN" not in text and text.count("YOUR") >= 3
