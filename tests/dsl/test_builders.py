"""The same file means the same network on both backends: same names, outputs, losses, steps, starting weights."""

import keras
import numpy as np
import pytest
import torch

from neural.dsl import catalog, keras_builder, torch_builder
from neural.dsl.errors import NetworkSyntaxError
from neural.dsl.parser import parse

CONVOLUTIONS = """network Net {
  input: (9, 8, 3)
  layers:
    Conv2D(4, (3, 2), "relu", padding="same")
    BatchNormalization(momentum=0.9)
    MaxPooling2D(pool_size=(3, 2), strides=2, padding="same")
    Conv2D(5, 2, strides=(2, 1), padding="same", use_bias=false)
    Activation("leaky_relu")
    MaxPooling2D(2)
    Dense(6, "gelu")
    Flatten()
    Dense(7, "tanh", name="fc-1")
    BatchNormalization()
    Dropout(0.0)
    Output(4, "softmax")
  optimizer: OPTIMIZER
}"""
# With how far apart the weights may come in 3 steps, as a share of how far they went: the forms of Adam and RMSprop
# differ where they add epsilon, which moves weights with small gradients.
OPTIMIZERS = [
    ("SGD(learning_rate=0.1)", 1e-4),
    ("SGD(learning_rate=0.1, momentum=0.9)", 1e-4),
    ("SGD(learning_rate=0.1, momentum=0.9, nesterov=true)", 1e-4),
    ("Adam(learning_rate=0.001)", 0.05),
    ("AdamW(learning_rate=0.001, weight_decay=0.1, beta_1=0.8)", 0.05),
    ("RMSprop(learning_rate=0.001)", 0.05),
    ("RMSprop(learning_rate=0.001, rho=0.8, momentum=0.5)", 0.05),
]


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)


def text(layers, loss="mse", shape="(6)"):
    return f"network Net {{ input: {shape} layers: {layers} loss: {loss} }}"


def examples(network, count=16, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, *network.input)).astype(np.float32)
    return x, random.integers(0, network.layers[-1].output_shape[-1], size=count)


def torch_layout(weight):
    """Return a Keras kernel in the order of torch: the outputs first, the window last."""
    return weight if weight.ndim == 1 else np.moveaxis(weight, (-1, -2), (0, 1))


def torch_weights(model):
    """Return every parameter and remembered moment, by layer, in Keras's order of a layer's weights."""
    return {name: [value.detach().numpy() for value in _state(layer)] for name, layer in model.named_children()}


def _state(layer):
    return [value for key, value in layer.state_dict(keep_vars=True).items() if key != "num_batches_tracked"]


def both(source):
    """Build both, and give torch the weights of Keras."""
    network = parse(source, "net.neural")
    on_keras, on_torch = keras_builder.build(network), torch_builder.build(network)
    on_keras.run_eagerly = True  # a few steps are over before they would be traced
    for layer in on_keras.layers:
        values = _state(getattr(on_torch, layer.name))
        assert len(values) == len(layer.get_weights())
        with torch.no_grad():
            for value, weight in zip(values, layer.get_weights(), strict=True):
                value.copy_(torch.from_numpy(np.ascontiguousarray(torch_layout(weight))))
    return network, on_keras, on_torch


def keras_weights(model):
    return {layer.name: [torch_layout(weight) for weight in layer.get_weights()] for layer in model.layers}


def flat(weights):
    return np.concatenate([value.ravel() for values in weights.values() for value in values])


def test_layers_have_their_canonical_names_on_both():
    network, on_keras, on_torch = both(CONVOLUTIONS.replace("OPTIMIZER", "Adam"))
    names = [layer.name for layer in network.layers]
    assert names[:3] == ["Conv2D_1", "BatchNormalization_1", "MaxPooling2D_1"]
    assert "fc-1" in names
    assert [layer.name for layer in on_keras.layers] == names
    assert [name for name, _ in on_torch.named_children()] == names
    types = [layer.type for layer in network.layers]
    assert [type(layer).__name__ for layer in on_keras.layers] == types
    assert [type(layer).__name__ for layer in on_torch.children()] == types
    assert (on_keras.name, type(on_torch).__name__) == ("Net", "Net")
    assert all(not list(layer.children()) for layer in on_torch.children())


