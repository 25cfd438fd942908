"""Sentinel: looks in every step for the first loss, activation or gradient that is not finite.

It is traced into a train step of its own, which has one more output: a vector that says of each tensor whether it holds
anything that is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from neural_callbacks.keras.alarms import SENTINEL, Key
from neural_callbacks.keras.on_jax.taken import Taken
from neural_callbacks.keras.on_jax.taps import State, TrainStep
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.recorder import Recorder


class SentinelTaps(TrainStep):
    """The taps of a step that is only looked at."""

    part = SENTINEL

    def __init__(self, model: Any, sites: Sequence[Site], catalog: Catalog, recorder: Recorder, state: State) -> None:
        super().__init__(model, sites, catalog, recorder, state)
        self._flags: dict[Key, Any] = {}
        self._losses: dict[str, Any] = {}

    def see_output(self, row: int, site: Site, output: Any) -> None:
        """See `TrainStep`."""
        del site
        self._look(("forward", row), output)

    def see_loss(self, loss: Any) -> None:
        """See `TrainStep`."""
        self._losses["loss"] = loss
        self._look(("loss", 0), loss)

    def see_before(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """See `TrainStep`."""
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._row_of(variable)
            if row is not None and gradient is not None and ("parameter", row) not in self._flags:
                self._look(("parameter", row), gradient)

    def taken(self) -> Taken:
        """Return, of each tensor that was seen, whether it holds what is not finite, (len(keys),) of bool; the loss."""
        flags = jnp.stack([*self._flags.values()]) if self._flags else jnp.zeros(0, bool)
        return Taken(flags, self._losses, tuple(self._flags))

    def _look(self, key: Key, tensor: Any) -> None:
        is_bad = ~jnp.isfinite(tensor).all()
        self._flags[key] = self._flags[key] | is_bad if key in self._flags else is_bad
