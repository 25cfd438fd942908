"""What observes training, in the training process: `NeuralDbg` for PyTorch, `NeuralDbgCallback` for Keras.

Importing this package loads neither framework; an observer loads its own when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neural_callbacks.keras.callback import NeuralDbgCallback
    from neural_callbacks.pytorch.manager import NeuralDbg

__all__ = ["NeuralDbg", "NeuralDbgCallback"]

# Public name: the module that has it, the framework that it watches, the extra that installs that framework.
_OBSERVERS = {
    "NeuralDbg": ("neural_callbacks.pytorch.manager", "torch", "torch"),
    "NeuralDbgCallback": ("neural_callbacks.keras.callback", "keras", "tensorflow"),
}


def __getattr__(name: str) -> Any:
    if name not in _OBSERVERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    module, framework, extra = _OBSERVERS[name]
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in (framework, extra):
            raise
        raise ModuleNotFoundError(
            f"{name} needs {error.name}, which is not installed; write "
            f"pip install 'tensorboard-plugin-neuraldbg[{extra}]'.",
            name=error.name,
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
