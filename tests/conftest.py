"""What all tests share: threads, folders, and the reasons why a test is skipped on this machine."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cache_key import site_key

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Side by side, workers share the cores; two threads each would only get in each other's way.
# Set, not defaulted: a worker inherits what this very file set in the process that started it.
if os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["OMP_NUM_THREADS"] = "1"
else:
    os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Notebooks run in processes of their own and must find the package in a checkout that is not installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def _local(variable: str, folder: str) -> None:
    """Real data may lie in a folder beside the checkout; a variable that is set goes first."""
    beside = ROOT.parent / "shared" / folder
    if beside.is_dir():
        os.environ.setdefault(variable, str(beside))


_local("TLUTILS_DATA", "data")
_local("TLUTILS_WEIGHTS", "weights")


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "needs an accelerator that torch can use; this machine has none"


def _no_real_data() -> str:
    unset = [name for name in ("TLUTILS_DATA", "TLUTILS_WEIGHTS") if not os.environ.get(name)]
    return f"needs real data: set {' and '.join(unset)} to the folders that hold it" if unset else ""


def _no_site() -> str:
    stamp = SITE.parent / "site.txt"
    if not stamp.is_file():
        return "needs the built site: run 'make book' first"
    return "" if stamp.read_text() == site_key(ROOT) else "the site is older than its sources: run 'make book' first"


def _no_browser() -> str:
    return _no_site() or ("" if CHROMIUM else "needs Chromium on the path (Debian: apt-get install chromium)")


MISSING = {"gpu": _no_gpu, "real": _no_real_data, "site": _no_site, "browser": _no_browser}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons: dict[str, str] = {}
    for item in items:
        for name, missing in MISSING.items():
            if item.get_closest_marker(name):
                if name not in reasons:
                    reasons[name] = missing()
                if reasons[name]:
                    item.add_marker(pytest.mark.skip(reason=reasons[name]))
    # Whole notebooks take longest: started first, they do not leave one worker busy alone at the end.
    items.sort(key=lambda item: item.get_closest_marker("notebook") is None)


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the reader's cache."""
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def site() -> Path:
    """The built site."""
    return SITE


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets."""
    return Path(os.environ["TLUTILS_DATA"].split(os.pathsep)[0])


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The folder of real weights."""
    return Path(os.environ["TLUTILS_WEIGHTS"].split(os.pathsep)[0])


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how long each notebook took, and whether it ran cut off from the network."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [value for report in reports for name, value in getattr(report, "user_properties", [])
            if name == "notebook_seconds"]
    if rows:
        terminalreporter.section("notebooks")
        for path, seconds, isolated in sorted(rows):
            note = "" if isolated else "  (with the network: this machine allows no network namespace)"
            terminalreporter.write_line(f"{seconds:7.1f} s  {path}{note}")
