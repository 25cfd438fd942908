"""The errors of the language and of what runs it: each knows its exit code, and its text is the whole message."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

# A longer source line is shown as a piece of this many characters around the caret.
SHOWN_CHARACTERS = 120


class NeuralError(Exception):
    """Something that the user can mend; `str()` says what was given, what is allowed, and what to write."""

    exit_code = 1


class NetworkSyntaxError(NeuralError):
    """The text is not a network of the language."""

    exit_code = 2


class NetworkShapeError(NeuralError):
    """A layer, loss or size does not fit the shapes around it."""

    exit_code = 3


class BackendMissingError(NeuralError):
    """The framework that was asked for is not installed."""

    exit_code = 4


class MissingFileError(NeuralError):
    """There is no such file."""

    exit_code = 5


class DataError(NeuralError):
    """The data set is unknown, or does not fit the network."""


@dataclass(frozen=True)
class Position:
    """A place in the text; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Source:
    """The text of a network and where it came from."""

    filename: str
    text: str

    def message(self, at: Position, sentence: str) -> str:
        """Return `file:line:column: sentence`, then the line, then a caret under the column."""
        lines = self.text.split("\n")
        line = lines[at.line - 1] if at.line <= len(lines) else ""
        start = max(0, at.column - 1 - SHOWN_CHARACTERS // 2) if len(line) > SHOWN_CHARACTERS else 0
        shown = _printable(line[start : start + SHOWN_CHARACTERS])
        # Tabs are kept before the caret too, so that it stands under its character at any tab width.
        indent = "".join(map(_blank, shown[: at.column - 1 - start]))
        return f"{self.filename}:{at.line}:{at.column}: {sentence}\n    {shown.rstrip()}\n    {indent}^"


def _blank(character: str) -> str:
    """Return as many blanks as a terminal gives the character columns: two to most of East Asia's, none to accents."""
    if character == "\t":
        return character
    if unicodedata.combining(character):
        return ""
    return "  " if unicodedata.east_asian_width(character) in {"W", "F"} else " "


def _printable(text: str) -> str:
    """Replace what a terminal would obey instead of show."""
    return "".join(character if character.isprintable() or character == "\t" else "\ufffd" for character in text)


def quoted(given: object) -> str:
    """Return a given value as the user would write it, cut where it is long."""
    if isinstance(given, str):
        text = f'"{_printable(given)}"'
    elif isinstance(given, tuple):
        text = f"({', '.join(quoted(item) for item in given)}{',' if len(given) == 1 else ''})"
    else:
        text = str(given)
    return text if len(text) <= SHOWN_CHARACTERS // 2 else f"{text[: SHOWN_CHARACTERS // 2]}..."


def nearest(given: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like the given one, without regard to case; None where none is near."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(given[:100].casefold(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def listed(names: Iterable[str], conjunction: str = "or") -> str:
    """Return "a, b or c"."""
    items = list(names)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {conjunction} {items[-1]}"
