"""Every graded exercise: the solution passes, the untouched stub fails, and typical wrong answers fail at their check."""
from __future__ import annotations

import contextlib
import importlib.util
import re
import textwrap
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the book's own tools: pip install -r requirements.txt")
pytest.importorskip("nbgrader", reason="needs the book's own tools: pip install -r requirements.txt")

from address import is_exercise, notebook_paths
from conftest import ROOT
from nbgrader.preprocessors import ClearSolutions

NOTEBOOKS = [path for path in notebook_paths(ROOT) if is_exercise(path)]
SOLUTION = re.compile(r"^(?P<indent>[ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION", re.MULTILINE | re.DOTALL)


HIDDEN = "### BEGIN HIDDEN TESTS"
# Parts whose checks say in one sentence what is missing (see tlutils.checks).
GUARDED = ("chapters/fundamentals/", "chapters/practice/", "chapters/advanced/")


def answers(path: str):
    """tests/exercises/<lesson>.py. WRONG: solution cell -> (what went wrong, code, words of the check); RIGHT (may be
    missing): solution cell -> (what is different, code)."""
    file = ROOT / "tests" / "exercises" / (Path(path).stem + ".py")
    spec = importlib.util.spec_from_file_location(f"wrong_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def grade(cell) -> dict:
    return cell.metadata.get("nbgrader", {})


class Sheet:
    """An exercise notebook, run in this process; each solution cell is paired with the check that follows it."""

    def __init__(self, path: str):
        self.path = path
        self.cells = [cell for cell in nbformat.read(ROOT / path, as_version=4).cells
                      if cell.cell_type == "code" and "colab" not in cell.metadata.get("tags", [])]
        self.names: dict = {"__name__": "__main__"}
        self.before: dict[str, dict] = {}      # solution cell -> the names that it found
        self.checks: dict[str, str] = {}       # solution cell -> source of its check
        self.solutions: dict[str, str] = {}

    def run_solution(self) -> None:
        """Run everything as the teacher wrote it, hidden tests included."""
        last = None
        for cell in self.cells:
            info = grade(cell)
            if info.get("solution"):
                last = info["grade_id"]
                self.before[last], self.solutions[last] = dict(self.names), cell.source
            elif info.get("grade"):
                assert last is not None, f"{info['grade_id']}: a check with no solution cell before it"
                self.checks[last] = cell.source
            exec(compile(cell.source, f"{self.path}:{info.get('grade_id', 'cell')}", "exec"), self.names)

    def answer(self, name: str, source: str, *, hidden: bool = True) -> None:
        """Give another answer to one exercise and run its check, with the tests that the learner doesn't see or without."""
        names = dict(self.before[name])
        exec(compile(source, f"{self.path}:{name}", "exec"), names)
        check = self.checks[name] if hidden else self.checks[name].split(HIDDEN)[0]
        exec(compile(check, f"{self.path}:{name} (check)", "exec"), names)

    def unanswered(self, name: str, source: str) -> None:
        """Run an exercise's check as it is found by somebody who left the stub as it is."""
        names = dict(self.before[name])
        with contextlib.suppress(NotImplementedError):
            exec(compile(source, f"{self.path}:{name}", "exec"), names)
        exec(compile(self.checks[name].split(HIDDEN)[0], f"{self.path}:{name} (check)", "exec"), names)

    def stub(self, name: str) -> str:
        cell = nbformat.v4.new_code_cell(self.solutions[name])
        cell.metadata["nbgrader"] = {"solution": True, "grade": False, "locked": False, "grade_id": name, "schema_version": 3}
        return ClearSolutions().preprocess_cell(cell, {"language": "python"}, 0)[0].source

    def with_answer(self, name: str, code: str) -> str:
        found = SOLUTION.search(self.solutions[name])
        assert found, f"{name}: no solution region"
        body = textwrap.indent(code, found["indent"])
        return self.solutions[name][:found.start()] + body + self.solutions[name][found.end():]


@pytest.fixture(scope="module", params=NOTEBOOKS or ["none"])
def sheet(request) -> Sheet:
    if request.param == "none":
        pytest.skip("no exercises yet")
    sheet = Sheet(request.param)
    sheet.run_solution()
    return sheet


def test_the_solution_passes_and_every_exercise_is_graded(sheet):
    assert len(sheet.checks) >= 3, "at least three graded exercises a lesson"
    assert set(sheet.checks) == set(sheet.solutions)


def test_the_untouched_stub_fails(sheet):
    for name in sheet.checks:
        with pytest.raises((AssertionError, NotImplementedError, NameError)):
            sheet.answer(name, sheet.stub(name))


def test_an_unanswered_cell_gets_one_clear_sentence(sheet):
    if not sheet.path.startswith(GUARDED):
        pytest.skip("this part's checks do not say it yet")
    for name in sheet.checks:
        for source in (sheet.stub(name), "pass"):
            with pytest.raises(AssertionError, match="has no value yet|is not written yet|is not there yet"):
                sheet.unanswered(name, source)


def test_typical_wrong_answers_fail_at_the_visible_check_meant_for_them(sheet):
    """A reader of the site or of Colab has no hidden tests: what they see must catch these, and say what to do."""
    wrong = answers(sheet.path).WRONG
    assert set(wrong) == set(sheet.checks), "every exercise needs its wrong answers"
    for name, given in wrong.items():
        assert len(given) >= 2, f"{name}: give at least two wrong answers"
        for what, code, words in given:
            with pytest.raises(AssertionError) as caught:
                sheet.answer(name, sheet.with_answer(name, code), hidden=False)
                pytest.fail(f"{name}, {what}: no visible check fired")
            assert words in str(caught.value), f"{name}, {what}: another check fired: {caught.value}"


def test_right_answers_in_another_form_pass(sheet):
    for name, given in getattr(answers(sheet.path), "RIGHT", {}).items():
        for what, code in given:
            try:
                sheet.answer(name, sheet.with_answer(name, code))
            except Exception as error:
                pytest.fail(f"{name}, {what}: a right answer is refused: {error}")


def test_checks_and_solutions_are_told_apart(sheet):
    for name, check in sheet.checks.items():
        assert HIDDEN in check, f"{name}: no hidden tests"
        visible = check.split(HIDDEN)[0]
        assert visible.count("assert") >= 2, f"{name}: the learner sees too few checks"
        assert not re.search(r"^assert [^,\n]*$", visible, re.MULTILINE), f"{name}: a visible check without a message"