def test_every_layer_gives_out_the_same():
    network, on_keras, on_torch = both(CONVOLUTIONS.replace("OPTIMIZER", "Adam"))
    on_torch.eval()
    x, _ = examples(network)
    theirs, ours = x, torch.from_numpy(x).movedim(-1, 1)
    for layer, built in zip(network.layers, on_torch.children(), strict=True):
        theirs, ours = on_keras.get_layer(layer.name)(theirs, training=False), built(ours)
        channels_last = ours if ours.ndim == 2 else ours.movedim(1, -1)
        assert tuple(channels_last.shape[1:]) == tuple(theirs.shape[1:]) == layer.output_shape
        np.testing.assert_allclose(channels_last.detach(), theirs, rtol=1e-4, atol=1e-5, err_msg=layer.name)
    np.testing.assert_allclose(on_torch(torch.from_numpy(x)).detach(), on_keras(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", dict.fromkeys(catalog.ACTIVATIONS.values()))
def test_every_activation_is_the_same(activation):
    network, on_keras, on_torch = both(text(f'Dense(20, "{activation}")'))
    x, _ = examples(network)
    np.testing.assert_allclose(on_torch(torch.from_numpy(3 * x)).detach(), on_keras(3 * x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("optimizer", "apart"), OPTIMIZERS)
def test_training_steps_give_the_same_losses_and_weights(optimizer, apart):
    network, on_keras, on_torch = both(CONVOLUTIONS.replace("OPTIMIZER", optimizer))
    start = flat(keras_weights(on_keras))
    steps, loss_of = torch_builder.optimizer(network, on_torch), torch_builder.loss(network)
    for step in range(3):
        x, y = examples(network, seed=step)
        loss = loss_of(on_torch(torch.from_numpy(x)), torch.from_numpy(y))
        steps.zero_grad()
        loss.backward()
        steps.step()
        np.testing.assert_allclose(loss.item(), on_keras.train_on_batch(x, y), rtol=1e-3)
    ours, theirs = flat(torch_weights(on_torch)), flat(keras_weights(on_keras))
    assert np.linalg.norm(theirs - start) > 0.01
    assert np.linalg.norm(ours - theirs) < apart * np.linalg.norm(theirs - start)


def test_small_gradients_move_weights_as_far_with_rmsprop():
    source = text("Output(1, use_bias=false)").replace("loss:", "optimizer: RMSprop loss:")
    network, on_keras, on_torch = both(source)
    start = flat(keras_weights(on_keras))
    x = np.full((1, 6), 1e-5, np.float32)
    optimizer = torch_builder.optimizer(network, on_torch)
    torch_builder.loss(network)(on_torch(torch.from_numpy(x)), torch.ones(1, 1)).backward()
    optimizer.step()
    on_keras.train_on_batch(x, np.ones((1, 1), np.float32))
    theirs = flat(keras_weights(on_keras)) - start
    assert np.abs(theirs).max() < 1e-4
    np.testing.assert_allclose(flat(torch_weights(on_torch)) - start, theirs, rtol=0.05)


@pytest.mark.parametrize(
    ("layers", "loss"),
    [
        ('Output(4, "softmax")', "sparse_categorical_crossentropy"),
        ('Dense(4) Activation("softmax")', "sparse_categorical_crossentropy"),
        ('Output(4, "softmax")', "categorical_crossentropy"),
        ('Output(4, "sigmoid")', "binary_crossentropy"),
        ('Output(1, "sigmoid")', "binary_crossentropy"),
        ("Output(4)", "mse"),
        ("Output(4)", "mae"),
    ],
)
def test_losses_are_the_same_even_where_shares_round_to_zero(layers, loss):
    network, on_keras, on_torch = both(text(layers, loss))
    x, y = examples(network)
    x *= 100
    outputs = network.layers[-1].output_shape[0]
    if loss != "sparse_categorical_crossentropy":
        y = np.eye(outputs, dtype=np.float32)[y] if outputs > 1 else (y + np.arange(16) % 2).astype(np.float32)[:, None]
    ours = torch_builder.loss(network)(on_torch(torch.from_numpy(x)), torch.from_numpy(y))
    assert ours.item() > 1
    np.testing.assert_allclose(ours.item(), on_keras.train_on_batch(x, y), rtol=1e-5)


def test_a_batch_of_one_is_normalized_as_in_keras():
    network, on_keras, on_torch = both(text("BatchNormalization(momentum=0.5)"))
    x, _ = examples(network, count=1)
    theirs = on_keras(x, training=True)
    ours = on_torch(torch.from_numpy(x))
    ours.sum().backward()
    np.testing.assert_allclose(ours.detach(), theirs, atol=1e-6)
    np.testing.assert_allclose(flat(torch_weights(on_torch)), flat(keras_weights(on_keras)), rtol=1e-6, atol=1e-7)
    assert on_torch.BatchNormalization_1.weight.grad is not None


def test_both_start_from_the_same_distribution():
    source = text('Conv2D(64, (5, 3), "relu") Flatten() Dense(50)', shape="(12, 12, 8)")
    network = parse(source, "")
    theirs = {layer.name: layer.get_weights() for layer in keras_builder.build(network).layers}
    for name, values in torch_weights(torch_builder.build(network)).items():
        for ours, weight in zip(values, theirs[name], strict=True):
            assert ours.shape == torch_layout(weight).shape
            if ours.ndim == 1:
                assert not ours.any()
                assert not weight.any()
            else:
                # Uniform: the bound is sqrt(3) deviations away.
                np.testing.assert_allclose(ours.std(), weight.std(), rtol=0.03)
                np.testing.assert_allclose([ours.min(), ours.max()], [weight.min(), weight.max()], rtol=0.01)


def test_dropout_drops_in_training_alone():
    network = parse(text("Dropout(0.75)", shape="(1000)"), "")
    model, x = torch_builder.build(network), torch.ones(4, 1000)
    assert 0.65 < (model(x) == 0).float().mean() < 0.85
    assert model.eval()(x).equal(x)


def test_a_name_that_torch_keeps_for_itself_is_an_error():
    network = parse(text('Dense(3) Dense(2, name="forward")'), "net.neural")
    with pytest.raises(NetworkSyntaxError) as raised:
        torch_builder.build(network)
    assert str(raised.value) == (
        'net.neural:1:43: PyTorch keeps the name "forward" for itself. Write another name.\n'
        f"    {network.source.text}\n    {' ' * 42}^"
    )
