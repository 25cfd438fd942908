"""TensorBoardProcess: TensorBoard as a child process that ends with its parent, however that ends."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from neural.dsl.errors import NeuralError

# TensorBoard listens about one second after its start; a cold disk and a busy machine may take a minute. Seconds.
STARTUP_PATIENCE = 120.0
# From the request to end until it is made to, in seconds.
SHUTDOWN_PATIENCE = 5.0
# How much of TensorBoard's last words is kept, in lines.
LAST_WORDS = 20


class TensorBoardProcess:
    """TensorBoard on `port` (0: any free one) of this machine alone, showing `logdir`; a context manager.

    It runs in a process group of its own, so that Ctrl-C reaches only us and we end it in order. Its standard input
    is a pipe that only we hold: when we are killed, the pipe closes and it ends by itself.
    """

    def __init__(self, logdir: Path, port: int) -> None:
        flags = ["--logdir", str(logdir), "--host", "localhost", "--port", str(port)]
        self._process = subprocess.Popen(  # noqa: S603 - our own module, and flags that no shell reads
            # -P: a file tensorboard.py in the user's folder is not what we mean.
            [sys.executable, "-P", "-m", "neural.cli.tensorboard", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._first_lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._errors = threading.Thread(target=self._keep_last_words, args=(self._process.stderr,), daemon=True)
        self._errors.start()
        threading.Thread(target=self._read_address, args=(self._process.stdout,), daemon=True).start()

    def address(self) -> str:
        """Wait until TensorBoard listens and return its URL, which ends with a slash.

        Raises:
            NeuralError: it ended instead, or did not come up in `STARTUP_PATIENCE` seconds.
        """
        try:
            line = self._first_lines.get(timeout=STARTUP_PATIENCE)
        except queue.Empty:
            raise NeuralError(f"TensorBoard did not come up within {STARTUP_PATIENCE:.0f} seconds.") from None
        if not line:
            raise NeuralError(f"TensorBoard ended at its start: {self.last_words()}")
        return line.strip()

    def alive(self) -> bool:
        """Say whether it is running."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """Return what it wrote last to its standard error, once it has ended."""
        self._errors.join(timeout=1.0)
        return "\n".join(self._last_words) or "it wrote nothing about why."

    def close(self) -> None:
        """End it and all that it started; safe to call again."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(SHUTDOWN_PATIENCE)
        # Its data server is of the same group; whatever of it is still there has had its time.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        cast("IO[str]", self._process.stdin).close()

    def _read_address(self, stdout: IO[str]) -> None:
        with stdout:
            self._first_lines.put(stdout.readline())

    def _keep_last_words(self, stderr: IO[str]) -> None:
        with stderr:
            for line in stderr:
                self._last_words.append(line.rstrip())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
