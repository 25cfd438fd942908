"""FLOPs are those of the products that a layer makes, and TensorFlow's own count of the compiled step agrees."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.framework import ops
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras.functions import TappedFunction
from neural_callbacks.keras.operations import cost

BATCH = 4
# What counts here. TensorFlow's count has other conventions: it also counts one for each value of what is done value by
# value (BiasAdd, Relu, Mul, Mean, ...); it counts grouped and three-dimensional convolutions, Einsum and the gradients
# of depthwise convolutions not at all, and a loop's body once; and of a BatchMatMul with adj_x it takes the wrong axis.
COUNTED = (*("MatMul", "Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"),)


def flops_of(model, tmp_path, x, y, **options):
    model.compile("sgd", "mse", **options)
    callback = NeuralDbgCallback(tmp_path, steps=[0])
    model.fit(x, y, batch_size=len(x), verbose=0, callbacks=[callback])
    return callback


def given(shape, outputs=None):
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(BATCH, *shape)).astype("float32")
    return x, np.zeros((BATCH, *outputs)) if outputs else None


def one(layer, shape):
    """Return a model of a layer between two that learn, so that it has both gradients."""
    inputs = keras.Input(shape)
    hidden = layer(layers.Rescaling(1.0)(layers.LayerNormalization()(inputs)))
    return keras.Model(inputs, hidden)


CASES = [
    (layers.Dense(7, activation="relu"), (5,), 2 * 5 * 7, 2),
    (layers.Dense(7), (3, 5), 2 * 3 * 5 * 7, 2),
    (layers.EinsumDense("abc,cd->abd", (None, 6)), (3, 5), 2 * 3 * 5 * 6, 2),
    (layers.Conv1D(4, 3), (8, 2), 2 * 6 * 3 * 2 * 4, 2),
    (layers.Conv2D(4, 3, padding="same", strides=2), (6, 6, 2), 2 * 3 * 3 * 9 * 2 * 4, 2),
    # TensorFlow makes four images of every second pixel, each padded to 4 x 4.
    (layers.Conv2D(4, 3, dilation_rate=2), (7, 7, 2), 4 * 2 * 2 * 2 * 9 * 2 * 4, 2),
    (layers.Conv2D(4, 3, groups=2), (6, 6, 2), 2 * 4 * 4 * 9 * 4, 2),
    (layers.Conv3D(3, 2), (4, 4, 4, 2), 2 * 27 * 8 * 2 * 3, 2),
    (layers.Conv2DTranspose(4, 3), (5, 5, 2), 2 * 5 * 5 * 9 * 2 * 4, 2),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3), 2 * 4 * 4 * 9 * 6, 2),
    (layers.SeparableConv2D(5, 3), (6, 6, 3), 2 * 4 * 4 * 9 * 3 + 2 * 4 * 4 * 3 * 5, 2),
    (layers.LSTM(4), (3, 5), 3 * (2 * 5 * 16 + 2 * 4 * 16), None),
    (layers.SimpleRNN(4), (3, 5), 3 * (2 * 5 * 4 + 2 * 4 * 4), None),
    (layers.BatchNormalization(), (5,), 0, None),
    (layers.MaxPooling2D(), (4, 4, 2), 0, None),
    (layers.Activation("gelu"), (5,), 0, None),
]


@pytest.mark.parametrize(
    ("layer", "shape", "forward", "ratio"), CASES, ids=[f"{type(case[0]).__name__}-{n}" for n, case in enumerate(CASES)]
)
def test_a_layers_flops_are_those_of_its_products(layer, shape, forward, ratio, tmp_path, read):
    layer = type(layer).from_config(layer.get_config())
    model = one(layer, shape)
    x, _ = given(shape)
    reader = read(flops_of(model, tmp_path, x, np.zeros(model(x).shape)))
    types = [described.type for described in reader.layers().layers]
    found = reader.profile("flops", 0)[types.index(type(layer).__name__)]
    assert found[0] == BATCH * forward
    if ratio is not None:
        assert found[1] == ratio * BATCH * forward
    elif not forward:
        assert found[1] == 0


def network():
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    hidden = hidden + layers.Conv2D(4, 3, padding="same", use_bias=False)(layers.BatchNormalization()(hidden))
    hidden = layers.Conv2DTranspose(3, 2, strides=2)(layers.AveragePooling2D(2)(hidden))
    hidden = layers.Dense(6, activation="gelu")(layers.LayerNormalization()(layers.Flatten()(hidden)))
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(hidden))


def counted_by_tensorflow(graph, names):
    """Return what TensorFlow counts for the products among the nodes of these names."""
    with graph.as_default():
        nodes = [node for node in graph.as_graph_def().node if node.op in COUNTED and node.name in names]
        return sum(ops.get_stats_for_node_def(graph, node, "flops").value for node in nodes)


def test_forward_is_what_tensorflow_counts_in_the_frozen_graph(tmp_path, read):
    model = network()
    x, y = given((8, 8, 3), (5,))
    reader = read(flops_of(model, tmp_path, x, y))
    call = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec(x.shape, tf.float32))
    frozen = convert_variables_to_constants_v2(call).graph
    products = counted_by_tensorflow(frozen, [node.name for node in frozen.as_graph_def().node])
    assert reader.profile("flops", 0)[:, 0].sum() == products
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    with frozen.as_default():
        total = tf.compat.v1.profiler.profile(frozen, cmd="op", options=options).total_float_ops
    assert products < total < 1.1 * products  # with what is done value by value


def test_attention_multiplies_matrices_between_its_layers(tmp_path, read):
    inputs = keras.Input((7, 6))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 5)(layers.LayerNormalization()(inputs), inputs))
    x, y = given((7, 6), (7, 6))
    reader = read(flops_of(model, tmp_path, x, y))
    heads, length, width, channels = 2, 7, 5, 6
    by_layer = {layer.type: row for layer, row in zip(reader.layers().layers, reader.profile("flops", 0), strict=True)}
    assert by_layer["EinsumDense"][0] == 2 * BATCH * length * channels * heads * width
    # Scores, and the values weighted by them; and the two gradients of each.
    products = 2 * 2 * BATCH * heads * length**2 * width
    assert reader.frame(0).scalars["flops_between_layers"] == 3 * products


def test_backward_is_what_tensorflow_counts_in_the_compiled_step(tmp_path, read, monkeypatch):
    functions = []
    trace = TappedFunction.trace
    monkeypatch.setattr(TappedFunction, "trace", lambda one, spec: functions.append(one) or trace(one, spec))
    model = network()
    x, y = given((8, 8, 3), (5,))
    reader = read(flops_of(model, tmp_path, x, y))
    outer = functions[0]._graph
    (call,) = (operation for operation in outer.get_operations() if "PartitionedCall" in operation.type)
    graph = outer._get_function(call.get_attr("f").name).graph
    # The graph as it is traced has dead ends that never run: the gradients that nobody asked for.
    names, pending = set(), [*graph.control_outputs, *(tensor.op for tensor in graph.outputs)]
    while pending:
        node = pending.pop()
        if node.name not in names:
            names.add(node.name)
            pending += [*node.control_inputs, *(tensor.op for tensor in node.inputs)]
    flops = reader.profile("flops", 0)
    assert flops.sum() == counted_by_tensorflow(graph, names)
    assert (flops[:, 1] > 0).sum() == 5
    assert "flops_between_layers" not in reader.frame(0).scalars


def test_a_frozen_layer_has_no_way_back_and_the_data_no_gradient(tmp_path, read):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, trainable=False),
            layers.Dense(4, trainable=False),
            layers.Dense(3),
            layers.Dense(2, trainable=False),
        ]
    )
    x, y = given((6,), (2,))
    flops = read(flops_of(model, tmp_path, x, y)).profile("flops", 0)
    products = 2 * BATCH * np.array([6 * 5, 5 * 4, 4 * 3, 3 * 2])
    np.testing.assert_array_equal(flops[:, 0], products)
    np.testing.assert_array_equal(flops[:, 1], products * [0, 0, 1, 1])


def test_what_no_formula_tells_is_not_counted_and_a_layer_that_did_not_run_neither(tmp_path, read):
    class Solve(layers.Layer):
        def call(self, inputs):
            return tf.linalg.cholesky(inputs @ tf.transpose(inputs, [0, 2, 1]) + tf.eye(3))

    class Idle(layers.Layer):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(3), layers.Dense(3)
            self.unused.build((None, 3))

        def call(self, inputs):
            return self.used(inputs) + tf.reduce_sum(self.unused.kernel) + self.unused.bias

    model = keras.Sequential([keras.Input((3, 3)), Idle(), Solve()])
    x, y = given((3, 3), (3, 3))
    reader = read(flops_of(model, tmp_path, x, y))
    flops = {layer.own_name: row for layer, row in zip(reader.layers().layers, reader.profile("flops", 0), strict=True)}
    assert np.isnan(flops["solve"]).all()
    assert np.isnan(flops["idle/dense_1"]).all()
    assert flops["idle/dense"][0] == 2 * BATCH * 3 * 3 * 3


def test_a_traced_function_costs_what_is_in_it_and_a_loop_is_not_known():
    @tf.function
    def product(x):
        return tf.nn.relu(x @ x)

    @tf.function
    def loop(x, multiplies):
        if multiplies:
            return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x @ x), [0, x])[1]
        return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x + x), [0, x])[1]

    x = tf.ones([2, 2])
    found = []
    for function in (
        product.get_concrete_function(x),
        loop.get_concrete_function(x, True),
        loop.get_concrete_function(x, False),
    ):
        inputs = [x, *function.captured_inputs]
        found.append(cost(function.function_def.signature.name, inputs, {}, []))
    assert found[0] == 2 * 8
    assert np.isnan(found[1])
    assert found[2] == 0


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("abc,cd->abd", [(2, 3, 4), (4, 5)], 2 * 2 * 3 * 4 * 5),
        ("...ij,...jk->...ik", [(7, 2, 3), (1, 3, 4)], 2 * 7 * 2 * 3 * 4),
        ("ab->ba", [(2, 3)], 0),
    ],
)
def test_an_einsum_costs_two_for_each_of_its_products(equation, shapes, expected):
    inputs = [tf.ones(shape) for shape in shapes]
    output = tf.einsum(equation, *inputs)
    assert cost("Einsum", inputs, {"equation": equation.encode()}, [output]) == expected


def test_an_operation_of_nobody_knows_what_costs_nobody_knows_what():
    assert np.isnan(cost("MadeUpByALibrary", [], {}, []))
