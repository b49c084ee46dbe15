"""The package as a whole: imports go downwards only, heavy ones are lazy, everything public is explained."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tlutils"
# From the bottom up; a module may import from every line above its own, and from nothing else of the package.
# Modules that share a line know nothing of each other.
LAYERS = (
    ("paths",),
    ("shapes", "readers", "metrics", "augmentation", "weights", "backbones", "text_words", "checks", "nas_cells", "alignment",
     "memory", "unlabelled_choice"),
    ("text", "domains", "scores"),
    ("sources", "torchvision_backbones", "transformer_backbones", "mini_cnns", "multimodal", "nas_networks", "nas_predictors"),
    ("datasets", "mini_transformers", "image_tokens", "adapters"),
    ("clip_backbones",),
    ("zoo",),
    ("text_to_image",),
    ("batches", "checkpoint", "freezing", "history", "optim"),
    ("callbacks", "inference", "processes", "deltas"),
    ("features", "loop", "nas", "adaptation"),
    ("training",),
    ("finetune", "rate_finder"),
    ("transferability",),
    ("methods", "evaluation", "distillation", "compression", "forgetting", "fewshot", "mixing", "semi", "views", "trials",
     "peft_methods", "symptoms"),
    ("recommend", "diagnosis", "aligned_training", "metalearning", "few_shot_tasks"),
    ("plots", "claims", "report", "explorer", "clinic"),
    ("pretrain_text", "pretrain_multimodal", "nas_benchmark", "real_experiments", "decisions"),
    ("pretrain", "limited_experiments", "image_experiments", "text_experiments", "sentiment_experiments", "multimodal_experiments",
     "extraction_experiments", "distillation_experiments",
     "optimisation_experiments", "shift_experiments"),
    ("practice_text_experiments", "nas_live"),
    ("nas_experiments",),
    ("practice_real_experiments", "practice_oneshot_experiments", "distillation_real_experiments"),
    ("practice_domain_experiments",),
    ("choosing_experiments",),
    ("experiments",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = sorted(file.stem for file in PACKAGE.glob("*.py") if file.stem != "__init__")
# What is heavy, and the modules that are about it and may import it at their top.
HEAVY = {
    "transformers": (),
    "peft": (),
    "torchao": (),
    "accelerate": (),
    "huggingface_hub": (),
    "IPython": (),
    "tqdm": (),
    "datasets": (),
    "torchvision": ("backbones", "torchvision_backbones", "mini_cnns"),
    "matplotlib": ("plots",),
    "pandas": ("evaluation", "real_experiments", "experiments"),
    "joblib": ("experiments",),
    "sklearn": ("finetune", "symptoms", "transferability", "trials", "recommend", "methods", "extraction_experiments"),
    "yaml": ("claims",),
    "PIL": ("readers",),
}


def tree(name):
    return ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))


def own_imports(name):
    """The package's modules that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tlutils":
            found |= {node.module.partition(".")[2]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("tlutils.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level > 1)
    return found


def top_imports(name):
    """The outside packages that are imported as soon as the module is."""
    found = set()
    pending = list(tree(name).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            pending += [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
    return found


def test_every_module_has_its_layer_and_every_layer_its_modules():
    assert set(MODULES) == set(RANK), "give a new module its line in LAYERS"


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downwards_only(name):
    # experiments, run as a script, imports itself under its real name
    upwards = {other for other in own_imports(name) - {name} if RANK[other] >= RANK[name]}
    assert not upwards, (
        f"tlutils.{name} may not import {', '.join(sorted(upwards))}: it lies on the same layer or above"
    )


def test_paths_needs_the_standard_library_only():
    assert top_imports("paths") <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", MODULES)
def test_heavy_imports_are_lazy(name):
    heavy = {package for package in top_imports(name) & set(HEAVY) if name not in HEAVY[package]}
    assert not heavy, f"tlutils.{name}: import {', '.join(sorted(heavy))} inside the function that needs it"


def loaded_by(module, *packages):
    program = f"import sys, {module}; print(*[p for p in {packages!r} if p in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return out.stdout.split()


def test_importing_the_package_imports_nothing():
    assert loaded_by("tlutils", "torch", "numpy", "scipy", "matplotlib") == []


@pytest.mark.parametrize(
    "module, packages",
    [
        ("tlutils.training", ("transformers", "accelerate", "peft", "pandas", "matplotlib", "torchvision", "sklearn")),
        ("tlutils.methods", ("transformers", "accelerate", "peft", "matplotlib")),
        ("tlutils.plots", ("torch", "transformers", "IPython")),
        ("tlutils.claims", ("torch", "pandas", "matplotlib")),
        ("tlutils.report", ("torch", "pandas", "matplotlib")),
    ],
)
def test_what_an_import_leaves_alone(module, packages):
    assert loaded_by(module, *packages) == []


# ---------------------------------------------------------------------------- explanations
def public(name):
    """(name, node) of all that is public in a module (a network's class explains its `forward`)."""
    for node in tree(name).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for part in node.body:
                    if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                        yield f"{node.name}.{part.name}", part


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_explained(name):
    assert ast.get_docstring(tree(name)), f"tlutils.{name} needs a docstring"
    silent = [full for full, node in public(name) if not ast.get_docstring(node) and node.name != "forward"]
    assert not silent, f"tlutils.{name}: {', '.join(silent)} need a docstring"


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_begin_with_whole_sentences(name):
    for full, node in public(name):
        said = ast.get_docstring(node)
        if said:
            first = said.split("\n\n")[0].strip()
            assert first[-1] in ".:?", f"{name}.{full}: {first!r}"


@pytest.mark.parametrize("name", MODULES)
def test_modules_stay_small(name):
    assert len((PACKAGE / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 460, "split it"


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_unpickled_or_run_from_elsewhere(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert called not in ("eval", "exec", "pickle.load", "pickle.loads"), f"{name}: {called}"
            assert keywords.get("allow_pickle", "False") == "False", f"{name}: {called}"
            if called in ("torch.load", "torch.hub.load"):
                assert keywords.get("weights_only") == "True", f"{name}: {called} without weights_only"
            assert keywords.get("trust_remote_code", "False") == "False", f"{name}: {called}"
