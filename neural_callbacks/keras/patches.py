"""The tap on TensorFlow's gradient tapes: in place for the time of a `with` block, without a trace after it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

_tape_taps = threading.local()
_tape_lock = threading.Lock()
_tape_users = 0
_tape_gradient = tf.GradientTape.gradient


@functools.wraps(_tape_gradient)
def _tapped_gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
    taps = getattr(_tape_taps, "stack", None)
    if not taps:
        return _tape_gradient(tape, target, sources, *args, **kwargs)
    options = {**dict(zip(("output_gradients", "unconnected_gradients"), args, strict=False)), **kwargs}
    call: Callable[..., Any] = _tape_gradient
    for tap in taps:  # the innermost is asked first
        call = functools.partial(tap, call)
    return call(tape, target, sources, **options)


@contextmanager
def tapped_tape(tap: Callable[..., Any]) -> Iterator[None]:
    """Let `tap` see what this thread asks its gradient tapes; other threads' tapes are left alone."""
    global _tape_users, _tape_gradient  # noqa: PLW0603 - the class is shared by all threads, and must be as it was after the last one
    with _tape_lock:
        if not _tape_users:
            _tape_gradient = tf.GradientTape.gradient  # which somebody else may have replaced meanwhile
        _tape_users += 1
        tf.GradientTape.gradient = _tapped_gradient
    stack = _tape_taps.__dict__.setdefault("stack", [])
    stack.append(tap)
    try:
        yield
    finally:
        stack.pop()
        with _tape_lock:
            _tape_users -= 1
            if not _tape_users:
                tf.GradientTape.gradient = _tape_gradient
