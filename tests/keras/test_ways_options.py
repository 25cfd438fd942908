"""Whatever `compile` and `fit` are asked for, training is the same to the last bit."""

import keras
import numpy as np
import pytest
from keras import layers

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(15, 6)).astype("float32")
Y = X[:, :1] + 1
LABELS = NUMBERS.integers(0, 3, size=15)


def dense(optimizer, **options):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="tanh"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **options)
    return model


def accumulation_and_averages():
    optimizer = keras.optimizers.Adam(
        0.05, gradient_accumulation_steps=2, clipnorm=0.5, use_ema=True, ema_overwrite_frequency=3
    )
    return dense(optimizer), {"x": X, "y": LABELS}


def schedule_decay_and_clipping():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    return dense(keras.optimizers.AdamW(schedule, weight_decay=0.1, global_clipnorm=0.5)), {"x": X, "y": LABELS}


def clipvalue_and_weights():
    options = {"x": X, "y": LABELS, "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}
    return dense(keras.optimizers.SGD(0.1, momentum=0.9, clipvalue=0.01)), options


def sample_weights():
    return dense("rmsprop"), {"x": X, "y": LABELS, "sample_weight": np.linspace(0, 1, 15)}


def overflowing_loss_scale():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0**127)
    return dense(optimizer), {"x": X, "y": LABELS}


def half(policy):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, activation="relu", dtype=policy),
            layers.LayerNormalization(dtype=policy),
            layers.Dense(3, dtype="float32"),
        ]
    )
    optimizer = keras.optimizers.Adam()
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, {"x": X, "y": LABELS}


def float16():
    return half("mixed_float16")


def bfloat16():
    return half("mixed_bfloat16")


def frozen_and_compiled_again(callbacks):
    model = dense("adam")
    options = {"batch_size": 4, "verbose": 0, "callbacks": callbacks}
    model.fit(X, LABELS, **options)
    model.layers[0].trainable = False
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, LABELS, **options)
    return model


def stopped_early():
    class Slower(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            del batch, logs
            self.model.optimizer.learning_rate.assign(self.model.optimizer.learning_rate * 0.9)

    stop = keras.callbacks.EarlyStopping("val_loss", patience=5, restore_best_weights=True)
    options = {"x": X, "y": LABELS, "validation_data": (X, LABELS), "callbacks": [stop, Slower()]}
    return dense(keras.optimizers.SGD(0.5)), options


WAYS = [
    accumulation_and_averages,
    schedule_decay_and_clipping,
    clipvalue_and_weights,
    sample_weights,
    overflowing_loss_scale,
    float16,
    bfloat16,
    stopped_early,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("every", [1, 7])
def test_training_is_the_same_to_the_last_bit(way, every, assert_same_bits):
    assert_same_bits(way, every)


def test_a_second_fit_of_a_model_compiled_again_is_the_same(assert_same_bits):
    reader = assert_same_bits(frozen_and_compiled_again, 1, first=4)
    assert [p.trainable for p in reader.layers().parameters] == [False, False, True, True]
