"""The calls of a training loop that no hook of torch tells of: `backward`, and a gradient scaler's `scale` and `step`.

While somebody listens, these functions are replaced by ones that tell and then do the same; after the last listener has
gone they are put back. What a listener does is its own to contain.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary


class Listener(Protocol):
    """Who is told. Of a loss that a scaler multiplied, the loss itself and the scale (a single number) are given."""

    def backward_begins(self, losses: tuple[Tensor, ...], scale: Tensor | None) -> None:
        """`backward` is about to run from `losses`."""

    def backward_ends(self) -> None:
        """`backward` has come back, or raised."""

    def scaler_begins(self, optimizer: Optimizer) -> None:
        """A scaler is about to let `optimizer` step, or not, where a gradient is not finite."""

    def scaler_ends(self, optimizer: Optimizer) -> None:
        """It has done so."""


_listeners: weakref.WeakSet[Any] = weakref.WeakSet()
_originals: dict[tuple[Any, str], Callable[..., Any]] = {}
_replacements: dict[tuple[Any, str], Callable[..., Any]] = {}
_lock = threading.Lock()
# A scaled loss -> the loss itself and the scale, for as long as the scaled one lives.
_scaled = WeakIdKeyDictionary()


def listen(listener: Listener) -> None:
    """Tell `listener` from now on, until `leave`, or until nobody else holds it."""
    with _lock:
        _listeners.add(listener)
        if not _originals:
            for (owner, name), make in _MAKERS.items():
                original = getattr(owner, name)
                replacement = functools.wraps(original)(make(original))
                _originals[owner, name], _replacements[owner, name] = original, replacement
                setattr(owner, name, replacement)


def leave(listener: Listener) -> None:
    """Tell `listener` no more."""
    with _lock:
        _listeners.discard(listener)
        # Where somebody else replaced one of ours meanwhile, ours stay beneath theirs and tell nobody.
        if not _listeners and all(getattr(*place) is ours for place, ours in _replacements.items()):
            for (owner, name), original in _originals.items():
                setattr(owner, name, original)
            _originals.clear()
            _replacements.clear()


def _backward(original: Callable[..., Any]) -> Callable[..., Any]:
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        listeners = list(_listeners)
        if not listeners:
            return original(tensors, *args, **kwargs)
        given = tensors if isinstance(tensors, Tensor) else tuple(tensors)  # it may be read but once
        roots = (given,) if isinstance(given, Tensor) else tuple(root for root in given if isinstance(root, Tensor))
        pairs = [_scaled.get(root) or (root, None) for root in roots]
        losses = tuple(loss for loss, _ in pairs)
        scale = next((scale for _, scale in pairs if scale is not None), None)
        for listener in listeners:
            listener.backward_begins(losses, scale)
        try:
            return original(given, *args, **kwargs)
        finally:
            for listener in listeners:
                listener.backward_ends()

    return backward


def _scale(original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(scaler: GradScaler, outputs: Any) -> Any:
        result = original(scaler, outputs)
        if isinstance(outputs, Tensor) and result is not outputs:
            _scaled[result] = (outputs.detach(), scaler._scale)  # noqa: SLF001 - get_scale() would make a device wait
        return result

    return scale


def _step(original: Callable[..., Any]) -> Callable[..., Any]:
    def step(scaler: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        listeners = list(_listeners)
        for listener in listeners:
            listener.scaler_begins(optimizer)
        result = original(scaler, optimizer, *args, **kwargs)
        for listener in listeners:
            listener.scaler_ends(optimizer)
        return result

    return step


_MAKERS = {(torch.autograd, "backward"): _backward, (GradScaler, "scale"): _scale, (GradScaler, "step"): _step}
