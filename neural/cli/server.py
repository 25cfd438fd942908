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
# What `neural.cli.tensorboard` writes before its address.
ANNOUNCEMENT = "NeuralDbg: TensorBoard listens at "
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
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()

    def address(self) -> str:
        """Wait until TensorBoard listens and return its URL, which ends with a slash.

        Raises:
            NeuralError: it ended instead, or did not come up in `STARTUP_PATIENCE` seconds.
        """
        try:
            address = self._addresses.get(timeout=STARTUP_PATIENCE)
        except queue.Empty:
            raise NeuralError(f"TensorBoard did not come up within {STARTUP_PATIENCE:.0f} seconds.") from None
        if not address:
            raise NeuralError(f"TensorBoard ended at its start. Its last words: {self.last_words()}")
        return address

    def alive(self) -> bool:
        """Say whether it is running."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """Return what it wrote last before it ended, after its address if it got that far."""
        self._listener.join(timeout=1.0)
        return "\n".join(self._last_words) or "none."

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

    def _listen(self, output: IO[str]) -> None:
        with output:
            for line in output:
                if line.startswith(ANNOUNCEMENT):
                    # What it says while it starts is about its own way of loading.
                    self._last_words.clear()
                    self._addresses.put(line.removeprefix(ANNOUNCEMENT).strip())
                else:
                    self._last_words.append(line.rstrip())
        self._addresses.put("")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
