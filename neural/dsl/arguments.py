"""Arguments against a catalog entry: which parameter each fills, whether its value is allowed, and the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neural.dsl.catalog import REQUIRED, Entry, Parameter
from neural.dsl.errors import NetworkSyntaxError, Position, Source, listed, nearest, quoted
from neural.dsl.kinds import Unacceptable
from neural.dsl.model import Argument, Call, Value


@dataclass(frozen=True)
class Filled:
    """Every parameter of an entry with its value, and where the written ones stand."""

    values: Mapping[str, Any]
    places: Mapping[str, Position]


def plain(value: Value) -> Any:
    """Return a written value as Python's own; a call stays a call."""
    return tuple(map(plain, value.content)) if isinstance(value.content, tuple) else value.content


def as_written(value: Value) -> str:
    """Return a written value for an error's sentence."""
    content = plain(value)
    return f"{content.name}(...)" if isinstance(content, Call) else quoted(content)


def fill(entry: Entry, arguments: Iterable[Argument], source: Source, at: Position) -> Filled:
    """Return the entry's parameters as the arguments, and else the defaults, say.

    Raises:
        NetworkSyntaxError: an argument that the entry does not have, has already, or does not allow; a missing one.
    """
    values: dict[str, Any] = {}
    places: dict[str, Position] = {}
    named = False
    for index, argument in enumerate(arguments):
        parameter = _meant(entry, argument, index, named=named)
        named = named or argument.name is not None
        if isinstance(parameter, str):
            raise NetworkSyntaxError(source.message(argument.at, f"{entry.name}{parameter}"))
        if parameter.name in places:
            sentence = f"{entry.name}: {parameter.name} is given twice. Remove one of them."
            raise NetworkSyntaxError(source.message(argument.at, sentence))
        try:
            values[parameter.name] = parameter.kind.accept(plain(argument.value))
        except Unacceptable:
            sentence = f"{entry.name}: {rejected(parameter, argument.value)}"
            raise NetworkSyntaxError(source.message(argument.value.at, sentence)) from None
        places[parameter.name] = argument.value.at
    for parameter in entry.parameters:
        if parameter.name not in values and parameter.default is REQUIRED:
            example = f"{entry.name}({parameter.name}={parameter.kind.example})"
            sentence = f"{entry.name} needs {parameter.name}: {parameter.kind.allowed}. Write, for example, {example}."
            raise NetworkSyntaxError(source.message(at, sentence))
    defaults = {parameter.name: parameter.default for parameter in entry.parameters}
    return Filled(defaults | values, places)


def _meant(entry: Entry, argument: Argument, index: int, *, named: bool) -> Parameter | str:
    """Return the parameter that an argument fills, or how to go on after the entry's name where there is none."""
    if argument.name is not None:
        known = {parameter.name.casefold(): parameter for parameter in entry.parameters}
        return known.get(argument.name.casefold()) or _unknown(argument.name, entry)
    if named:
        return f": {as_written(argument.value)} stands after a named argument. Write it with its name."
    positional = [parameter for parameter in entry.parameters if not parameter.by_name_only]
    if index >= len(positional):
        return f" takes {_names(positional)}; {as_written(argument.value)} is one too many. Remove it."
    return positional[index]


def rejected(parameter: Parameter, value: Value) -> str:
    """Return "units is -3; allowed is a whole number of at least 1. Write units=128."."""
    kind = parameter.kind
    allowed = f"allowed {'are' if kind.names else 'is'} {kind.allowed}"
    near = nearest(value.content, kind.names) if isinstance(value.content, str) else None
    write = kind.example if near is None else f'"{near}"'
    return f"{parameter.name} is {as_written(value)}; {allowed}. Write {parameter.name}={write}."


def _names(parameters: Sequence[Parameter]) -> str:
    return listed([parameter.name for parameter in parameters], "and") if parameters else "no values without a name"


def _unknown(name: str, entry: Entry) -> str:
    names = [parameter.name for parameter in entry.parameters]
    near = nearest(name, names)
    write = f"Write {near}." if near else "Remove it."
    return f" has no parameter {quoted(name)}; it takes {_names(entry.parameters)}. {write}"
