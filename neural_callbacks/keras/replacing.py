"""What stands in another's place for the time of a `with` block, and leaves no trace after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_MISSING = object()


@contextmanager
def replaced(owner: Any, name: str, tap: Callable[..., Any], *args: Any) -> Iterator[None]:
    """Let `owner.name` be `tap(owner.name, *args)`; written past Keras' and TensorFlow's tracking of attributes."""
    attributes = vars(owner)
    before = attributes.get(name, _MISSING)
    attributes[name] = tap(getattr(owner, name), *args)
    try:
        yield
    finally:
        if before is _MISSING:
            del attributes[name]
        else:
            attributes[name] = before
