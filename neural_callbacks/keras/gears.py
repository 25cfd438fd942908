"""Gears: which function runs a train step.

- plain: the user's own;
- sentinel: the same step, which also tells whether anything in it was not finite;
- instrumented: the same step with taps in it, for the steps that are measured.

The latter two are traced beside the plain one and take its place in `model.train_function` for one call. They take the
batch from the iterator themselves, so that after a failure of ours the plain function gets the same batch and training
goes on as if nothing had been. Where other processes take part in the step, the batch is taken inside of the function,
as the plain one does it: each call of either makes the same collective calls, so that every worker may choose its gear
by itself. A step that failed on its way is not made again then, since the others would not join in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from neural_callbacks.keras import replicas
from neural_callbacks.keras.activity import ON_A_DEVICE, squashed_layers
from neural_callbacks.keras.alarms import SENTINEL, Alarms, Look
from neural_callbacks.keras.arrays import measure_arrays
from neural_callbacks.keras.functions import TappedFunction, has_accelerator, plain_step
from neural_callbacks.keras.optimizers import optimizers_of
from neural_callbacks.keras.profile import NOTHING, Profiler, Profiles
from neural_callbacks.keras.replicas import Replica
from neural_callbacks.keras.samples import Sample
from neural_callbacks.keras.sentinel import SentinelTaps
from neural_callbacks.keras.specs import Specs
from neural_callbacks.keras.statistics import measured
from neural_callbacks.keras.step_taps import StepTaps
from neural_callbacks.keras.structure import Catalog, Site, find_sites
from neural_callbacks.keras.taps import SCOPE, TAPS, Subject, Taken, TrainStep
from neural_callbacks.keras.watch import Frameable, Unobservable, Watch, disengage, engage, plain_of
from neural_callbacks.schedule import Depth

INSTRUMENTED = "the instrumented train step"
UNSEEN = (
    "Steps that are not sampled are not looked at for what is not finite: the model runs several steps in one "
    "execution (steps_per_execution), where nobody can look in between."
)
# A device is not waited for: what the sentinel saw there is looked at so many steps later.
LAG_ON_DEVICES = 2
# So many kinds of batches are traced at most: each trace takes seconds, and stays in memory.
MOST_TRACES = 8
TOO_MANY = (
    f"Steps on batches of other kinds than the first {MOST_TRACES} are not recorded: the step is traced for each kind, "
    "whether that is a structure, a type or a Python value. Give tensors in place of Python values that vary."
)
# What makes one of what the replicas took, by the kind of the taps and whether tensors are measured on a device.
_FINISH: dict[tuple[type[TrainStep], bool], Callable[[Sequence[Any]], Any]] = {
    (StepTaps, False): replicas.tensors,
    (StepTaps, True): replicas.measurements,
    (SentinelTaps, False): replicas.flags,
    (SentinelTaps, True): replicas.flags,
}


def observer_of(model: Any) -> Gears:
    """Return the observer of a model on the TensorFlow backend.

    Raises:
        Unobservable: training it cannot be looked into.
    """
    if (reason := replicas.why_unobservable(model)) is not None:
        raise Unobservable(reason)
    plain = plain_of(model)
    is_own = plain is not None and not getattr(plain, "__module__", "").startswith("keras.")
    if is_own or type(model).make_train_function is not keras.Model.make_train_function:
        raise Unobservable(
            f"Nothing is recorded: {type(model).__name__} makes its own train function (make_train_function), and only "
            "Keras' own can be traced with taps in it. Override train_step in its place."
        )
    return Gears(model)


@dataclass(frozen=True)
class _Built:
    """What is traced for a train function and one kind of batches; None where the step cannot be tapped."""

    plain: Callable[..., Any]
    spec: Any
    functions: dict[type[TrainStep], TappedFunction | None]


class Gears:
    """The gears of one model; an `Observer` of it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._strategy = model.distribute_strategy
        self._spans_processes = replicas.spans_processes(self._strategy)
        self._catalog = Catalog()
        self._watch: Watch
        self._built: list[_Built] = []
        self._specs = Specs()
        self._latest_source: tuple[Any, Any, Any] | None = None
        self._counters: list[Callable[[], Any]] = []
        # The seconds of the present execution that tracing took, and that training took.
        self._tracing = self._training = 0.0
        self._alarms: Alarms
        self._profiler = Profiler(model, self._optimizers)

    @property
    def model(self) -> Any:
        """The model that is watched."""
        return self._model

    def begin(self, watch: Watch) -> None:
        """See `Observer`."""
        disengage(self._model)
        self._watch = watch
        self._alarms = Alarms(watch)
        self._has_accelerator = has_accelerator()
        with watch.recorder.contained(INSTRUMENTED):
            self._counters = [_counting(optimizer) for optimizer in self._optimizers()]
        self._kinds = ((StepTaps,) if watch.may_sample else ()) + ((SentinelTaps,) if watch.has_sentinel else ())
        if self._has_accelerator:
            watch.recorder.notice(ON_A_DEVICE)
        if self._strategy.num_replicas_in_sync > 1:
            watch.recorder.notice(replicas.NO_PROFILE)

    def engage(self, count: int) -> None:
        """See `Observer`."""
        with self._watch.recorder.contained(INSTRUMENTED):
            engage(self._model, partial(self._run, count), self._watch.recorder)

    def end(self) -> None:
        """See `Observer`."""
        disengage(self._model)
        self._latest_source = None
        self._watch.take(self._alarms.take(lag=0), self._catalog.table())

    def _run(self, count: int, plain: Callable[..., Any], iterator: Any) -> Any:
        """Run the `count` steps of one execution of the train function, `plain`, each in the gear that it needs."""
        started = time.perf_counter()
        self._tracing = self._training = 0.0
        depths = self._watch.plan(count)
        samples: list[Frameable] = []
        kind = StepTaps if any(depths) else SentinelTaps if count == 1 and self._watch.has_sentinel else None
        function = None
        if kind is not None:
            iterator, elements, spec = self._source(iterator)
            function = self._function(kind, plain, spec)
        if function is None:
            depths = [Depth.NOTHING] * count
            if kind is None and count > 1 and self._watch.has_sentinel:
                self._watch.recorder.notice(UNSEEN)
            before = self._iterations() if count > 1 else None
            outputs = self._of_training(plain, iterator)
            depths = depths[: self._made(count, before)]
        elif kind is StepTaps:
            outputs, depths = self._measure(function, plain, elements, depths, samples)
        else:
            element = self._of_training(next, elements)
            outputs = self._look(function, partial(replicas.run_plainly, plain, element), element, samples)
        compiling = 0.0 if function is None else function.take_seconds()
        preparing = self._profiler.take_preparing_seconds()
        own = time.perf_counter() - started - self._training - self._tracing - preparing
        tracing = self._tracing + compiling + preparing
        with self._watch.recorder.contained(INSTRUMENTED):
            table = self._catalog.table() if samples else None
            self._watch.ended(depths, samples=samples, table=table, own=own, tracing=tracing)
        return outputs

    def _of_training(self, run: Callable[[Any], Any], element: Any) -> Any:
        """Run what training would wait for without us too."""
        started = time.perf_counter()
        result = run(element)
        self._training += time.perf_counter() - started
        return result

    def _measure(
        self,
        function: TappedFunction,
        plain: Callable[..., Any],
        elements: Any,
        depths: Sequence[Depth],
        samples: list[Frameable],
    ) -> tuple[Any, list[Depth]]:
        """Make the steps of an execution, as many as there are batches; return its outputs and what was measured."""
        outputs: Any = None
        done: list[Depth] = []
        for step, depth in enumerate(depths, self._watch.step):
            try:
                element = self._of_training(next, elements)
            except StopIteration:
                if not done:
                    raise
                break  # the last execution of an epoch may cover fewer steps
            if depth and self._may_run(INSTRUMENTED, TAPS):
                again = partial(replicas.run_plainly, plain, element)
                outputs, sample = self._observe(function, again, element, step, depth)
                samples += [] if sample is None else [sample]
                done.append(Depth.NOTHING if sample is None else depth)
            else:
                outputs = self._of_training(partial(replicas.run_plainly, plain), element)
                done.append(Depth.NOTHING)
        return outputs, done

    def _observe(
        self, function: TappedFunction, plain: Callable[[], Any], element: Any, step: int, depth: Depth
    ) -> tuple[Any, Sample | None]:
        """Make one step with taps in it, or, should they fail, the `plain` one."""
        iterations = self._iterations()
        try:
            (outputs, taken, scalars), (profiles, figures) = self._profiled(function, element, depth)
        except Exception as error:
            if self._spans_processes or self._is_the_users(error):
                raise
            with self._watch.recorder.contained(INSTRUMENTED):
                raise
            return self._outputs_after_a_failure(plain, step, iterations), None
        self._tell(function)
        binned = self._watch.is_binned(depth)
        reading = measured if self._has_accelerator else measure_arrays
        squashed = None if self._has_accelerator else squashed_layers(self._catalog.layers)
        scalars = {**scalars, **figures}
        return outputs, Sample(step, time.time(), taken, function.keys, scalars, reading, binned, profiles, squashed)

    def _profiled(self, function: TappedFunction, element: Any, depth: Depth) -> tuple[Any, Profiles]:
        """Run the step; return what `function` gives out, and the step's profiles where its depth asks for these."""
        if depth < Depth.PROFILE or self._strategy.num_replicas_in_sync > 1:
            return self._of_training(function, element), NOTHING
        recorder = self._watch.recorder
        self._watch.settle()
        if not self._is_eager():
            profiles = self._profiler.rehearse(function, element, self._catalog, recorder)
            return self._of_training(function, element), profiles
        with self._profiler.looking(function, self._catalog, recorder) as found:
            result = self._of_training(function, element)
        return result, found[0] if found else NOTHING

    def _is_the_users(self, error: Exception) -> bool:
        """Say whether an error that a step ended with would have come without us too.

        What fails in taps is contained there. So it is ours where it is of an operation that we put in, or of what we
        do around the compiled step; and where memory ran out, which has more to hold.
        """
        if self._is_eager():
            return True
        is_ours = isinstance(error, tf.errors.ResourceExhaustedError) or SCOPE in str(error)
        return isinstance(error, tf.errors.OpError) and not is_ours

    def _outputs_after_a_failure(self, plain: Callable[[], Any], step: int, iterations: Sequence[Any] | None) -> Any:
        now = self._iterations()
        if now is not None and iterations is not None and list(map(int, now)) == list(map(int, iterations)):
            return plain()
        return self._outputs_of_a_lost_step(plain, step)

    def _outputs_of_a_lost_step(self, plain: Callable[[], Any], step: int) -> Any:
        """Return what stands for the outputs of a step that failed too late for making it again with `plain`."""
        del plain  # the optimizer has stepped: making the step again would be another training
        self._watch.recorder.notice(f"Step {step} may be incomplete: it failed after the optimizer had stepped.")
        return self._model.get_metrics_result()

    def _look(self, function: TappedFunction, plain: Callable[[], Any], element: Any, samples: list[Frameable]) -> Any:
        """Make one step, and look at what the sentinel saw; should it fail, make the `plain` one."""
        step = self._watch.step
        iterations = self._iterations()
        try:
            outputs, flags, scalars = self._of_training(function, element)
        except Exception as error:
            if self._spans_processes or self._is_the_users(error):
                raise
            with self._watch.recorder.contained(SENTINEL):
                raise
            return self._outputs_after_a_failure(plain, step, iterations)
        with self._watch.recorder.contained(SENTINEL):
            self._alarms.add(Look(step, flags, function.keys, scalars))
            samples += self._alarms.take(lag=LAG_ON_DEVICES if self._has_accelerator else 0)
        return outputs

    def _tell(self, function: TappedFunction) -> None:
        for sentence in function.notices:
            self._watch.recorder.notice(sentence)

    def _iterations(self) -> list[Any] | None:
        """Return how often each optimizer was asked to step, a copy on its device; None where that cannot be known."""
        with self._watch.recorder.contained(INSTRUMENTED):
            return [read() for read in self._counters]
        return None

    def _made(self, planned: int, before: Sequence[Any] | None) -> int:
        """Return how many steps the plain function made of those planned: the last data may be fewer."""
        after = self._iterations() if before else None
        made = int(after[0]) - int(before[0]) if after and before else planned
        return made if 0 < made <= planned else planned

    def _may_run(self, *parts: str) -> bool:
        return self._watch.recorder.switched_off.isdisjoint(parts)

    def _function(self, kind: type[TrainStep], plain: Callable[..., Any], spec: Any) -> TappedFunction | None:
        """Return the train step with taps of a kind, traced where it is not yet; None where it cannot be tapped.

        A trace is for one train function (`compile` makes another) and for batches of one `spec`.
        """
        parts = (INSTRUMENTED, TAPS) if kind is StepTaps else (SENTINEL,)
        if not self._may_run(*parts):
            return None
        with self._watch.recorder.contained(parts[0]):
            built = self._built_for(plain, spec)
            if built is None:
                return None
            if kind not in built.functions:
                if self._is_eager() and not all(layer.built for layer in _layers(self._model)):
                    return None  # this step makes the layers; the next sampled one is measured
                # All of them now, as the model's own is: what the Python code looks at may be another thing later.
                kinds = {kind: None} if self._is_eager() else dict.fromkeys((kind, *self._kinds))
                for each in kinds:
                    built.functions[each] = self._traced(each, spec)
            return built.functions[kind]
        return None

    def _built_for(self, plain: Callable[..., Any], spec: Any) -> _Built | None:
        """Return what is traced for a train function and batches of `spec`; None where that would be too many."""
        self._built = [built for built in self._built if built.plain is plain]
        for built in self._built:
            # To compare what is the same takes a while, for every step.
            if built.spec is spec or built.spec == spec:
                return built
        if len(self._built) >= MOST_TRACES:
            self._watch.recorder.notice(TOO_MANY)
            return None
        self._built.append(_Built(plain, spec, {}))
        self._counters = [_counting(optimizer) for optimizer in self._optimizers()]
        return self._built[-1]

    def _traced(self, kind: type[TrainStep], spec: Any) -> TappedFunction | None:
        """Trace a train step with taps; None where a second function would not draw the same random numbers."""
        sites: tuple[Site, ...] = ()
        is_fresh = not self._catalog.variables
        self._catalog.refresh()
        # Where the model was not built before, the first trace builds it, and more layers are found after it.
        while sites != (found := find_sites(self._model)):
            sites = found
            if is_fresh:
                self._catalog = Catalog()
            subject = Subject(self._model, self._optimizers(), sites, self._catalog, self._watch.recorder)
            function = self._tapped(partial(kind, subject), _FINISH[kind, self._has_accelerator])
            function.trace(spec)
            self._tracing += function.take_seconds()
            if drawing := function.stateful_random():
                self._watch.recorder.notice(
                    f"Nothing is recorded: the model draws random numbers with {', '.join(drawing)}, whose state lives "
                    "in the compiled function, so that a second function would change training. Write keras.random "
                    "with a SeedGenerator, or tf.random.stateless_*, in its place."
                )
                return None
        return function

    def _tapped(
        self, taps: Callable[[Replica], TrainStep], finish: Callable[[Sequence[Taken]], Taken]
    ) -> TappedFunction:
        step, is_compiled = partial(plain_step, self._model), bool(self._model.jit_compile)
        return TappedFunction(
            step, self._strategy, taps, finish, run_eagerly=self._is_eager(), jit_compile=is_compiled, is_inner=True
        )

    def _source(self, iterator: Any) -> tuple[Any, Any, Any]:
        """Return what is to be iterated over, its `replicas.elements`, and the specification of one of these."""
        if self._latest_source is not None and self._latest_source[0] is iterator:
            return self._latest_source
        if (spec := replicas.spec_of_elements(iterator, self._strategy)) is not None:
            self._latest_source = iterator, replicas.elements(iterator, self._strategy), spec
            return self._latest_source
        batch = next(iterator)  # of train_on_batch, which has just this one; what is missing in it is None
        with self._watch.recorder.contained(INSTRUMENTED):
            if not self._is_eager():
                batch = tf.nest.map_structure(_tensor, batch)
            self._specs.meet(batch)
        only = iter([batch])
        return only, only, self._specs.spec

    def _optimizers(self) -> Sequence[Any]:
        return optimizers_of(self._model)

    def _is_eager(self) -> bool:
        return bool(self._model.run_eagerly) or tf.config.functions_run_eagerly()


def _tensor(x: Any) -> Any:
    return x if x is None or tf.is_tensor(x) else tf.convert_to_tensor(x)


def _counting(optimizer: Any) -> Callable[[], Any]:
    """Return a function that reads how often an optimizer was asked to step.

    That is not `iterations`, which stands still while gradients are accumulated.
    """
    counter = getattr(optimizer, "inner_optimizer", optimizer)._iterations.value  # noqa: SLF001
    if isinstance(counter, tf.distribute.DistributedValues):
        return partial(tf.identity, counter)
    # A reading by itself takes a fifth of the time of a tensor made of the variable.
    return partial(tf.raw_ops.ReadVariableOp, resource=counter.handle, dtype=counter.dtype)


def _layers(model: Any) -> Sequence[Any]:
    layers: Sequence[Any] = model._flatten_layers()  # noqa: SLF001 - see structure
    return layers
