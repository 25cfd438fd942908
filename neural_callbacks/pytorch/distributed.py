"""What distributed training puts around a model, taken off again."""

from __future__ import annotations

from torch import nn


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
