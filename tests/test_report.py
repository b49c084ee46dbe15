"""tlutils.report: what a code hash sees, and results that are written wholly or not at all."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tlutils import paths, report

SOURCE = '''"""A module."""
import math

LIMIT = 3            # a comment


class Thing:
    """A class."""
    size: int = 2

    def area(self, x, *rest, key=None, **more):
        """A method."""
        return self.size * x ** 2 + (key or 0)


def greet(name: str) -> str:
    """A function."""
    return f"hello {name:>{LIMIT}} {name!r}"


def bare(values):
    return [v for v in values if v > 0] or {None: ...}
'''
# The same in every supported version of Python: if this changes, every stored grid counts as out of date.
HASH = "47c9aaa6735180e0"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Gives the hash of a module's source (or of parts of it)."""

    def hashed(source, *parts):
        file = tmp_path / "probe.py"
        file.write_text(source, encoding="utf-8")
        with monkeypatch.context() as patched:
            patched.setattr(report.util, "find_spec", lambda name: SimpleNamespace(origin=str(file)))
            return report.code_hash(*(f"probe:{part}" for part in parts) if parts else ("probe",))

    return hashed


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A data folder of its own; gives the folder of the results."""
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    return tmp_path / "data" / "results"


# ---------------------------------------------------------------------------- the hash of code
def test_the_hash_is_the_same_in_every_version_of_python(module):
    assert module(SOURCE) == HASH


@pytest.mark.parametrize(
    "old, new",
    [
        ("            # a comment", ""),
        ('"""A module."""', '"""Other words,\n\non two lines."""'),
        ('"""A module."""\n', ""),
        ('    """A class."""\n', ""),
        ('    """A method."""', '    """Another."""'),
        ('    """A function."""\n', ""),
        ("def bare(values):\n", 'def bare(values):\n    """Now with words."""\n'),
        ("LIMIT = 3", "LIMIT   =   (3)"),
        ("\n\n\n", "\n"),
        ('f"hello', "f'hello"),
        ("self.size * x ** 2", "(self.size * (x ** 2))"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(module, old, new):
    changed = SOURCE.replace(old, new).replace(
        "f'hello {name:>{LIMIT}} {name!r}\"", "f'hello {name:>{LIMIT}} {name!r}'"
    )
    assert changed != SOURCE and module(changed) == module(SOURCE)


@pytest.mark.parametrize(
    "old, new",
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("size: int = 2", "size: int = 1"),
        ("x ** 2", "x ** 3"),
        ("x ** 2 +", "x ** 2 -"),
        ("key=None", "key=0"),
        ("*rest, key", "rest, *, key"),
        ("def greet", "def great"),
        ("hello", "hullo"),
        ("{name!r}", "{name!s}"),
        (":>{LIMIT}", ":<{LIMIT}"),
        ("v > 0", "v >= 0"),
        ("import math", "import cmath"),
        ("{None: ...}", "{0: ...}"),
        ("if v > 0", ""),
        ('    """A function."""\n', '    "A function." + ""\n'),
    ],
)
def test_what_the_code_does_counts(module, old, new):
    assert SOURCE.count(old) >= 1
    assert module(SOURCE.replace(old, new)) != module(SOURCE)


def test_a_docstring_is_only_the_first_statement(module):
    a, b = (f"def f():\n    x = 1\n    {text!r}\n    return x\n" for text in ("one", "two"))
    assert module(a) != module(b)
    assert module("x = 'one'") != module("x = 'two'")


def test_parts_are_hashed_alone(module):
    other = SOURCE.replace("v > 0", "v >= 0")
    for part in ("greet", "Thing", "LIMIT"):
        assert module(SOURCE, part) == module(other, part)
    assert module(SOURCE, "bare") != module(other, "bare")
    assert module(SOURCE, "greet") != module(SOURCE, "bare")
    assert module(SOURCE, "LIMIT") != module(SOURCE.replace("LIMIT = 3", "LIMIT = 4"), "LIMIT")
    assert module("A: int = 1", "A") != module("A: int = 2", "A")
    with pytest.raises(ValueError, match="parts: tlutils.probe has no 'leave' at its top level"):
        module(SOURCE, "leave")


def test_the_order_of_parts_counts_and_real_modules_are_found():
    assert report.code_hash("shapes", "metrics") != report.code_hash("metrics", "shapes")
    assert report.code_hash("shapes") == report.code_hash("shapes") and len(report.code_hash("shapes")) == 16


def test_the_hash_does_not_import_what_it_reads(tmp_path):
    program = (
        "import sys; from tlutils import report; report.code_hash('training'); print('tlutils.training' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


# ---------------------------------------------------------------------------- saving and loading
ROWS = [
    {"method": "probe", "labels": np.int64(5), "accuracy": np.float32(0.25), "seed": 0, "tuned": True},
    {"method": "scratch é", "labels": 10, "accuracy": 1 / 3, "seed": 1, "tuned": False},
]


def test_what_is_saved_is_loaded(results):
    file = report.save("lab", "trial", iter(ROWS), started=time.time() - 61, seeds=2, weights={"a": "b"})
    assert (
        file == results / "lab" / "trial.json" and report.exists("lab", "trial") and not report.exists("real", "trial")
    )
    frame = report.load("lab", "trial")
    assert frame.to_dict("records") == [
        {"method": "probe", "labels": 5, "accuracy": 0.25, "seed": 0, "tuned": True},
        {"method": "scratch é", "labels": 10, "accuracy": 0.333333, "seed": 1, "tuned": False},
    ]
    card = frame.attrs["card"]
    assert card["name"] == "trial" and card["seeds"] == 2 and card["weights"] == {"a": "b"}
    assert 61 <= card["seconds"] < 120 and card["versions"]["torch"] and card["hardware"] and len(card["date"]) == 10


def test_one_row_stands_on_one_line(results):
    file = report.save("real", "trial", ROWS, started=time.time())
    text = file.read_text(encoding="utf-8")
    assert sum(line.lstrip().startswith('{"method"') for line in text.splitlines()) == 2
    json.loads(text)


def test_no_rows_overwrite_nothing(results):
    file = report.save("lab", "trial", ROWS, started=time.time())
    before = file.read_bytes()
    with pytest.raises(ValueError, match="rows: the result 'trial' is empty, nothing is written"):
        report.save("lab", "trial", [], started=time.time())
    with pytest.raises(TypeError):
        report.save("lab", "trial", [{"method": object()}], started=time.time())
    assert file.read_bytes() == before and os.listdir(file.parent) == ["trial.json"]


def test_another_card_leaves_the_rows_alone(results):
    report.save("lab", "trial", ROWS, started=time.time())
    before = report.load("lab", "trial")
    report.rewrite_card("lab", "trial", before.attrs["card"] | {"verified": [{"code": "abc"}]})
    after = report.load("lab", "trial")
    assert after.equals(before) and after.attrs["card"] == before.attrs["card"] | {"verified": [{"code": "abc"}]}


def test_a_result_that_is_not_there_says_how_to_make_it(results):
    with pytest.raises(
        FileNotFoundError,
        match=r"no lab result named 'trial' is recorded \(python -m tlutils.experiments lists .*\); known are none",
    ):
        report.load("lab", "trial")
    report.save("lab", "other", ROWS, started=time.time())
    with pytest.raises(FileNotFoundError, match="known are 'other'"):
        report.load("lab", "trial")


def test_a_mistyped_result_is_told_the_near_one_and_not_to_run_the_typo(results):
    report.save("lab", "why_transfer", ROWS, started=time.time())
    with pytest.raises(FileNotFoundError, match=r"did you mean 'why_transfer'\?$") as caught:
        report.load("lab", "why_tranfser")
    assert "experiments why_tranfser" not in str(caught.value)


def test_there_are_two_kinds_of_results():
    with pytest.raises(ValueError, match=r"kind: must be one of \('lab', 'real'\), got 'live'"):
        report.path("live", "trial")


@pytest.mark.parametrize(
    "value, expected",
    [(np.float64(0.12345678), 0.123457), (np.int32(3), 3), (True, True), ("a", "a"), (2, 2), (1.0, 1.0)],
)
def test_numbers_are_written_plainly(value, expected):
    found = report.plain(value)
    assert found == expected and type(found) in (float, int, bool, str) and not isinstance(found, np.generic)


# ---------------------------------------------------------------------------- where it was made
def test_a_card_names_the_machine_but_nobody(monkeypatch):
    text = json.dumps(report.environment())
    for name in (
        os.environ.get("USER"),
        os.uname().nodename if hasattr(os, "uname") else None,
        os.getcwd(),
        str(sys.prefix),
    ):
        assert not name or len(name) < 5 or name not in text
    assert f"{os.cpu_count()} cores" in report.hardware()


def test_a_package_that_is_missing_is_left_out(monkeypatch):
    monkeypatch.setattr(report, "PACKAGES", ("torch", "no-such-package-at-all"))
    assert set(report.environment()["versions"]) == {"python", "torch"}


def test_provenance_in_one_sentence(results):
    report.save("lab", "trial", ROWS, started=time.time() - 300, seeds=5)
    sentence = report.provenance(report.load("lab", "trial"))
    assert sentence.startswith("Recorded 20") and " in 5 min on " in sentence and "torch " in sentence
    assert sentence.endswith("5 draws. Repeat: python -m tlutils.experiments trial")


# ---------------------------------------------------------------------------- what the repository holds
def stored():
    folder = paths.data_dir() / "results"
    return sorted(folder.glob("*/*.json"))


@pytest.mark.parametrize("file", stored(), ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_every_stored_result_says_where_it_comes_from(file):
    frame = report.load(file.parent.name, file.stem)
    card = frame.attrs["card"]
    assert card["name"] == file.stem and len(frame) > 0
    for key in ("what", "seeds", "seconds", "date", "hardware", "versions"):
        assert card[key], key
    measured = ("accuracy", "value", "seconds", "loss", "correct", "train_accuracy", "word_accuracy")
    results = frame["accuracy" if "accuracy" in frame else "value"].dropna()
    assert len(results) and (results.between(0, 1) if "accuracy" in frame else results.abs() < float("inf")).all()
    assert not frame.duplicated(subset=[c for c in frame if c not in measured]).any()


def test_the_results_travel_lightly():
    assert sum(file.stat().st_size for file in stored()) < 10e6
