"""CompiledTaps: what layers give out inside regions that torch.compile compiles, and the gradients on the way back."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from neural_callbacks.pytorch.stand_ins import (
    CAN_OBSERVE,
    Gate,
    Observer,
    Sightings,
    Tap,
    code_of,
    forward_of,
    is_passed_over,
)

_REST = "its weights, gradients and updates are recorded, its activations and their gradients {not_}."
_NOT = _REST.format(not_="not")
_NO_MORE = f"from here on {_REST.format(not_='no more')}"
# What `CompiledTaps.notice` says.
UNSUPPORTED = f"The model is compiled, and torch {torch.__version__} does not let its layers be seen then: {_NOT}"
TUNED = (
    "The model is compiled with max_autotune, whose choices would not be the same in steps that are looked into: "
    f"{_NOT}"
)
AUTOGRAD = f"The model is compiled together with its backward pass (compiled_autograd), where hooks do not go: {_NOT}"
SETTLED = f"The model is compiled, and torch.compile was told not to compile anything more: {_NOT}"
IN_PARTS = (
    "The model is compiled in parts, one for each bucket of DistributedDataParallel, which cannot be looked into: "
    f"{_NOT} They are too with torch._dynamo.config.optimize_ddp = False."
)
UNGATED = (
    f"The model is compiled by way of something that NeuralDbg does not know: {_NOT} They are too where NeuralDbg is "
    "given what torch.compile(model) returns."
)
VARYING = (
    "The model is compiled, and called with other shapes than before, which torch.compile answers with other code: "
    f"{_NO_MORE} With DataLoader(drop_last=True) all batches are alike."
)
CROWDED = (
    "The model was compiled so often that torch.compile would soon give it up (torch._dynamo.config.recompile_limit): "
    f"{_NO_MORE}"
)
UNSEEN = f"The model is compiled, and none of its layers could be seen in a sampled step: {_NOT}"
WITHHELD = (
    "The model is compiled: of the layers inside, the activations of linear ones, convolutions and attention are "
    "recorded, with their gradients, those of others not. To look at these would change the training in its last bits."
)


def is_in_use(model: nn.Module) -> bool:
    """Say whether `model` is compiled, in whole or in part, or may be by a torch.compile that does not show on it.

    Where it says yes, no hook may be put into torch's global lists: a wrapped model then warns at each call, and
    functions that call the model are compiled once more.
    """
    return is_compiled(model) or any(map(callable, _backends()))


def is_compiled(model: nn.Module) -> bool:
    """Say whether `model` shows that it is compiled, in whole or in part."""
    return any(_is_compiled(module) for module in model.modules())


def _original(module: nn.Module) -> nn.Module | None:
    """Return the module inside what torch.compile(module) made; None if it did not make `module`."""
    return dict(module.named_children()).get("_orig_mod")


def _is_compiled(module: nn.Module) -> bool:
    return _original(module) is not None or module._compiled_call_impl is not None  # noqa: SLF001 - model.compile()


def _backends() -> Iterable[Any]:
    """Return what torch.compile was told to compile with so far in this process."""
    from torch._dynamo import eval_frame  # noqa: PLC0415 - takes seconds, which whoever made an optimizer has paid

    return list(eval_frame.cached_backends.values())


def _obstacle() -> str | None:
    """Return the sentence that says why nothing can be seen in compiled regions; None if it can."""
    from torch._dynamo import compiled_autograd, config, eval_frame  # noqa: PLC0415 - as in `_backends`

    # Operators with a declared effect, and hooks on intermediate tensors that are traced with the backward pass.
    if not CAN_OBSERVE or importlib.util.find_spec("torch._higher_order_ops.register_hook") is None:
        return UNSUPPORTED
    stance = eval_frame._stance  # noqa: SLF001 - torch.compiler sets it and does not tell
    if config.error_on_recompile or stance.stance not in {"default", "force_eager"} or stance.skip_guard_eval_unsafe:
        return SETTLED
    if config.compiled_autograd or compiled_autograd.compiled_autograd_enabled:
        return AUTOGRAD
    return TUNED if any(_is_tuned(backend) for backend in _backends()) else None


def _is_tuned(backend: Any) -> bool:
    options = getattr(backend, "config", None)  # as torch.compile keeps its `mode` and `options` for inductor
    return isinstance(options, dict) and bool(options.get("max_autotune"))


class CompiledTaps:
    """Lets an observer see the layers of `model` during sampled steps, whether they run compiled or not.

        taps = CompiledTaps(model)
        taps.watch()
        taps.attach(layers, observer)  # in place of hooks, from the beginning of a sampled step
        taps.detach()                  # to its end
        taps.close()

    While attached, each layer's `forward` is one of our own, which calls the layer's and then shows what came out.
    torch.compile guards on that: what it compiled before does not fit such a step, what it compiles in the first one
    fits all later ones, and steps without taps run what they always ran. So what is trained is compiled once more, at
    the first sampled step but never at its first call, and nothing else changes.

    Within a compiled region the tensors are shown by an operator that the compiler may neither look into, reorder nor
    leave out; it reads them while the region runs, and is kept out of what is fused.

    Not seen are scripted modules, layers below `nn.DataParallel`, whose replicas would run the original's forward,
    layers whose `forward` is not made of Python code, and in compiled regions what is not certain to leave the training
    the same to the last bit; `notice` says so.
    """

    def __init__(self, model: nn.Module) -> None:
        self.sightings = Sightings()
        self.is_attached = False
        self.was_cut_short = False  # whether what the last step showed is of some of its calls only
        self._model = model
        self._gates: dict[nn.Module, Gate] = {}
        self._taps: list[Tap] = []
        self._sampled = 0

    def watch(self) -> None:
        """See from now on, in every step, what the compiled parts of the model are called with; that costs 10 us."""
        out_of_reach = set(_out_of_reach(self._model))
        for root, is_outside in _roots(self._model):
            if root not in self._gates and root not in out_of_reach:
                self._gates[root] = gate = Gate(root, self, is_outside=is_outside)
                gate.put_on()

    def attach(self, layers: Iterable[nn.Module], observer: Observer) -> None:
        """Put taps on `layers`, where nothing stands against it."""
        self.detach()
        self.watch()
        if self._obstacle is not None:
            return
        out_of_reach = set(_out_of_reach(self._model))
        observers: dict[nn.Module, Observer | None] = dict.fromkeys(layers, observer)
        # What is compiled as a whole gets a tap too, if only to keep the variants with taps in a cache of their own:
        # torch.compile allows a function eight.
        for root, root_gate in self._gates.items():
            root_gate.prepare()
            observers.setdefault(_original(root) or root, None)
        for module, an_observer in observers.items():
            if module not in out_of_reach:
                gate = self._gates.get(module)
                patched = vars(module).get("forward") if gate is None else gate.patched
                tap = Tap(module, patched, an_observer, self.sightings)
                self._taps.append(tap)
                if gate is not None:
                    gate.tap = tap
        self.is_attached, self.was_cut_short = True, False
        self._sampled += 1
        self.lower()

    def detach(self) -> None:
        """Take the taps off, and see nothing of what may still run backward. May be called again."""
        self.lift()
        self.is_attached = False
        for gate in self._gates.values():
            gate.tap = None
        while self._taps:
            self._taps.pop().close()

    def close(self) -> None:
        """Leave nothing on the model. May be called again."""
        self.detach()
        while self._gates:
            self._gates.popitem()[1].take_off()

    def lift(self) -> None:
        """Take the taps off for a while."""
        for tap in self._taps:
            tap.take_off()

    def lower(self) -> None:
        """Put them on again; those of what has a gate are the gate's to call."""
        for tap in self._taps:
            if tap.module not in self._gates:
                tap.put_on()

    @property
    def notice(self) -> str | None:
        """The sentence that says what the steps up to now could not show; None if they showed everything."""
        if self._obstacle is not None:
            return self._obstacle
        if self.sightings.in_parts:
            return IN_PARTS
        if not self.sightings.any:
            return UNSEEN if self._sampled > 1 else None  # the first may have been the first call
        return WITHHELD if self.sightings.withheld else None

    @property
    def _obstacle(self) -> str | None:
        if self.sightings.varying:
            return VARYING
        if self.sightings.ungated:
            return UNGATED
        return CROWDED if self.sightings.crowded else _obstacle()


def _out_of_reach(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if isinstance(module, nn.DataParallel):
            yield from module.modules()
        elif isinstance(module, torch.jit.ScriptModule) or code_of(forward_of(module)) is None:
            yield module


def _roots(model: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """Yield the modules in `model` at whose call compiling may begin, and whether it begins outside of the call."""
    inside: set[nn.Module] = set()  # of one that is a root itself; a module comes before those inside it
    # The user may have compiled the model, and given us the original.
    maybe = {model, *(module.module for module in model.modules() if isinstance(module, DistributedDataParallel))}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        forward = forward_of(module)
        is_inside = module in inside
        if _original(module) is not None and not getattr(forward, "_torchdynamo_disable", False):
            inside.update(module.modules())
            if not is_inside:
                yield module, True
        elif not is_inside and not is_passed_over(forward):
            if module._compiled_call_impl is not None:  # noqa: SLF001
                inside.update(module.modules())
                yield module, False
            elif module in maybe:
                yield module, False
