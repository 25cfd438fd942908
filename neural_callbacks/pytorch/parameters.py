"""Parameters: their weights, gradients and updates in one step, small ones together."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neural_callbacks.pytorch.distributed import local
from neural_callbacks.pytorch.reducers import SMALL, Reducer
from neural_callbacks.pytorch.statistics import PLAIN, measurable

# Takes a kind and the parameters that were given to a reducer, in order.
Note = Callable[[Reducer, str, list[nn.Parameter]], None]


def _is_small(tensor: Tensor) -> bool:
    return (
        0 < tensor.numel() <= SMALL
        and type(tensor) in PLAIN
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
    )


def _together(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@dataclass
class ParameterTaps:
    """Measures parameters of one step through `reducer_of` their devices; `note` is told what was measured.

    Small float32 parameters on the host are put one after the other first: each operation then costs as for one.
    """

    reducer_of: Callable[[torch.device], Reducer]
    note: Note
    _small: list[tuple[list[nn.Parameter], Tensor]] = field(default_factory=list)
    _large: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)

    def weights(self, parameters: Iterable[nn.Parameter], stepped: Container[int]) -> None:
        """Measure `parameters`; keep a copy of those whose id is in `stepped`, for `updates`."""
        small: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in parameters:
            if _is_small(parameter):
                small[id(parameter) in stepped].append(parameter)
                continue
            values = local(parameter.detach())
            is_stepped = id(parameter) in stepped
            if is_stepped:
                values = values.clone()
                self._large.append((parameter, values))
            self._one("weights", parameter, values, lasting=is_stepped)
        for is_stepped, members in small.items():
            if members:
                before = _together(list(members))
                self._several("weights", members, before)
                if is_stepped:
                    self._small.append((members, before))

    def gradients(self, gradients: Iterable[tuple[nn.Parameter, Tensor | None]], factor: Tensor | None = None) -> None:
        """Measure parameters' gradients as they are now, times `factor` (a single number) where it is given."""
        members: list[nn.Parameter] = []
        small: list[Tensor] = []
        for parameter, gradient in gradients:
            if gradient is None:
                continue
            if factor is None and _is_small(gradient):
                members.append(parameter)
                small.append(gradient)
            else:
                self._one("gradients", parameter, gradient, lasting=False, factor=factor)
        if members:
            self._several("gradients", members, _together(small))

    def updates(self) -> None:
        """Measure what changed since `weights`."""
        for members, before in self._small:
            self._several("updates", members, _together(list(members)).sub_(before))
        for parameter, before in self._large:
            after = local(parameter.detach())
            if after.element_size() < torch.float32.itemsize:
                change = after.float() - before.float()
            elif after.numel() > SMALL and after.shape == before.shape:
                change = before.neg_().add_(after)
            else:
                change = after - before  # a reducer may still hold what is small
            self._one("updates", parameter, change, lasting=True)
        self._small, self._large = [], []

    def _one(
        self, kind: str, parameter: nn.Parameter, values: Tensor, *, lasting: bool, factor: Tensor | None = None
    ) -> None:
        flat = measurable(values)
        if flat is not None:
            if factor is not None:
                flat = flat * factor.to(flat)
            reducer = self.reducer_of(flat.device)
            reducer.measure(flat, lasting=lasting or factor is not None)
            self.note(reducer, kind, [parameter])

    def _several(self, kind: str, members: list[nn.Parameter], values: Tensor) -> None:
        reducer = self.reducer_of(values.device)
        reducer.measure_together(values, [member.numel() for member in members])
        self.note(reducer, kind, members)
