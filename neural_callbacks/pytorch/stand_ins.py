"""Stand-ins for the `forward` of modules that torch.compile compiles, and the operator that shows their tensors.

torch.compile guards on an instance's own `forward`, unlike on its hooks. So a stand-in is noticed whenever it is put
on, also where the module was compiled and called before; and what was compiled with it does not serve without it.
"""

from __future__ import annotations

import copy
import functools
import itertools
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn
from torch._guards import CompileContext
from torch.nn.parallel import DistributedDataParallel

from neural.session.layers import Shape
from neural_callbacks.pytorch.structures import tensors

ACTIVATION, ACTIVATION_GRADIENT = "activation", "activation_gradient"

# Layers whose output, and its gradient, is in memory in any case, because a library's kernel computes the one and takes
# the other. What others give out a compiler keeps in registers, in more bits than its type has, unless somebody looks:
# to look at a SiLU changed the last bit of the loss in float32, to look at all layers in bfloat16 more than that.
_PRODUCTS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.MultiheadAttention,
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


@dataclass
class Sightings:
    """What has come of the taps so far."""

    any: bool = False
    withheld: bool = False  # layers that are no products
    in_parts: bool = False  # DistributedDataParallel has the graph cut up
    ungated: bool = False  # compiled by way of a function
    varying: bool = False  # called with other shapes than before
    crowded: bool = False  # compiled nearly as often as torch.compile allows


class _StandIn:
    """Stands in for the `forward` of one module; a copy of the module, pickled or not, gets none, or one that rests."""

    def __init__(self, module: nn.Module, patched: Callable[..., Any] | None) -> None:
        self.module = module
        self.patched = patched  # a `forward` that is the module's own, not its class's

    def as_forward(self) -> Callable[..., Any]:
        """Return what runs in place of the module's `forward`: a method named so that is bound to this."""
        raise NotImplementedError

    def rest(self) -> None:
        """Do nothing any more but to run the module's own `forward`."""
        raise NotImplementedError

    def put_on(self) -> None:
        vars(self.module)["forward"] = self.as_forward()

    def take_off(self) -> None:
        attributes = vars(self.module)
        if getattr(attributes.get("forward"), "__self__", None) is self:  # else the user has put another in its place
            if self.patched is None:
                del attributes["forward"]
            else:
                attributes["forward"] = self.patched

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.module, twin.patched = memo[id(self.module)], copy.deepcopy(self.patched, memo)
        twin.rest()
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        # Python pickles a bound method as an attribute of what it is bound to: let that be the module, which gives its
        # own `forward`.
        return cast, (None, self.module)


class Tap(_StandIn):
    """Shows what a layer gives out; without an observer it only keeps what is compiled under taps in its own cache.

    The module's code runs through its class, and what differs between layers is in a tensor, not in a number: so one
    compiled block serves all of its like.
    """

    def __init__(
        self,
        module: nn.Module,
        patched: Callable[..., Any] | None,
        observer: Observer | None,
        sightings: Sightings,
    ) -> None:
        super().__init__(module, patched)
        self.function = _in_the_name_of(type(module).forward if patched is None else patched)
        self.is_observed = observer is not None
        self.is_product = type(module) in _PRODUCTS
        self.observer = observer
        self.sightings = sightings
        self.number = next(_numbers)
        with torch.inference_mode(mode=False):
            self.slot = torch.tensor([self.number], device="cpu")
        _taps[self.number] = self

    def as_forward(self) -> Callable[..., Any]:
        """Return `_tapped`, bound to this, in a version for modules of one class."""
        return types.MethodType(self.function, self)

    def rest(self) -> None:
        """Show nothing any more."""
        self.observer, self.is_observed = None, False

    def close(self) -> None:
        """Show nothing of what may still run backward."""
        _taps.pop(self.number, None)

    def show(self, kind: str, values: Tensor, sizes: Sequence[int]) -> None:
        """Show a tensor of a compiled region; `sizes` are dimensions and shape, in turn, of each input."""
        if self.observer is not None:
            self.sightings.any = True
            if kind == ACTIVATION:
                self.observer.activation(self.module, values, tuple(_shapes(sizes)))
            else:
                self.observer.activation_gradient(self.module, values)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def show_eager(self, inputs: tuple[Any, ...], output: Any) -> None:
        """Show a forward pass outside of all compiled regions."""
        if self.observer is not None and self.number in _taps:
            self.sightings.any = True
            self.observer.eager(self.module, inputs, output)


_numbers = itertools.count()
_taps: dict[int, Tap] = {}  # those that are on


