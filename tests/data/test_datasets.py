"""Named data sets: real images, the right shapes, a notice where a subset stands in, an error where nothing fits."""

import subprocess
import sys
import urllib.request
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from neural.data import datasets, downloads
from neural.dsl.errors import DataError
from neural.dsl.parser import parse

# Port 9 discards: nothing listens there, so that every connection is refused at once.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _unreachable(monkeypatch, tmp_path):
    """No network and nothing kept: the whole data set cannot be had, whatever this machine has."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    # urllib keeps the proxies of whoever asked it first.
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


def network(layers='Flatten() Output(10, "softmax")', shape="(28, 28, 1)"):
    return parse(f"network Net {{ input: {shape} layers: {layers} }}", "net.neural")


@pytest.mark.parametrize("framework", ["tensorflow", "pytorch"])
@pytest.mark.parametrize(
    ("name", "shape", "sizes"), [("mnist", (28, 28, 1), (2000, 501)), ("digits", (8, 8, 1), (1438, 359))]
)
def test_images_are_shares_channels_last_with_their_classes(framework, name, shape, sizes):
    data = datasets.load(name, framework=framework)
    for part, size in zip((data.train, data.test), sizes, strict=True):
        assert part.x.shape == (size, *shape)
        assert (part.x.dtype, part.y.dtype) == (np.float32, np.int64)
        assert (part.x.min(), part.x.max()) == (0, 1)
        assert part.y.shape == (size,)
        assert np.bincount(part.y, minlength=10).min() > 0.08 * size
    assert data.classes == 10
    assert "CC BY" in data.source


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_no_image_is_in_both_parts(name):
    data = datasets.load(name, framework="pytorch")
    train, test = ({image.tobytes() for image in part.x} for part in (data.train, data.test))
    assert not train & test


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_images_are_of_their_class(name):
    """The nearest class mean tells most handwritten digits: labels belong to their images, and these are real."""
    data = datasets.load(name, framework="pytorch")
    means = np.stack([data.train.x[data.train.y == digit].mean(axis=0).ravel() for digit in range(10)])
    distances = np.linalg.norm(data.test.x.reshape(len(data.test.x), 1, -1) - means, axis=-1)
    assert (distances.argmin(axis=1) == data.test.y).mean() > 0.75


def test_a_subset_says_that_it_stands_in_and_why():
    notice = datasets.load("mnist", framework="tensorflow").notice
    assert notice == (
        "The whole mnist data set is not available (storage.googleapis.com cannot be reached: Connection refused); "
        "a subset of it stands in: 2000 training and 501 test images."
    )
    assert datasets.load("digits", framework="tensorflow").notice is None


def test_without_torchvision_the_subset_stands_in_on_pytorch(monkeypatch):
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda _: None)
    assert datasets.load("mnist", framework="pytorch").notice == (
        "The whole mnist data set is not available (torchvision, which loads it for PyTorch, is not installed); "
        "a subset of it stands in: 2000 training and 501 test images."
    )


def whole_mnist():
    """Arrays of the form that the loaders give; the far end that they fetch them from cannot be had in a test."""
    x, y = np.full((60, 28, 28), 255, np.uint8), np.arange(60, dtype=np.uint8) % 10
    return (x, y), (x[:10], y[:10])


def test_the_whole_set_comes_from_keras_where_it_is_kept(monkeypatch, tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mnist.npz").touch()
    monkeypatch.setattr(keras.datasets.mnist, "load_data", whole_mnist)
    data = datasets.load("mnist", framework="tensorflow")
    assert (data.train.x.shape, data.test.x.shape, data.notice) == ((60, 28, 28, 1), (10, 28, 28, 1), None)
    assert data.train.x.max() == 1


def test_a_download_that_breaks_off_leaves_the_subset(monkeypatch, tmp_path):
    def broken():
        raise Exception("URL fetch failure on mnist.npz: None --\n timed out.")  # noqa: TRY002 - as keras raises it

    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mnist.npz").touch()
    monkeypatch.setattr(keras.datasets.mnist, "load_data", broken)
    assert datasets.load("mnist", framework="tensorflow").notice == (
        "The whole mnist data set is not available (its download failed: URL fetch failure on mnist.npz: None -- timed "
        "out); a subset of it stands in: 2000 training and 501 test images."
    )


def test_the_whole_set_comes_from_torchvision_where_it_is_kept(monkeypatch, tmp_path):
    kept = tmp_path / "datasets" / "MNIST" / "raw"
    kept.mkdir(parents=True)
    (kept / "train-images-idx3-ubyte").touch()

    def loaded(root, *, train, download):
        assert (root, download) == (str(tmp_path / "datasets"), True)
        x, y = whole_mnist()[0 if train else 1]
        return SimpleNamespace(data=SimpleNamespace(numpy=lambda: x), targets=SimpleNamespace(numpy=lambda: y))

    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(MNIST=loaded))
    data = datasets.load("mnist", framework="pytorch")
    assert (data.train.x.shape, data.test.x.shape, data.notice) == ((60, 28, 28, 1), (10, 28, 28, 1), None)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("minst", 'There is no data set "minst"; there are mnist and digits. Write --dataset mnist.'),
        ("cats", 'There is no data set "cats"; there are mnist and digits. Write one of them.'),
    ],
)
def test_an_unknown_name_is_an_error(name, sentence):
    for attempt in (lambda: datasets.load(name, framework="pytorch"), lambda: datasets.named(name, network())):
        with pytest.raises(DataError) as raised:
            attempt()
        assert str(raised.value) == sentence
        assert raised.value.exit_code == 1


@pytest.mark.parametrize(
    ("shape", "name"),
    [("(28, 28, 1)", "mnist"), ("(28, 28)", "mnist"), ("(784)", "mnist"), ("(8, 8, 1)", "digits"), ("(64,)", "digits")],
)
def test_a_name_follows_from_input_and_output(shape, name):
    net = network(shape=shape)
    assert datasets.named(None, net) == name
    data = datasets.fitted(datasets.load(name, framework="pytorch"), net)
    assert data.train.x.shape[1:] == data.test.x.shape[1:] == net.input


@pytest.mark.parametrize(
    ("net", "where"),
    [
        (network(shape="(28, 28, 3)"), "the input (28, 28, 3) and the output (10,)"),
        (network('Flatten() Output(5, "softmax")'), "the input (28, 28, 1) and the output (5,)"),
        (network("Dense(10)"), "the input (28, 28, 1) and the output (28, 28, 10)"),
    ],
)
def test_where_no_name_follows_the_error_says_what_would_fit(net, where):
    with pytest.raises(DataError) as raised:
        datasets.named(None, net)
    assert str(raised.value) == (
        f"net.neural: no data set is named, and none follows from {where}. Write --dataset NAME, or an input and an "
        "Output that fit mnist ((28, 28, 1), 10 classes) or digits ((8, 8, 1), 10 classes)."
    )


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            network(shape="(8, 8, 1)"),
            (
                "net.neural:1:22: The images of mnist are (28, 28, 1); the network's input is (8, 8, 1). "
                "Write input: (28, 28, 1), or choose another data set."
            ),
        ),
        (
            network('Flatten() Output(5, "softmax")'),
            'net.neural:1:52: mnist has 10 classes; the output of Output_1 is (5,). Write Output(10, "softmax").',
        ),
        (
            network("Dense(10)"),
            (
                "net.neural:1:42: mnist has 10 classes; the output of Dense_1 is (28, 28, 10). "
                'Write Flatten() before it and Output(10, "softmax").'
            ),
        ),
    ],
)
def test_data_that_does_not_fit_is_an_error_before_training(net, message):
    data = datasets.load("mnist", framework="pytorch")
    for attempt in (lambda: datasets.named("mnist", net), lambda: datasets.fitted(data, net)):
        with pytest.raises(DataError) as raised:
            attempt()
        assert str(raised.value).splitlines()[0] == message


def test_importing_it_loads_no_framework():
    code = (
        "import sys, neural.data.datasets; print(sorted({'torch', 'tensorflow', 'keras', 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
