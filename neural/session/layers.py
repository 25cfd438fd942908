"""The layers of a model, as a session names them: types, shapes, parameters, FLOPs; and name resolution."""

from __future__ import annotations

import difflib
import fnmatch
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Layer:
    """One layer.

    `name` is canonical: `Type_N`, N counting from 1 within the type in execution order, or the name that a .neural
    file gave it. `own_name` is what the framework calls it ("encoder.layers.0.linear1", "conv2d_1").
    Shapes include the batch axis; None is a size that varies, an empty list of shapes one that was not seen.
    `input_dtypes` and `output_dtypes` are those of the tensors whose shapes these are; `dtype` is that of the first
    floating output. `flops` are those of one forward pass over one batch; None where they were not counted.
    """

    name: str
    type: str
    own_name: str
    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    dtype: str = ""
    trainable: bool = True
    flops: int | None = None
    input_dtypes: tuple[str, ...] = ()
    output_dtypes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """One parameter tensor: "kernel" of layer number `layer` in the table."""

    name: str
    layer: int
    shape: tuple[int, ...]
    dtype: str = ""
    trainable: bool = True

    @property
    def size(self) -> int:
        """How many values it holds."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size


class UnknownLayerError(ValueError):
    """A name that no layer of the model has."""


@dataclass(frozen=True)
class LayerTable:
    """Layers in execution order, and their parameters.

    Row i of a matrix of activations is `layers[i]`, row j of a matrix of gradients `parameters[j]`. A table only
    grows during a run: a number, once given, keeps its layer or parameter.
    """

    layers: tuple[Layer, ...]
    parameters: tuple[Parameter, ...] = ()

    def resolve(self, wanted: str) -> tuple[int, ...]:
        """Return the numbers of the layers that `wanted` names.

        Tried in turn: a canonical name, the framework's own name, either without regard to case where that is
        unique, a type that occurs once, a glob (`Conv2D_*`), which may name several.

        Raises:
            UnknownLayerError: nothing fits, or a name without regard to case, or a type, fits several.
        """
        layers = list(enumerate(self.layers))
        for exact in ("name", "own_name"):
            found = tuple(i for i, layer in layers if getattr(layer, exact) == wanted)
            if found:
                return found
        folded = wanted.casefold()
        for key in ("name", "own_name", "type"):
            found = tuple(i for i, layer in layers if getattr(layer, key).casefold() == folded)
            if len(found) == 1:
                return found
            if found:
                several = ", ".join(self.layers[i].name for i in found)
                raise UnknownLayerError(f"{wanted!r} fits several layers: {several}. Write one of them, or a glob.")
        found = tuple(
            i
            for i, layer in layers
            if fnmatch.fnmatchcase(layer.name, wanted) or fnmatch.fnmatchcase(layer.own_name, wanted)
        )
        if found:
            return found
        raise UnknownLayerError(self._unknown(wanted))

    def _unknown(self, wanted: str) -> str:
        names = list(dict.fromkeys(name for layer in self.layers for name in (layer.name, layer.own_name)))
        near = difflib.get_close_matches(wanted, names, n=3) or names[:3]
        meant = f" Write, for example, {', '.join(near)}." if near else " The model has no layers."
        return f"There is no layer {wanted!r}.{meant}"

    def to_json(self) -> str:
        """Return the table as the JSON that a session keeps."""
        return json.dumps(
            {"layers": [asdict(x) for x in self.layers], "parameters": [asdict(x) for x in self.parameters]}
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; keys that a newer minor version added are left aside.

        Raises:
            ValueError: the text is not such a table.
        """
        try:
            document = json.loads(text)
            layers = tuple(_construct(Layer, item) for item in document["layers"])
            parameters = tuple(_construct(Parameter, item) for item in document["parameters"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"The layer table is not one: {error!r}.") from error
        if not all(0 <= parameter.layer < len(layers) for parameter in parameters):
            raise ValueError("The layer table has a parameter of a layer that it does not list.")
        return cls(layers, parameters)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _construct(kind: type[Any], item: dict[str, Any]) -> Any:
    known = {field.name for field in fields(kind)}
    return kind(**{key: _tuples(value) for key, value in item.items() if key in known})


def canonical_names(types: Sequence[str], given: Iterable[str | None] = ()) -> tuple[str, ...]:
    """Return a unique name for each layer: the given one, or `Type_N` with N counting from 1 within the type."""
    names = [*given]
    names += [None] * (len(types) - len(names))
    taken = {name for name in names if name is not None}
    counts: Counter[str] = Counter()
    result: list[str] = []
    for kind, name in zip(types, names, strict=True):
        counts[kind] += 1
        while name is None and f"{kind}_{counts[kind]}" in taken:
            counts[kind] += 1
        result.append(name if name is not None else f"{kind}_{counts[kind]}")
    return tuple(result)
