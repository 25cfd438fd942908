"""Anomalies: where in a step values were first not finite, from the rows of what was measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import get_args

import numpy as np

from neural.session import statistics
from neural.session.anomaly import Anomaly, Place
from neural.session.layers import LayerTable
from neural.session.statistics import FloatArray

# NaN spreads to everything after it: what comes after so many tensors tells nothing new.
MOST = 64

_ORDER = get_args(Place)
_PLACES: dict[str, Place] = {
    "activations": "forward",
    "activation_gradients": "backward",
    "gradients": "parameter",
}


def find(
    measured: Sequence[tuple[str, int | None]],
    rows: FloatArray,
    table: LayerTable,
    *,
    loss_is_finite: bool,
) -> tuple[Anomaly, ...]:
    """Return what is not finite among the tensors `measured` (kind and row number), with their rows (n, 10), in order.

    The loss comes after the way forward, parameters after the way back.
    """
    nonfinite = rows[:, statistics.NAN : statistics.NEGINF + 1]
    suspicious = np.flatnonzero(nonfinite.any(axis=1)) if nonfinite.any() else np.empty(0, np.int64)
    found: dict[Place, list[Anomaly]] = {place: [] for place in _ORDER}
    seen: set[tuple[Place, int]] = set()
    for index in suspicious.tolist():
        kind, number = measured[index]
        place = _PLACES.get(kind)
        if place is None or number is None or (place, number) in seen:
            continue
        seen.add((place, number))
        nan, posinf, neginf = (int(rows[index, c]) for c in (statistics.NAN, statistics.POSINF, statistics.NEGINF))
        layer, parameter = (table.parameters[number].layer, number) if place == "parameter" else (number, None)
        found[place].append(Anomaly(place, layer, parameter, nan, posinf, neginf))
    if not loss_is_finite:
        found["loss"].append(Anomaly("loss"))
    return tuple(anomaly for place in found.values() for anomaly in place)[:MOST]


def with_inferred(found: Sequence[Anomaly], forward: Sequence[int], backward: Sequence[int]) -> tuple[Anomaly, ...]:
    """Return the anomalies `found` with those of layers whose tensors were not measured put in.

    `forward` and `backward` are the layers known to be touched on either way, in the order in which they were.
    """
    known: dict[tuple[Place, int | None], Anomaly] = {
        (one.place, one.layer): one for one in found if one.place in {"forward", "backward"}
    }
    ways: tuple[tuple[Place, Sequence[int]], ...] = (("forward", forward), ("backward", backward))
    ordered: dict[Place, list[Anomaly]] = {place: [] for place in _ORDER}
    for place, layers in ways:
        for layer in dict.fromkeys(layers):
            ordered[place].append(known.pop((place, layer), Anomaly(place, layer)))
    for one in found:
        if one.place not in {"forward", "backward"} or (one.place, one.layer) in known:
            ordered[one.place].append(one)
    return tuple(one for of_place in ordered.values() for one in of_place)[:MOST]


def infer_backward(
    order: Sequence[int], gradients: FloatArray | None, known: Collection[int], table: LayerTable
) -> list[int]:
    """Return the layers whose gradient on the way back was not finite, in that order, as their parameters' tell.

    `order` are the layers as they ran forward, `gradients` (parameters,) how many values of
    each gradient were not finite, NaN where that is not known, `known` the layers where it was seen. What
    is not finite on the way back gets into the gradients of every layer before. Only where no layer before is touched,
    a layer's gradient may have another cause, its own product with an input, unless that by its bias, which is a sum
    alone, is touched too.
    """
    bad = np.empty(0) if gradients is None else gradients
    of_layer: dict[int, list[int]] = {}
    for number, parameter in enumerate(table.parameters[: len(bad)]):
        if not np.isnan(bad[number]):
            of_layer.setdefault(parameter.layer, []).append(number)
    layers = [*dict.fromkeys(order)]
    touched = [layer for layer in layers if layer in known or (bad[of_layer.get(layer, [])] > 0).any()]
    return [
        layer
        for layer in reversed(touched)
        if layer in known or layer != touched[0] or (bad[of_layer[layer]] > 0).all()
    ]
