"""The real command in a process of its own, and a way to see what it leaves behind."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

# Where the commands of this environment are: neural, tensorboard, python.
COMMANDS = Path(sys.executable).parent
# Generous: what is waited for comes in seconds, on a busy machine in many seconds.
PATIENCE = 120.0


def descendants(pid):
    """Return the process numbers of all that `pid` started, and what these started."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, may hold anything.
            number, _, rest = stat.read_text().partition(" (")
            children.setdefault(int(rest.rpartition(") ")[2].split()[1]), []).append(int(number))
    found = []
    pending = [pid]
    while pending:
        pending += (below := children.get(pending.pop(), []))
        found += below
    return found


def running(pid):
    """Say whether the process is there and not just waiting to be collected."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


def wait_until(condition, what):
    """Wait until `condition()` is true; `what` says for whom."""
    limit = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < limit, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)
    return answer


class Command:
    """A command of this environment in its own process group, with its output in a file."""

    PATIENCE = PATIENCE

    def __init__(self, folder, name, *arguments):
        self.output = folder / f"output-{time.monotonic_ns()}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [COMMANDS / name, *arguments],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"COLUMNS": "200"},
            )

    def text(self):
        return self.output.read_text()

    def said(self, words):
        """Wait until the command has said what the regular expression `words` matches; return the match."""

        def heard():
            if found := re.search(words, self.text()):
                return found
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text()}"
            return None

        return wait_until(heard, repr(words))

    def end(self, number):
        """Send a signal to the command alone; return its exit code and what was running before."""
        family = descendants(self.process.pid)
        self.process.send_signal(number)
        return self.process.wait(PATIENCE), family


@pytest.fixture
def processes():
    """Return the functions that look at processes."""
    return SimpleNamespace(descendants=descendants, running=running, wait_until=wait_until)


@contextmanager
def started(folder, *command):
    """Start a command in `folder`; however the block ends, nothing of it is left afterwards."""
    running_command = Command(folder, *map(str, command))
    pid = running_command.process.pid
    try:
        yield running_command
    finally:
        family = descendants(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        running_command.process.wait()
        for child in family:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


@pytest.fixture(scope="session")
def start():
    """Return `start(folder, *command)`: a context manager that runs a command of this environment beside the test."""
    return started


@pytest.fixture
def neural(tmp_path):
    """Return a function that starts `neural ARGUMENTS...` in an empty folder."""
    with ExitStack() as commands:
        yield lambda *arguments: commands.enter_context(started(tmp_path, "neural", *arguments))
