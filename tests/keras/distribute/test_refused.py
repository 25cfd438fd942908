"""Strategies under which nothing can be recorded: who trains under them is told so."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf

from neural_callbacks.keras.gears import observer_of
from neural_callbacks.keras.replicas import why_unobservable
from neural_callbacks.keras.watch import Unobservable

RECORDED = "OneDeviceStrategy, MirroredStrategy and MultiWorkerMirroredStrategy are recorded."


def under(strategy, steps_per_execution=1):
    return SimpleNamespace(distribute_strategy=strategy, steps_per_execution=steps_per_execution)


REASONS = {
    tf.distribute.ParameterServerStrategy: (
        "under ParameterServerStrategyV2 the steps run on the workers, each at a time of its own, and what they "
        f"compute does not come to this process. {RECORDED}"
    ),
    tf.distribute.TPUStrategy: (
        "under TPUStrategyV2 steps are compiled for the TPU as a whole, and their tensors cannot be had from it. "
        f"{RECORDED}"
    ),
    tf.distribute.experimental.CentralStorageStrategy: (
        f"the model is trained under CentralStorageStrategy, and {RECORDED}"
    ),
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_strategy_that_is_not_recorded_is_named(kind):
    # Without its cluster or its devices, which are not to be had here.
    assert why_unobservable(under(object.__new__(kind))) == f"Nothing is recorded: {REASONS[kind]}"


def test_workers_that_make_several_steps_at_once_are_not_recorded():
    strategy = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)  # without joining a cluster
    strategy._extended = SimpleNamespace(_num_replicas_in_sync=2, worker_devices=("CPU:0", "CPU:1"))
    assert why_unobservable(under(strategy, 3)) is None  # the only worker
    strategy._extended.worker_devices = ("CPU:0",)
    assert why_unobservable(under(strategy)) is None
    assert why_unobservable(under(strategy, 3)) == (
        "Nothing is recorded: with steps_per_execution=3 a worker whose steps are measured would not wait for the "
        "others where they wait for it. Write steps_per_execution=1."
    )


def test_an_observer_is_not_made_for_it():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model._distribute_strategy = object.__new__(tf.distribute.TPUStrategy)
    with pytest.raises(Unobservable, match="under TPUStrategyV2"):
        observer_of(model)
