"""Train steps of a small network; keep in `by_hand.npz` what they compute, worked out with JAX alone."""

import json
import sys

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers

from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras.on_jax import steps

# Keras seeds TensorFlow too where it finds it, and takes seconds to load it; nothing here needs it.
sys.modules["tensorflow"] = None

NUMBERS = np.random.default_rng(5)
X = NUMBERS.normal(size=(12, 6, 6, 2)).astype("float32")
LABELS = NUMBERS.integers(0, 4, size=12)


def network(optimizer):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def weights_of(model):
    return [np.asarray(variable.value) for variable in model.weights]


def outputs_of(weights, shifts, x):
    """Return the outputs of the three layers, each with a shift added: the loss' gradient by it is the output's."""
    kernel, bias, head_kernel, head_bias = weights
    dimensions = ("NHWC", "HWIO", "NHWC")
    hidden = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dimensions) + bias
    hidden = jnp.maximum(hidden, 0) + shifts[0]
    flat = hidden.reshape(len(x), -1) + shifts[1]
    logits = flat @ head_kernel + head_bias
    return hidden, flat, jax.nn.softmax(logits) + shifts[2]


def loss_of(weights, shifts, x, labels):
    probabilities = outputs_of(weights, shifts, x)[-1]
    probabilities /= probabilities.sum(1, keepdims=True)
    return -jnp.log(probabilities[jnp.arange(len(x)), labels]).mean()


def by_hand(weights):
    none = [0.0, 0.0, 0.0]
    outputs = outputs_of(weights, none, X)
    shifts = [jnp.zeros_like(output) for output in outputs]
    loss, (gradients, by_outputs) = jax.value_and_grad(loss_of, (0, 1))(weights, shifts, X, LABELS)
    return {"activations": outputs, "activation_gradients": by_outputs, "gradients": gradients, "loss": [loss]}


def main():
    is_device = sys.argv[1] == "device"
    steps.has_accelerator = lambda: is_device
    kept = {}
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5))
    for name, optimizer in (("plain", keras.optimizers.SGD(0.5)), ("scaled", scaled)):
        model = network(optimizer)
        weights = weights_of(model)
        hand = by_hand(weights)
        model.fit(
            X, LABELS, batch_size=12, shuffle=False, verbose=0, callbacks=[NeuralDbgCallback("runs", name, every=1)]
        )
        updates = [after - before for after, before in zip(weights_of(model), weights, strict=True)]
        for kind, arrays in {**hand, "weights": weights, "updates": updates}.items():
            kept |= {f"{name}/{kind}/{number}": np.asarray(array) for number, array in enumerate(arrays)}
    np.savez("by_hand.npz", **kept)
    json.dump(None, sys.stdout)


if __name__ == "__main__":
    main()
