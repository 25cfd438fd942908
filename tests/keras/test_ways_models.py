"""Every kind of model: training is the same to the last bit, and what is recorded of a step is what it computed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(15, 6)).astype("float32")
Y = X[:, :1] + 1
LABELS = NUMBERS.integers(0, 3, size=15)
PICTURES = NUMBERS.normal(size=(15, 6, 6, 2)).astype("float32")
SERIES = NUMBERS.normal(size=(15, 4, 3)).astype("float32")
WORDS = np.array([[1 + (row + place) % 6 if place < 2 + row % 4 else 0 for place in range(5)] for row in range(15)])
CROSSENTROPY = "sparse_categorical_crossentropy"


def relu_apart():
    """Where TensorFlow's graph optimizer fuses a layer with the next."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5),
            layers.Activation("relu"),
            layers.Dense(4),
            layers.ReLU(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", CROSSENTROPY, metrics=["accuracy"])
    return model, {"x": X, "y": LABELS}


def convolution():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(4, 2, activation="relu"),
            layers.Conv2DTranspose(2, 2),
            layers.LeakyReLU(),
            layers.SpatialDropout2D(0.3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), CROSSENTROPY)
    return model, {"x": PICTURES, "y": LABELS}


def functional():
    inputs = {"left": keras.Input((6,), name="left"), "right": keras.Input((6,), name="right")}
    shared = layers.Dense(6, activation="tanh", kernel_regularizer="l2", name="shared")
    hidden = layers.Concatenate()([shared(inputs["left"]), shared(shared(inputs["right"]))])
    outputs = {
        "kind": layers.Dense(3, activation="softmax", name="kind")(hidden),
        "size": layers.Dense(1, name="size")(hidden + 1),
    }
    model = keras.Model(inputs, outputs)
    model.compile("rmsprop", {"kind": CROSSENTROPY, "size": "mse"}, loss_weights={"kind": 0.5, "size": 2.0})
    return model, {"x": {"left": X, "right": X[::-1].copy()}, "y": {"kind": LABELS, "size": Y}}


def subclassed():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [layers.Dense(6, activation="gelu", name=f"block_{n}") for n in range(2)]
            self.by_name = {"norm": layers.LayerNormalization(), "drop": layers.Dropout(0.4)}
            self.head = layers.Dense(3)

        def call(self, inputs, training=None):
            hidden = inputs
            for block in self.blocks:
                hidden = hidden + block(hidden)
            hidden = self.by_name["drop"](self.by_name["norm"](hidden), training=training)
            return {"logits": self.head(hidden)}

    model = Net()
    model.compile("adamw", {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    return model, {"x": X, "y": {"logits": LABELS}}


def nested():
    inner = keras.Sequential([layers.Dense(4, name="innermost"), layers.Dropout(0.2)], name="inner")
    inputs = keras.Input((6,))
    middle = keras.Model(inputs, layers.Dense(5, activation="relu", name="mid")(inner(inputs)), name="middle")
    model = keras.Sequential([keras.Input((6,)), middle, layers.Dense(1, name="outermost")], name="outer")
    model.compile("nadam", "mae")
    return model, {"x": X, "y": Y}


def layers_in_layers():
    class Gated(layers.Layer):
        """Has layers, a weight of its own, and one of each shared with nobody."""

        def __init__(self, **options):
            super().__init__(**options)
            self.value = layers.Dense(6, name="value")
            self.gate = layers.Dense(6, activation="sigmoid", name="gate")

        def build(self, shape):
            self.value.build(shape)
            self.gate.build(shape)
            self.balance = self.add_weight(shape=(6,), initializer="ones", name="balance")

        def call(self, inputs):
            return self.balance * self.value(inputs) * self.gate(inputs) + inputs

    class Twice(layers.Layer):
        def __init__(self):
            super().__init__()
            self.gated = Gated(name="gated")

        def call(self, inputs):
            return self.gated(self.gated(inputs))

    model = keras.Sequential([keras.Input((6,)), Twice(), layers.Dense(1, name="head")])
    model.compile("sgd", "mse")
    return model, {"x": X, "y": Y}


def recurrent():
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(4, activation="tanh")),
            layers.SimpleRNN(3, dropout=0.1),
            layers.Dense(3),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, {"x": SERIES, "y": LABELS}


def stacked_cells():
    model = keras.Sequential(
        [keras.Input((4, 3)), layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)]), layers.Dense(1, name="head")]
    )
    model.compile("adam", "mse")
    return model, {"x": SERIES, "y": Y}


def transformer():
    tokens = keras.Input((5,), dtype="int32")
    hidden = layers.Embedding(8, 6, mask_zero=True)(tokens)
    attended = layers.MultiHeadAttention(2, 3, dropout=0.1)(hidden, hidden, use_causal_mask=True)
    hidden = layers.LayerNormalization(name="after_attention")(hidden + attended)
    expanded = layers.Dense(8, activation="gelu", name="expand")(hidden)
    hidden = layers.LayerNormalization(name="after_all")(hidden + layers.Dense(6, name="contract")(expanded))
    model = keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(hidden)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, {"x": WORDS, "y": LABELS}


def masked_series():
    tokens = keras.Input((5,), dtype="int32")
    hidden = layers.Embedding(8, 4, mask_zero=True)(tokens)
    hidden = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum")(hidden)
    model = keras.Model(tokens, layers.TimeDistributed(layers.Dense(1))(hidden))
    model.compile("adam", "mse")
    return model, {"x": WORDS, "y": np.tile(Y[:, None], (1, 5, 1))}


