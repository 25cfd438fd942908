"""Module hooks: what torch calls on every forward pass of any module, led to the sample or the sentinel of the step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from neural_callbacks.pytorch.sentinel import Sentinel
from neural_callbacks.pytorch.taps import Sample
from neural_callbacks.recorder import Recorder

SENTINEL = "the sentinel"  # the part that an error in it switches off


class ModuleHooks:
    """Two hooks on all modules of the process, and none on the model itself: it can be copied and pickled.

    `sample` and `sentinel` are who hears of the step that runs, if anybody. The hooks stay the same in between:
    torch.compile traces them as nothing, but compiles what calls a module anew where there are others than before.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.sample: Sample | None = None
        self.sentinel: Sentinel | None = None

        def enter(module: nn.Module, inputs: Any) -> None:
            if not _is_traced() and self.sample is not None:
                self.sample.enter(module, inputs)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            if _is_traced():
                return
            if self.sample is not None:
                self.sample.leave(module, inputs, output)
            elif self.sentinel is not None:
                try:  # not `contained`: this runs for every module in every step
                    self.sentinel.forward(module, inputs, output)
                except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach training
                    recorder.failed(SENTINEL, error)

        self._enter, self._leave = enter, leave

    def hang(self) -> list[RemovableHandle]:
        """Hang the hooks on all modules, until the handles are removed."""
        return [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),  # an exception ends a pass too
        ]


def _is_traced() -> bool:
    """Say whether tensors stand for others now: under torch.compile, and inside of torch.func's transforms."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None  # noqa: SLF001 - torch asks so itself
