"""Layout: which modules of a model are layers, and the number of each layer and parameter in the session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from neural.session.layers import Layer, LayerTable, Parameter, Shape, canonical_names
from neural_callbacks.pytorch.distributed import own_class


@dataclass(frozen=True)
class Signature:
    """What the first measured forward pass of a module told of its tensors, and the type of its floating output."""

    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    dtype: str = ""
    input_dtypes: tuple[str, ...] = ()
    output_dtypes: tuple[str, ...] = ()


UNSEEN = Signature()


@dataclass(frozen=True)
class _Identity:
    """What makes a module the layer that it is: a module put in its place with the same is the same layer."""

    own_name: str
    type: str
    parameters: tuple[tuple[str, tuple[int, ...]], ...]


def _neural_type(module: nn.Module) -> str | None:
    # Not by getattr: a module without the attribute would look through its parameters, buffers and submodules first.
    given = vars(module).get("neural_type", getattr(type(module), "neural_type", None))
    return given if isinstance(given, str) else None


def layer_type(module: nn.Module) -> str:
    """Return the type that is shown: the module's `neural_type` where it has one, else the name of its class."""
    return _neural_type(module) or own_class(module).__name__


def _is_layer(module: nn.Module) -> bool:
    if _neural_type(module) is not None or next(module.parameters(recurse=False), None) is not None:
        return True
    empty = isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Sequential, nn.ParameterList, nn.ParameterDict))
    return next(module.children(), None) is None and not empty


def layers_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (own name, module) of each layer, in the order of registration, a module in several places once.

    Layers are modules without modules inside, and modules that own parameters directly. A module with a
    `neural_type` is one layer with all that is inside it.
    """
    seen: set[nn.Module] = set()
    pending = [("", model)]
    while pending:
        name, module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        if _is_layer(module):
            yield name or own_class(module).__name__, module
        if _neural_type(module) is None:
            inside = [(f"{name}.{part}" if name else part, child) for part, child in module.named_children()]
            pending.extend(reversed(inside))


def _parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return (name, parameter) of those that a layer owns; of a lazy layer that has not run yet none."""
    if _neural_type(module) is not None:
        return [(name, parameter) for name, parameter in module.named_parameters() if not is_lazy(parameter)]
    # Not by named_parameters(), which takes ten times as long: this runs for each layer of each sample.
    own = module._parameters.items()  # noqa: SLF001
    return [(name, parameter) for name, parameter in own if parameter is not None and not is_lazy(parameter)]


def _fingerprint(module: nn.Module) -> list[Any]:
    # Parameters by id, since tensors compare by value; `Layout` holds them, so that no id is given out again.
    return [(name, id(p), p.requires_grad, p.shape, p.dtype) for name, p in _parameters(module)]


def _modules_of(model: nn.Module) -> dict[nn.Module, None]:
    """Return all modules of a model in the order of registration, each once."""
    found: dict[nn.Module, None] = {}
    pending = [model]
    while pending:
        module = pending.pop()
        if module not in found:
            found[module] = None
            pending += [child for child in reversed(module._modules.values()) if child is not None]  # noqa: SLF001 - as above
    return found


