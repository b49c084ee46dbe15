"""Run whole notebooks.

    python book/notebooks.py store [PATH ...]   execute in place (lab tier), store outputs, record minutes and memory
    python book/notebooks.py real [PATH ...]    run the lessons on public data and weights, into _build/real
"""
from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from address import ROOT, is_exercise, notebook_paths
from nbclient import NotebookClient
from nbformat import NotebookNode
from runtimes_ext import RECORD

from tlutils import report
from tlutils.paths import atomic_write

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Take out what differs from run to run or from machine to machine (changed in place)."""
    notebook.metadata = NotebookNode(kernelspec=KERNELSPEC, language_info={"name": "python"},
                                     **{key: value for key, value in notebook.metadata.items()
                                        if key not in ("kernelspec", "language_info", "execution", "widgets")})
    for cell in notebook.cells:
        for key in ("execution", "papermill", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                for kind, text in output.get("data", {}).items():
                    if kind.startswith("text/"):
                        output.data[kind] = _without_addresses(text, cell.get("id", "cell"))
    return notebook


def _without_addresses(text: str, cell: str) -> str:
    """Text with memory addresses taken out, and the random ids of pandas' styled tables named after the cell."""
    return re.sub(r"T_[0-9a-f]{5}", f"T_{cell}", re.sub(r" at 0x[0-9a-f]+", "", text))


def execute(path: Path) -> dict:
    """Execute a notebook in place, tidied; it keeps its old outputs if a cell fails.

    Returns its seconds and its kernel's peak memory in MiB (None on Windows).
    """
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False,
                   resources={"metadata": {"path": str(path.parent)}}).execute()
    seconds = time.perf_counter() - start
    text = nbformat.writes(tidy(notebook)) + "\n"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return {"seconds": round(seconds, 1), "peak_mib": _peak_memory_of_children()}


def _peak_memory_of_children() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def record(rows: list[dict], file: Path = ROOT / RECORD) -> None:
    """Write what each notebook took, with the machine and the day, for the page of running times."""
    atomic_write(file, json.dumps({"card": report.environment(), "rows": rows}, indent=1) + "\n")


def store(paths: list[str]) -> int:
    """Execute each notebook in a process of its own. Returns the number that failed.

    A run of all notebooks in which none failed is recorded for the page of running times; fewer would mix
    the times of different days and machines.
    """
    rows = []
    for path in paths:
        print(f"{path} ...", end=" ", flush=True)
        done = subprocess.run([sys.executable, __file__, "one", path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print("FAILED", flush=True)
            continue
        rows.append({"notebook": path, **json.loads(done.stdout.splitlines()[-1])})
        print(f"{rows[-1]['seconds']} s, {rows[-1]['peak_mib']} MiB", flush=True)
    if paths == [row["notebook"] for row in rows] == notebook_paths():
        record(rows)
    return len(paths) - len(rows)


def real(paths: list[str]) -> int:
    """Run lessons with tier="real"; the executed copies land in _build/real. Returns the number that failed."""
    import papermill

    failed = []
    for path in (path for path in paths if not is_exercise(path)):
        target = ROOT / "_build" / "real" / Path(path).relative_to("chapters")
        target.parent.mkdir(parents=True, exist_ok=True)
        print(f"{path} -> {target.relative_to(ROOT)}", flush=True)
        try:
            papermill.execute_notebook(ROOT / path, target, parameters={"tier": "real"}, kernel_name="python3",
                                       cwd=(ROOT / path).parent)
        except papermill.PapermillExecutionError as error:
            failed.append(path)
            print(f"FAILED: {path}: {error.ename}: {error.evalue}", file=sys.stderr)
    return len(failed)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["store", "real", "one"])
    parser.add_argument("paths", nargs="*", help="notebooks, relative to the checkout; all by default")
    options = parser.parse_args(arguments)
    if options.action == "one":
        print(json.dumps(execute(ROOT / options.paths[0])))
        return 0
    return {"store": store, "real": real}[options.action](options.paths or notebook_paths())


if __name__ == "__main__":
    sys.exit(min(main(), 1))
