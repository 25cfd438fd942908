"""The layers of the language on PyTorch, each one module whose output is what the layer of Keras gives out.

A sample of more than one axis, (height, width, channels), is carried channels first: (batch, channels, height, width).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural.dsl.model import Shape
from neural.dsl.shapes import same_padding

# Slopes and forms are those of Keras's activations, where the two frameworks' defaults differ.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": functional.elu,
    "exponential": torch.exp,
    "gelu": functional.gelu,
    "hard_sigmoid": functional.hardsigmoid,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "linear": lambda x: x,
    "log_softmax": lambda x: functional.log_softmax(x, dim=1),
    "mish": functional.mish,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "selu": functional.selu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "softmax": lambda x: functional.softmax(x, dim=1),
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "tanh": torch.tanh,
}


def activated(raw: Tensor, activation: str) -> Tensor:
    """Return `raw` through the activation; what softmax or sigmoid gives out keeps its logits, as in Keras.

    A loss finds them in the tensor's attribute `logits`, so that it need not take the logarithm of a rounded share.
    """
    output = ACTIVATIONS[activation](raw)
    if activation in {"softmax", "sigmoid"}:
        output.logits = raw
    return output


def _start_as_keras(layer: nn.Linear | nn.Conv2d) -> None:
    """Glorot uniform kernels and zero biases."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Dense(nn.Linear):
    """Acts on the channels: (batch, channels, ...) to (batch, units, ...); the activation is part of it."""

    def __init__(self, inputs: int, units: int, activation: str, *, use_bias: bool) -> None:
        super().__init__(inputs, units, bias=use_bias)
        self.activation = activation
        _start_as_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated product."""
        raw = functional.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)
        return activated(raw, self.activation)


class Output(Dense):
    """The Dense layer that a network ends in; a type of its own, so that its canonical name is `Output_1`."""


class Conv2D(nn.Conv2d):
    """(batch, channels, height, width) to (batch, filters, ...); `padding` is (before, after) per axis."""

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel_size: tuple[int, int],
        activation: str,
        *,
        strides: tuple[int, int],
        padding: tuple[tuple[int, int], tuple[int, int]],
        use_bias: bool,
    ) -> None:
        super().__init__(channels, filters, kernel_size, strides, bias=use_bias)
        self.activation = activation
        self.edges = _edges(padding)
        _start_as_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated convolution."""
        if any(self.edges):
            x = functional.pad(x, self.edges)
        return activated(super().forward(x), self.activation)


class MaxPooling2D(nn.Module):
    """(batch, channels, height, width); padding counts as less than any value."""

    def __init__(
        self,
        pool_size: tuple[int, int],
        strides: tuple[int, int],
        padding: tuple[tuple[int, int], tuple[int, int]],
    ) -> None:
        super().__init__()
        self.pool_size = pool_size
        self.strides = strides
        self.edges = _edges(padding)

    def forward(self, x: Tensor) -> Tensor:
        """Return the largest value under each window."""
        if any(self.edges):
            x = functional.pad(x, self.edges, value=-torch.inf)
        return functional.max_pool2d(x, self.pool_size, self.strides)

    def extra_repr(self) -> str:
        """Say its sizes where the model is printed."""
        return f"{self.pool_size}, strides={self.strides}"


class Flatten(nn.Module):
    """Puts the channels last before it flattens, so that the next layer's weights are in Keras's order."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, values)."""
        return x.movedim(1, -1).flatten(1)


class Dropout(nn.Dropout):
    """A type of our own name."""


class Activation(nn.Module):
    """One activation as a layer."""

    def __init__(self, fn: str) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated input."""
        return activated(x, self.fn)

    def extra_repr(self) -> str:
        """Say its function where the model is printed."""
        return self.fn


class BatchNormalization(nn.Module):
    """Normalizes each channel; what it remembers is Keras's: the biased variance, moved by `1 - momentum`."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, momentum: float, epsilon: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized input; in training by its own moments, which are remembered."""
        mean, variance = self.running_mean, self.running_var
        per_channel = x.numel() // x.shape[1]
        if self.training and per_channel == 1:
            # PyTorch refuses a single value; its own mean is itself, its variance 0.
            self._remember(x.detach().flatten(), torch.zeros_like(variance))
            along = (1, -1, *(1,) * (x.ndim - 2))
            return (x - x) * self.weight.reshape(along) + self.bias.reshape(along)
        if self.training:
            # Filled by the same pass that normalizes; a second pass over a large input would cost more than the first.
            mean, variance = torch.zeros_like(mean), torch.zeros_like(variance)
        output = functional.batch_norm(
            x, mean, variance, self.weight, self.bias, training=self.training, momentum=1.0, eps=self.epsilon
        )
        if self.training:
            self._remember(mean, variance * ((per_channel - 1) / per_channel))
        return output

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        with torch.no_grad():
            self.running_mean.lerp_(mean, 1 - self.momentum)
            self.running_var.lerp_(variance, 1 - self.momentum)

    def extra_repr(self) -> str:
        """Say its sizes where the model is printed."""
        return f"{len(self.weight)}, momentum={self.momentum}, epsilon={self.epsilon}"


def padding(
    kind: str, sizes: Shape, window: tuple[int, int], strides: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return how much to pad before and after height and width."""
    if kind == "valid":
        return (0, 0), (0, 0)
    height, width = (same_padding(*axis) for axis in zip(sizes, window, strides, strict=True))
    return height, width


def _edges(padding: tuple[tuple[int, int], tuple[int, int]]) -> tuple[int, int, int, int]:
    """Return the padding as torch orders it: the last axis first."""
    return (*padding[1], *padding[0])
