"""Anomaly: something in a step that no healthy training has, and where in the step it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Place = Literal["forward", "loss", "backward", "parameter"]


@dataclass(frozen=True)
class Anomaly:
    """Values that are not finite in one tensor, or one layer's tensors, of a step.

    `layer` is a row of the layer table, None for the loss. `place` says where: the layer's output on the way forward,
    the loss, the gradient by the layer's output on the way back, or the gradient by its parameter number `parameter`
    of the table. `nan`, `posinf` and `neginf` count values; None where only their being there is known.
    """

    place: Place
    layer: int | None = None
    parameter: int | None = None
    nan: int | None = None
    posinf: int | None = None
    neginf: int | None = None


def to_json(anomalies: Sequence[Anomaly]) -> str:
    """Return the JSON that a session keeps of one step's anomalies, in the order in which they arose."""
    return json.dumps([asdict(anomaly) for anomaly in anomalies])


def from_json(text: str) -> tuple[Anomaly, ...]:
    """Read what `to_json` wrote; keys that a newer minor version added are left aside.

    Raises:
        ValueError: the text is no such list.
    """
    known = {field.name for field in fields(Anomaly)}
    try:
        items: list[dict[str, Any]] = json.loads(text)
        anomalies = tuple(Anomaly(**{key: value for key, value in item.items() if key in known}) for item in items)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"A step's anomalies are not a list of them: {error!r}.") from error
    for anomaly in anomalies:
        if anomaly.place not in get_args(Place):
            raise ValueError(f"An anomaly's place is {anomaly.place!r}; known are {', '.join(get_args(Place))}.")
    return anomalies
