"""Memory: the bytes that each layer holds, and the bytes in use as the device's allocator and the system count them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from neural.session.frame import PROFILES
from neural.session.statistics import FloatArray
from neural_callbacks.pytorch.structures import tensors
from neural_callbacks.resident import Reading, ResidentMemory

_PLAIN = (Tensor, nn.Parameter)
_COLUMNS = PROFILES["memory"].columns
_ACTIVATIONS, _PARAMETERS, _GRADIENTS, _OPTIMIZER = (
    _COLUMNS.index(name) for name in ("activations", "parameters", "gradients", "optimizer")
)
_COMPRESSED_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_COMPRESSED_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)


def parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the dense tensors that hold the data of a tensor: itself, or its shard, or its indices and values.

    Of a tensor of another class, as a distributed one, these are what this process holds. A tensor of the meta device
    has no data.
    """
    if tensor.is_meta:
        return
    if type(tensor) not in _PLAIN and is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            if isinstance(inner := getattr(tensor, name), Tensor):
                yield from parts(inner)
    elif tensor.layout is torch.strided:
        yield tensor
    elif tensor.layout is torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())  # noqa: SLF001 - as they are, without adding up duplicates
    elif tensor.layout in _COMPRESSED_ROWS:
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    elif tensor.layout in _COMPRESSED_COLUMNS:
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())


def size(tensor: Tensor) -> int:
    """Return the bytes of a tensor's values, of which a larger storage may hold more."""
    return sum(part.nbytes for part in parts(tensor))


class LayerMemory:
    """Adds up what the layers hold in one step: their outputs as they come, the rest at its end."""

    def __init__(self) -> None:
        self._bytes: dict[nn.Module, int] = {}
        # Held weakly: nothing is kept alive, and no place is taken for another tensor that comes to lie there.
        self._seen: set[StorageWeakRef] = set()

    def given(self, values: Iterable[Tensor]) -> None:
        """Note tensors that are there without any layer, as the inputs of the model: who hands them on made nothing."""
        for tensor in values:
            for part in parts(tensor):
                self._seen.add(StorageWeakRef(part.untyped_storage()))

    def output(self, module: nn.Module, values: Iterable[Tensor]) -> None:
        """Take in the tensors that a call of `module` gave out.

        An output counts with all of its storage, once in a step: with the layer that gave it out first. Layers that
        work in place, or give out a view of their input, add nothing, and neither does who gives out a parameter.
        """
        total = self._bytes.get(module, 0)
        for tensor in values:
            if isinstance(tensor._base if tensor._is_view() else tensor, nn.Parameter):  # noqa: SLF001 - nothing else tells
                continue
            for part in parts(tensor):
                storage = part.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference not in self._seen:
                    self._seen.add(reference)
                    total += storage.nbytes()
        self._bytes[module] = total

    def matrix(
        self,
        rows: Mapping[nn.Module, int],
        owners: Mapping[Tensor, int],
        height: int,
        states: Iterable[Mapping[Tensor, Any]],
    ) -> FloatArray:
        """Return the matrix (height, 4) of bytes: activations, parameters, gradients, optimizer state.

        `rows` tells the row of each layer, `owners` that of the layer of each parameter, `states` what each optimizer
        keeps of a parameter. Gradients and state are those that are there now; what an optimizer keeps for all
        parameters with the first of them, as LBFGS does, counts there. A layer that gave out nothing in the step has
        NaN as its activations.
        """
        matrix = np.zeros((height, len(_COLUMNS)))
        ran = [(rows[module], total) for module, total in self._bytes.items() if module in rows]
        matrix[:, _ACTIVATIONS] = np.nan
        matrix[[row for row, _ in ran], _ACTIVATIONS] = 0
        for row, total in ran:
            matrix[row, _ACTIVATIONS] += total
        states = list(states)
        for parameter, row in owners.items():
            matrix[row, _PARAMETERS] += size(parameter)
            if parameter.grad is not None:
                matrix[row, _GRADIENTS] += size(parameter.grad)
            for state in states:
                if parameter in state:
                    matrix[row, _OPTIMIZER] += sum(map(size, tensors(state[parameter])))
        return matrix


class MemoryReader:
    """Reads the bytes in use on `devices` and in this process, without making a device wait."""

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._devices = [device for device in dict.fromkeys(devices) if device.type == "cuda"]
        self._resident = ResidentMemory()
        self._most = [0] * len(self._devices)
        self._peaks = self._peaks_so_far()

    def read(self) -> Reading:
        """Read what is in use now."""
        process = self._resident.read()
        if not self._devices:
            return Reading(math.nan, math.nan, process)
        counters = self._counters()
        allocated = [each["allocated_bytes"]["all"]["current"] for each in counters]
        self._most = list(map(max, self._most, allocated))
        return Reading(sum(allocated), sum(each["reserved_bytes"]["all"]["current"] for each in counters), process)

    def peak(self) -> float:
        """Return the most that the devices' allocator had handed out since the last call of this; NaN is unknown.

        It is the allocator's own figure where that is another than at the last call. Else the maximum is older, and
        as it is the user's to reset, the largest of the readings stands for it: the peak was no less.
        """
        if not self._devices:
            return math.nan
        peaks = self._peaks_so_far()
        known = [peak if peak != before else 0 for peak, before in zip(peaks, self._peaks, strict=True)]
        total = sum(map(max, self._most, known))
        self._peaks, self._most = peaks, [0] * len(self._devices)
        return total

    def _peaks_so_far(self) -> list[int]:
        return [each["allocated_bytes"]["all"]["peak"] for each in self._counters()]

    def _counters(self) -> list[Mapping[str, Any]]:
        # Not by memory_allocated(), which lists and sorts all hundred counters for each one.
        return [torch.cuda.memory_stats_as_nested_dict(device) for device in self._devices]
