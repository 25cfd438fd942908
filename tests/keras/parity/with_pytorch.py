"""Trains the same model written by hand in PyTorch: twice, as Keras' losses start from shares or from logits."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from neural_callbacks import NeuralDbg

# Keras' own: of a batch normalization, and how close to 0 and 1 a share may come.
NORMALIZATION_EPSILON, SHARE_EPSILON = 1e-3, 1e-7

given = {name: torch.from_numpy(array) for name, array in np.load("given.npz").items()}


class Conv2D(nn.Conv2d):
    """A convolution with its relu, one layer."""

    def forward(self, inputs):
        return functional.relu(super().forward(inputs))


class Dense(nn.Linear):
    """A product with its activation, one layer; what softmax gives out tells the logits that it came from."""

    def __init__(self, inputs, units, activation):
        super().__init__(inputs, units)
        self.activation = activation

    def forward(self, inputs):
        logits = super().forward(inputs)
        if self.activation == "relu":
            return functional.relu(logits)
        output = torch.softmax(logits, -1)
        output.logits = logits
        return output


def model():
    channels, units = given["kernel"].shape[-1], given["hidden_kernel"].shape[-1]
    made = nn.Sequential(
        Conv2D(given["x"].shape[-1], channels, 3),
        nn.BatchNorm2d(channels, eps=NORMALIZATION_EPSILON),
        nn.AvgPool2d(2),
        nn.Flatten(),
        Dense(given["hidden_kernel"].shape[0], units, "relu"),
        Dense(units, given["kernel_out"].shape[-1], "softmax"),
    )
    # What is flattened has its channels first here: the rows of the kernel after it stand in another order.
    side = int((given["hidden_kernel"].shape[0] / channels) ** 0.5)
    hidden = given["hidden_kernel"].reshape(side, side, channels, units).permute(2, 0, 1, 3).reshape(-1, units)
    weights = [
        given["kernel"].permute(3, 2, 0, 1),
        given["bias"],
        given["gamma"],
        given["beta"],
        hidden.T,
        given["hidden_bias"],
        given["kernel_out"].T,
        given["bias_out"],
    ]
    with torch.no_grad():
        for parameter, value in zip(made.parameters(), weights, strict=True):
            parameter.copy_(value)
    return made


def from_shares(output, labels):
    shares = output / output.sum(-1, keepdim=True)
    return functional.nll_loss(torch.log(shares.clip(SHARE_EPSILON, 1 - SHARE_EPSILON)), labels)


def from_logits(output, labels):
    return functional.cross_entropy(output.logits, labels)


for loss_of in (from_shares, from_logits):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    batch = int(given["batch"])
    batches = zip(given["x"].permute(0, 3, 1, 2).split(batch), given["labels"].split(batch), strict=True)
    with NeuralDbg(net, optimizer, "runs", loss_of.__name__, steps=range(int(given["steps"]))):
        for x, labels in batches:
            optimizer.zero_grad()
            loss_of(net(x), labels).backward()
            optimizer.step()
