"""The notebooks: executed by nbval with no network but loopback, and held to the house measures."""
from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time

import offline
import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the book's own tools: pip install -r requirements.txt")

from address import is_exercise, notebook_paths
from conftest import ROOT

NOTEBOOKS = notebook_paths(ROOT)
VOLATILE = re.compile(r"0x[0-9a-f]{8,}|/(home|root|Users|tmp)/|[A-Z]:\\Users|ipykernel_\d+|\d+(\.\d+)?it/s|"
                      + re.escape(str(ROOT)))

pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="no notebook under chapters/ yet")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS or ["none"])


def read(path: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / path, as_version=4)


def code_cells(path: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code" and cell.source.strip()]


@pytest.mark.notebook
@each_notebook
def test_the_notebook_runs(path, record_property):
    """Every cell runs; marked cells give the stored output; nothing is fetched from anywhere."""
    nbval = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600",
             "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--noconftest", path]
    start = time.perf_counter()
    done = subprocess.run(offline.command(*nbval) if offline.available() else nbval, cwd=ROOT, capture_output=True,
                          text=True)
    record_property("notebook_seconds", (path, round(time.perf_counter() - start, 1), offline.available()))
    assert done.returncode == 0, f"{path}:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    assert re.search(r"\d+ passed", done.stdout), "nbval found no cell"


@each_notebook
def test_code_cells_are_small(path):
    """Lines of code that are not blank: median at most 6, nine in ten at most 20, none over 40.

    The checks of an exercise are not counted: they are there to be run, not to be read.
    """
    cells = [cell for cell in code_cells(path) if not cell.metadata.get("nbgrader", {}).get("grade")]
    lines = sorted(sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in cells)
    assert statistics.median(lines) <= 6
    assert lines[int(0.9 * (len(lines) - 1))] <= 20
    assert lines[-1] <= 40


@each_notebook
def test_one_parameters_cell_chooses_the_tier(path):
    tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, "papermill needs one cell tagged 'parameters'"
    assert re.search(r'^tier = "lab"', tagged[0].source, re.MULTILINE)


@each_notebook
def test_stored_outputs_are_small(path):
    size = sum(len(json.dumps(cell.outputs)) for cell in code_cells(path))
    assert size < 400_000, f"{size / 1000:.0f} KB of outputs"


@each_notebook
def test_stored_outputs_come_from_one_clean_run(path):
    """Executed from top to bottom ('make notebooks'), without errors, warnings, paths, addresses or progress bars."""
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run 'make notebooks'"
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", output.get("evalue")
            assert output.get("name") != "stderr", output.get("text")
            shown = output.get("text", "") + "".join(str(text) for kind, text in output.get("data", {}).items()
                                                     if kind.startswith("text/"))
            found = VOLATILE.search(re.sub(r"(data:image|d=\").*?\"", "", shown))
            assert not found, f"{found[0]!r} in the output of: {cell.source[:80]}"


@each_notebook
def test_every_figure_has_a_text_alternative(path):
    for cell in code_cells(path):
        named_in_cell = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()
        for output in cell.outputs:
            data = output.get("data", {})
            page = data.get("text/html", "")
            for tag in re.findall(r"<(?:svg|img)\b[^>]*>", page):
                assert re.search(r"(aria-label|alt)=\"[^\"]{20,}\"", tag), f"no description: {cell.source[:80]}"
            if any(kind.startswith("image/") for kind in data) and "<svg" not in page:
                assert len(named_in_cell) >= 20, f"no description: {cell.source[:80]}"


LESSONS = [path for path in NOTEBOOKS if not is_exercise(path)]


@pytest.mark.parametrize("path", LESSONS or ["none"])
def test_every_lesson_has_outputs_that_are_compared(path):
    """nbval compares the outputs of cells tagged nbval-check-output: those that are alike on every machine."""
    if path == "none":
        pytest.skip("no lesson yet")
    compared = [cell for cell in code_cells(path) if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(compared) >= 3, f"{len(compared)} cells are tagged nbval-check-output: tag those that give the same on every machine"
    for cell in compared:
        assert cell.outputs, f"tagged, but there is no output to compare: {cell.source[:80]}"


@each_notebook
def test_metadata_is_the_same_in_every_notebook(path):
    metadata = read(path).metadata
    assert metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert metadata.language_info == {"name": "python"}


def test_the_notebooks_are_those_of_the_table_of_contents():
    listed = re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())
    assert {f"{name}.ipynb" for name in listed} >= set(NOTEBOOKS)


@pytest.mark.notebook
@pytest.mark.skipif(not any(map(is_exercise, NOTEBOOKS)), reason="no exercise notebook yet")
@pytest.mark.filterwarnings("ignore:Object of type")
def test_the_class_can_be_taught(tmp_path):
    """nbgrader, over all exercises: the solutions reach full marks, the untouched stubs none."""
    import classroom

    for assignment, students in classroom.run_class(ROOT, tmp_path / "course").items():
        for name, (marks, full) in students["solution"].items():
            assert marks == full > 0, f"{assignment}/{name}: the solution reaches {marks} of {full}"
        for name, (marks, _) in students["stub"].items():
            assert marks == 0, f"{assignment}/{name}: the stub reaches {marks}"