def custom_layers():
    class Penalized(layers.Layer):
        """Adds weights and a loss, has a running average, and call arguments of its own."""

        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def build(self, shape):
            self.scale = self.add_weight(shape=shape[-1:], initializer="ones", name="scale")
            self.average = self.add_weight(shape=(), initializer="zeros", trainable=False, name="average")
            self.seeds = keras.random.SeedGenerator(7)

        def call(self, inputs, training=None, mask=None, *, strength=0.1):
            self.add_loss(strength * keras.ops.mean(keras.ops.square(inputs)))
            if mask is not None:
                inputs = inputs * keras.ops.cast(mask, inputs.dtype)[..., None]
            if training:
                self.average.assign(0.9 * self.average + 0.1 * keras.ops.mean(inputs))
                inputs = inputs + 0.1 * keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)
            return inputs * self.scale - self.average

    inputs = keras.Input((4, 3))
    hidden = Penalized()(layers.Masking()(inputs), strength=0.3)
    outputs = layers.Dense(1)(layers.GlobalAveragePooling1D()(hidden))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "mse")
    return model, {"x": np.where(WORDS[:, :4, None] > 0, SERIES, 0), "y": Y}


def clipping_train_step():
    class Own(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, self.trainable_variables), 0.1)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    model = Own([keras.Input((6,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model, {"x": X, "y": Y}


def persistent_tape():
    class TwoHeads(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = layers.Dense(4, activation="tanh", name="body")
            self.one = layers.Dense(1, name="one")
            self.two = layers.Dense(1, name="two")

        def call(self, inputs):
            hidden = self.body(inputs)
            return self.one(hidden), self.two(hidden)

        def train_step(self, data):
            with tf.GradientTape(persistent=True) as tape:
                losses = two_heads(self, data)
            for (loss, variables), optimizer in zip(losses, (self.optimizer, self.second), strict=True):
                optimizer.apply(tape.gradient(loss, variables), variables)
            del tape
            return {"one": losses[0][0], "two": losses[1][0]}

    model = TwoHeads()
    model.second = keras.optimizers.Adam(0.1)
    model.compile(keras.optimizers.SGD(0.5))
    return model, {"x": X, "y": Y}


def two_heads(model, data):
    x, y = data
    one, two = model(x, training=True)
    ones, twos = keras.ops.mean(keras.ops.square(one - y)), keras.ops.mean(keras.ops.abs(two + y))
    return [
        (ones, model.body.trainable_variables + model.one.trainable_variables),
        (twos, model.two.trainable_variables),
    ]


def adversarial():
    class Gan(keras.Model):
        def __init__(self):
            super().__init__()
            self.generator = keras.Sequential([layers.Dense(6, activation="relu"), layers.Dense(6)], name="generator")
            self.discriminator = keras.Sequential(
                [layers.Dense(5), layers.LeakyReLU(), layers.Dense(1)], name="discriminator"
            )
            self.seeds = keras.random.SeedGenerator(1)

        def build(self, shape):
            self.generator.build((None, 2))
            self.discriminator.build(shape)

        def call(self, inputs):
            return self.discriminator(inputs)

        def compile(self, d_optimizer, g_optimizer):
            super().compile()
            self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

        def train_step(self, real):
            with tf.GradientTape() as d_tape, tf.GradientTape() as g_tape:
                (d_loss, d_variables), (g_loss, g_variables) = adversaries(self, real)
            self.d_optimizer.apply(d_tape.gradient(d_loss, d_variables), d_variables)
            self.g_optimizer.apply(g_tape.gradient(g_loss, g_variables), g_variables)
            return {"d_loss": d_loss, "g_loss": g_loss}

    model = Gan()
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.01))
    return model, {"x": X}


def adversaries(model, real):
    cross = keras.losses.BinaryCrossentropy(from_logits=True)
    noise = keras.random.normal((keras.ops.shape(real)[0], 2), seed=model.seeds)
    fake, true = model.discriminator(model.generator(noise)), model.discriminator(real)
    d_loss = cross(keras.ops.zeros_like(fake), fake) + cross(keras.ops.ones_like(true), true)
    g_loss = cross(keras.ops.ones_like(fake), fake)
    return [(d_loss, model.discriminator.trainable_variables), (g_loss, model.generator.trainable_variables)]


KINDS = [
    relu_apart,
    convolution,
    functional,
    subclassed,
    nested,
    layers_in_layers,
    recurrent,
    stacked_cells,
    transformer,
    masked_series,
    custom_layers,
    clipping_train_step,
    persistent_tape,
    adversarial,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [1, 7])
def test_training_is_the_same_to_the_last_bit(kind, every, assert_same_bits):
    reader = assert_same_bits(kind, every)
    told = [s for s in reader.info().notices if not s.startswith("The activation gradient of")]
    expected = ["Training needs no gradient by the outputs of masking, so none is recorded."]
    assert told == (expected if kind is custom_layers else [])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not clipping_train_step])
def test_a_step_is_measured_as_by_hand(kind, assert_measured_by_hand):
    ways = {persistent_tape: two_heads, adversarial: lambda model, batch: adversaries(model, batch[0])}
    assert_measured_by_hand(kind, **({"losses_of": ways[kind]} if kind in ways else {}))
