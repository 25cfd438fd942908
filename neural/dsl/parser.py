"""Text in, a checked network out: reads a .neural file with the grammar beside it."""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import cache
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, v_args

from neural.dsl import checker, syntax_errors
from neural.dsl.errors import MissingFileError, NetworkSyntaxError, NeuralError, Position, Source, quoted
from neural.dsl.model import Argument, Block, Call, LayerList, Network, Section, Setting, Value, WrittenNetwork

# A value inside a value inside ... : deeper than any network needs, and far from Python's recursion limit.
DEEPEST_NESTING = 16
# Longer numbers than this are typing mistakes; Python itself refuses to read whole numbers of over 4 300 digits.
LONGEST_NUMBER = 40

_CONSTANTS = {"true": True, "false": False, "none": None}


def parse_file(path: str | Path) -> Network:
    """Read and check the network in a file.

    Raises:
        MissingFileError: there is no such file.
        NeuralError: it cannot be read, or what it says is no network; the text of the error is the whole message.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError(_missing(path)) from None
    except UnicodeDecodeError as error:
        raise NetworkSyntaxError(
            f"{path} is not text in UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}. "
            "Write it as UTF-8 text."
        ) from None
    except OSError as error:
        raise NeuralError(f"{path} cannot be read: {error.strerror}. Write the path of a .neural file.") from None
    return parse(text, str(path))


def parse(text: str, filename: str) -> Network:
    """Read and check the network in `text`; `filename` is what errors call it.

    Raises:
        NetworkSyntaxError: the text is not a network of the language.
        NetworkShapeError: its shapes do not fit.
    """
    source = Source(filename, text)
    written: WrittenNetwork = _read(text, "start", source)
    sections = tuple(_unquoted(section, source) for section in written.sections)
    return checker.check(replace(written, sections=sections), source)


def _missing(path: Path) -> str:
    sentence = f"There is no file {path}."
    if not path.parent.is_dir():
        return f"{sentence} There is no folder {path.parent} either. Write the path of a .neural file."
    others = sorted(other.name for other in path.parent.glob("*.neural"))
    near = difflib.get_close_matches(path.name, others, n=1) or others[:1]
    return f"{sentence} Write {path.parent / near[0]}." if near else f"{sentence} Write the path of a .neural file."


def _unquoted(section: Section, source: Source) -> Section:
    """Return the section with a call in a string, `optimizer: "Adam(learning_rate=1e-4)"`, read as that call."""
    if not isinstance(section, Setting) or section.name.casefold() not in {"optimizer", "loss"}:
        return section
    content, at = section.value.content, section.value.at
    if not isinstance(content, str) or "(" not in content:
        return section
    # The call is moved to where it stands in the file, so that its positions, and its errors, are the file's.
    call: Call = _read("\n" * (at.line - 1) + " " * at.column + content, "quoted_call", source)
    return replace(section, value=Value(call, at))


class _UnreadableError(Exception):
    """A token that the grammar accepts and the language does not."""

    def __init__(self, at: Position, sentence: str) -> None:
        super().__init__(sentence)
        self.at = at


def _at(token: Token) -> Position:
    return Position(token.line or 1, token.column or 1)


def _depth(value: Value) -> int:
    if isinstance(value.content, tuple):
        inner = value.content
    elif isinstance(value.content, Call):
        inner = tuple(argument.value for argument in value.content.arguments)
    else:
        return 0
    return 1 + max(map(_depth, inner), default=0)


def _shallow(value: Value) -> Value:
    """Return the value; called from the inside out, so that `_depth` never goes deeper than one past the limit."""
    if _depth(value) > DEEPEST_NESTING:
        raise _UnreadableError(value.at, f"Values are nested more than {DEEPEST_NESTING} deep. Write fewer brackets.")
    return value


@v_args(inline=True)
class _Tree(Transformer[Token, Any]):
    """Makes the dataclass tree while the grammar is read: one method for each rule."""

    def start(self, keyword: Token, name: Token, *sections: Section) -> WrittenNetwork:
        return WrittenNetwork(str(keyword), str(name), sections, _at(keyword), _at(name))

    def layers(self, keyword: Token, *calls: Call) -> LayerList:
        return LayerList(calls, _at(keyword))

    def setting(self, name: Token, value: Value) -> Setting:
        return Setting(str(name), value, _at(name))

    def block(self, name: Token, *entries: Setting) -> Block:
        return Block(str(name), entries, _at(name))

    def call(self, name: Token, *arguments: Argument) -> Call:
        return Call(str(name), arguments, _at(name))

    def bare_layer(self, name: Token) -> Call:
        return Call(str(name), (), _at(name))

    def quoted_call(self, call: Call) -> Call:
        return call

    def positional(self, value: Value) -> Argument:
        return Argument(None, value, value.at)

    def named(self, name: Token, value: Value) -> Argument:
        return Argument(str(name), value, _at(name))

    def number(self, token: Token) -> Value:
        number = int(token) if token.lstrip("+-").isdigit() and len(token) <= LONGEST_NUMBER else float(token)
        if len(token) > LONGEST_NUMBER or not isfinite(number):
            raise _UnreadableError(
                _at(token), f"The number {quoted(str(token))[1:-1]} is too large. Write a smaller one."
            )
        return Value(number, _at(token))

    def string(self, token: Token) -> Value:
        return Value(str(token[1:-1]), _at(token))

    def name(self, token: Token) -> Value:
        return Value(_CONSTANTS.get(token.casefold(), str(token)), _at(token))

    def call_value(self, call: Call) -> Value:
        return _shallow(Value(call, call.at))

    def sequence(self, bracket: Token, *values: Value) -> Value:
        return _shallow(Value(values, _at(bracket)))


@cache
def _grammar() -> Lark:
    text = resources.files("neural.dsl").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", start=["start", "quoted_call"], transformer=_Tree())


def _read(text: str, start: str, source: Source) -> Any:
    try:
        return _grammar().parse(text, start=start)
    except _UnreadableError as error:
        at, sentence = error.at, str(error)
    except UnexpectedInput as error:
        at, sentence = syntax_errors.described(error, text)
    raise NetworkSyntaxError(source.message(at, sentence)) from None
