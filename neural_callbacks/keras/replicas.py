"""Replicas: the runs of one train step that tf.distribute makes side by side, each on its part of the batch.

What every replica saw is put together here, in the order of the step: first what came first on each. Nothing of it adds
a collective call or leaves one out, so that a worker whose step is measured and one whose step is not stay in tune.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat, zip_longest
from typing import Any

import tensorflow as tf

# Keras' own, as another would not make the same collective calls; there is no public name for it.
from keras.src.backend.tensorflow.trainer import reduce_per_replica

from neural_callbacks.keras.drawing import drawing
from neural_callbacks.keras.statistics import measure

_RECORDED = (tf.distribute.OneDeviceStrategy, tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
_RECORDED_NAMES = "OneDeviceStrategy, MirroredStrategy and MultiWorkerMirroredStrategy are recorded"

NO_PROFILE = (
    "Times, memory and FLOPs by layer are not recorded: they come from runs of the step beside training, and those are "
    "made where one replica trains the model."
)


@dataclass(frozen=True)
class Replica:
    """One of the replicas that run in this process: its number among these, and how many there are in all processes."""

    number: int
    in_sync: int


def replicas_of(strategy: Any) -> list[Replica]:
    """Return the replicas of a strategy that run in this process."""
    return [Replica(number, strategy.num_replicas_in_sync) for number in range(_in_process(strategy))]


def number_here(strategy: Any) -> int:
    """Return the number, among those in this process, of the replica whose code is running."""
    if (here := _in_process(strategy)) == 1:
        return 0
    number: int = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
    return number % here


def spans_processes(strategy: Any) -> bool:
    """Whether other processes wait for this one in every step."""
    return bool(strategy.num_replicas_in_sync > _in_process(strategy))


def why_unobservable(model: Any) -> str | None:
    """Return why a model's training cannot be looked into under its strategy, as a sentence; None where it can."""
    strategy = model.distribute_strategy
    name = type(strategy).__name__
    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        return (
            f"Nothing is recorded: under {name} the steps run on the workers, each at a time of its own, and what they "
            f"compute does not come to this process. {_RECORDED_NAMES}."
        )
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return (
            f"Nothing is recorded: under {name} steps are compiled for the TPU as a whole, and their tensors cannot be "
            f"had from it. {_RECORDED_NAMES}."
        )
    is_usual = not tf.distribute.has_strategy() and strategy is tf.distribute.get_strategy()
    if not is_usual and not isinstance(strategy, _RECORDED):
        return f"Nothing is recorded: the model is trained under {name}, and {_RECORDED_NAMES}."
    if spans_processes(strategy) and model.steps_per_execution > 1:
        return (
            f"Nothing is recorded: with steps_per_execution={model.steps_per_execution} a worker whose steps are "
            "measured would not wait for the others where they wait for it. Write steps_per_execution=1."
        )
    return None


def elements(iterator: Any, strategy: Any) -> Any:
    """Return an iterator over what steps are made of: batches.

    Where other processes take part, it is `iterator` itself, each time, for `drawn`.
    """
    return repeat(iterator) if _is_joint(iterator, strategy) else drawing(iterator)


def spec_of_elements(iterator: Any, strategy: Any) -> Any:
    """Return the type of `elements`, None where the iterator does not say."""
    is_joint = _is_joint(iterator, strategy)
    return tf.type_spec_from_value(iterator) if is_joint else getattr(iterator, "element_spec", None)


def drawn(element: Any) -> Any:
    """Return the batch that one of `elements` stands for."""
    return element.get_next() if isinstance(element, tf.distribute.DistributedIterator) else element


def run_plainly(plain: Callable[[Any], Any], element: Any) -> Any:
    """Make the step of one of `elements` by a model's own train function, `plain`."""
    return plain(element if isinstance(element, tf.distribute.DistributedIterator) else iter([element]))


def reduced(outputs: Any, strategy: Any) -> Any:
    """Return what the replicas of a train step gave out as Keras' own train function gives it out."""
    return reduce_per_replica(outputs, strategy, reduction="auto")


def in_order(of_replicas: Sequence[Sequence[Any]]) -> list[Any]:
    """Put together what n replicas list: the first of each, the second of each, and so on."""
    missing = object()
    return [x for nth in zip_longest(*of_replicas, fillvalue=missing) for x in nth if x is not missing]


def loss(scalars: Sequence[Mapping[str, Any]], replica: Replica) -> dict[str, Any]:
    """Return the step's losses from those of each replica in this process.

    A replica goes back from its mean loss divided by the number of replicas, so that their sum is the loss that Keras
    shows, the mean over replicas; where more run in other processes, it is the mean over those in this one. Whether
    the step was skipped is a figure too, of bool.
    """
    first, *others = scalars
    if not others and replica.in_sync == 1:
        return dict(first)
    share = replica.in_sync / len(scalars)
    names = [name for name in first if all(name in other for other in others)]
    of_names = {name: tf.stack([of_one[name] for of_one in scalars]) for name in names}
    return {
        name: tf.reduce_any(x) if x.dtype == tf.bool else tf.reduce_sum(x) * tf.cast(share, x.dtype)
        for name, x in of_names.items()
    }


def tensors(taken: Sequence[Sequence[Any]]) -> list[Any]:
    """Put the tensors of all replicas together."""
    return in_order(taken)


def flags(taken: Sequence[Any]) -> Any:
    """Put the vectors of flags of all replicas together."""
    return _rows_in_order(taken, [int(vector.shape[0]) for vector in taken])


def measurements(taken: Sequence[Sequence[Any]]) -> Any:
    """Return the (n, 524) measurements of the tensors of all replicas, each taken on its replica's own device."""
    return _rows_in_order([_on_its_device(of_one) for of_one in taken], [len(of_one) for of_one in taken])


def _on_its_device(tensors: Sequence[Any]) -> Any:
    first = next((x for x in tensors if not isinstance(x, tuple)), None)
    with tf.device(None if first is None else first.device):
        return measure(tensors)


def _rows_in_order(of_replicas: Sequence[Any], lengths: Sequence[int]) -> Any:
    if len(of_replicas) == 1:
        return of_replicas[0]
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    places = [list(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)]
    return tf.gather(tf.concat(of_replicas, 0), tf.constant(in_order(places), tf.int32))


def _is_joint(iterator: Any, strategy: Any) -> bool:
    return isinstance(iterator, tf.distribute.DistributedIterator) and spans_processes(strategy)


def _in_process(strategy: Any) -> int:
    # The strategy of who has none does not say.
    return len(strategy.extended.worker_devices) if isinstance(strategy, _RECORDED) else 1
