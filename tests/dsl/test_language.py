"""What the language accepts, and what it takes it to mean."""

from pathlib import Path

import pytest

from neural.dsl.errors import Position
from neural.dsl.parser import parse, parse_file

EXAMPLES = Path(__file__).parents[2] / "examples"

CANONICAL = """network Net {
  input: (28, 28, 1)
  layers:
    Conv2D(filters=8, kernel_size=(3, 3), activation="relu")
    Flatten()
    Dense(16)
    Output(10, "softmax")
  loss: "sparse_categorical_crossentropy"
  optimizer: Adam(learning_rate=0.001)
  metrics: ["accuracy"]
  train { epochs: 5  batch_size: 32  validation_split: 0.2 }
}
"""

# (a part of the canonical text, what may stand in its place)
SPELLINGS = [
    ("network Net", "NETWORK Net"),
    ("(28, 28, 1)", "(None, 28, 28, 1)"),
    ("(28, 28, 1)", "(none, 28, 28, 1,);"),
    ("(28, 28, 1)", "[28, 28, 1]"),
    ("  input: (28, 28, 1)\n  layers:", "  layers:\n    Input(shape=(28, 28, 1))"),
    ("layers:", "layers: Input((28, 28, 1))"),
    ("layers:", "LAYERS :"),
    ("filters=8, kernel_size=(3, 3), activation=", "8, 3, "),
    ("filters=8, kernel_size=(3, 3), activation=", "kernel_size: (3, 3), filters: 8, Activation: "),
    ('"relu")', "relu,)"),
    ('"relu")', "'ReLU')"),
    ('"relu")', '"relu", strides=1, padding="VALID", use_bias=TRUE)'),
    ("Conv2D", "conv2d"),
    ("Flatten()", "Flatten"),
    ("Flatten()", "Flatten();"),
    ("Flatten()", "FLATTEN ,"),
    ("Flatten()", "Flatten() # ends {"),
    ("Flatten()", "// starts (\n Flatten()"),
    ("Flatten()", "/* two\n lines: { * / */ Flatten()"),
    ("Flatten()\n", "Flatten() "),
    ("Dense(16)", 'Dense(16, activation="linear")'),
    ("Dense(16)", "Dense(16, none)"),
    ("Dense(16)", 'Dense(units=16, name="Dense_1")'),
    ("Dense(16)", "Dense(+16)"),
    ('"sparse_categorical_crossentropy"', "sparse_categorical_crossentropy"),
    ('"sparse_categorical_crossentropy"', "SparseCategoricalCrossentropy()"),
    ('"sparse_categorical_crossentropy"', '"SparseCategoricalCrossentropy()"'),
    ('  loss: "sparse_categorical_crossentropy"\n', ""),
    ("loss:", "loss /* : */ :"),
    ("Adam(learning_rate=0.001)", '"Adam"'),
    ("Adam(learning_rate=0.001)", "adam"),
    ("Adam(learning_rate=0.001)", "Adam()"),
    ("Adam(learning_rate=0.001)", "Adam(1e-3)"),
    ("Adam(learning_rate=0.001)", "'Adam(learning_rate=1e-3)'"),
    ("Adam(learning_rate=0.001)", '"ADAM(learning_rate: .001, beta_1=0.9)";'),
    ("  optimizer: Adam(learning_rate=0.001)\n", ""),
    ('["accuracy"]', "accuracy"),
    ('["accuracy"]', '("acc", accuracy)'),
    ('["accuracy"]', "['Accuracy',],"),
    ("train { epochs: 5", "train { epochs = 5, shuffle: true;"),
    ("train {", "Train: {"),
    ("  batch_size: 32  ", " "),
]


def meaning(network):
    layers = [(layer.type, layer.name, dict(layer.parameters), layer.output_shape) for layer in network.layers]
    optimizer = (network.optimizer.name, dict(network.optimizer.parameters))
    return network.name, network.input, layers, network.loss, optimizer, network.metrics, network.train


@pytest.mark.parametrize(("part", "instead"), SPELLINGS)
def test_other_spellings_mean_the_same(part, instead):
    assert CANONICAL.count(part) == 1
    assert meaning(parse(CANONICAL.replace(part, instead), "")) == meaning(parse(CANONICAL, ""))


