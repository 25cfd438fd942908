"""From a network as it was written to one that is known to fit: sections, layers, shapes."""

from __future__ import annotations

from collections.abc import Sequence

from neural.dsl import catalog, settings
from neural.dsl.arguments import as_written, fill, plain
from neural.dsl.errors import NetworkShapeError, NetworkSyntaxError, Position, Source, listed, nearest, quoted
from neural.dsl.kinds import SHAPE, Unacceptable
from neural.dsl.model import Block, Call, Layer, LayerList, Network, Section, Setting, Shape, WrittenNetwork
from neural.dsl.shapes import MisfitError, output_shape
from neural.session.layers import canonical_names

# How each section is written; the order is the one in which an error lists them.
_FORMS = {
    "input": "input: (28, 28, 1)",
    "layers": 'layers: Flatten() Output(10, "softmax")',
    "loss": "loss: mse",
    "optimizer": "optimizer: Adam(learning_rate=0.001)",
    "metrics": 'metrics: ["accuracy"]',
    "train": "train { epochs: 5 }",
}


def check(written: WrittenNetwork, source: Source) -> Network:
    """Return the network that `written` says.

    Raises:
        NetworkSyntaxError: a name that is not known, a value that is not allowed, a section that is missing or twice.
        NetworkShapeError: a layer that does not fit its input, a loss that does not fit the output.
    """
    if written.keyword.casefold() != "network":
        sentence = f"A file starts with network; here stands {quoted(written.keyword)}."
        raise NetworkSyntaxError(
            source.message(written.at, f"{sentence} Write network {quoted(written.name)[1:-1]} {{.")
        )
    sections = _sections(written, source)
    layer_list = sections.get("layers")
    if not isinstance(layer_list, LayerList) or not layer_list.calls:
        at = written.name_at if layer_list is None else layer_list.at
        raise NetworkSyntaxError(source.message(at, f"The network has no layers. Write {_FORMS['layers']}."))
    input_shape, input_at, calls = _input(sections.get("input"), layer_list, source)
    layers = _layers(calls, input_shape, source)
    loss = settings.loss(_setting(sections, "loss"), layers[-1], source)
    train, learning_rate = settings.train(_entries(sections), source)
    return Network(
        name=written.name,
        input=input_shape,
        input_at=input_at,
        layers=layers,
        loss=loss,
        optimizer=settings.optimizer(_setting(sections, "optimizer"), learning_rate, source),
        metrics=settings.metrics(_setting(sections, "metrics"), loss, source),
        train=train,
        source=source,
    )


def _sections(written: WrittenNetwork, source: Source) -> dict[str, Section]:
    found: dict[str, Section] = {}
    for section in written.sections:
        name = section.name.casefold()
        if name not in _FORMS:
            near = nearest(name, _FORMS)
            write = f"Write {near}." if near else "Remove it."
            sentence = f"There is no section {quoted(section.name)}; there are {listed(_FORMS, 'and')}. {write}"
            raise NetworkSyntaxError(source.message(section.at, sentence))
        if name in found:
            sentence = f"The section {name} stands here again; first on line {found[name].at.line}. Keep one of them."
            raise NetworkSyntaxError(source.message(section.at, sentence))
        expected = {"layers": LayerList, "train": Block}.get(name, Setting)
        if not isinstance(section, expected):
            raise NetworkSyntaxError(source.message(section.at, f"The section {name} is written {_FORMS[name]}."))
        found[name] = section
    return found


def _setting(sections: dict[str, Section], name: str) -> Setting | None:
    section = sections.get(name)
    return section if isinstance(section, Setting) else None


def _entries(sections: dict[str, Section]) -> Block | None:
    section = sections.get("train")
    return section if isinstance(section, Block) else None


def _input(section: Section | None, layer_list: LayerList, source: Source) -> tuple[Shape, Position, Sequence[Call]]:
    """Return the input's shape, where it is written, and the layers after it."""
    written: tuple[Shape, Position] | None = None
    if isinstance(section, Setting):
        try:
            written = SHAPE.accept(plain(section.value)), section.value.at
        except Unacceptable:
            sentence = f"input is {as_written(section.value)}; allowed are {SHAPE.allowed}."
            message = source.message(section.value.at, f"{sentence} Write input: {SHAPE.example}.")
            raise NetworkShapeError(message) from None
    first, calls = layer_list.calls[0], layer_list.calls
    if first.name.casefold() == "input":
        calls = calls[1:]
        shape = fill(catalog.INPUT, first.arguments, source, first.at).values["shape"]
        if written is not None and written[0] != shape:
            sentence = f"Input is {quoted(shape)} here and {quoted(written[0])} on line {written[1].line}."
            raise NetworkShapeError(source.message(first.at, f"{sentence} Remove one of them."))
        written = shape, first.at
        if not calls:
            raise NetworkSyntaxError(source.message(first.at, f"No layer follows Input. Write {_FORMS['layers']}."))
    if written is None:
        sentence = f"The network has no input. Write {_FORMS['input']} before its layers."
        raise NetworkSyntaxError(source.message(layer_list.at, sentence))
    return *written, calls


def _layers(calls: Sequence[Call], shape: Shape, source: Source) -> tuple[Layer, ...]:
    entries = [_entry(call, source) for call in calls]
    filled = [fill(entry, call.arguments, source, call.at) for entry, call in zip(entries, calls, strict=True)]
    given = [one.values["name"] for one in filled]
    for index, name in enumerate(given):
        if name is not None and name in given[:index]:
            sentence = f"The name {quoted(name)} is given to two layers. Write another one."
            raise NetworkSyntaxError(source.message(filled[index].places["name"], sentence))
    names = canonical_names([entry.name for entry in entries], given)
    layers: list[Layer] = []
    for call, entry, name, one in zip(calls, entries, names, filled, strict=True):
        parameters = {key: value for key, value in one.values.items() if key != "name"}
        incoming = shape
        try:
            shape = output_shape(entry.name, parameters, incoming)
        except MisfitError as misfit:
            at = one.places.get(misfit.parameter or "", call.at)
            raise NetworkShapeError(source.message(at, f"{name}: {misfit}")) from None
        layers.append(Layer(entry.name, name, parameters, incoming, shape, call.at))
    return tuple(layers)


def _entry(call: Call, source: Source) -> catalog.Entry:
    entry = catalog.LAYERS.get(call.name.casefold())
    if entry is not None:
        return entry
    if call.name.casefold() == "input":
        raise NetworkSyntaxError(source.message(call.at, "Input stands first. Write it before the other layers."))
    names = [entry.name for entry in catalog.LAYERS.values()]
    near = nearest(call.name, names)
    write = f"Write {near}." if near else "Write one of them."
    sentence = f"There is no layer {quoted(call.name)}; there are {listed(names, 'and')}. {write}"
    raise NetworkSyntaxError(source.message(call.at, sentence))
