"""What observes training, in the training process.

`NeuralDbg` for PyTorch, `NeuralDbgCallback` for Keras, `NeuralDbgLoop` for Keras without `fit`.

Importing this package loads neither framework; an observer loads its own when it is first named. Those of Lightning and
of Hugging Face Transformers are in modules of their own, `neural_callbacks.lightning` and `.transformers`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from neural_callbacks.missing import installed_with

if TYPE_CHECKING:
    from neural_callbacks.keras.callback import NeuralDbgCallback
    from neural_callbacks.keras.loop import NeuralDbgLoop
    from neural_callbacks.pytorch.manager import NeuralDbg

__all__ = ["NeuralDbg", "NeuralDbgCallback", "NeuralDbgLoop"]

# Public name: the module that has it, the framework that it watches, the extra that installs that framework.
_OBSERVERS = {
    "NeuralDbg": ("neural_callbacks.pytorch.manager", "torch", "torch"),
    "NeuralDbgCallback": ("neural_callbacks.keras.callback", "keras", "tensorflow"),
    "NeuralDbgLoop": ("neural_callbacks.keras.loop", "keras", "tensorflow"),
}


def __getattr__(name: str) -> Any:
    if name not in _OBSERVERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    module, framework, extra = _OBSERVERS[name]
    with installed_with(extra, name, framework, extra):
        return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