def test_a_learning_rate_of_train_is_the_optimizers():
    network = parse("network Net { input: (8) layers: Output(1) optimizer: SGD train { learning_rate: 0.5 } }", "")
    assert network.optimizer.parameters == {"learning_rate": 0.5, "momentum": 0.0, "nesterov": False}


def test_layers_in_brackets_mean_the_same():
    head, layers, rest = CANONICAL.partition("layers:")[0], *CANONICAL.partition("layers:")[2].split("  loss", 1)
    listed = ", ".join(line.strip() for line in layers.strip().splitlines())
    assert meaning(parse(f"{head}layers: [{listed},]\n  loss{rest}", "")) == meaning(parse(CANONICAL, ""))


def test_sections_stand_in_any_order():
    lines = CANONICAL.splitlines(keepends=True)
    sections = [lines[1:2], lines[2:7], *([line] for line in lines[7:11])]
    turned = "".join([lines[0], *(line for section in reversed(sections) for line in section), lines[-1]])
    assert meaning(parse(turned, "")) == meaning(parse(CANONICAL, ""))


def test_the_checked_network_holds_shapes_names_and_places():
    network = parse(CANONICAL, "net.neural")
    assert [(layer.name, layer.input_shape, layer.output_shape) for layer in network.layers] == [
        ("Conv2D_1", (28, 28, 1), (26, 26, 8)),
        ("Flatten_1", (26, 26, 8), (5408,)),
        ("Dense_1", (5408,), (16,)),
        ("Output_1", (16,), (10,)),
    ]
    assert network.layers[2].at == Position(6, 5)
    assert network.input_at == Position(2, 10)


@pytest.mark.parametrize(
    ("output", "loss"),
    [
        ('Output(10, "softmax")', "sparse_categorical_crossentropy"),
        ('Dense(10) Activation("softmax")', "sparse_categorical_crossentropy"),
        ('Output(1, "sigmoid")', "binary_crossentropy"),
        ("Output(1)", "mse"),
        ('Output(10, "softmax") Dropout(0.1)', "mse"),
    ],
)
def test_a_loss_left_out_follows_from_the_output(output, loss):
    assert parse(f"network Net {{ input: (8) layers: {output} }}", "").loss == loss


def test_what_is_left_out_has_a_default():
    network = parse("network Net { input: (8) layers: Output(1) }", "")
    assert (network.optimizer.name, network.optimizer.parameters["learning_rate"]) == ("Adam", 0.001)
    train = network.train
    assert (train.epochs, train.batch_size, train.validation_split, train.shuffle) == (5, 32, 0.0, True)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("Conv2D(4, (3, 5))", (26, 20, 4)),
        ("Conv2D(4, 3, strides=(2, 3))", (13, 8, 4)),
        ('Conv2D(4, 3, padding="same")', (28, 24, 4)),
        ('Conv2D(4, 3, strides=5, padding="same")', (6, 5, 4)),
        ("MaxPooling2D()", (14, 12, 2)),
        ("MaxPooling2D(3)", (9, 8, 2)),
        ("MaxPooling2D(3, strides=2)", (13, 11, 2)),
        ('MaxPooling2D(5, padding="same")', (6, 5, 2)),
        ("Flatten()", (28 * 24 * 2,)),
        ("Dense(7)", (28, 24, 7)),
        ("BatchNormalization()", (28, 24, 2)),
    ],
)
def test_shapes_are_inferred(layer, shape):
    assert parse(f"network Net {{ input: (28, 24, 2) layers: {layer} }}", "").layers[0].output_shape == shape


@pytest.mark.parametrize("name", ["mnist", "digits_mlp"])
def test_the_examples_are_networks(name):
    network = parse_file(EXAMPLES / f"{name}.neural")
    assert network.layers[-1].output_shape == (10,)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "net.neural"
    path.write_text(CANONICAL, encoding="utf-8-sig")
    assert meaning(parse_file(path)) == meaning(parse(CANONICAL, ""))
