"""The tools around the book: address, cache key, commands, running times, tidying, offline runs."""
from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the book's own tools: pip install -r requirements.txt")

import address
import cache_key
import offline
import runtimes_ext
import tasks
from address import Address
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PLACE = Address("https://github.com/someone/somewhere", "main", "https://someone.github.io/somewhere", "pages")


# -- the public address ---------------------------------------------------------------------------

def test_every_badge_setup_cell_and_link_agrees_with_the_configuration():
    assert not list(address.differing(ROOT)), "run 'make address'"


def test_the_address_stands_in_one_file_only():
    here = Address.read(ROOT)
    owner = here.repository.removeprefix("https://github.com/")
    shown = {"_config.yml", "README.md", *address.notebook_paths(ROOT)}
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    kinds = {".md", ".py", ".yml", ".toml", ".ipynb"}
    texts = [name for name in listed.stdout.splitlines() if Path(name).suffix in kinds]
    elsewhere = [name for name in texts if name not in shown and (ROOT / name).is_file()
                 and (owner in (ROOT / name).read_text(encoding="utf-8"))]
    assert not elsewhere


def test_colab_opens_lessons_from_the_repository_and_exercises_from_the_site():
    assert PLACE.colab("chapters/a/b.ipynb") == (
        "https://colab.research.google.com/github/someone/somewhere/blob/main/chapters/a/b.ipynb")
    assert PLACE.colab("chapters/a/exercises/b.ipynb") == (
        "https://colab.research.google.com/github/someone/somewhere/blob/pages/student/a/b.ipynb")


def test_a_readme_without_a_place_for_the_links_is_named(tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "README.md").write_text("# A book\n")
    with pytest.raises(ValueError, match="README.md: has 0 blocks"):
        address.addressed_files(tmp_path, PLACE)


def test_what_the_readme_shows_and_links_to_exists():
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert targets and not missing


def small_notebook() -> dict:
    return json.loads(nbformat.writes(new_notebook(cells=[
        new_markdown_cell("# Title\n\nA question."), new_code_cell("1 + 1")])))


def test_badge_and_setup_cell_are_written_once_and_follow_a_new_address():
    notebook = small_notebook()
    address.address_notebook(notebook, "chapters/a/b.ipynb", PLACE)
    once = copy.deepcopy(notebook)
    address.address_notebook(notebook, "chapters/a/b.ipynb", PLACE)
    assert notebook == once
    moved = Address("https://github.com/other/place", "trunk", "https://other.example/place", "pages")
    address.address_notebook(notebook, "chapters/a/b.ipynb", moved)
    text = json.dumps(notebook)
    assert len(notebook["cells"]) == 3 and "someone" not in text
    title = "".join(notebook["cells"][0]["source"])
    assert title.startswith("# Title\n\n[![Open in Colab](../../book/_static/colab.svg)]")
    assert title.endswith("\n\nA question.")
    assert notebook["cells"][1]["metadata"]["tags"] == ["colab", "remove-cell"]
    nbformat.validate(nbformat.reads(text, as_version=4))


def test_a_badge_can_be_taken_off_again():
    notebook = small_notebook()
    address.address_notebook(notebook, "chapters/a/b.ipynb", PLACE)
    assert address.without_badge("".join(notebook["cells"][0]["source"])) == "# Title\n\nA question."


def test_the_setup_cell_does_nothing_away_from_colab():
    from IPython.core.inputtransformer2 import TransformerManager

    before = set(sys.modules)
    exec(TransformerManager().transform_cell(PLACE.setup_cell()), {})  # would need get_ipython to install
    assert set(sys.modules) == before


def test_a_notebook_without_a_title_is_named():
    notebook = small_notebook()
    notebook["cells"][0]["source"] = ["No title"]
    with pytest.raises(ValueError, match="chapters/a/b.ipynb: the first Markdown cell must begin"):
        address.address_notebook(notebook, "chapters/a/b.ipynb", PLACE)


def test_an_incomplete_configuration_is_named(tmp_path):
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/a/b\n")
    with pytest.raises(ValueError, match="_config.yml: the public address has no 'branch'"):
        Address.read(tmp_path)


# -- the execution cache --------------------------------------------------------------------------

@pytest.fixture
def checkout(tmp_path) -> Path:
    for name, text in {"tlutils/a.py": "x = 1", "data/claims.yml": "- a", "requirements.txt": "a==1",
                       "pyproject.toml": "[project]", "data/runtimes.json": "{}",
                       "chapters/a.ipynb": "{}", "README.md": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", ["tlutils/a.py", "tlutils/new.py", "data/claims.yml", "data/weights/new.safetensors",
                                  "requirements.txt", "pyproject.toml"])
