"""Which layers and parameters of a Keras model are measured, and how they are numbered and named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from neural.session.layers import Layer, LayerTable, Parameter, Shape, canonical_names

# What these hold runs in a graph of its own (a loop over time), which no tap can look into: they are seen from outside.
_WHOLE = (keras.layers.RNN, keras.layers.TimeDistributed)


@dataclass(frozen=True)
class Site:
    """A place for a tap: a layer that holds no other, or that owns parameters itself.

    `own_name` is the layer's name, after those of the models it is nested in; `given` the name that the user gave it,
    where it is unique in the model.
    """

    layer: Any
    own_name: str
    given: str | None
    variables: tuple[Any, ...]


def find_sites(model: Any) -> tuple[Site, ...]:
    """Return the sites of `model` as it is built so far, outer before inner; input layers are none."""
    found = [(layer, "/".join(path) or layer.name) for layer, path in _walk(model, (), set()) if _is_site(layer)]
    named = Counter(name for layer, name in found if _is_named_by_user(layer, name))
    return tuple(Site(layer, name, name if named[name] == 1 else None, _variables(layer)) for layer, name in found)


def find_containers(model: Any) -> tuple[Any, ...]:
    """Return the model and the layers that are no sites themselves, as all that is measured of them is inside."""
    return tuple(layer for layer, _ in _walk(model, (), set()) if _inner_layers(layer) and not _is_site(layer))


def _walk(layer: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    seen.add(id(layer))
    yield layer, path
    for inner in _inner_layers(layer):
        if id(inner) not in seen:
            yield from _walk(inner, (*path, inner.name), seen)


def _inner_layers(layer: Any) -> Sequence[Any]:
    if isinstance(layer, _WHOLE):
        return ()
    return list(layer._flatten_layers(include_self=False, recursive=False))  # noqa: SLF001 - Layer has no public one


def _is_site(layer: Any) -> bool:
    return not isinstance(layer, keras.layers.InputLayer) and bool(not _inner_layers(layer) or _variables(layer))


def _variables(layer: Any) -> tuple[Any, ...]:
    """Return what a layer itself learns, frozen or not; running averages and seeds are not learned."""
    parts = layer._flatten_layers() if isinstance(layer, _WHOLE) else [layer]  # noqa: SLF001 - as above
    # The public lists hold those of inner layers too, and not those of frozen ones.
    return tuple({id(v): v for part in parts for v in part._trainable_variables}.values())  # noqa: SLF001


def _is_named_by_user(layer: Any, own_name: str) -> bool:
    """Keras calls a Conv2D `conv2d`, `conv2d_1`, ...; the layers inside a layer are named by its author."""
    automatic = re.sub(r"_\d+$", "", layer.name).replace("_", "")
    return "/" not in own_name and automatic != re.sub(r"\W|_", "", type(layer).__name__).lower()


class Catalog:
    """Gives layers and parameters their numbers as training meets them; numbers once given stay."""

    def __init__(self) -> None:
        self.variables: list[Any] = []
        self._layers: list[tuple[Site, Layer]] = []
        self._parameters: list[Parameter] = []
        self._layer_rows: dict[int, int] = {}
        self._parameter_rows: dict[int, int] = {}

    def layer(self, site: Site, inputs: Sequence[Any] = (), outputs: Sequence[Any] = ()) -> int:
        """Return the row of a site's layer; at the first call, shapes are taken from its input and output tensors."""
        key = id(site.layer)
        if key not in self._layer_rows:
            row = self._layer_rows[key] = len(self._layers)
            described = Layer(
                name="",
                type=type(site.layer).__name__,
                own_name=site.own_name,
                input_shapes=tuple(map(_shape, inputs)),
                output_shapes=tuple(map(_shape, outputs)),
                dtype=str(site.layer.compute_dtype),
                input_dtypes=tuple(map(_dtype, inputs)),
                output_dtypes=tuple(map(_dtype, outputs)),
                trainable=bool(site.layer.trainable),
            )
            self._layers.append((site, described))
            for variable in site.variables:
                self._add_parameter(variable, row, site)
        return self._layer_rows[key]

    def _add_parameter(self, variable: Any, layer: int, site: Site) -> None:
        if id(variable) in self._parameter_rows:  # shared with a layer that came before
            return
        alike = [other for other in site.variables if other.name == variable.name]
        self._parameter_rows[id(variable)] = len(self.variables)
        self.variables.append(variable)
        self._parameters.append(
            Parameter(
                name=variable.name if len(alike) == 1 else variable.path,
                layer=layer,
                shape=tuple(variable.shape),
                dtype=str(variable.dtype),
                trainable=bool(variable.trainable),
            )
        )

    def row_of(self, layer: Any) -> int | None:
        """Return the row of a layer; None where it was not met so far."""
        return self._layer_rows.get(id(layer))

    def refresh(self) -> None:
        """Take in which layers and parameters have been frozen, or no longer are."""
        self._layers = [(site, replace(known, trainable=bool(site.layer.trainable))) for site, known in self._layers]
        self._parameters = [
            replace(known, trainable=bool(variable.trainable))
            for known, variable in zip(self._parameters, self.variables, strict=True)
        ]

    def parameter(self, variable: Any) -> int | None:
        """Return the row of a variable; None where it belongs to no layer met so far."""
        return self._parameter_rows.get(id(variable))

    @property
    def layers(self) -> list[Any]:
        """The layers that have a row, in its order."""
        return [site.layer for site, _ in self._layers]

    def table(self) -> LayerTable:
        """Return the table of all that has a number."""
        names = canonical_names(
            [described.type for _, described in self._layers], [site.given for site, _ in self._layers]
        )
        layers = tuple(replace(described, name=name) for name, (_, described) in zip(names, self._layers, strict=True))
        return LayerTable(layers, tuple(self._parameters))


def _shape(tensor: Any) -> Shape:
    shape = tensor.shape
    return () if getattr(shape, "rank", 0) is None else tuple(shape)  # TensorFlow alone has tensors of unknown rank


def _dtype(tensor: Any) -> str:
    return getattr(tensor.dtype, "name", None) or str(tensor.dtype).removeprefix("torch.")