def _tapped(self: Tap, *args: Any, **kwargs: Any) -> Any:
    """Run the forward pass of the tap's module and show what came out; this is what torch.compile traces."""
    if self.patched is None:
        output = type(self.module).forward(self.module, *args, **kwargs)
    else:
        output = self.patched(*args, **kwargs)
    if not self.is_observed:
        return output
    if not torch.compiler.is_compiling():
        self.show_eager(args, output)
    elif torch.compiler.is_dynamo_compiling() and torch.is_grad_enabled() and _may_be_seen(self.is_product):
        product = output[0] if isinstance(output, tuple) else output
        sizes = [number for tensor in tensors(args) for number in (tensor.dim(), *tensor.shape)]
        _observe(product.detach(), self.slot, ACTIVATION, sizes)
        if product.requires_grad:
            product.register_hook(functools.partial(_observe_gradient, self.slot))
    return output


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _may_be_seen(is_product: bool) -> bool:  # noqa: FBT001 - torch takes no keyword here
    """Say whether the region that is compiled right now may get the operator that shows a layer's output."""
    from torch._dynamo import config  # noqa: PLC0415 - takes seconds, and whoever compiles has paid them

    if torch.compiler.is_exporting():
        return False
    in_parts = config.optimize_ddp and DistributedDataParallel._active_ddp_module is not None  # noqa: SLF001
    compiled = CompileContext.current_compile_id()
    times = 0 if compiled is None else (compiled.frame_compile_id or 0) + 1
    # A quarter of what is allowed is left to the variants without taps.
    is_crowded = times >= config.recompile_limit * 3 // 4
    for tap in _taps.values():
        tap.sightings.in_parts |= in_parts
        tap.sightings.crowded |= is_crowded
        tap.sightings.ungated |= not _open_gates
        tap.sightings.withheld |= not is_product
    return is_product and bool(_open_gates) and not in_parts


def _observe_gradient(slot: Tensor, gradient: Tensor) -> None:
    _observe(gradient.detach(), slot, ACTIVATION_GRADIENT, [])


@torch.library.custom_op("neuraldbg::observe", mutates_args=())  # type: ignore[untyped-decorator]
def _observe(values: Tensor, slot: Tensor, kind: str, sizes: Sequence[int]) -> None:
    """Show `values` as `Tap.show` of the tap whose number is in `slot`, if it is still on."""
    tap = _taps.get(int(slot.item()))
    # What a CUDA graph records would be replayed without us.
    if tap is not None and not (values.is_cuda and torch.cuda.is_current_stream_capturing()):
        tap.show(kind, values, sizes)


@_observe.register_fake  # type: ignore[untyped-decorator]
def _(_values: Tensor, _slot: Tensor, _kind: str, _sizes: Sequence[int]) -> None:
    """Compute nothing."""


@_observe.register_vmap  # type: ignore[untyped-decorator]
def _(_info: Any, _axes: Any, values: Tensor, slot: Tensor, kind: str, sizes: Sequence[int]) -> tuple[None, None]:
    _observe(values, slot, kind, sizes)
    return None, None


CAN_OBSERVE = hasattr(_observe, "register_effect")
if CAN_OBSERVE:
    from torch._library.effects import EffectType

    _observe.register_effect(EffectType.ORDERED)


def _shapes(sizes: Sequence[int]) -> Iterator[Shape]:
    remaining = iter(sizes)
    for dimensions in remaining:
        yield tuple(itertools.islice(remaining, dimensions))


class Crew(Protocol):
    """The taps that a gate rules over."""

    sightings: Sightings
    is_attached: bool
    was_cut_short: bool

    def lift(self) -> None:
        """Take the taps off for a while."""

    def lower(self) -> None:
        """Put them on again."""