def test_code_data_and_pins_change_the_cache_key(checkout, name):
    before = cache_key.cache_key(checkout)
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("something else")
    assert cache_key.cache_key(checkout) != before


@pytest.mark.parametrize("name", ["chapters/a.ipynb", "README.md", "data/runtimes.json",
                                  "tlutils/__pycache__/a.pyc"])
def test_nothing_else_changes_the_cache_key(checkout, name):
    before = cache_key.cache_key(checkout)
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("something else")
    assert cache_key.cache_key(checkout) == before


def test_a_renamed_file_changes_the_cache_key(checkout):
    before = cache_key.cache_key(checkout)
    (checkout / "tlutils/a.py").rename(checkout / "tlutils/b.py")
    assert cache_key.cache_key(checkout) != before


def test_the_site_key_follows_pages_and_code_but_not_the_tests(checkout):
    keys = [cache_key.site_key(checkout)]
    for name in ("chapters/a.ipynb", "chapters/new.md", "tlutils/a.py", "_toc.yml", "references.bib", "book/a.css"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("something else")
        keys.append(cache_key.site_key(checkout))
    assert len(set(keys)) == len(keys)
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_a.py").write_text("")
    assert cache_key.site_key(checkout) == keys[-1]


def test_caches_of_other_states_are_removed(checkout, tmp_path):
    caches = tmp_path / "caches"
    first = cache_key.fresh_cache(checkout, caches)
    (first / "executed").write_text("result")
    assert cache_key.fresh_cache(checkout, caches) == first and (first / "executed").exists()
    (checkout / "tlutils/a.py").write_text("x = 2")
    second = cache_key.fresh_cache(checkout, caches)
    assert second != first and list(caches.iterdir()) == [second] and not list(second.iterdir())


# -- the commands ---------------------------------------------------------------------------------

@pytest.mark.parametrize("version", [(3, 10, 4), (3, 14, 0), (2, 7, 18)])
def test_a_python_that_does_not_fit_is_refused_in_one_sentence(version):
    with pytest.raises(tasks.Stop) as stop:
        tasks.check_python(version)
    assert f"this is {version[0]}.{version[1]}" in str(stop.value) and "\n" not in str(stop.value)


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (3, 13, 9)])
def test_a_python_that_fits_is_taken(version):
    assert tasks.check_python(version) is None


def test_a_full_disk_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(tasks.Stop, match=r"needs about 1000000 GB of free disk space and .* has \d"):
        tasks.check_disk(tmp_path, 10**6)
    assert tasks.check_disk(tmp_path, 0) is None


def test_make_without_any_python_says_so(tmp_path):
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    make = subprocess.run(["which", "make"], capture_output=True, text=True).stdout.strip()
    if not make:
        pytest.skip("needs make")
    done = subprocess.run([make, "book"], cwd=ROOT, capture_output=True, text=True,
                          env={"PATH": str(tmp_path), "SHELL": "/bin/sh"})
    assert done.returncode != 0
    assert "This needs Python 3.11, 3.12 or 3.13, and none of them is on the path" in done.stderr


