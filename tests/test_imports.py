"""Which way imports run, and what importing us costs: the rules that keep the house in order."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each package, and those of ours that it may import. Packages not named here may not exist.
MAY_IMPORT = {
    "neural.session": set(),
    "neural.diagnosis": {"neural.session"},
    "neural.dashboard": {"neural.session", "neural.diagnosis"},
    "neural.dsl": {"neural.session"},
    "neural.data": {"neural.session", "neural.dsl"},
    "neural_callbacks": {"neural.session", "neural.diagnosis", "neural.dashboard"},
    "tensorboard_plugin_neuraldbg": {"neural.session", "neural.diagnosis"},
    "neural.training": {
        "neural.session",
        "neural.diagnosis",
        "neural.dashboard",
        "neural.dsl",
        "neural.data",
        "neural_callbacks",
    },
    "neural.cli": {
        "neural.session",
        "neural.diagnosis",
        "neural.dashboard",
        "neural.dsl",
        "neural.data",
        "neural_callbacks",
        "tensorboard_plugin_neuraldbg",
        "neural.training",
    },
    "neural": set(),
}
# TensorBoard's compiled protobuf definitions stand for protobuf itself.
SESSION_NEEDS = ("numpy", "google_crc32c", "google.protobuf", "tensorboard.compat.proto")
HEAVY = {"torch", "tensorflow", "jax", "keras", "lightning", "transformers", "accelerate", "pandas", "matplotlib"}
# Each framework, and what the modules that may import it are named after.
NAMED_AFTER = {
    "torch": ("torch", "lightning", "transformers"),
    "keras": ("keras",),
    "tensorflow": ("keras",),
    "jax": ("jax",),
    "lightning": ("lightning",),
    "transformers": ("transformers",),
    "accelerate": ("transformers",),
}
LIGHT_MODULES = ["neural", "neural_callbacks", "tensorboard_plugin_neuraldbg.plugin"]


def imports_of(source: str, module: str) -> set[str]:
    """Return the dotted names that a module imports, at its top or within a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = module.split(".")[: -node.level] if node.level else []
            start = ".".join([*parent, *([node.module] if node.module else [])])
            names |= {f"{start}.{alias.name}" for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def package_of(name: str) -> str | None:
    """Return which of our packages a dotted name lies in: the longest that fits, None for what is not ours."""
    return max((package for package in MAY_IMPORT if within(name, package)), key=len, default=None)


def modules() -> dict[str, str]:
    """Return the source of each of our modules."""
    found = {}
    for folder in ("neural", "neural_callbacks", "tensorboard_plugin_neuraldbg"):
        for path in (ROOT / folder).rglob("*.py"):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path.read_text()
    return found


def is_forbidden(module: str, imported: str) -> bool:
    owner, target = package_of(module), package_of(imported)
    if target == "neural":
        return imported != "neural"  # neither a package that has its place nor the root itself
    return target not in (None, owner) and target not in MAY_IMPORT[owner or "neural"]


def wrong_directions(sources: dict[str, str]) -> list[str]:
    return sorted(
        f"{module} imports {imported}"
        for module, source in sources.items()
        for imported in imports_of(source, module)
        if is_forbidden(module, imported)
    )


def not_needed_by_session(sources: dict[str, str]) -> list[str]:
    return sorted(
        f"{module} imports {imported}"
        for module, source in sources.items()
        if within(module, "neural.session")
        for imported in imports_of(source, module)
        if imported.split(".")[0] not in sys.stdlib_module_names
        and not any(within(imported, allowed) for allowed in (*SESSION_NEEDS, "neural.session"))
    )


def far_from_their_framework(sources: dict[str, str]) -> list[str]:
    """Return the modules that import a framework while neither they nor their package are named after it."""
    return sorted(
        f"{module} imports {imported}"
        for module, source in sources.items()
        for imported in imports_of(source, module)
        if (framework := imported.split(".")[0]) in HEAVY
        and not any(name in module for name in NAMED_AFTER.get(framework, ()))
    )


def test_imports_run_one_way():
    assert wrong_directions(modules()) == []


def test_every_module_lies_in_a_package_that_has_its_place():
    assert [name for name in modules() if package_of(name) == "neural" and name != "neural"] == []


def test_a_session_needs_no_more_than_numpy_protobuf_and_crc():
    assert not_needed_by_session(modules()) == []


def test_a_framework_is_imported_only_by_modules_about_it():
    assert far_from_their_framework(modules()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("neural.session.reader", "import neural_callbacks"),
        ("neural.session.reader", "from neural.diagnosis import finding"),
        ("neural_callbacks.recorder", "from tensorboard_plugin_neuraldbg.sessions import Sessions"),
        ("tensorboard_plugin_neuraldbg.routes", "def f():\n    from neural_callbacks import recorder"),
        ("neural.dsl.parser", "from neural import training"),
        ("neural.dsl.parser", "from ..training import progress"),
        ("neural.training.start", "import neural.cli.main as main"),
        ("neural.diagnosis.examiner", "from neural_callbacks.recorder import Recorder"),
    ],
)
def test_an_import_in_the_wrong_direction_is_found(module, source):
    assert len(wrong_directions({module: source})) == 1


def test_a_heavy_import_in_a_session_is_found():
    assert not_needed_by_session({"neural.session.reader": "import pandas, json, numpy"}) == [
        "neural.session.reader imports pandas"
    ]
    assert not_needed_by_session({"neural.session.reader": "from tensorboard.backend import application"})


def test_a_framework_in_the_wrong_place_is_found():
    assert far_from_their_framework({"neural_callbacks.recorder": "import torch"})
    assert far_from_their_framework({"neural_callbacks.pytorch.taps": "from keras import ops"})
    assert far_from_their_framework({"neural_callbacks.lightning": "from transformers import Trainer"})
    assert far_from_their_framework({"neural.cli.run": "import pandas"})


def heavy_modules_after(statement: str) -> set[str]:
    """Return which heavy packages are loaded in a new process after `statement`."""
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_importing_us_loads_nothing_heavy(module):
    assert heavy_modules_after(f"import {module}") == set()


def test_a_plugin_that_is_ready_to_answer_loads_nothing_heavy():
    assert heavy_modules_after("import tensorboard_plugin_neuraldbg.routes") == set()


def test_something_heavy_would_be_noticed(tmp_path):
    (tmp_path / "pandas.py").touch()
    assert heavy_modules_after(f"sys.path.insert(0, {str(tmp_path)!r})\nimport pandas") == {"pandas"}
