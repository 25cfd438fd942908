"""A checked network as a PyTorch module, with its loss and optimizer; the same network as Keras would build."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural.dsl import shapes, torch_layers
from neural.dsl.errors import NetworkSyntaxError
from neural.dsl.model import Layer, Network

Loss = Callable[[Tensor, Tensor], Tensor]


class BuiltNetwork(nn.Module):
    """Runs its layers one after the other; each is a submodule under its canonical name.

    Takes and gives samples channels last, as Keras does: (batch, *network.input) to (batch, *output shape).
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        for layer in network.layers:
            if hasattr(self, layer.name):
                sentence = f'PyTorch keeps the name "{layer.name}" for itself. Write another name.'
                raise NetworkSyntaxError(network.source.message(layer.at, sentence))
            self.add_module(layer.name, _layer(layer))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last layer, its activation included."""
        x = x.movedim(-1, 1)
        for layer in self.children():
            x = layer(x)
        return x if x.ndim == 2 else x.movedim(1, -1)  # noqa: PLR2004 - (batch, values) keeps its logits


def build(network: Network) -> BuiltNetwork:
    """Return the module of `network`; its class has the network's name.

    Raises:
        NetworkSyntaxError: a layer has a name that a PyTorch module cannot have.
    """
    named: type[BuiltNetwork] = type(network.name, (BuiltNetwork,), {"__doc__": BuiltNetwork.__doc__})
    return named(network)


def loss(network: Network) -> Loss:
    """Return the loss, from the output of the network and the labels to the mean over the batch.

    Labels are (batch,) class numbers for sparse_categorical_crossentropy, else of the output's shape. The
    cross-entropies start from the logits of the last softmax or sigmoid.
    """
    losses: dict[str, Loss] = {
        "sparse_categorical_crossentropy": lambda output, y: functional.cross_entropy(_logits(output), y),
        "categorical_crossentropy": lambda output, y: functional.cross_entropy(_logits(output), y),
        "binary_crossentropy": lambda output, y: functional.binary_cross_entropy_with_logits(_logits(output), y),
        "mse": functional.mse_loss,
        "mae": functional.l1_loss,
    }
    return losses[network.loss]


def optimizer(network: Network, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer, stepping as Keras's of the same name does.

    Two forms differ in the last digits: Keras's Adam adds epsilon before it corrects the bias of its moments, and its
    RMSprop adds epsilon under the square root; the epsilon given to PyTorch's is the root of it there.
    """
    given: dict[str, Any] = dict(network.optimizer.parameters)
    given["lr"] = given.pop("learning_rate")
    parameters = model.parameters()
    if network.optimizer.name == "SGD":
        return torch.optim.SGD(parameters, **given)
    epsilon = given.pop("epsilon")
    if network.optimizer.name == "RMSprop":
        return torch.optim.RMSprop(parameters, alpha=given.pop("rho"), eps=sqrt(epsilon), **given)
    betas = (given.pop("beta_1"), given.pop("beta_2"))
    kind = torch.optim.AdamW if network.optimizer.name == "AdamW" else torch.optim.Adam
    return kind(parameters, betas=betas, eps=epsilon, **given)


def _logits(output: Tensor) -> Tensor:
    logits: Tensor = output.logits
    return logits


def _layer(layer: Layer) -> nn.Module:
    given = dict(layer.parameters)
    channels = layer.input_shape[-1]
    if layer.type in {"Dense", "Output"}:
        return getattr(torch_layers, layer.type)(channels, **given)
    if layer.type == "Conv2D":
        kind, sizes, strides = given.pop("padding"), layer.input_shape[:2], given["strides"]
        given["padding"] = torch_layers.padding(kind, sizes, given["kernel_size"], strides)
        return torch_layers.Conv2D(channels, **given)
    if layer.type == "MaxPooling2D":
        window, strides = given["pool_size"], shapes.strides(given)
        return torch_layers.MaxPooling2D(
            window, strides, torch_layers.padding(given["padding"], layer.input_shape[:2], window, strides)
        )
    if layer.type == "BatchNormalization":
        return torch_layers.BatchNormalization(channels, momentum=given["momentum"], epsilon=given["epsilon"])
    if layer.type == "Dropout":
        return torch_layers.Dropout(given["rate"])
    return getattr(torch_layers, layer.type)(**given)
