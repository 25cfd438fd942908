"""CompiledTaps: what layers give out inside regions that torch.compile compiles, and the gradients on the way back."""

from __future__ import annotations

import copy
import functools
import importlib.util
import itertools
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch._guards import CompileContext

from neural.session.layers import Shape
from neural_callbacks.pytorch.taps import tensors

_REST = "its weights, gradients and updates are recorded, its activations and their gradients {not_}."
_NOT = _REST.format(not_="not")
# What `CompiledTaps.notice` says.
UNSUPPORTED = f"The model is compiled, and torch {torch.__version__} does not let its layers be seen then: {_NOT}"
TUNED = (
    "The model is compiled with max_autotune, whose choices would not be the same in steps that are looked into: "
    f"{_NOT}"
)
SETTLED = f"The model is compiled, and torch.compile was told not to compile anything more: {_NOT}"
CROWDED = (
    "The model was compiled so often that torch.compile would soon give it up (torch._dynamo.config.recompile_limit); "
    f"from here on {_REST.format(not_='no more')}"
)
UNSEEN = f"The model is compiled, and none of its layers could be seen in a sampled step: {_NOT}"
WITHHELD = (
    "The model is compiled: what its layers give out in float16 or bfloat16, and the gradients of that, are recorded "
    "for linear layers and convolutions alone. To see more would make the compiler round differently."
)

ACTIVATION, ACTIVATION_GRADIENT, NOTHING = "activation", "activation_gradient", "nothing"

