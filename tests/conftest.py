"""The real command in a process of its own, and a way to see what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

NEURAL = Path(sys.executable).with_name("neural")
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
    """`neural ...` in its own process group, with its output in a file."""

    def __init__(self, folder, *arguments):
        self.output = folder / f"output-{time.monotonic_ns()}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [NEURAL, *arguments],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"COLUMNS": "200"},
            )

    def text(self):
        return self.output.read_text()

    def said(self, words):
        """Wait until the command has said `words`; return all it said."""

        def heard():
            if words in self.text():
                return True
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text()}"
            return False

        wait_until(heard, repr(words))
        return self.text()

    def end(self, number):
        """Send a signal to the command alone; return its exit code and what was running before."""
        family = descendants(self.process.pid)
        self.process.send_signal(number)
        return self.process.wait(PATIENCE), family


@pytest.fixture
def processes():
    """Return the functions that look at processes."""
    return SimpleNamespace(descendants=descendants, running=running, wait_until=wait_until)


@pytest.fixture
def neural(tmp_path):
    """Return a function that starts `neural ARGUMENTS...` in an empty folder."""
    commands = []

    def start(*arguments):
        commands.append(Command(tmp_path, *map(str, arguments)))
        return commands[-1]

    yield start
    for command in commands:
        for pid in [command.process.pid, *descendants(command.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.process.wait()
