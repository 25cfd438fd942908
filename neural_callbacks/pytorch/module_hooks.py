"""Module hooks: what torch calls on every forward pass of any module, led to the sample or the sentinel of the step."""

from __future__ import annotations

from collections.abc import Callable
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
    """Hangs hooks on all modules of the process, and none on the model itself: it can be copied and pickled.

    The hooks are the same functions for as long as this lives: torch.compile, which traces them as nothing, compiles
    anew where they are others than before.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._sample: Sample | None = None
        self._watch: Callable[..., None] = Sentinel(()).forward

        def enter(module: nn.Module, inputs: Any) -> None:
            if not torch.compiler.is_compiling() and self._sample is not None:
                self._sample.enter(module, inputs)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            if not torch.compiler.is_compiling() and self._sample is not None:
                self._sample.leave(module, inputs, output)

        def watch(module: nn.Module, inputs: Any, output: Any) -> None:
            if torch.compiler.is_compiling():
                return
            try:  # not `contained`: this runs for every module in every step
                self._watch(module, inputs, output)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach training
                recorder.failed(SENTINEL, error)

        self._enter, self._leave, self._see = enter, leave, watch

    def sampled(self, sample: Sample) -> list[RemovableHandle]:
        """Lead forward passes to `sample`, until the handles are removed."""
        self._sample = sample
        return [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave),
        ]

    def unsampled(self, sentinel: Sentinel) -> list[RemovableHandle]:
        """Let `sentinel` look at forward passes, until the handles are removed."""
        self._sample, self._watch = None, sentinel.forward
        return [register_module_forward_hook(self._see)]
