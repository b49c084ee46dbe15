"""Every graded exercise: the solution passes, the untouched stub fails, and typical wrong answers fail at their check."""
from __future__ import annotations

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


def wrong_answers(path: str) -> dict[str, list[tuple[str, str, str]]]:
    """WRONG of tests/exercises/<lesson>.py: solution cell -> (what went wrong, code, words of the check)."""
    file = ROOT / "tests" / "exercises" / (Path(path).stem + ".py")
    spec = importlib.util.spec_from_file_location(f"wrong_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WRONG


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

    def answer(self, name: str, source: str) -> None:
        """Give another answer to one exercise and run its check."""
        names = dict(self.before[name])
        exec(compile(source, f"{self.path}:{name}", "exec"), names)
        exec(compile(self.checks[name], f"{self.path}:{name} (check)", "exec"), names)

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


def test_typical_wrong_answers_fail_at_the_check_meant_for_them(sheet):
    wrong = wrong_answers(sheet.path)
    assert set(wrong) == set(sheet.checks), "every exercise needs its wrong answers"
    for name, answers in wrong.items():
        assert len(answers) >= 2, f"{name}: give at least two wrong answers"
        for what, code, words in answers:
            with pytest.raises(AssertionError) as caught:
                sheet.answer(name, sheet.with_answer(name, code))
            assert words in str(caught.value), f"{name}, {what}: another check fired: {caught.value}"


def test_checks_and_solutions_are_told_apart(sheet):
    for name, check in sheet.checks.items():
        assert "### BEGIN HIDDEN TESTS" in check, f"{name}: no hidden tests"
        visible = check.split("### BEGIN HIDDEN TESTS")[0]
        assert visible.count("assert") >= 2, f"{name}: the learner sees too few checks"
        assert not re.search(r"^assert [^,\n]*$", visible, re.MULTILINE), f"{name}: a visible check without a message"
