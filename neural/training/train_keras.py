"""The training loop on Keras with TensorFlow: `fit`, with a callback that reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from neural.data.datasets import Dataset
from neural.dsl import keras_builder
from neural.dsl.model import Network
from neural.training.examples import prepare
from neural.training.progress import Observation, Progress


def train(
    network: Network,
    data: Dataset,
    *,
    epochs: int | None,
    observe: Observation | None,
    progress: Progress,
    seed: int,
) -> keras.Model:
    """Train `network` on `data`, which fits it, and return the trained model.

    Raises:
        DataError: the validation split leaves nothing.
    """
    examples = prepare(network, data)
    keras.utils.set_random_seed(seed)
    model = keras_builder.build(network)
    validation = examples.validation
    epochs = epochs or network.train.epochs
    progress.on_start(epochs, -(-len(examples.train.x) // network.train.batch_size))
    callbacks = [_Reporter(progress, epochs)]
    if observe is not None:
        callbacks.insert(0, _observer(observe, data))
    model.fit(
        examples.train.x,
        examples.train.y,
        batch_size=network.train.batch_size,
        epochs=epochs,
        shuffle=network.train.shuffle,
        validation_data=None if validation is None else (validation.x, validation.y),
        callbacks=callbacks,
        verbose=0,
    )
    figures = model.evaluate(
        examples.test.x, examples.test.y, batch_size=network.train.batch_size, verbose=0, return_dict=True
    )
    progress.on_test(figures.pop("loss"), figures)
    return model


def _observer(observe: Observation, data: Dataset) -> Any:
    # An unobserved training does without.
    from neural_callbacks import NeuralDbgCallback  # noqa: PLC0415

    notices = () if data.notice is None else (data.notice,)
    return NeuralDbgCallback(
        log_dir=observe.log_dir,
        run_name=observe.run_name,
        every=observe.every,
        overhead_budget=observe.overhead_budget,
        notices=notices,
    )


class _Reporter(keras.callbacks.Callback):
    """Hands what Keras knows to a Progress."""

    def __init__(self, progress: Progress, epochs: int) -> None:
        super().__init__()
        self._progress = progress
        self._epochs = epochs
        self._epoch = 1

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Remember the epoch, which Keras counts from 0."""
        del logs
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report the batch."""
        del logs
        self._progress.on_batch(self._epoch, batch + 1)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report the epoch."""
        figures = dict(logs or {})
        self._progress.on_epoch(epoch + 1, self._epochs, figures.pop("loss"), figures)
