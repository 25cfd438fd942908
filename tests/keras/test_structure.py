"""Which layers are measured, in which order, and what they are called."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from neural_callbacks import NeuralDbgCallback


def table_of(model, x, y, tmp_path, read):
    model.compile("sgd", "mse")
    callback = NeuralDbgCallback(tmp_path)
    model.fit(x, y, verbose=0, callbacks=[callback])
    return read(callback).layers(), read(callback).info().notices


def test_names_shapes_and_parameters(tmp_path, read):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(2, 3, name="Conv2D_1"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
            layers.Dense(4),
            layers.Dense(1, name="Output_1"),
        ]
    )
    table, _ = table_of(model, np.ones((5, 8, 8, 1)), np.ones(5), tmp_path, read)
    assert [(layer.name, layer.type, layer.own_name) for layer in table.layers] == [
        ("Conv2D_1", "Conv2D", "Conv2D_1"),
        ("BatchNormalization_1", "BatchNormalization", "batch_normalization"),
        ("GlobalAveragePooling2D_1", "GlobalAveragePooling2D", "global_average_pooling2d"),
        ("Dense_1", "Dense", "dense"),
        ("Dense_2", "Dense", "dense_1"),
        ("Output_1", "Dense", "Output_1"),
    ]
    assert table.layers[0].input_shapes == ((None, 8, 8, 1),)
    assert table.layers[0].output_shapes == ((None, 6, 6, 2),)
    assert {layer.dtype for layer in table.layers} == {"float32"}
    assert [(parameter.name, parameter.layer, parameter.shape) for parameter in table.parameters[:5]] == [
        ("kernel", 0, (3, 3, 1, 2)),
        ("bias", 0, (2,)),
        ("gamma", 1, (2,)),
        ("beta", 1, (2,)),
        ("kernel", 3, (2, 3)),
    ]


def test_layers_stand_in_the_order_they_run_and_inner_ones_under_their_models(tmp_path, read):
    class Scaled(keras.Model):
        """Owns a parameter beside its layers, and builds one of them late."""

        def __init__(self):
            super().__init__()
            self.last = layers.Dense(1)
            self.encoder = keras.Sequential([layers.Dense(4)], name="encoder")
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

        def build(self, shape):
            del shape
            self.late = layers.Dense(5)

        def call(self, inputs):
            return self.last(self.late(self.encoder(inputs))) * self.scale

    table, notices = table_of(Scaled(), np.ones((3, 2)), np.ones((3, 1)), tmp_path, read)
    assert [layer.own_name for layer in table.layers] == ["encoder/dense_1", "dense_2", "dense", "scaled"]
    assert [layer.name for layer in table.layers] == ["Dense_1", "Dense_2", "Dense_3", "Scaled_1"]
    assert [(p.name, p.layer) for p in table.parameters][-1] == ("scale", 3)
    assert notices == ()


def test_recurrent_layers_are_measured_from_outside(tmp_path, read):
    model = keras.Sequential(
        [
            keras.Input((5, 2)),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(2)),
            layers.GRU(2),
        ]
    )
    table, notices = table_of(model, np.ones((4, 5, 2)), np.ones((4, 2)), tmp_path, read)
    assert [layer.type for layer in table.layers] == ["LSTM", "LSTM", "TimeDistributed", "GRU"]
    assert [p.name for p in table.parameters if p.layer == 0] == ["kernel", "recurrent_kernel", "bias"]
    assert table.layers[0].output_shapes == ((None, 5, 3),)
    assert notices == ()


def test_a_layer_inside_a_loop_is_told_of(tmp_path, read):
    class Repeated(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(2, name="inner")

        def build(self, shape):
            self.inner.build(shape)

        def call(self, inputs):
            return tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, self.inner(x)), (0, inputs))[1]

    model = keras.Sequential([keras.Input((2,)), Repeated(), layers.Dense(1)])
    table, notices = table_of(model, np.ones((3, 2)), np.ones(3), tmp_path, read)
    assert [layer.own_name for layer in table.layers] == ["repeated/inner", "dense"]
    (notice,) = notices
    assert notice == (
        "The activations of repeated/inner are not recorded: it runs inside a loop, a branch or a tf.function of its "
        "own in the compiled step."
    )
