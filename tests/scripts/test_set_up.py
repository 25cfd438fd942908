import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def load(name):
    """Return the script of that name as a module: the folder is not a package."""
    spec = importlib.util.spec_from_file_location(f"neuraldbg_scripts_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def set_up(monkeypatch, tmp_path):
    """Return the set-up script, with nothing installed yet and with every command that it would run in a list."""
    module = load("set_up")
    module.commands = []
    monkeypatch.setattr(module, "run", lambda *command, **_: module.commands.append([str(part) for part in command]))
    monkeypatch.setattr(module, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(module, "PYTHON", tmp_path / "bin" / "python")
    return module


@pytest.fixture
def viewer(monkeypatch, tmp_path):
    """Return the viewer script on a small frontend that was built a moment ago."""
    module = load("viewer")
    frontend = tmp_path / "frontend"
    for name in ("src/index.tsx", "package-lock.json", "node_modules/vite/index.js"):
        (frontend / name).parent.mkdir(parents=True, exist_ok=True)
        (frontend / name).touch()
    entry = tmp_path / "static" / "index.js"
    entry.parent.mkdir()
    entry.touch()
    moment = time.time() + 1
    os.utime(entry, (moment, moment))
    for name, value in {"ROOT": tmp_path, "FRONTEND": frontend, "ENTRY": entry}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_python_that_is_too_old_or_missing_is_one_sentence():
    found = subprocess.run(
        [ROOT / "scripts" / "find-python"],
        env=os.environ | {"PYTHON": "/no/python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == (
        "NeuralDbg needs Python 3.11 or newer, and /no/python is not: install one, or write "
        "make PYTHON=/path/to/python3.11 ...\n"
    )


def test_an_unknown_backend_is_one_sentence():
    made = subprocess.run(["make", "demo", "BACKEND=jax"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert made.stderr.splitlines()[0] == (
        "BACKEND=jax is not a backend: write make demo BACKEND=tensorflow or BACKEND=pytorch."
    )


def test_an_installation_is_made_once(set_up):
    set_up.install_project("all,dev")
    assert len(set_up.commands) == 1
    assert set_up.commands[0][-1] == f"{ROOT}[all,dev]"
    set_up.install_project("all,dev")
    assert len(set_up.commands) == 1
    set_up.install_project("torch")
    assert len(set_up.commands) == 2


def test_an_installation_follows_its_constraints(set_up, monkeypatch, tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("torch==2.13.0\n")
    monkeypatch.setattr(set_up, "DECIDES", [constraints])
    set_up.install_project("torch")
    constraints.write_text("torch==2.14.0\n")
    set_up.install_project("torch")
    assert len(set_up.commands) == 2


def test_without_venv_root_installs_it_and_others_are_told(set_up, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    monkeypatch.setattr(set_up, "may_install", lambda: False)
    with pytest.raises(
        set_up.SetUpError, match=f"^Python's venv module is missing; write sudo apt-get install {package}"
    ):
        set_up.make_environment()
    monkeypatch.setattr(set_up, "may_install", lambda: True)
    set_up.make_environment()
    assert [command[:2] for command in set_up.commands[:2]] == [["apt-get", "update"], ["apt-get", "install"]]
    assert set_up.commands[1][-1] == package
    assert set_up.commands[2][1:3] == ["-m", "venv"]


def test_without_a_browser_root_installs_it_and_others_are_told(set_up, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    sentence = (
        "The browser tests need Chromium; write sudo apt-get install chromium fonts-dejavu-core, and again make test."
    )
    with pytest.raises(set_up.SetUpError, match=f"^{re.escape(sentence)}$"):
        set_up.find_browser()
    monkeypatch.setattr(set_up, "may_install", lambda: True)
    set_up.find_browser()
    assert set_up.commands[-1][-2:] == ["chromium", "fonts-dejavu-core"]


def test_a_command_that_fails_is_one_sentence():
    module = load("set_up")
    with pytest.raises(module.SetUpError, match=r"^sh ended with exit code 3; its messages above say why\.$"):
        module.run("sh", "-c", "exit 3")


def test_the_viewer_is_built_again_after_a_change_and_only_then(viewer):
    assert viewer.is_current()
    assert not viewer.build()
    (viewer.FRONTEND / "src" / "new.ts").touch()
    os.utime(viewer.FRONTEND / "src" / "new.ts", (time.time() + 2,) * 2)
    assert not viewer.is_current()
    os.utime(viewer.ENTRY, (time.time() + 3,) * 2)
    assert viewer.is_current()
    (viewer.FRONTEND / "src" / "new.ts").unlink()
    os.utime(viewer.FRONTEND / "src", (time.time() + 4,) * 2)
    assert not viewer.is_current()


def test_what_npm_installs_is_no_source(viewer):
    os.utime(viewer.FRONTEND / "node_modules" / "vite" / "index.js", (time.time() + 9,) * 2)
    assert viewer.is_current()


def test_npm_that_fails_is_one_sentence(viewer):
    (viewer.FRONTEND / "package.json").write_text("{}")
    with pytest.raises(viewer.ViewerError) as raised:
        viewer.npm("run", "nothing")
    assert str(raised.value) == (
        "The viewer could not be built: npm run nothing ended with exit code 1; its messages above say why "
        "(it needs the npm registry once)."
    )
