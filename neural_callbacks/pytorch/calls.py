"""The calls of a training loop that no hook of torch tells of: `backward`, and a gradient scaler's `scale` and `step`.

While somebody listens, these functions are replaced by ones that tell and then do the same; after the last listener has
gone they are put back. Where somebody else has replaced one meanwhile, ours stays beneath theirs and tells nobody.
What a listener does is its own to contain.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from neural_callbacks.pytorch import structures
from neural_callbacks.pytorch.sentinel import in_backward


@dataclass(frozen=True, slots=True)
class Start:
    """Where a `backward` starts.

    `roots` are what it is called on, `losses` the same before a scaler multiplied it by `scale` (a single number; None:
    it did not), without their graphs. `is_alone`: only one listener is told.
    """

    roots: tuple[Tensor, ...]
    losses: tuple[Tensor, ...]
    scale: Tensor | None
    is_alone: bool


class Listener(Protocol):
    """Who is told."""

    def backward_begins(self, start: Start) -> bool:
        """`backward` is about to run; return whether that concerns the listener.

        What runs within another `backward`, as in a checkpoint, is not told of.
        """

    def backward_ends(self) -> None:
        """A `backward` that concerned the listener has come back, or raised."""

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
# The scalers in use: where there are none, nobody looks for what they did.
_scalers: weakref.WeakSet[GradScaler] = weakref.WeakSet()
# Where the scale stands among what autograd keeps with the node that multiplied by it; and how many nodes are looked
# at to find it, from a sum or a share of scaled losses.
_SCALE = "neuraldbg_scale"
_FAR = 16


def listen(listener: Listener) -> None:
    """Tell `listener` from now on, until `leave`, or until nobody else holds it."""
    with _lock:
        _listeners.add(listener)
        for place, make in _MAKERS.items():
            # Somebody else's may stand there, above ours or not: a new one goes on top, and an older one tells nobody.
            if getattr(*place) is not _replacements.get(place):
                _replace(place, make)


def leave(listener: Listener) -> None:
    """Tell `listener` no more."""
    with _lock:
        _listeners.discard(listener)
        if not _listeners:
            for place, replacement in _replacements.items():
                if getattr(*place) is replacement:
                    setattr(*place, _originals[place])
            _originals.clear()
            _replacements.clear()


def _replace(place: tuple[Any, str], make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(*place)
    telling = make(original)

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        call = telling if _replacements.get(place) is replacement else original
        return call(*args, **kwargs)

    _originals[place], _replacements[place] = original, replacement
    setattr(*place, replacement)


def _backward(original: Callable[..., Any]) -> Callable[..., Any]:
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        listeners = list(_listeners)
        if not listeners or in_backward():
            return original(tensors, *args, **kwargs)
        given = tensors if isinstance(tensors, Tensor) else tuple(tensors)  # it may be read but once
        roots = (given,) if isinstance(given, Tensor) else tuple(root for root in given if isinstance(root, Tensor))
        pairs = [_unscaled(root) for root in roots]
        scale = next((scale for _, scale in pairs if scale is not None), None)
        start = Start(roots, tuple(loss for loss, _ in pairs), scale, is_alone=len(listeners) == 1)
        concerned = [listener for listener in listeners if listener.backward_begins(start)]
        try:
            return original(given, *args, **kwargs)
        finally:
            for listener in concerned:
                listener.backward_ends()

    return backward


def _unscaled(root: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return what a scaler multiplied to get `root`, and by which scale (None: it did not)."""
    known: tuple[Tensor, Tensor] | None = _scaled.get(root)
    if known is not None:
        return known
    seen = pending = [root.grad_fn] if _scalers else []
    while pending and len(seen) < _FAR:
        pending = [after for node in pending if node is not None for after, _ in node.next_functions]
        for node in pending:
            scale = None if node is None else node.metadata.get(_SCALE)
            if scale is not None:
                return root.detach() / scale, scale
        seen = [*seen, *pending]
    return root.detach(), None


def _scale(original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(scaler: GradScaler, outputs: Any) -> Any:
        result = original(scaler, outputs)
        # What comes of an iterator is one too, not to be read here.
        for loss, scaled in zip(structures.tensors(outputs), structures.tensors(result), strict=False):
            if scaled is not loss:
                factor = scaler._scale  # noqa: SLF001 - get_scale() would make a device wait
                _scalers.add(scaler)
                _scaled[scaled] = (loss.detach(), factor)
                if scaled.grad_fn is not None:
                    scaled.grad_fn.metadata[_SCALE] = factor
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
