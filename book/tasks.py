"""The commands of the book: python book/tasks.py book, test, lab, ...

Only the standard library, so that it runs before anything is installed; `make book` calls it too.
"""
import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "installed.txt"
BUILD = ROOT / "_build"
# Warnings are errors (-W), a missing link is a warning (-n), and all of them are shown before it stops.
BUILD_BOOK = ("-c", "from jupyter_book.cli.main import main; main()", "build", ".", "-W", "-n", "--keep-going")
GIGABYTES_NEEDED = 9 if sys.platform.startswith("linux") else 4  # torch for Linux brings its GPU libraries


class Stop(Exception):
    """Ends the command with one plain sentence."""


def say(text):
    print("\n== " + text, flush=True)


def run(*command, **options):
    """Run a command in the checkout; a failure ends the task with the command's own exit status."""
    env = dict(os.environ, **options.pop("env", {}))
    status = subprocess.run([str(part) for part in command], cwd=str(ROOT), env=env, **options).returncode
    if status:
        raise SystemExit(status)


# -- set-up ---------------------------------------------------------------------------------------

def check_python(version=sys.version_info):
    if not (3, 11) <= tuple(version[:2]) <= (3, 13):
        raise Stop("This needs Python 3.11, 3.12 or 3.13, and this is {}.{}: run it with one of those.".format(
            version[0], version[1]))


def check_disk(folder=ROOT, needed=GIGABYTES_NEEDED):
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < needed:
        raise Stop("A new environment needs about {} GB of free disk space and {} has {:.1f} GB: free some space "
                   "and run the same command again.".format(needed, folder, free))


def wanted_stamp():
    """What the environment was made from: it is reused until one of these changes."""
    digest = hashlib.sha256()
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return "{}.{} {}\n".format(sys.version_info[0], sys.version_info[1], digest.hexdigest())


def venv_python():
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def set_up():
    """Make .venv, or bring it up to date; returns its Python."""
    stamp = STAMP.read_text() if STAMP.is_file() else ""
    if stamp == wanted_stamp() and venv_python().exists():
        return venv_python()
    check_python()
    if not stamp:
        check_disk()
    if stamp[:4] != wanted_stamp()[:4] or not venv_python().exists():
        say("Making a virtual environment in .venv")
        if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], cwd=str(ROOT)).returncode:
            raise Stop("This Python cannot make virtual environments: install its venv module "
                       "(on Debian and Ubuntu, the package python3-venv) and run the same command again.")
    STAMP.unlink(missing_ok=True)
    pip = (venv_python(), "-m", "pip", "--disable-pip-version-check", "install")
    say("Installing the packages of requirements.txt (some minutes the first time)")
    run(*pip, "-r", "requirements.txt")
    say("Installing the book's own package")
    run(*pip, "--no-deps", "--no-build-isolation", "-q", "-e", ".")
    STAMP.write_text(wanted_stamp())
    return venv_python()


# -- tasks ----------------------------------------------------------------------------------------

def book(python, args):
    from cache_key import site_key

    start, stamp = time.time(), BUILD / "site.txt"
    stamp.unlink(missing_ok=True)
    say("Executing the notebooks and building the site")
    run(python, *BUILD_BOOK)
    stamp.write_text(site_key(ROOT))  # tests/conftest.py compares it: an older site is not tested
    say("The book is built ({:.1f} minutes). Open it in a browser:\n   {}".format(
        (time.time() - start) / 60, (BUILD / "html" / "index.html").as_uri()))


def workers():
    return str(max(1, min(4, os.cpu_count() or 1)))


def test(python, args):
    say("Running all tests but the browser's (notebooks take some minutes)")
    run(python, "-m", "pytest", "-n", workers(), "--dist", "worksteal", "-m", "not browser", *args)


def unit(python, args):
    run(python, "-m", "pytest", "-q", "-n", workers(),
        "-m", "not notebook and not site and not browser and not slow", *args)


def lab(python, args):
    run(python, "-m", "jupyter", "lab", "--notebook-dir", ROOT, "chapters/fundamentals/why_transfer.ipynb", *args)


def notebooks(python, args):
    run(python, "book/notebooks.py", "store", *args)


def real(python, args):
    run(python, "book/notebooks.py", "real", *args)


def classroom(python, args):
    run(python, "book/classroom.py", *args)


def address(python, args):
    run(python, "book/address.py", *args)


def pins(python, args):
    if subprocess.run([str(python), "-c", "import uv"], stderr=subprocess.DEVNULL).returncode:
        run(python, "-m", "pip", "install", "-q", "uv")
    run(python, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11",
        "--all-extras", "--fork-strategy", "fewest", "--no-emit-package", "tlutils", "--no-config", "-q",
        "--custom-compile-command", "make pins", "-o", "requirements.txt", *args)
    say("requirements.txt is written")


def clean(python, args):
    shutil.rmtree(str(BUILD), ignore_errors=True)
    for folder in (".pytest_cache", ".hypothesis", ".ruff_cache"):
        shutil.rmtree(str(ROOT / folder), ignore_errors=True)
    say("_build is removed. The environment .venv stays; delete the folder to start from nothing.")


TASKS = {task.__name__: task for task in
         (book, test, unit, lab, notebooks, real, classroom, address, pins, clean)}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--python", help="use this Python, with everything installed, instead of .venv")
    args, rest = parser.parse_known_args(arguments)
    rest = [part for part in rest if part != "--"]
    try:
        python = None if args.task == "clean" else args.python or set_up()
        # Found in a checkout even where the package is not installed.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        TASKS[args.task](python, rest)
    except Stop as stop:
        raise SystemExit(str(stop)) from None
    except KeyboardInterrupt:
        raise SystemExit("Stopped.") from None


if __name__ == "__main__":
    main()
