"""What the language knows: layers, activations, losses, metrics and optimizers, each parameter with its default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from neural.dsl import kinds
from neural.dsl.kinds import Kind

REQUIRED: Any = object()


@dataclass(frozen=True)
class Parameter:
    """One parameter of a layer, an optimizer or the `train` section; a REQUIRED one has no default."""

    name: str
    kind: Kind
    default: Any = REQUIRED
    by_name_only: bool = False


@dataclass(frozen=True)
class Entry:
    """A layer or an optimizer; its parameters in the order in which positional arguments fill them."""

    name: str
    parameters: tuple[Parameter, ...]


def by_spelling(names: Iterable[str], other: dict[str, str] | None = None) -> dict[str, str]:
    """Map every spelling, without regard to case, to the name it stands for."""
    return {name.casefold(): name for name in names} | (other or {})


ACTIVATIONS = by_spelling(
    (
        "relu", "softmax", "sigmoid", "tanh", "linear", "elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu",
        "log_softmax", "mish", "relu6", "selu", "silu", "softplus", "softsign",
    ),
    {"swish": "silu", "none": "linear"},
)  # fmt: skip

_PADDING = Parameter("padding", kinds.choice(by_spelling(("valid", "same"))), "valid")
_LINEAR = Parameter("activation", kinds.choice(ACTIVATIONS, for_none="linear"), "linear")
_USE_BIAS = Parameter("use_bias", kinds.BOOLEAN, True)


def _layer(name: str, *parameters: Parameter) -> Entry:
    return Entry(name, (*parameters, Parameter("name", kinds.NAME, None, by_name_only=True)))


# Defaults are those of Keras 3. Activations come third in a convolution, as the language writes it.
LAYERS = {
    entry.name.casefold(): entry
    for entry in (
        _layer("Dense", Parameter("units", kinds.whole(1, 128)), _LINEAR, _USE_BIAS),
        _layer("Output", Parameter("units", kinds.whole(1, 10)), _LINEAR, _USE_BIAS),
        _layer(
            "Conv2D",
            Parameter("filters", kinds.whole(1, 32)),
            Parameter("kernel_size", kinds.pair(3)),
            _LINEAR,
            Parameter("strides", kinds.pair(1), (1, 1)),
            _PADDING,
            _USE_BIAS,
        ),
        _layer(
            "MaxPooling2D",
            Parameter("pool_size", kinds.pair(2), (2, 2)),
            Parameter("strides", kinds.pair(2, optional=True), None),
            _PADDING,
        ),
        _layer("Flatten"),
        _layer("Dropout", Parameter("rate", kinds.number("0.5", least=0, most=1))),
        _layer(
            "BatchNormalization",
            Parameter("axis", kinds.LAST_AXIS, -1),
            Parameter("momentum", kinds.number("0.99", least=0, most=1), 0.99),
            Parameter("epsilon", kinds.number("0.001", above=0), 1e-3),
        ),
        _layer("Activation", Parameter("fn", kinds.choice(ACTIVATIONS))),
    )
}
# `Input(shape=(28, 28, 1))` as the first layer says what the section `input` says.
INPUT = _layer("Input", Parameter("shape", kinds.SHAPE))


@dataclass(frozen=True)
class Loss:
    """A loss; `activation` is what the network's output must go through last for it, None where anything fits."""

    name: str
    activation: str | None
    spellings: tuple[str, ...]


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("sparse_categorical_crossentropy", "softmax", ()),
        Loss("categorical_crossentropy", "softmax", ()),
        Loss("binary_crossentropy", "sigmoid", ()),
        Loss("mse", None, ("mean_squared_error",)),
        Loss("mae", None, ("mean_absolute_error",)),
    )
}
METRICS = by_spelling(
    ("accuracy", "mse", "mae"), {"acc": "accuracy", "mean_squared_error": "mse", "mean_absolute_error": "mae"}
)

_BETA = kinds.number("0.9", least=0, below=1)
_EPSILON = Parameter("epsilon", kinds.number("1e-7", above=0), 1e-7)
_DECAY = kinds.number("0.004", least=0)


def _rate(default: float) -> Parameter:
    return Parameter("learning_rate", kinds.number("0.001", above=0), default)


def _betas() -> tuple[Parameter, ...]:
    return (Parameter("beta_1", _BETA, 0.9), Parameter("beta_2", _BETA, 0.999), _EPSILON)


# Names and defaults of Keras 3.
OPTIMIZERS = {
    entry.name.casefold(): entry
    for entry in (
        Entry("Adam", (_rate(0.001), *_betas())),
        Entry("AdamW", (_rate(0.001), Parameter("weight_decay", _DECAY, 0.004), *_betas())),
        Entry("SGD", (_rate(0.01), Parameter("momentum", _BETA, 0.0), Parameter("nesterov", kinds.BOOLEAN, False))),
        Entry("RMSprop", (_rate(0.001), Parameter("rho", _BETA, 0.9), Parameter("momentum", _BETA, 0.0), _EPSILON)),
    )
}

TRAIN = Entry(
    "train",
    (
        Parameter("epochs", kinds.whole(1, 5), 5),
        Parameter("batch_size", kinds.whole(1, 32), 32),
        Parameter("validation_split", kinds.number("0.2", least=0, below=1), 0.0),
        Parameter("shuffle", kinds.BOOLEAN, True),
        Parameter("learning_rate", kinds.number("0.001", above=0), None),
    ),
)
