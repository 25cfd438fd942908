"""Profile: when the layers of one step ran, what they hold in memory, and their floating-point operations.

A compiled step cannot be looked into. So the train step's Python code is run eagerly on the same batch, right before
the compiled step runs, and then everything that it did is taken back: training goes on with the compiled step's results
alone. What the profile tells is how that *rehearsal* ran. A step that runs eagerly anyway is looked at itself.

As tracing does, a rehearsal runs the Python code of a custom train step once more, so that what this prints or counts
outside of the model, its layers, optimizers and metrics, it does once more too.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from neural.session.frame import BACKWARD, FORWARD, OPTIMIZER, PROFILES, STEP
from neural.session.statistics import FloatArray
from neural_callbacks.keras.flops import FlopCounter
from neural_callbacks.keras.functions import TappedFunction, has_accelerator
from neural_callbacks.keras.listening import listening
from neural_callbacks.keras.liveness import Liveness
from neural_callbacks.keras.memory import LayerMemory, MemoryReader, eager_tensors
from neural_callbacks.keras.operations import is_free
from neural_callbacks.keras.patches import tapped_tape
from neural_callbacks.keras.rehearsal import effects, taken_back
from neural_callbacks.keras.replacing import replaced
from neural_callbacks.keras.structure import Catalog, Site, find_containers, find_sites
from neural_callbacks.keras.taps import is_about_parameters
from neural_callbacks.keras.trace import Call, Trace
from neural_callbacks.recorder import Recorder

PROFILE = "the profile"
Profiles = tuple[dict[str, FloatArray], dict[str, float]]
NOTHING: Profiles = ({}, {})
_ALLOCATED, _PROCESS = (PROFILES["trace"].columns.index(name) for name in ("allocated", "process"))


class Profiler:
    """Profiles the steps of one model.

    The first time that batches of a shape come, the step is rehearsed once unmeasured, since TensorFlow looks up every
    kernel that it has not used. What that first time takes is paid once, as tracing is, and told apart.
    Nothing here raises into training; a failure switches `PROFILE` off.
    """

    def __init__(self, model: Any, optimizers: Callable[[], Sequence[Any]]) -> None:
        self._preparing_seconds = 0.0
        self._model = model
        self._optimizers = optimizers
        self._prepared: set[Any] = set()

    def rehearse(self, function: TappedFunction, batch: Any, catalog: Catalog, recorder: Recorder) -> Profiles:
        """Run the step of `function` eagerly on `batch`, take back what it did, and return its profiles and figures.

        The rows are those of `catalog`.
        """
        if PROFILE in recorder.switched_off:
            return NOTHING
        with recorder.contained(PROFILE):
            reason = self._reason_against(function)
            if not reason:
                return self._rehearsed(function, batch, catalog, recorder)
            recorder.switched_off.add(PROFILE)
            recorder.notice(f"Times, memory and FLOPs are not recorded: {reason}.")
        return NOTHING

    def _reason_against(self, function: TappedFunction) -> str:
        if function.draws:
            return "for them the step runs once more, and its code draws from Python's or numpy's global random stream"
        if found := effects(function.operations):
            return f"for them the step runs once more, and what it does with {', '.join(found)} could not be taken back"
        return ""

    def _rehearsed(self, function: TappedFunction, batch: Any, catalog: Catalog, recorder: Recorder) -> Profiles:
        started = time.perf_counter()
        profile = _Profile(self._model, self._optimizers(), recorder)
        run = functools.partial(tf.autograph.experimental.do_not_convert(function.plainly), batch)
        with taken_back(self._model, self._optimizers(), function.captured) as put_back:
            kind = tuple(map(tf.type_spec_from_value, tf.nest.flatten(batch)))
            if kind not in self._prepared:
                run(lambda step: step)
                put_back()
            with profile.in_place():
                run(profile.step)
        if kind not in self._prepared:
            self._prepared.add(kind)
            self._preparing_seconds += time.perf_counter() - started
        return NOTHING if PROFILE in recorder.switched_off else profile.finish(catalog)

    @contextmanager
    def looking(self, function: TappedFunction, catalog: Catalog, recorder: Recorder) -> Iterator[list[Profiles]]:
        """Look at the step that runs eagerly inside the `with` block; after it, the list given holds what was found."""
        found: list[Profiles] = []
        with ExitStack() as stack:
            with recorder.contained(PROFILE):
                profile = _Profile(self._model, self._optimizers(), recorder)
                stack.enter_context(function.within(profile.step))
                stack.enter_context(profile.in_place())
            yield found
        if PROFILE not in recorder.switched_off:
            with recorder.contained(PROFILE):
                found.append(profile.finish(catalog))

    def take_preparing_seconds(self) -> float:
        """Return what the first rehearsals of batches of a shape took since this was asked for."""
        taken, self._preparing_seconds = self._preparing_seconds, 0.0
        return taken


class _Profile:
    """The profile of one step. It hears of what this thread runs eagerly; after a failure it is deaf."""

    def __init__(self, model: Any, optimizers: Sequence[Any], recorder: Recorder) -> None:
        self._model = model
        self._recorder = recorder
        self._reader = MemoryReader()
        self._trace = Trace(self._reader.read, tf.test.experimental.sync_devices if has_accelerator() else None)
        self._flops = FlopCounter()
        self._memory = LayerMemory()
        self._liveness = Liveness()
        self._results: list[Any] = []
        self._optimizers = optimizers
        self._tapes = 0

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the taps in place for the train step that runs inside the `with` block."""
        with ExitStack() as stack:
            for site in find_sites(self._model):
                stack.enter_context(replaced(site.layer, "call", self._call_tap, site))
            for container in find_containers(self._model):
                stack.enter_context(replaced(container, "call", self._call_tap, None))
            for optimizer in self._optimizers:
                stack.enter_context(replaced(optimizer, "apply", self._apply_tap, optimizer))
            stack.enter_context(tapped_tape(self._tape_tap))
            stack.enter_context(listening(self))
            yield

    def _is_deaf(self) -> bool:
        return PROFILE in self._recorder.switched_off or not tf.executing_eagerly()

    @contextmanager
    def _phase(self, phase: int) -> Iterator[None]:
        if not self._is_deaf():
            with self._recorder.contained(PROFILE):
                self._trace.open(phase)
        try:
            yield
        finally:
            if not self._is_deaf():
                with self._recorder.contained(PROFILE):
                    self._trace.close()

    def step(self, train_step: Callable[..., Any]) -> Callable[..., Any]:
        """Return the train step, looked at as a whole."""

        @functools.wraps(train_step)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            with self._phase(STEP):
                results = train_step(*args, **kwargs)
            with self._recorder.contained(PROFILE):
                self._results = eager_tensors(results)
            return results

        return tapped

    def _apply_tap(self, apply: Callable[..., Any], optimizer: Any) -> Callable[..., Any]:
        @functools.wraps(apply)
        def tapped(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = None if trainable_variables is None else list(trainable_variables)
            with self._recorder.contained(PROFILE):
                self._memory.gradients(grads, optimizer._trainable_variables if variables is None else variables)  # noqa: SLF001 - its default
            with self._phase(OPTIMIZER):
                return apply(grads, variables)

        return tapped

    def _tape_tap(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        if self._tapes or not is_about_parameters(sources):  # the gradient of a gradient is of the same phase
            return gradient(tape, target, sources, **options)
        self._tapes += 1
        try:
            with self._phase(BACKWARD):
                return gradient(tape, target, sources, **options)
        finally:
            self._tapes -= 1

    def _call_tap(self, call: Callable[..., Any], site: Site | None) -> Callable[..., Any]:
        @functools.wraps(call)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            if self._is_deaf():
                return call(*args, **kwargs)
            if self._trace.is_in_a_layer:
                return self._called(site, call, args, kwargs)
            with self._recorder.contained(PROFILE):
                self._memory.given((args, kwargs))
            with self._phase(FORWARD):
                return self._called(site, call, args, kwargs)

        return tapped

    def _called(self, site: Site | None, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        entered: Call | None = None
        with self._recorder.contained(PROFILE):
            entered = self._trace.enter(site)
        outputs, is_broken = None, True
        try:
            outputs = call(*args, **kwargs)
            is_broken = False
        finally:
            if entered is not None:
                with self._recorder.contained(PROFILE):
                    self._left(entered, outputs, is_broken=is_broken)
        return outputs

    def _left(self, call: Call, outputs: Any, *, is_broken: bool) -> None:
        self._trace.leave(call, is_broken=is_broken)
        mark = self._trace.mark()
        if call.site is not None and not call.is_repeated and not is_broken:
            self._flops.entered(call.site.layer)
            self._memory.output(call.site.layer, outputs)
        self._trace.own_since(mark)

    def running(self) -> int | None:
        """See `Listener`."""
        running = self._trace.running
        return None if running is None else running.number

    def operation(self, name: str, inputs: Sequence[Any], attributes: Sequence[Any], outputs: Sequence[Any]) -> None:
        """See `Listener`."""
        started = time.perf_counter()
        if self._is_deaf():
            return
        with self._recorder.contained(PROFILE):
            running = self._trace.running
            if running is not None and not is_free(name):
                operation = (name, inputs, attributes, outputs)
                self._flops.add(running, self._liveness.count, operation, is_going_back=self._trace.is_going_back)
            self._liveness.record(inputs, outputs)
            self._trace.own_on_host_since(started)

    def backward(self, number: int | None, run: Callable[[], Any]) -> Any:
        """See `Listener`."""
        way = None
        if not self._is_deaf():
            with self._recorder.contained(PROFILE):
                way = self._trace.go_back(number, self._liveness.count)
        try:
            return run()
        finally:
            if way is not None:
                with self._recorder.contained(PROFILE):
                    self._trace.went_back(way, self._liveness.count)

    def finish(self, catalog: Catalog) -> Profiles:
        """Return the matrices of `neural.session.frame.PROFILES` that this is about, and figures of the whole step."""
        rows, table = {id(layer): row for row, layer in enumerate(catalog.layers)}, catalog.table()
        height = len(table.layers)
        live = self._liveness.find(self._results)
        trace, timing = self._trace.finish(live, rows, height)
        flops, elsewhere = self._flops.finish(live, rows, height)
        owners = [
            (variable, parameter.layer) for variable, parameter in zip(catalog.variables, table.parameters, strict=True)
        ]
        memory = self._memory.matrix(rows, owners, height, self._optimizers)
        figures: dict[str, float] = {}
        # The largest of the readings: the allocators' own maximum is older, and the user's to reset.
        for column in (_ALLOCATED, _PROCESS):
            if not np.isnan(trace[:, column]).all():
                figures.setdefault("memory_peak", float(np.nanmax(trace[:, column])))
        if elsewhere:
            figures["flops_between_layers"] = elsewhere
        return {"trace": trace, "timing": timing, "memory": memory, "flops": flops}, figures
