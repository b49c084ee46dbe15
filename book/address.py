"""The public address of the book: stands once in _config.yml, and is carried from there.

    python book/address.py            write badges, set-up cells and the README's links anew
    python book/address.py --check    only name what differs (exit status 1 if anything does)
    python book/address.py --print site_branch    one part of the address, for scripts
"""
from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
BADGE = re.compile(r"^\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)$", re.MULTILINE)
README_BLOCK = re.compile(r"(<!-- address -->\n).*?(<!-- /address -->)", re.DOTALL)
SETUP_TAGS = ["colab", "remove-cell"]


@dataclass(frozen=True)
class Address:
    """Where the book can be found: URLs without a slash at the end, names of branches."""

    repository: str
    branch: str
    site: str
    site_branch: str

    @classmethod
    def read(cls, root: Path = ROOT) -> Address:
        """The address in `root`/_config.yml. Raises ValueError when a part of it is missing."""
        config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
        try:
            return cls(repository=config["repository"]["url"].rstrip("/"), branch=config["repository"]["branch"],
                       site=config["html"]["baseurl"].rstrip("/"),
                       site_branch=config["sphinx"]["config"]["site_branch"])
        except (KeyError, TypeError) as missing:
            raise ValueError(f"_config.yml: the public address has no {missing}; it needs repository.url, "
                             "repository.branch, html.baseurl and sphinx.config.site_branch") from None

    def colab(self, path: str) -> str:
        """Colab's link for a notebook; an exercise opens as the student form that the site publishes.

        path: the notebook's path in the repository, with forward slashes.
        """
        branch, path = (self.site_branch, student_path(path)) if is_exercise(path) else (self.branch, path)
        owner_and_name = self.repository.split("://", 1)[-1].split("/", 1)[-1]
        return f"https://colab.research.google.com/github/{owner_and_name}/blob/{branch}/{path}"

    def badge(self, path: str) -> str:
        """The badge under a notebook's title, in Markdown."""
        image = "../" * path.count("/") + "book/_static/colab.svg"
        return f"[![Open in Colab]({image})]({self.colab(path)})"

    def setup_cell(self) -> str:
        """The first code cell of every notebook: installs the package on Colab, does nothing elsewhere."""
        return ("# On Colab this installs the book's package; elsewhere it does nothing.\n"
                "import sys\n\n"
                'if "google.colab" in sys.modules:\n'
                f'    %pip install -q "git+{self.repository}@{self.branch}"')

    def readme(self) -> str:
        """The links at the top of the README."""
        first = "chapters/fundamentals/why_transfer.ipynb"
        return (f"[Read the book]({self.site}/) · [Open the first lesson in Colab]({self.colab(first)}) · "
                f"[Source]({self.repository})")


def is_exercise(path: str) -> bool:
    """Whether a notebook holds exercises (path in the repository, with forward slashes)."""
    return "/exercises/" in path


def student_path(path: str) -> str:
    """Where the site publishes the student form of chapters/<part>/exercises/<lesson>.ipynb."""
    part, _, lesson = path.split("/")[-3:]
    return f"student/{part}/{lesson}"


def without_badge(text: str) -> str:
    """Markdown without the Colab badge and the blank line before it."""
    return re.sub(r"\n*" + BADGE.pattern, "", text, flags=re.MULTILINE)


def notebook_paths(root: Path = ROOT) -> list[str]:
    """The paths of all notebooks of the book, relative to `root`, with forward slashes."""
    found = (path.relative_to(root) for path in (root / "chapters").rglob("*.ipynb"))
    return sorted(path.as_posix() for path in found if ".ipynb_checkpoints" not in path.parts)


def address_notebook(notebook: dict, path: str, address: Address) -> None:
    """Set the badge and the set-up cell of a notebook (its JSON, changed in place)."""
    cells = notebook["cells"]
    title = next((cell for cell in cells if cell["cell_type"] == "markdown"), None)
    text = "".join(title["source"]) if title else ""
    if not text.startswith("# "):
        raise ValueError(f"{path}: the first Markdown cell must begin with the page's title ('# ...')")
    heading, _, rest = without_badge(text).partition("\n")
    text = "\n\n".join(filter(None, [heading, address.badge(path), rest.strip("\n")]))
    if text != "".join(title["source"]):
        title["source"] = text.splitlines(keepends=True)

    setup = next((cell for cell in cells if "colab" in cell["metadata"].get("tags", [])), None)
    if setup is None:
        setup = {"cell_type": "code", "id": "colab-setup", "metadata": {}, "source": [], "outputs": [],
                 "execution_count": None}
        cells.insert(cells.index(title) + 1, setup)
    if "".join(setup["source"]) != address.setup_cell():
        setup["source"] = address.setup_cell().splitlines(keepends=True)
    setup["metadata"]["tags"] = SETUP_TAGS


def addressed_files(root: Path, address: Address) -> dict[str, str]:
    """path -> what the file should hold, for every file that shows the address."""
    files = {}
    for path in notebook_paths(root):
        notebook = json.loads((root / path).read_text(encoding="utf-8"))
        before = json.dumps(notebook)
        address_notebook(notebook, path, address)
        if json.dumps(notebook) != before:
            files[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    readme = (root / "README.md").read_text(encoding="utf-8")
    files["README.md"], found = README_BLOCK.subn(lambda match: f"{match[1]}{address.readme()}\n{match[2]}", readme)
    if found != 1:
        raise ValueError(f"README.md: has {found} blocks '<!-- address -->' ... '<!-- /address -->', and needs one")
    return files


def differing(root: Path = ROOT) -> dict[str, str]:
    """The files whose badge, set-up cell or link is not what _config.yml says, with what they should hold."""
    wanted = addressed_files(root, Address.read(root))
    return {path: text for path, text in wanted.items() if (root / path).read_text(encoding="utf-8") != text}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, name the files that differ")
    parser.add_argument("--print", dest="part", choices=sorted(Address.__dataclass_fields__))
    options = parser.parse_args(arguments)
    if options.part:
        print(asdict(Address.read())[options.part])
        return 0
    files = differing()
    for path, text in files.items():
        if not options.check:
            (ROOT / path).write_text(text, encoding="utf-8")
        print(("differs from _config.yml: " if options.check else "written: ") + path)
    if not files:
        print("Every badge, set-up cell and link agrees with _config.yml.")
    return int(bool(files) and options.check)


if __name__ == "__main__":
    sys.exit(main())
