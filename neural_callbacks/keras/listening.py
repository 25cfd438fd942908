"""Listening: who hears of every operation that this thread runs eagerly, and of every step of a tape on its way back.

TensorFlow has no public way to learn which operation of the forward pass a gradient belongs to. While somebody listens,
four functions inside TensorFlow are replaced by ones that tell and then do the same; they act for the listening thread
alone, and are put back after the last listener. Operations take the longer of TensorFlow's two ways from Python to
their kernel, since only that one lets the tape be told who asked: on the CPU that adds 6 us to 16 for each, and the
kernel and its result are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop, context, core, execute, record
from tensorflow.python.framework import ops

# What the name scope that a tape keeps of an operation begins with, before the number of who asked for it.
_MARK = "neuraldbg_"


class Listener(Protocol):
    """Who is told. What a listener does is its own to contain."""

    def running(self) -> int | None:
        """Return the number of what runs now, which `backward` is told again; None for nothing."""

    def operation(self, name: str, inputs: Sequence[Any], attributes: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Take in an operation, or a function that was traced before, that has just run.

        `attributes` are names and values in turn.
        """

    def backward(self, number: int | None, run: Callable[[], Any]) -> Any:
        """Return `run()`, which computes the gradients of an operation that ran while `number` did."""


_here = threading.local()
_lock = threading.Lock()
_users = 0
_originals: dict[tuple[Any, str], Any] = {}


def _listener() -> Listener | None:
    return getattr(_here, "listener", None)


def _gradient_function(*arguments: Any) -> Any:
    *others, scope = arguments
    number = None
    if scope is not None and scope.startswith(_MARK):
        mark, _, scope = scope.partition("/")
        number = int(mark.removeprefix(_MARK))
    run = partial(backprop._gradient_function, *others, scope)  # noqa: SLF001 - what stands there else
    listener = _listener()
    return run() if listener is None else listener.backward(number, run)


def _fast_path(*arguments: Any) -> Any:
    if _listener() is not None:
        raise core._FallbackException("neuraldbg listens")  # noqa: SLF001 - how TensorFlow itself takes the other way
    return _originals[pywrap_tfe, "TFE_Py_FastPathExecute"](*arguments)


def _execute(
    op_name: Any, num_outputs: int, inputs: Sequence[Any], attrs: Sequence[Any], *more: Any, **kwargs: Any
) -> Any:
    outputs = _originals[execute, "execute"](op_name, num_outputs, inputs, attrs, *more, **kwargs)
    listener = _listener()
    if listener is not None:
        plain = op_name.decode() if isinstance(op_name, bytes) else op_name
        listener.operation(plain, inputs, attrs or (), outputs)
    return outputs


def _record_gradient(op_name: str, inputs: Any, attrs: Any, outputs: Any) -> None:
    listener = _listener() if context.executing_eagerly() else None
    number = None if listener is None else listener.running()
    if number is None:
        _originals[execute, "record_gradient"](op_name, inputs, attrs, outputs)
    else:
        scope = f"{_MARK}{number}/{ops.get_name_scope()}"
        pywrap_tfe.TFE_Py_RecordGradient(op_name, inputs, attrs, outputs, scope)


def _record_operation(
    op_type: str, output_tensors: Any, input_tensors: Any, backward_function: Any, forward_function: Any = None
) -> None:
    """Stand for what custom gradients and traced functions are recorded with."""
    listener = _listener() if context.executing_eagerly() else None
    if listener is not None:
        backward_function = partial(_custom_backward, listener.running(), backward_function)
    original = _originals.get((record, "record_operation"), record.record_operation)
    original(op_type, output_tensors, input_tensors, backward_function, forward_function)


def _custom_backward(number: int | None, function: Callable[..., Any], *gradients: Any) -> Any:
    listener = _listener()
    if listener is None:
        return function(*gradients)
    return listener.backward(number, partial(function, *gradients))


_REPLACED = {
    (pywrap_tfe, "TFE_Py_FastPathExecute"): _fast_path,
    (execute, "execute"): _execute,
    (execute, "record_gradient"): _record_gradient,
    (record, "record_operation"): _record_operation,
}


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of what this thread runs eagerly inside the `with` block; one listens at a time."""
    global _users  # noqa: PLW0603 - the functions are shared by all threads, and must be as they were after the last one
    with _lock:
        _users += 1
        if _users == 1:
            _originals.update({place: getattr(*place) for place in _REPLACED})
            for place, ours in _REPLACED.items():
                setattr(*place, ours)
            pywrap_tfe.TFE_Py_RegisterGradientFunction(_gradient_function)
    _here.listener = listener
    try:
        yield
    finally:
        _here.listener = None
        with _lock:
            _users -= 1
            if not _users:
                pywrap_tfe.TFE_Py_RegisterGradientFunction(backprop._gradient_function)  # noqa: SLF001 - see above
                for place, original in _originals.items():
                    setattr(*place, original)