# Layers whose output and its gradient are in memory in any case, rounded to their type, because a library computes the
# one and takes the other. Between others a compiler keeps what should be float16 or bfloat16 in float32, unless
# somebody looks.
_PRODUCTS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class Observer(Protocol):
    """Takes in what the taps see. What fails in there is its own affair: it may not raise."""

    def eager(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Take in the forward pass of a layer that ran outside of all compiled regions."""

    def activation(self, module: nn.Module, values: Tensor, input_shapes: tuple[Shape, ...]) -> None:
        """Take in a tensor that a layer in a compiled region gave out; its inputs by position had `input_shapes`.

        The memory of `values` is used for others afterwards: to keep them is to copy them.
        """

    def activation_gradient(self, module: nn.Module, gradient: Tensor) -> None:
        """Take in the gradient of such a tensor; the same holds for its memory."""


def is_in_use(model: nn.Module) -> bool:
    """Say whether `model` is compiled, in whole or in part, or may be by a torch.compile that does not show on it.

    Where it says yes, no hook may be put into torch's global lists: a wrapped model then warns at each call, and
    functions that call the model are compiled once more.
    """
    return any(_is_compiled(module) for module in model.modules()) or any(map(callable, _backends()))


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
    from torch._dynamo import config, eval_frame  # noqa: PLC0415 - as in `_backends`

    # Operators with a declared effect, and hooks on intermediate tensors that are traced with the backward pass.
    has_hooks = importlib.util.find_spec("torch._higher_order_ops.register_hook") is not None
    if not (hasattr(_observe, "register_effect") and has_hooks):
        return UNSUPPORTED
    stance = eval_frame._stance  # noqa: SLF001 - torch.compiler sets it and does not tell
    if config.error_on_recompile or stance.stance not in {"default", "force_eager"} or stance.skip_guard_eval_unsafe:
        return SETTLED
    return TUNED if any(_is_tuned(backend) for backend in _backends()) else None


def _is_tuned(backend: Any) -> bool:
    options = getattr(backend, "config", None)  # as torch.compile keeps its `mode` and `options` for inductor
    return isinstance(options, dict) and bool(options.get("max_autotune"))


@dataclass
class _Sightings:
    """What came of the taps since they were put on."""

    any: bool = False
    withheld: bool = False
    crowded: bool = False


class CompiledTaps:
    """Lets an observer see the layers of `model` during a step, whether they run compiled or not.

    From `attach` to `close` each layer's `forward` is one of our own, which calls the layer's and then shows what came
    out. torch.compile guards on that: what it compiled before does not fit such a step, what it compiles in the first
    one fits all later ones, and steps without taps run what they always ran. So every variant of the model that runs
    under taps is compiled once more, whether it had been called before or not, and nothing else changes.

    Within a compiled region the tensors are shown by an operator that the compiler may neither look into, reorder nor
    leave out; it reads them while the region runs, and is kept out of what is fused.

    Not seen are scripted modules, layers below `nn.DataParallel`, whose replicas would run the original's forward,
    layers whose `forward` is not made of Python code, and in compiled regions what is not certain to leave the training
    the same to the last bit; `notice` says so.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._taps: list[_Tap] = []
        self._sightings = _Sightings()

    def attach(self, layers: Iterable[nn.Module], observer: Observer) -> None:
        """Put taps on `layers`, where nothing stands against it."""
        self.close()
        if self._obstacle is not None:
            return
        self._sightings = _Sightings()
        out_of_reach = set(_out_of_reach(self._model))
        observers: dict[nn.Module, Observer | None] = dict.fromkeys(layers, observer)
        # What is compiled as a whole gets a stand-in too, if only to keep the variants with taps in a cache of their
        # own: torch.compile allows a function eight.
        for root in _roots(self._model):
            observers.setdefault(root, None)
        self._taps = [
            _Tap(module, observer, self._sightings)
            for module, observer in observers.items()
            if module not in out_of_reach
        ]
        for tap in self._taps:
            tap.attach()

    def close(self) -> None:
        """Take the taps off, and see nothing of what may still run backward. May be called again."""
        while self._taps:
            self._taps.pop().close()

    @property
    def notice(self) -> str | None:
        """The sentence that says what the last step could not show; None if it showed everything."""
        if self._obstacle is not None:
            return self._obstacle
        if not self._sightings.any:
            return UNSEEN
        return WITHHELD if self._sightings.withheld else None

    @property
    def _obstacle(self) -> str | None:
        return CROWDED if self._sightings.crowded else _obstacle()


def _out_of_reach(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if isinstance(module, nn.DataParallel):
            yield from module.modules()
        elif isinstance(module, torch.jit.ScriptModule) or _code(_forward_of(module)) is None:
            yield module


def _roots(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules in `model` at which compiling may begin."""
    if _original(model) is None:
        yield model  # the user may have compiled it, and given us the original
    for module in model.modules():
        original = _original(module)
        if original is not None:
            yield original
        elif module._compiled_call_impl is not None:  # noqa: SLF001
            yield module


class _Tap:
    """Stands in for the `forward` of one module, and shows what it gives out where there is an observer.

    A copy of the module, pickled or not, gets a `forward` that shows nothing. The module's code runs through its class,
    and what differs between layers is in a tensor, not in a number: so one compiled block serves all of its like.
    """

    def __init__(self, module: nn.Module, observer: Observer | None, sightings: _Sightings) -> None:
        self.module = module
        self.patched = vars(module).get("forward")
        self.is_observed = observer is not None
        self.observer = observer
        self.sightings = sightings
        self.number = next(_numbers)
        with torch.inference_mode(mode=False):
            self.slot = torch.tensor([self.number], device="cpu")
        self._stand_in = types.MethodType(_stand_in_for(_forward_of(module)), self)

    def attach(self) -> None:
        _taps[self.number] = self
        vars(self.module)["forward"] = self._stand_in

    def close(self) -> None:
        _taps.pop(self.number, None)
        attributes = vars(self.module)
        if attributes.get("forward") is self._stand_in:  # else the user has put another in its place
            if self.patched is None:
                del attributes["forward"]
            else:
                attributes["forward"] = self.patched

    def show(self, kind: str, values: Tensor, sizes: Sequence[int]) -> None:
        """Show a tensor of a compiled region; `sizes` are dimensions and shape, in turn, of each input."""
        if kind == NOTHING:
            self.sightings.withheld = True
        elif self.observer is not None:
            self.sightings.any = True
            if kind == ACTIVATION:
                self.observer.activation(self.module, values, tuple(_shapes(sizes)))
            else:
                self.observer.activation_gradient(self.module, values)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def show_eager(self, inputs: tuple[Any, ...], output: Any) -> None:
        if self.observer is not None and self.number in _taps:
            self.sightings.any = True
            self.observer.eager(self.module, inputs, output)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Tap:
        # Reached from a copy of the module only: it gets a tap that shows nothing.
        twin = _Tap.__new__(_Tap)
        twin.__dict__.update(self.__dict__)
        twin.module, twin.patched = memo[id(self.module)], copy.deepcopy(self.patched, memo)
        twin.observer, twin.is_observed = None, False
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        # Python pickles a bound method as an attribute of what it is bound to: let that be the module, which gives its
        # own `forward`.
        return cast, (None, self.module)


_numbers = itertools.count()
_taps: dict[int, _Tap] = {}  # those that are on


def _forward(self: _Tap, *args: Any, **kwargs: Any) -> Any:
    """Run the forward pass of the tap's module and show what came out; this is what torch.compile traces."""
    if self.patched is None:
        output = type(self.module).forward(self.module, *args, **kwargs)
    else:
        output = self.patched(*args, **kwargs)
    if not self.is_observed:
        return output
    if not torch.compiler.is_compiling():
        self.show_eager(args, output)
    elif torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting() and torch.is_grad_enabled():
        sizes = [number for tensor in tensors(args) for number in (tensor.dim(), *tensor.shape)]
        for tensor in tensors(output):
            if not tensor.is_floating_point():
                continue
            if tensor.element_size() < torch.float32.itemsize and type(self.module) not in _PRODUCTS:
                _observe(self.slot, self.slot, NOTHING, [])
                continue
            _observe(tensor.detach(), self.slot, ACTIVATION, sizes)
            if tensor.requires_grad:
                tensor.register_hook(functools.partial(_observe_gradient, self.slot))
    return output


def _observe_gradient(slot: Tensor, gradient: Tensor) -> None:
    _observe(gradient.detach(), slot, ACTIVATION_GRADIENT, [])


@torch.library.custom_op("neuraldbg::observe", mutates_args=())  # type: ignore[untyped-decorator]
def _observe(values: Tensor, slot: Tensor, kind: str, sizes: Sequence[int]) -> None:
    """Show `values` as `_Tap.show` of the tap whose number is in `slot`, if it is still on."""
    tap = _taps.get(int(slot.item()))
    # What a CUDA graph records would be replayed without us.
    if tap is not None and not (values.is_cuda and torch.cuda.is_current_stream_capturing()):
        tap.show(kind, values, sizes)


@_observe.register_fake  # type: ignore[untyped-decorator]
def _(_values: Tensor, _slot: Tensor, _kind: str, _sizes: Sequence[int]) -> None:
    """Compute nothing; called while a region is compiled, which is the time to see how often that was done."""
    from torch._dynamo import config  # noqa: PLC0415 - as in `_backends`

    compiled = CompileContext.current_compile_id()
    times = 0 if compiled is None else (compiled.frame_compile_id or 0) + 1
    # A quarter of what is allowed is left to the variants without taps.
    if times >= config.recompile_limit * 3 // 4:
        for tap in _taps.values():
            tap.sightings.crowded = True


@_observe.register_vmap  # type: ignore[untyped-decorator]
def _(_info: Any, _axes: Any, values: Tensor, slot: Tensor, kind: str, sizes: Sequence[int]) -> tuple[None, None]:
    _observe(values, slot, kind, sizes)
    return None, None


if hasattr(_observe, "register_effect"):
    from torch._library.effects import EffectType

    _observe.register_effect(EffectType.ORDERED)


def _shapes(sizes: Sequence[int]) -> Iterator[Shape]:
    remaining = iter(sizes)
    for dimensions in remaining:
        yield tuple(itertools.islice(remaining, dimensions))


def _forward_of(module: nn.Module) -> Any:
    return vars(module).get("forward", type(module).forward)


def _code(forward: Any) -> types.CodeType | None:
    # Bound methods and partials are of a function.
    function = getattr(forward, "func", getattr(forward, "__func__", forward))
    code = getattr(function, "__code__", None)
    return code if isinstance(code, types.CodeType) else None


_stand_ins: weakref.WeakKeyDictionary[types.CodeType, Callable[..., Any]] = weakref.WeakKeyDictionary()


def _stand_in_for(forward: Any) -> Callable[..., Any]:
    """Return `_forward` with a code object of its own for each that it stands in for.

    torch.compile keeps what it compiled per code object. In the code of torch.nn it does not begin to compile, it only
    goes on there, nor in what its user has excluded: neither may it in what stands in for that.
    """
    code = _code(forward)
    if code is None:
        raise TypeError(f"{forward!r} is not made of Python code.")
    if code not in _stand_ins:
        stand_in = types.FunctionType(_forward.__code__.replace(co_name=code.co_name), globals(), "forward")
        from torch._dynamo import eval_frame, trace_rules  # noqa: PLC0415 - as in `_backends`

        if trace_rules.check(forward):
            eval_frame.skip_code(stand_in.__code__)
        _stand_ins[code] = stand_in
    return _stand_ins[code]
