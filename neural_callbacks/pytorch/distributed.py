"""What distributed training puts around a model and its tensors, taken off again: no call here is a collective one."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

_PLAIN = (Tensor, nn.Parameter)

SHARDED = (
    "The parameters are sharded over the ranks: the weights, gradients and updates of this session, and its gradient "
    "norm, are those of its own rank's shard."
)

REPLICATED = (
    "The model runs in replicas on several devices (nn.DataParallel): its weights, gradients and updates are recorded, "
    "its activations and their gradients not. They are too under DistributedDataParallel."
)


def own_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that a module was made as; `fully_shard` gives it a class of its own before that one."""
    kind = type(module)
    match kind.__bases__:
        case first, own if first.__module__.startswith("torch.distributed.") and kind.__name__.endswith(own.__name__):
            return own
    return kind


def model_class(model: nn.Module) -> type[nn.Module]:
    """Return the class of the model in a DistributedDataParallel or DataParallel; of another one its own."""
    while type(model).__module__.startswith("torch.nn.parallel.") and isinstance(model.module, nn.Module):
        model = model.module
    return own_class(model)


def is_replicated(model: nn.Module) -> bool:
    """Say whether a model, or a part of it, is a DataParallel that runs copies of its module on several devices."""
    return any(isinstance(module, nn.DataParallel) and len(module.device_ids) > 1 for module in model.modules())


def local(values: Tensor) -> Tensor:
    """Return this process' shard of a tensor that is spread over several (a DTensor); of others the tensor itself."""
    if type(values) in _PLAIN:
        return values
    # By name: importing DTensor takes longer than all the rest, and who has one has imported it.
    to_local = getattr(values, "to_local", None)
    shard: Tensor = values if to_local is None else to_local()
    return shard


def are_sharded(tensors: Iterable[Tensor]) -> bool:
    """Say whether one of `tensors` is spread over several processes so that each holds a part."""
    return any(not _is_whole(tensor) for tensor in tensors)


def whole(name: str, values: Tensor) -> Tensor:
    """Return a tensor that each process has as a whole, as a plain one.

    Raises:
        ValueError: it is spread over several processes, which would have to put it together at the same time.
    """
    if not _is_whole(values):
        raise ValueError(f"{name} is spread over several processes; give {name}.full_tensor()")
    return local(values)


def _is_whole(values: Tensor) -> bool:
    return type(values) in _PLAIN or all(placement.is_replicate() for placement in getattr(values, "placements", ()))