class Gate(_StandIn):
    """Stays on what is compiled as a whole, and decides at each call whether it runs with the taps, if there are any.

    It does so only where the call is like all before it, in training. torch.compile answers the first call with other
    shapes with code for varying shapes, which rounds differently, and uses it from then on for all: this history would
    be another if some of the calls ran what was compiled with taps.
    """

    def __init__(self, module: nn.Module, crew: Crew, *, is_outside: bool) -> None:
        super().__init__(module, vars(module).get("forward"))
        self.tap: Tap | None = None  # of the module itself
        self.is_new = True
        self._signature: Any = None
        self._crew: Crew | None = crew
        self._is_outside = is_outside  # before torch.compile takes over, not within
        _never_begin_in(Gate.forward.__code__)
        _never_begin_in(_is_compiled_from_here.__code__)

    def rest(self) -> None:
        """Let everything pass."""
        self.tap = self._crew = None

    def prepare(self) -> None:
        """Begin a step with taps: it runs without them if there was no call before it."""
        self.is_new = self._signature is None

    def as_forward(self) -> Callable[..., Any]:
        """Return `forward`."""
        return self.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's `forward`, with or without taps. This frame is none of those that are compiled."""
        if torch.compiler.is_compiling() or not (self._is_outside or _is_compiled_from_here()):
            # Part of something larger, or not compiled at all.
            if self.tap is not None:
                return self.tap.function(self.tap, *args, **kwargs)  # no method: torch.compile cannot make one
            if self.patched is not None:
                return self.patched(*args, **kwargs)
            return type(self.module).forward(self.module, *args, **kwargs)
        forward = self._enter(args, kwargs)
        try:
            return forward(*args, **kwargs)
        finally:
            self._leave()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _enter(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[..., Any]:
        crew = self._crew
        if crew is not None and torch.is_grad_enabled():
            signature = _signature((args, kwargs))
            if self._signature is None:
                self._signature = signature
            if signature != self._signature:
                crew.sightings.varying = crew.was_cut_short = True
            if crew.is_attached and not self.is_new and not crew.sightings.varying:
                _open_gates.append(self)
                if self.tap is not None:
                    return self.tap.as_forward()
        if crew is not None and crew.is_attached and not (_open_gates and _open_gates[-1] is self):
            crew.lift()
        if self.patched is not None:
            patched: Callable[..., Any] = self.patched
            return patched
        return types.MethodType(type(self.module).forward, self.module)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _leave(self) -> None:
        if _open_gates and _open_gates[-1] is self:
            _open_gates.pop()
        elif self._crew is not None and self._crew.is_attached and not self._crew.sightings.varying:
            self._crew.lower()


_open_gates: list[Gate] = []


def _is_compiled_from_here() -> bool:
    """Say whether torch.compile is at work and takes over in the next frame that it compiles."""
    from torch._C._dynamo import eval_frame  # noqa: PLC0415 - exists where torch.compile does

    return eval_frame.get_eval_frame_callback() is not None


def _signature(value: Any) -> Any:
    """Return what torch.compile may tell two calls apart by: shapes and strides of tensors, numbers and names."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.stride() if value.layout is torch.strided else None)
    if isinstance(value, (int, float, str)):
        return value
    if isinstance(value, Mapping):
        return tuple((key, _signature(item)) for key, item in value.items())
    if isinstance(value, (tuple, list)):
        return tuple(_signature(item) for item in value)
    return (type(value), *(_signature(tensor) for tensor in tensors(value)))


def forward_of(module: nn.Module) -> Any:
    """Return the `forward` that a call of `module` runs: its own, or that of its class."""
    return vars(module).get("forward", type(module).forward)


def code_of(forward: Any) -> types.CodeType | None:
    """Return the code that `forward` runs; None if it is not made of Python code."""
    # Bound methods and partials are of a function.
    function = getattr(forward, "func", getattr(forward, "__func__", forward))
    code = getattr(function, "__code__", None)
    return code if isinstance(code, types.CodeType) else None


def is_passed_over(forward: Any) -> bool:
    """Say whether torch.compile does not begin in this function, which it may go on in: torch.nn, what is excluded."""
    from torch._dynamo import trace_rules  # noqa: PLC0415 - as in `_may_be_seen`

    return bool(trace_rules.check(forward))


_in_names: weakref.WeakKeyDictionary[types.CodeType, Callable[..., Any]] = weakref.WeakKeyDictionary()


def _in_the_name_of(forward: Any) -> Callable[..., Any]:
    """Return `_tapped` in a version for each code that it stands in for.

    torch.compile keeps what it compiled, and what it learnt of shapes, by code and by where that code says it is from.
    What it would not begin to compile in, it may not in what stands in for that.
    """
    code = code_of(forward)
    if code is None:
        raise TypeError(f"{forward!r} is not made of Python code.")
    if code not in _in_names:
        name = f"{code.co_filename}:{code.co_firstlineno}:{code.co_name}"
        function = types.FunctionType(_tapped.__code__.replace(co_name=name), globals(), "forward")
        if is_passed_over(forward):
            _never_begin_in(function.__code__)
        _in_names[code] = function
    return _in_names[code]


def _never_begin_in(code: types.CodeType) -> None:
    from torch._dynamo import eval_frame  # noqa: PLC0415 - as in `_may_be_seen`

    eval_frame.skip_code(code)
