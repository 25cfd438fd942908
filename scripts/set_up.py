"""Makes the environment `.venv` that the make targets work in: `python scripts/set_up.py EXTRA[,EXTRA...] [--browser]`.

Standard library only, for it runs before anything is installed. What is up to date is left alone: a stamp in `.venv`
keeps a hash of all that an installation follows from.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
PIP_INSTALL = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
CONSTRAINTS = ROOT / "tests" / "constraints.txt"
DECIDES = [ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / "scripts" / "viewer.py", CONSTRAINTS]
# How long an interrupted installation gets to clean up, in seconds.
PATIENCE = 10.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Any sans-serif font will do: without one, Chromium draws boxes.
FONT_PACKAGE = "fonts-dejavu-core"


class SetUpError(Exception):
    """Something is missing that cannot be installed from here; the message says what to do."""


def say(sentence: str) -> None:
    """Tell what happens next, before the program whose output follows."""
    print(f"-- {sentence}", flush=True)


def run(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run `command` in a process group of its own, so that nothing it started outlives an interruption of ours."""
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as process:
        try:
            code = process.wait()
        except BaseException:
            # Not SIGTERM, on which pip leaves what it has unpacked so far lying in /tmp.
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if code != 0:
        raise SetUpError(f"{Path(command[0]).name} ended with exit code {code}; its messages above say why.")


def install_packages(*packages: str) -> None:
    """Install Debian packages, which takes root."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-q", environment=environment)
    run("apt-get", "install", "-q", "-y", "--no-install-recommends", *packages, environment=environment)


def may_install() -> bool:
    """Say whether Debian packages can be installed by this user."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def make_environment() -> None:
    """Make `.venv`, unless it is there and its Python runs."""
    if (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-c", "import pip"], check=False, capture_output=True).returncode == 0
    ):
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if importlib.util.find_spec("ensurepip") is None:
        if not may_install():
            raise SetUpError(f"Python's venv module is missing; write sudo apt-get install {package}, and again make.")
        say(f"Installing {package}")
        install_packages(package)
    say(f"Making the environment .venv with Python {sys.version.split()[0]}")
    run(sys.executable, "-m", "venv", "--clear", ENVIRONMENT)


def install_project(extras: str) -> None:
    """Install the project into `.venv`, editable, with `extras`; that builds the viewer too."""
    digest = hashlib.sha256(sys.version.encode())
    for path in DECIDES:
        digest.update(path.read_bytes())
    stamp = ENVIRONMENT / f"installed-{extras.replace(',', '-')}"
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    say(f"Installing NeuralDbg with {extras.replace(',', ' and ')} (the first time this takes some minutes)")
    run(*PIP_INSTALL, "-c", CONSTRAINTS, "-e", f"{ROOT}[{extras}]")
    stamp.write_text(digest.hexdigest())


def build_viewer() -> None:
    """Build the viewer again where its sources changed after it was installed."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import viewer  # noqa: PLC0415 - beside this file, not on the path before

    if not viewer.is_current():
        say("Building the viewer")
        run(*PIP_INSTALL, "--no-deps", "-e", ROOT)


def find_browser() -> None:
    """Make sure of a Chromium and a font for the browser tests."""
    if any(shutil.which(name) for name in BROWSERS):
        return
    if not may_install():
        raise SetUpError(
            f"The browser tests need Chromium; write sudo apt-get install chromium {FONT_PACKAGE}, and again make test."
        )
    say("Installing Chromium")
    install_packages("chromium", FONT_PACKAGE)


def end(number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that `run` ends what it started."""
    sys.exit(128 + number)


def main() -> None:
    """Set up what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", help="extras of pyproject.toml, separated by commas")
    parser.add_argument("--browser", action="store_true", help="make sure of a Chromium too")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        make_environment()
        install_project(arguments.extras)
        build_viewer()
        if arguments.browser:
            find_browser()
    except SetUpError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