def test_the_environment_is_reused_until_its_inputs_change(tmp_path, monkeypatch):
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(tasks, "ROOT", tmp_path)
    monkeypatch.setattr(tasks, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(tasks, "STAMP", tmp_path / ".venv" / "installed.txt")
    monkeypatch.setattr(tasks, "check_disk", lambda: None)
    made = []

    def run(*command, **options):
        made.append(" ".join(map(str, command)))

    def venv(command, **options):
        run(*command)
        tasks.venv_python().parent.mkdir(parents=True)
        tasks.venv_python().touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(tasks, "run", run)
    monkeypatch.setattr(tasks.subprocess, "run", venv)
    python = tasks.set_up()
    assert len(made) == 3 and "-m venv" in made[0] and "-r requirements.txt" in made[1]
    assert tasks.set_up() == python and len(made) == 3
    (tmp_path / "requirements.txt").write_text("two")
    tasks.set_up()
    assert len(made) == 5 and "-m venv" not in made[3]


def test_an_interrupted_installation_is_taken_up_again(tmp_path, monkeypatch):
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(tasks, "ROOT", tmp_path)
    monkeypatch.setattr(tasks, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(tasks, "STAMP", tmp_path / ".venv" / "installed.txt")
    monkeypatch.setattr(tasks, "check_disk", lambda: None)
    tasks.venv_python().parent.mkdir(parents=True)
    tasks.venv_python().touch()
    tasks.STAMP.write_text(tasks.wanted_stamp().replace(tasks.wanted_stamp().split()[1], "0" * 64))

    def fails(*command, **options):
        raise SystemExit(1)

    monkeypatch.setattr(tasks, "run", fails)
    with pytest.raises(SystemExit):
        tasks.set_up()
    assert not tasks.STAMP.exists()


def test_the_pins_satisfy_the_ranges_and_name_no_machine():
    from packaging.requirements import Requirement

    text = (ROOT / "requirements.txt").read_text()
    assert "://" not in text and "file:" not in text
    pins = [Requirement(line) for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    pinned = {pin.name.lower(): pin for pin in pins}
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [item for extra, items in project["optional-dependencies"].items()
                                        if extra != "all" for item in items]
    for requirement in map(Requirement, wanted):
        version = str(pinned[requirement.name.lower()].specifier)[2:]
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


# -- running times, tidying, offline --------------------------------------------------------------

def test_the_table_of_running_times_comes_from_the_record():
    record = {"card": {"date": "2026-01-02", "hardware": "a processor, 2 cores",
                       "versions": {"python": "3.11.7", "torch": "2.6.0"}},
              "rows": [{"notebook": "chapters/a/b.ipynb", "seconds": 12.4, "peak_mib": 700},
                       {"notebook": "chapters/a/c.ipynb", "seconds": 30.0, "peak_mib": None}]}
    text = runtimes_ext.table(record)
    assert "| [](/chapters/a/b.ipynb) | 12 | 700 |" in text
    assert "| [](/chapters/a/c.ipynb) | 30 | not measured |" in text
    assert "| All 2, one after the other | 42 | |" in text
    assert "2026-01-02: a processor, 2 cores, Python 3.11.7, torch 2.6.0" in text


def test_what_is_recorded_is_what_the_table_shows(tmp_path):
    import notebooks

    notebooks.record([{"notebook": "chapters/a/b.ipynb", "seconds": 12.4, "peak_mib": 700}], tmp_path / "runtimes.json")
    text = runtimes_ext.table(json.loads((tmp_path / "runtimes.json").read_text()))
    assert "| [](/chapters/a/b.ipynb) | 12 | 700 |" in text and "torch" in text


def test_the_page_of_running_times_has_the_place_for_the_table():
    assert runtimes_ext.MARK in (ROOT / "chapters" / "runtimes.md").read_text().splitlines()


def test_executing_in_place_stores_tidy_outputs(tmp_path):
    import notebooks

    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[
        new_markdown_cell("# A"), new_code_cell("import sys; print('kept'); print('dropped', file=sys.stderr)"),
        new_code_cell("6 * 7")]), path)
    took = notebooks.execute(path)
    stored = nbformat.read(path, as_version=4)
    assert took["seconds"] > 0
    assert [output["text"] for output in stored.cells[1].outputs] == ["kept\n"]
    assert stored.cells[2].outputs[0].data["text/plain"] == "42"
    assert set(stored.metadata) == {"kernelspec", "language_info"}
    assert stored.metadata.language_info == {"name": "python"}
    assert all("execution" not in cell.metadata for cell in stored.cells)
    assert list(tmp_path.glob("a*")) == [path]


def test_a_failing_notebook_keeps_its_old_outputs(tmp_path):
    import notebooks
    from nbclient.exceptions import CellExecutionError

    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(CellExecutionError):
        notebooks.execute(path)
    assert path.read_bytes() == before


@pytest.mark.skipif(not offline.available(), reason="needs a machine that lets us make a network namespace (unshare)")
def test_offline_leaves_loopback_and_nothing_else():
    program = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=5)
print("loopback", [name for _, name in socket.if_nameindex()])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.connect(("192.0.2.1", 9))
"""
    done = subprocess.run(offline.command(sys.executable, "-c", program), capture_output=True, text=True)
    assert "loopback ['lo']" in done.stdout
    assert done.returncode != 0 and "unreachable" in done.stderr


# -- the package ----------------------------------------------------------------------------------

@pytest.mark.slow
def test_an_installed_wheel_brings_its_data(tmp_path):
    """Built, installed and used outside the checkout: the weights and the ledger travel with the package."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheel"), str(ROOT)],
                   check=True)
    wheel = next((tmp_path / "wheel").glob("tlutils-*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(tmp_path / "installed"), str(wheel)],
                   check=True)
    program = ("from tlutils import claims, paths, zoo; print(paths.data_dir()); print(len(claims.ledger())); "
               "print(zoo.load('resnet-mini', 'shapes').width)")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder, claims, width = done.stdout.split()
    assert folder == str(tmp_path / "installed" / "tlutils" / "data") and int(claims) > 0 and int(width) > 0


def test_tests_side_by_side_leave_one_thread_to_each_worker():
    """Two threads in each of two workers on two cores made the notebooks ten times slower."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        pytest.skip("concerns runs with pytest -n")
    import torch

    assert torch.get_num_threads() == 1 and os.environ["OMP_NUM_THREADS"] == "1"


def test_the_code_passes_its_own_linter():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "tlutils", "book", "tests", "benchmarks"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
