"""The sections beside the layers, checked: loss, optimizer, metrics, train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from neural.dsl import catalog
from neural.dsl.arguments import as_written, fill, plain
from neural.dsl.errors import NetworkShapeError, NetworkSyntaxError, Position, Source, listed, nearest, quoted
from neural.dsl.model import Argument, Block, Call, Layer, Optimizer, Setting, Training

_DEFAULT_OPTIMIZER = "adam"
_DEFAULT_LOSSES = {"softmax": "sparse_categorical_crossentropy", "sigmoid": "binary_crossentropy"}
# Keras's own loss classes are accepted too: SparseCategoricalCrossentropy().
_LOSS_SPELLINGS = {
    spelling.replace("_", ""): loss for loss in catalog.LOSSES.values() for spelling in (loss.name, *loss.spellings)
}


def loss(section: Setting | None, last: Layer, source: Source) -> str:
    """Return the loss's name; where none is written, the one that fits the output's activation.

    Raises:
        NetworkSyntaxError: there is no such loss.
        NetworkShapeError: the loss does not fit the output.
    """
    activation = last.activation
    if section is None:
        return _DEFAULT_LOSSES.get(activation, "mse")
    name, arguments = _called(section, "loss", source)
    found = _LOSS_SPELLINGS.get(name.casefold().replace("_", ""))
    if found is None:
        _unknown("loss", name, list(catalog.LOSSES), section.value.at, source)
    if arguments:
        sentence = f"{found.name} takes no arguments here. Write loss: {found.name}."
        raise NetworkSyntaxError(source.message(arguments[0].at, sentence))
    if found.activation is not None and activation != found.activation:
        fitting = [other.name for other in catalog.LOSSES.values() if other.activation in {None, activation}]
        raise NetworkShapeError(
            source.message(
                section.value.at,
                f"{found.name} needs an output that ends in {found.activation}; {last.name} ends in {activation}. "
                f'Write Output({last.output_shape[-1]}, "{found.activation}") last, or a loss that fits: '
                f"{listed(fitting)}.",
            )
        )
    if found.activation is not None and len(last.output_shape) != 1:
        sentence = f"{found.name} needs one row of values per sample; {last.name} gives {quoted(last.output_shape)}."
        raise NetworkShapeError(source.message(section.value.at, f"{sentence} Write Flatten() before {last.name}."))
    if found.activation == "softmax" and last.output_shape[-1] == 1:
        sentence = f"{found.name} needs 2 classes or more; the softmax of {last.name} has 1 value, which is always 1."
        write = 'Write Output(1, "sigmoid") with loss: binary_crossentropy.'
        raise NetworkShapeError(source.message(section.value.at, f"{sentence} {write}"))
    return found.name


def optimizer(section: Setting | None, learning_rate: tuple[float, Position] | None, source: Source) -> Optimizer:
    """Return the optimizer; `learning_rate` is that of the section `train`, for an optimizer that says none.

    Raises:
        NetworkSyntaxError: there is no such optimizer, or one of its arguments is wrong.
    """
    name, at = _DEFAULT_OPTIMIZER, Position(1, 1)
    arguments: tuple[Argument, ...] = ()
    if section is not None:
        (name, arguments), at = _called(section, "optimizer", source), section.value.at
    entry = catalog.OPTIMIZERS.get(name.casefold())
    if entry is None:
        _unknown("optimizer", name, [known.name for known in catalog.OPTIMIZERS.values()], at, source)
    filled = fill(entry, arguments, source, at)
    values = dict(filled.values)
    if learning_rate is not None:
        if "learning_rate" in filled.places:
            line = filled.places["learning_rate"].line
            sentence = f"learning_rate is given here and to {entry.name} on line {line}. Remove one of them."
            raise NetworkSyntaxError(source.message(learning_rate[1], sentence))
        values["learning_rate"] = learning_rate[0]
    return Optimizer(entry.name, values)


def metrics(section: Setting | None, loss_name: str, source: Source) -> tuple[str, ...]:
    """Return the names of the metrics, each once.

    Raises:
        NetworkSyntaxError: there is no such metric.
        NetworkShapeError: the metric cannot read the labels that the loss reads.
    """
    if section is None:
        return ()
    written = section.value.content if isinstance(section.value.content, tuple) else (section.value,)
    found: list[str] = []
    for value in written:
        name = plain(value)
        if not isinstance(name, str) or name.casefold() not in catalog.METRICS:
            _unknown("metric", as_written(value).strip('"'), dict.fromkeys(catalog.METRICS.values()), value.at, source)
        metric = catalog.METRICS[name.casefold()]
        if metric != "accuracy" and loss_name == "sparse_categorical_crossentropy":
            sentence = f"{metric} compares the output with labels of its own shape; {loss_name} has class numbers."
            write = 'Write metrics: ["accuracy"], or loss: categorical_crossentropy.'
            raise NetworkShapeError(source.message(value.at, f"{sentence} {write}"))
        found.append(metric)
    return tuple(dict.fromkeys(found))


def train(block: Block | None, source: Source) -> tuple[Training, tuple[float, Position] | None]:
    """Return the section `train`, and its learning rate with where it stands, None where it has none.

    Raises:
        NetworkSyntaxError: an entry that is not known, is there twice, or has a value that is not allowed.
    """
    entries = () if block is None else block.entries
    arguments = [Argument(entry.name, entry.value, entry.at) for entry in entries]
    filled = fill(catalog.TRAIN, arguments, source, Position(1, 1) if block is None else block.at)
    values = dict(filled.values)
    rate = values.pop("learning_rate")
    return Training(**values), None if rate is None else (rate, filled.places["learning_rate"])


def _called(section: Setting, what: str, source: Source) -> tuple[str, tuple[Argument, ...]]:
    content = section.value.content
    if isinstance(content, str):
        return content, ()
    if isinstance(content, Call):
        return content.name, content.arguments
    sentence = f"{what} is {as_written(section.value)}; allowed is a name, or a name with arguments."
    example = "Adam(learning_rate=0.001)" if what == "optimizer" else "mse"
    raise NetworkSyntaxError(source.message(section.value.at, f"{sentence} Write {what}: {example}."))


def _unknown(what: str, name: str, known: Iterable[str], at: Position, source: Source) -> NoReturn:
    names = list(known)
    near = nearest(name, names)
    write = f"Write {near}." if near else "Write one of them."
    sentence = f"There is no {what} {quoted(name)}; there are {listed(names, 'and')}. {write}"
    raise NetworkSyntaxError(source.message(at, sentence))
