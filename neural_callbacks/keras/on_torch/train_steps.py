"""Train steps of a Keras model on torch: which are measured, which are only looked at, and which left alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from neural_callbacks.keras.on_torch.profile import PROFILE
from neural_callbacks.keras.on_torch.sample import Sample
from neural_callbacks.keras.on_torch.sentinel import SENTINEL, LookedAt, sentinel_of
from neural_callbacks.keras.on_torch.taps import TAPS
from neural_callbacks.keras.structure import Catalog, Site, find_sites
from neural_callbacks.keras.watch import Frameable, Watch, disengage, engage
from neural_callbacks.pytorch.profile import Profile, Profiler
from neural_callbacks.schedule import Depth

COMPILED = (
    "The train step is compiled by torch.compile (jit_compile=True), and to look inside would change what is compiled: "
    "its weights, gradients and updates are recorded, its activations, their gradients, the loss, times, memory and "
    "FLOPs are not. Leave jit_compile out to record them."
)


def observer_of(model: Any) -> TrainSteps:
    """Return the observer of a model on the torch backend."""
    return TrainSteps(model)


class TrainSteps:
    """The train steps of one model; an `Observer` of it.

    Each step runs the model's own train function, once; one that is measured or looked at has taps in place for its
    time.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._catalog = Catalog()
        self._watch: Watch
        self._sites: tuple[Site, ...] = ()
        self._is_settled = False
        self._is_alarmed = False

    @property
    def model(self) -> Any:
        """The model that is watched."""
        return self._model

    def begin(self, watch: Watch) -> None:
        """See `Observer`."""
        disengage(self._model)
        self._watch = watch
        self._sites = ()
        self._is_settled = self._is_alarmed = False
        self._profiler = Profiler(self._model)
        self._is_compiled = bool(self._model.jit_compile)
        if self._is_compiled:
            watch.recorder.notice(COMPILED)

    def engage(self, count: int) -> None:
        """See `Observer`."""
        del count  # Keras' train function covers one step on torch
        with self._watch.recorder.contained(TAPS):
            engage(self._model, self._run, self._watch.recorder)

    def end(self) -> None:
        """See `Observer`."""
        disengage(self._model)
        self._profiler.close()

    def _run(self, plain: Callable[..., Any], data: Any) -> Any:
        """Run a train step, `plain`, with what it needs of taps."""
        started = time.perf_counter()
        (depth,) = self._watch.plan(1)
        observed: Sample | LookedAt | None = None
        with self._watch.recorder.contained(TAPS):
            observed = self._begin(depth)
        own = time.perf_counter() - started
        try:
            with self._taps_of(observed, data):
                outputs = plain(data)
        except BaseException:
            self._profiler.close()
            raise
        started = time.perf_counter()
        samples: Sequence[Frameable] = ()
        table = None
        with self._watch.recorder.contained(TAPS):
            samples = self._results(observed)
            table = self._catalog.table() if samples else None
        own += time.perf_counter() - started + (0.0 if observed is None else observed.own_seconds)
        done = depth if isinstance(observed, Sample) and samples else Depth.NOTHING
        self._watch.ended([done], samples=samples, table=table, own=own)
        return outputs

    def _begin(self, depth: Depth) -> Sample | LookedAt | None:
        off = self._watch.recorder.switched_off
        if TAPS in off or not (depth or (self._watch.has_sentinel and SENTINEL not in off)):
            return None
        if not self._is_settled:
            self._settle()
            if not self._is_settled:
                return None  # this step makes the layers; the next one is measured
        parts = self._model, self._sites, self._catalog, self._watch.recorder
        if not depth:
            return LookedAt(*parts, step=self._watch.step, sentinel=self._sentinel)
        binned = self._watch.is_binned(depth)
        profile = self._profile() if depth >= Depth.HISTOGRAMS else None
        return Sample(*parts, step=self._watch.step, binned=binned, profile=profile)

    def _settle(self) -> None:
        """Find the layers, once all of them are there.

        By then Keras has built what the model calls. A train step of the user's own may call others, and is given one
        step to build them; what is not built even then is not used.
        """
        known, self._sites = self._sites, find_sites(self._model)
        is_keras_own = type(self._model).train_step is keras.Model.train_step
        is_built = all(site.layer.built for site in self._sites)
        is_as_before = [site.layer for site in known] == [site.layer for site in self._sites]
        self._is_settled = is_keras_own or is_built or is_as_before
        self._sentinel = sentinel_of(self._sites)

    def _profile(self) -> Profile | None:
        if self._is_compiled or PROFILE in self._watch.recorder.switched_off:
            return None
        with self._watch.recorder.contained(PROFILE):
            return self._profiler.begin()
        return None

    def _taps_of(self, observed: Sample | LookedAt | None, data: Any) -> AbstractContextManager[None]:
        if observed is None:
            return nullcontext()
        return observed.around(data) if self._is_compiled else observed.in_place(data)

    def _results(self, observed: Sample | LookedAt | None) -> Sequence[Frameable]:
        if observed is None or observed.part in self._watch.recorder.switched_off:
            return ()
        if isinstance(observed, Sample):
            self._is_alarmed = False
            return (observed,)
        if observed.alarm is None:
            self._is_alarmed = False
            self._watch.found_sound(observed.step)
            return ()
        was_alarmed, self._is_alarmed = self._is_alarmed, True
        return () if was_alarmed else (observed.alarm,)
