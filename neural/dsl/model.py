"""The dataclass tree of a network: first as it was written, then as it was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neural.dsl.errors import Position, Source

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A value as it was written.

    `content` is an int, a float, a str, a bool or None; a tuple of values, for a tuple or a list; or a call. A bare
    name is a str: `relu` and `"relu"` mean the same.
    """

    content: int | float | str | bool | tuple[Value, ...] | Call | None
    at: Position


@dataclass(frozen=True)
class Argument:
    """One argument of a call; `name` is None for a positional one."""

    name: str | None
    value: Value
    at: Position


@dataclass(frozen=True)
class Call:
    """`Name(arguments)`; a bare layer `Name` is one without arguments."""

    name: str
    arguments: tuple[Argument, ...]
    at: Position


@dataclass(frozen=True)
class Setting:
    """`name: value`, as a section or as an entry of a block."""

    name: str
    value: Value
    at: Position


@dataclass(frozen=True)
class Block:
    """`name { entry: value ... }`."""

    name: str
    entries: tuple[Setting, ...]
    at: Position


@dataclass(frozen=True)
class LayerList:
    """The section `layers`."""

    calls: tuple[Call, ...]
    at: Position
    name: str = "layers"


Section = Setting | Block | LayerList


@dataclass(frozen=True)
class WrittenNetwork:
    """One network as it was written: nothing but its grammar has been checked."""

    keyword: str
    name: str
    sections: tuple[Section, ...]
    at: Position
    name_at: Position


@dataclass(frozen=True)
class Layer:
    """One checked layer.

    `type` is the catalog's name, `name` the canonical one. `parameters` holds every parameter of the catalog's entry
    but `name`, defaults filled in. The shapes are those of one sample, channels last, without the batch axis.
    """

    type: str
    name: str
    parameters: Mapping[str, Any]
    input_shape: Shape
    output_shape: Shape
    at: Position

    @property
    def activation(self) -> str:
        """What its output goes through last; "linear" where that is nothing."""
        return str(self.parameters.get("activation") or self.parameters.get("fn") or "linear")


@dataclass(frozen=True)
class Optimizer:
    """A checked optimizer: the catalog's name and every parameter, Keras's defaults filled in."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """The section `train`. `validation_split` is the share of the training data, from its end, held back."""

    epochs: int
    batch_size: int
    validation_split: float
    shuffle: bool


@dataclass(frozen=True)
class Network:
    """One checked network: its shapes fit, its names are known, and either backend can build it.

    `input` is the shape of one sample, channels last, without the batch axis.
    """

    name: str
    input: Shape
    input_at: Position
    layers: tuple[Layer, ...]
    loss: str
    optimizer: Optimizer
    metrics: tuple[str, ...]
    train: Training
    source: Source = field(repr=False)