class Layout:
    """Numbers the layers and parameters of a model as they are met; a number, once given, is kept.

    Layers are numbered in the order of their first call, then those never called. A parameter that several layers
    share belongs to the first of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.table = LayerTable(())
        # The modules of the model as of the last `look`, and those that are layers with their own names.
        self.modules: dict[nn.Module, None] = {}
        self.layers: dict[nn.Module, str] = {}
        # The row of each layer, and of each parameter by its id.
        self.layer_numbers: dict[nn.Module, int] = {}
        self.parameter_numbers: dict[int, int] = {}
        self._model = model
        self._state: list[tuple[str, nn.Module, list[Any]]] = []
        self._held: list[nn.Parameter] = []
        self._layers: dict[_Identity, int] = {}
        self._signatures: dict[_Identity, Signature] = {}
        self._parameters: dict[tuple[int, str], int] = {}
        self._types: list[torch.dtype] = []
        self._is_converted = False

    def look(self) -> None:
        """Look which modules the model has now."""
        modules = _modules_of(self._model)
        if list(modules) != list(self.modules):
            self.modules = modules
            self.layers = {module: name for name, module in layers_of(self._model)}
        # A model of other types, as after model.double(), gives out tensors of others.
        types = [parameter.dtype for parameter in self.parameters()]
        self._is_converted = self._is_converted or types != self._types
        self._types = types

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the model's modules have now, each once."""
        found: dict[int, nn.Parameter] = {}
        for module in self.modules:
            for parameter in module._parameters.values():  # noqa: SLF001 - as above
                if parameter is not None and not is_lazy(parameter):
                    found[id(parameter)] = parameter
        return list(found.values())

    def owners(self) -> dict[nn.Parameter, int]:
        """Return the row of the layer that each of the parameters belongs to."""
        numbers, rows = self.parameter_numbers, self.table.parameters
        return {tensor: rows[numbers[id(tensor)]].layer for tensor in self.parameters() if id(tensor) in numbers}

    def update(self, called: Iterable[nn.Module], signatures: Mapping[nn.Module, Signature]) -> bool:
        """Bring the numbers and the table up to date with the model as it is now; return whether the table changed.

        `called` are the layers that ran in this step, in order of their first call; `signatures` tells of those whose
        shapes are not known yet.
        """
        present = self.layers
        state = [(name, module, _fingerprint(module)) for module, name in present.items()]
        if state == self._state and not signatures:
            return False
        self._held = self.parameters()
        self._state = state
        order = [*dict.fromkeys(module for module in called if module in present), *present]
        identities: dict[nn.Module, _Identity] = {}
        for module in dict.fromkeys(order):
            shapes = tuple((name, tuple(parameter.shape)) for name, parameter in _parameters(module))
            identity = _Identity(present[module], layer_type(module), shapes)
            identities[module] = identity
            self._layers.setdefault(identity, len(self._layers))
            if module in signatures and (self._is_converted or identity not in self._signatures):
                self._signatures[identity] = signatures[module]
        self._is_converted = False
        self.layer_numbers = {module: self._layers[identity] for module, identity in identities.items()}
        table = self._tabulate({number: module for module, number in self.layer_numbers.items()})
        changed, self.table = table != self.table, table
        return changed

    def needs_signature(self, module: nn.Module) -> bool:
        """Say whether the table does not tell the shapes of this module, or not as they are now."""
        number = self.layer_numbers.get(module)
        return number is None or self._is_converted or not self.table.layers[number].output_shapes

    def _tabulate(self, modules: Mapping[int, nn.Module]) -> LayerTable:
        names = canonical_names([i.type for i in self._layers], [layer.name for layer in self.table.layers])
        layers: list[Layer] = []
        parameters = list(self.table.parameters)
        self.parameter_numbers = {}
        for (identity, number), name in zip(self._layers.items(), names, strict=True):
            own = list(_parameters(modules[number])) if number in modules else []
            seen = self._signatures.get(identity, UNSEEN)
            layers.append(
                Layer(
                    name,
                    identity.type,
                    identity.own_name,
                    seen.input_shapes,
                    seen.output_shapes,
                    seen.dtype,
                    trainable=not own or any(parameter.requires_grad for _, parameter in own),
                    input_dtypes=seen.input_dtypes,
                    output_dtypes=seen.output_dtypes,
                )
            )
            for parameter_name, parameter in own:
                if id(parameter) in self.parameter_numbers:
                    continue
                row = self._parameters.setdefault((number, parameter_name), len(parameters))
                entry = Parameter(
                    parameter_name,
                    number,
                    tuple(parameter.shape),
                    str(parameter.dtype).removeprefix("torch."),
                    trainable=parameter.requires_grad,
                )
                parameters[row : row + 1] = [entry]
                self.parameter_numbers[id(parameter)] = row
        return LayerTable(tuple(layers), tuple(parameters))
