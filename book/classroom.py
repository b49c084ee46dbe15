"""Hand out and grade the exercises with nbgrader, in a fresh course under _build/classroom.

Makes the student release of every exercise notebook, then grades two submissions: the book's own solutions
and an untouched release. The first must reach full marks and the second none, or the command fails.
"""
from __future__ import annotations

import logging
import os
import shutil
import sys
import sysconfig
import warnings
from pathlib import Path

import nbformat
from address import ROOT, is_exercise, notebook_paths
from exercises_ext import without_badges
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

COURSE = ROOT / "_build" / "classroom"
SUBMISSIONS = {"solution": "source", "stub": "release"}  # who hands in -> the folder that it is copied from


def new_course(root: Path = ROOT, course: Path = COURSE) -> list[str]:
    """Lay out an empty course with every exercise notebook in source form; returns its assignments (the parts)."""
    shutil.rmtree(course, ignore_errors=True)
    exercises = [path for path in notebook_paths(root) if is_exercise(path)]
    if not exercises:
        raise FileNotFoundError(f"no exercise notebook under {root}/chapters/*/exercises: nothing to hand out")
    for path in exercises:
        part, _, lesson = path.split("/")[-3:]
        target = course / "source" / part / lesson
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(without_badges(nbformat.read(root / path, as_version=4)), target)
    return sorted({path.split("/")[-3] for path in exercises})


def configuration(course: Path) -> Config:
    """nbgrader's settings: everything, the gradebook too, stays inside the course folder."""
    config = Config()
    config.CourseDirectory.root = str(course)
    config.CourseDirectory.course_id = "transfer-learning-measured"
    config.CourseDirectory.db_url = f"sqlite:///{course / 'gradebook.db'}"
    config.ExecutePreprocessor.timeout = 600
    config.Execute.timeout = 600
    return config


def hand_out(api: NbGraderAPI, assignment: str) -> None:
    """Make the student release of an assignment. Raises RuntimeError with nbgrader's log if that fails."""
    _checked(api.generate_assignment(assignment, force=True), f"the release of {assignment}")


def hand_in(course: Path, assignment: str) -> None:
    """Put one filled-in and one untouched copy where nbgrader looks for submissions."""
    for student, origin in SUBMISSIONS.items():
        shutil.copytree(course / origin / assignment, course / "submitted" / student / assignment)


def grade(api: NbGraderAPI, course: Path, assignment: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Autograde both submissions; returns student -> notebook -> (marks, full marks)."""
    marks = {}
    for student in SUBMISSIONS:
        _checked(api.autograde(assignment, student, force=True), f"grading {assignment} of {student}")
        with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "transfer-learning-measured") as book:
            submission = book.find_submission(assignment, student)
            marks[student] = {notebook.name: (notebook.score, notebook.max_score) for notebook in submission.notebooks}
    return marks


def _checked(result: dict, what: str) -> None:
    if not result["success"]:
        raise RuntimeError(f"nbgrader: {what} failed:\n{result.get('log') or ''}{result.get('error') or ''}")


def run_class(root: Path = ROOT, course: Path = COURSE) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """The whole way, for every part: release, two submissions, marks. assignment -> student -> notebook -> marks."""
    assignments = new_course(root, course)
    previous, path = Path.cwd(), os.environ["PATH"]
    os.chdir(course)
    os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + path  # nbgrader calls the program alembic
    try:
        api = NbGraderAPI(config=configuration(course))
        marks = {}
        for assignment in assignments:
            print(f"Student release: {course / 'release' / assignment}", flush=True)
            hand_out(api, assignment)
            hand_in(course, assignment)
            print(f"Grading two submissions of {assignment} ...", flush=True)
            marks[assignment] = grade(api, course, assignment)
    finally:
        os.chdir(previous)
        os.environ["PATH"] = path
    return marks


def main() -> int:
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", SAWarning)  # nbgrader's own, about how it fills its gradebook
    wrong = 0
    for assignment, students in run_class().items():
        print(f"\n{assignment}: {'notebook':<28}" + "".join(f"{student:>14}" for student in students))
        for notebook in students["solution"]:
            cells = []
            for student in students:
                got, full = students[student][notebook]
                cells.append(f"{got:g} of {full:g}")
                wrong += got != (full if student == "solution" else 0) or full == 0
            print(" " * (len(assignment) + 2) + f"{notebook:<28}" + "".join(f"{cell:>14}" for cell in cells))
    if wrong:
        print("\nThe solutions must reach full marks and the stubs none; see the notebooks under "
              f"{COURSE / 'autograded'}.", file=sys.stderr)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
