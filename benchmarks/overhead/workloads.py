"""The models that are trained: a small ResNet, a GPT and an MLP, and larger ones for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Workload:
    """A model and the batch that it is trained on, its inputs and targets.

    A timed block has `block` steps, a multiple of 10: long enough to time, short enough for the machine to stay as it
    is. Of the time that is given for all workloads this one takes `share`, by the length of its steps. With `bf16`
    it is trained under autocast.
    """

    name: str
    model: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    block: int
    share: float
    bf16: bool = False


class Residual(nn.Module):
    """Two convolutions with batch normalization and a shortcut, as in ResNet-18."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.relu2 = nn.ReLU(inplace=True)
        shortcut = [nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)]
        self.shortcut = nn.Sequential(*(shortcut if stride != 1 or inside != outside else []))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, (N, outside, H / stride, W / stride)."""
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


def resnet(width: int) -> nn.Module:
    """Return a ResNet of six blocks on 32x32 images, `width` channels at first; 44 layers."""
    blocks = [Residual(width, width, 1), Residual(width, width, 1)]
    blocks += [Residual(width, 2 * width, 2), Residual(2 * width, 2 * width, 1)]
    blocks += [Residual(2 * width, 4 * width, 2), Residual(4 * width, 4 * width, 1)]
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


class Layer(nn.Module):
    """A transformer block, pre-normalized, with causal attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape of `x`, (batch, time, width)."""
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    """A language model over 256 bytes; 2.8 million parameters with 6 layers of width 192."""

    def __init__(self, layers: int, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.token = nn.Embedding(256, width)
        self.position = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, (batch * time, 256), of `tokens`, (batch, time)."""
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(x))).flatten(0, 1)


def mlp(inputs: int, width: int) -> nn.Module:
    """Return three linear layers, inputs-width-width-10."""
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def labelled(shape: tuple[int, ...], draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return noise of `shape`, (N, ...), with labels (N,) from 0 to 9."""
    return torch.randn(shape, generator=draw), torch.randint(10, shape[:1], generator=draw)


def text(batch: int, length: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return tokens (batch, length), and for each the one that follows it, (batch * length,)."""
    tokens = torch.randint(256, (batch, length + 1), generator=draw)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].flatten()


def workloads(device: str) -> list[Workload]:
    """Return the three workloads for a "cpu" or a "cuda" device."""
    if device == "cpu":
        return [
            Workload("resnet", partial(resnet, 16), partial(labelled, (32, 3, 32, 32)), block=10, share=0.25),
            Workload("gpt", partial(Gpt, 6, 192, 6, 64), partial(text, 16, 64), block=10, share=0.61),
            Workload("mlp", partial(mlp, 784, 256), partial(labelled, (64, 784)), block=50, share=0.14),
        ]
    return [
        Workload("resnet", partial(resnet, 64), partial(labelled, (256, 3, 32, 32)), block=20, share=0.3),
        Workload("gpt", partial(Gpt, 12, 768, 12, 512), partial(text, 16, 512), block=10, share=0.5, bf16=True),
        Workload("mlp", partial(mlp, 4096, 4096), partial(labelled, (256, 4096)), block=50, share=0.2),
    ]
