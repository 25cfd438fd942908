"""Interruption: Ctrl-C and a request to end, at any moment, each as one exception that is not lost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """While entered, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread.

    Python drops an exception that a signal raises inside a finaliser or a callback of a C library, so whoever works
    in a loop calls `check()` once per round: that raises it again. `signal` is the last one that came, None before.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._ignoring = False
        self._before: dict[signal.Signals, object] = {}

    @property
    def exit_code(self) -> int:
        """The shell's code for a command that a signal ended: 128 plus its number."""
        return 128 + (self.signal or signal.SIGINT)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come.

        Raises:
            KeyboardInterrupt: one has.
        """
        if self.signal is not None:
            raise KeyboardInterrupt(self.signal.name)

    def uninterrupted(self, clean_up: Callable[[], None]) -> None:
        """Call `clean_up`, which takes a bounded time, and let it run to its end whatever comes meanwhile."""
        self._ignoring = True
        try:
            clean_up()
        finally:
            self._ignoring = False

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if not self._ignoring:
            self.signal = signal.Signals(number)
            self.check()
