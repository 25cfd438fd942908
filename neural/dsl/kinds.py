"""Kinds of parameter values: what each allows, in words, and how a written value becomes the one that is built with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# No layer of this language is larger; a larger number is a typing mistake that would only fail while allocating.
LARGEST_SIZE = 2**31 - 1
# What both frameworks take as a name, and what can be typed at a breakpoint.
_LAYER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


class Unacceptable(Exception):  # noqa: N818 - not an error of anyone's: an answer
    """The value is not of the kind."""


@dataclass(frozen=True)
class Kind:
    """One kind of value. `accept` returns the value to build with, or raises Unacceptable."""

    allowed: str
    example: str
    accept: Callable[[Any], Any]
    names: tuple[str, ...] = ()


def whole(least: int, example: int) -> Kind:
    """A whole number of at least `least`."""

    def accept(value: Any) -> int:
        if not _is_whole(value) or not least <= value <= LARGEST_SIZE:
            raise Unacceptable
        return int(value)

    return Kind(f"a whole number of at least {least}", str(example), accept)


def pair(example: int, *, optional: bool = False) -> Kind:
    """A size in both directions: one whole number, or (height, width)."""

    def accept(value: Any) -> tuple[int, int] | None:
        if value is None and optional:
            return None
        both = value if isinstance(value, tuple) else (value, value)
        if len(both) != 2 or not all(_is_whole(size) and 1 <= size <= LARGEST_SIZE for size in both):  # noqa: PLR2004
            raise Unacceptable
        return (int(both[0]), int(both[1]))

    return Kind("a whole number of at least 1, or two of them", f"({example}, {example})", accept)


def number(
    example: str,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    optional: bool = False,
) -> Kind:
    """A number, whole or not, within bounds."""
    bounds = ((above, "above"), (least, "of at least"), (below, "below"), (most, "at most"))
    allowed = " and ".join(f"{word} {bound:g}" for bound, word in bounds if bound is not None)

    def accept(value: Any) -> float | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unacceptable
        if (
            (above is not None and not value > above)
            or (least is not None and not value >= least)
            or (below is not None and not value < below)
            or (most is not None and not value <= most)
        ):
            raise Unacceptable
        return float(value)

    return Kind(f"a number {allowed}".strip(), example, accept)


def choice(names: Mapping[str, str], *, for_none: str | None = None) -> Kind:
    """One of some names, without regard to case; `names` maps every accepted spelling to the name it stands for.

    `for_none` is the name that None stands for, where it may be written.
    """
    shown = tuple(dict.fromkeys(names.values()))

    def accept(value: Any) -> str:
        if value is None and for_none is not None:
            return for_none
        if not isinstance(value, str) or value.casefold() not in names:
            raise Unacceptable
        return names[value.casefold()]

    return Kind(", ".join(shown), f'"{shown[0]}"', accept, tuple(names))


def _accept_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unacceptable
    return value


def _accept_name(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _LAYER_NAME.fullmatch(value):
        raise Unacceptable
    return value


def _accept_shape(value: Any) -> tuple[int, ...]:
    extents = value if isinstance(value, tuple) else (value,)
    if len(extents) > 1 and extents[0] is None:
        extents = extents[1:]  # the batch axis may be written, and is left out
    if not extents or not all(_is_whole(extent) and 1 <= extent <= LARGEST_SIZE for extent in extents):
        raise Unacceptable
    return tuple(extents)


def _accept_last_axis(value: Any) -> int:
    if not _is_whole(value) or value != -1:
        raise Unacceptable
    return -1


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


BOOLEAN = Kind("true or false", "true", _accept_boolean)
SHAPE = Kind("whole numbers of at least 1, without the batch", "(28, 28, 1)", _accept_shape)
LAST_AXIS = Kind("-1, the channels", "-1", _accept_last_axis)
NAME = Kind("letters, digits, _ and -, a letter first", '"fc1"', _accept_name)
