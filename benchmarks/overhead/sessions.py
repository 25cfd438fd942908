"""What a session tells of the training that was timed."""

from __future__ import annotations

from neural.session.reader import SessionReader


class SwitchedOffError(Exception):
    """A part of the observer failed and was switched off: what was timed is not what it costs."""


def require_whole(session: SessionReader) -> None:
    """Raise where a part of the observer did not run to the end.

    Raises:
        SwitchedOffError: something failed in there.
    """
    for notice in session.info().notices:
        if "switched" in notice:
            raise SwitchedOffError(notice)
