"""Says in words what the grammar could not read: what stands there, what may stand there, and what to write."""

from __future__ import annotations

import re
from typing import Any

from lark import UnexpectedInput, UnexpectedToken

from neural.dsl.errors import Position, listed, quoted

_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_OUTSIDE_TEXT = re.compile(r"""#[^\n]*|//[^\n]*|/\*(?:[^*]|\*(?!/))*\*/|"[^"\n]*"|'[^'\n]*'|[()\[\]{}]""")

# What a person calls the terminals of the grammar; the first group that is expected whole is named once.
_GROUPS = (
    ({"NUMBER", "STRING", "NAME", "LPAR", "LSQB"}, "a value"),
    ({"LAYERS", "SECTION", "BLOCK"}, "a section such as loss:"),
    ({"SEMICOLON", "COMMA"}, "',' or ';'"),
)
_FORM = "network Name { input: (28, 28, 1)  layers: ... }"
_TERMINALS = {
    "$END": "the end of the file",
    "BLOCK": "a section such as train {",
    "COLON": "':'",
    "COMMA": "','",
    "EQUAL": "'='",
    "LAYERS": "layers:",
    "LBRACE": "'{'",
    "LPAR": "'('",
    "LSQB": "'['",
    "NAME": "a name",
    "NUMBER": "a number",
    "RBRACE": "'}'",
    "RPAR": "')'",
    "RSQB": "']'",
    "SECTION": "a name with ':'",
    "SEMICOLON": "';'",
    "STRING": "a string",
}


def described(error: UnexpectedInput, text: str) -> tuple[Position, str]:
    """Return where the error is that lark found in `text`, and the sentence about it."""
    if isinstance(error, UnexpectedToken):
        return _misplaced(error, text)
    at = Position(error.line, error.column)
    return at, _unreadable(text[error.pos_in_stream :], _accepted(error))


def _accepted(error: UnexpectedInput) -> set[str]:
    """Return the terminals that could have stood where the error is."""
    parser: Any = error.interactive_parser  # lark leaves its methods untyped
    return set(parser.accepts())


def _unreadable(rest: str, allowed: set[str]) -> str:
    if rest[0] in "\"'":
        return f"This string is not closed on its line. Write {rest[0]} at its end."
    if rest.startswith("/*"):
        return "This comment is never closed. Write */ at its end."
    return f"The character {quoted(rest[0])} has no meaning here. Write {_named(allowed)}."


def _misplaced(error: UnexpectedToken, text: str) -> tuple[Position, str]:
    token, expected = error.token, _accepted(error)
    if token.type == "$END":
        opener = _innermost_open(text)
        if opener is None:
            return _position(text, len(text.rstrip())), f"The file ends too early. Write {_FORM}."
        return _position(text, opener), f"This {text[opener]!r} is never closed. Write '{_BRACKETS[text[opener]]}'."
    at, given = Position(token.line or 1, token.column or 1), quoted(str(token)).strip('"')
    if expected == {"$END"}:
        return at, f"After the network's last '}}' stands {given}; a file holds one network. Remove what follows it."
    opener = _innermost_open(text[: token.start_pos])
    sentence = f"Here stands {given}, where {_named(expected)} is allowed."
    if opener is None:
        return at, f"{sentence} Write {_FORM}."
    if given == "=":
        return at, f"{sentence} Write ':' in its place."
    closing = _BRACKETS[text[opener]]
    if given in _BRACKETS.values() and given != closing:
        line = _position(text, opener).line
        return at, f"{sentence} Write '{closing}' before it: the '{text[opener]}' of line {line} is still open."
    return at, f"{sentence} Write {_named(expected)} before it, or remove it."


def _named(terminals: set[str]) -> str:
    """Return what the grammar expects, in words."""
    left, words = set(terminals), []
    for group, word in _GROUPS:
        if group <= left:
            left -= group
            words.append(word)
    return listed([*sorted(_TERMINALS[terminal] for terminal in left), *words])


def _innermost_open(text: str) -> int | None:
    """Return where the last bracket stands that is still open at the end of `text`; None where all are closed."""
    stack: list[int] = []
    for match in _OUTSIDE_TEXT.finditer(text):
        if match[0] in _BRACKETS:
            stack.append(match.start())
        elif match[0] in _BRACKETS.values() and stack:
            stack.pop()
    return stack[-1] if stack else None


def _position(text: str, offset: int) -> Position:
    before = text[:offset]
    return Position(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)
