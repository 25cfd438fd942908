"""What is checked before anything is started: the log directory and the port."""

from __future__ import annotations

import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from neural.dsl.errors import NeuralError

# Linux's table of TCP sockets: the state of one that listens, and the columns of address, state and inode.
LISTENING = "0A"
LOCAL_ADDRESS, STATE, INODE = 1, 3, 9


def check_logdir(logdir: Path) -> None:
    """Make the log directory if it is missing, and see that a file can be written there.

    Raises:
        NeuralError: it cannot.
    """
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=logdir):
            pass
    except OSError as error:
        raise NeuralError(
            f"The log directory {logdir} cannot be written ({error.strerror}): "
            "write --logdir DIRECTORY with one that can."
        ) from error


def check_port(port: int) -> None:
    """See that nothing listens on `port` of this machine; 0, any free one, always passes.

    Raises:
        NeuralError: something does, or the port may not be used.
    """
    if port == 0:
        return
    advice = "write --port 0 for any free port, or --port NUMBER for another"
    # A browser may take "localhost" for either address.
    for address in ("127.0.0.1", "::1"):
        with suppress(OSError), socket.create_connection((address, port), timeout=1.0):
            raise NeuralError(f"Port {port} is in use by {_holder(port)}: end that, or {advice}.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise NeuralError(f"Port {port} cannot be used ({error.strerror}): {advice}.") from error


def _holder(port: int) -> str:
    """Return "NAME (process 123)" of the process that listens on `port`, as far as /proc tells it to this user."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[STATE] == LISTENING and int(columns[LOCAL_ADDRESS].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{columns[INODE]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(str(descriptor.readlink()) in inodes for descriptor in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return "another process"
