"""Taken: what the taps took from one train step, as JAX passes it out of a compiled function."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import jax


@functools.partial(jax.tree_util.register_dataclass, data_fields=["values", "losses"], meta_fields=["keys"])
@dataclass(frozen=True)
class Taken:
    """`values` are what was taken, `keys` say what each of them is of; `losses` are scalars, by the names of figures.

    The keys are part of the structure, so that each compilation of a function (for one shape of batch) has its own.
    """

    values: Any
    losses: Mapping[str, Any]
    keys: tuple[Hashable, ...]
