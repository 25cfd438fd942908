"""What an observer says where the library that it watches is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def installed_with(extra: str, observer: str, *libraries: str) -> Iterator[None]:
    """Import inside the `with` block what `observer` needs; `extra` of this package installs `libraries`.

    Raises:
        ModuleNotFoundError: one of `libraries` is missing; the text says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in libraries:
            raise
        raise ModuleNotFoundError(
            f"{observer} needs {error.name}, which is not installed; write "
            f"pip install 'tensorboard-plugin-neuraldbg[{extra}]'.",
            name=error.name,
        ) from error
