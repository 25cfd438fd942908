"""Training on both backends: it learns, honours what the file says, reports, repeats with a seed, and is watched."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from neural.data import datasets
from neural.dsl.errors import BackendMissingError, DataError, NetworkSyntaxError
from neural.dsl.parser import parse
from neural.session.reader import SessionReader, find_sessions
from neural.training import start
from neural.training.examples import prepare
from neural.training.progress import Observation, Progress
from neural_callbacks.pytorch import manager
from neural_callbacks.schedule import DEFAULT_OVERHEAD_BUDGET

BACKENDS = ["pytorch", "tensorflow"]


def network(train="epochs: 2  batch_size: 100  validation_split: 0.2", loss="sparse_categorical_crossentropy"):
    return parse(
        f"""network Net {{
          input: (8, 8, 1)
          layers: Flatten() Dense(32, "relu") Output(10, "softmax")
          loss: {loss}
          optimizer: Adam(learning_rate=0.01)
          metrics: ["accuracy"]
          train {{ {train} }}
        }}""",
        "net.neural",
    )


class Heard(Progress):
    def __init__(self):
        self.notices, self.started, self.batches, self.epochs, self.tests = [], [], [], [], []

    def on_notice(self, sentence):
        self.notices.append(sentence)

    def on_start(self, epochs, batches):
        self.started.append((epochs, batches))

    def on_batch(self, epoch, batch):
        self.batches.append((epoch, batch))

    def on_epoch(self, epoch, epochs, loss, metrics):
        self.epochs.append((epoch, epochs, loss, dict(metrics)))

    def on_test(self, loss, metrics):
        self.tests.append((loss, dict(metrics)))


def trained(backend, net=None, **options):
    heard = Heard()
    start.train(net or network(), backend=backend, progress=heard, **options)
    return heard


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_learns_and_reports(backend):
    heard = trained(backend, epochs=6)
    # 0.8 of the 1438 images make 12 batches, the last one smaller.
    assert heard.started == [(6, 12)]
    assert heard.batches == [(epoch, batch) for epoch in range(1, 7) for batch in range(1, 13)]
    assert [(epoch, epochs) for epoch, epochs, *_ in heard.epochs] == [(epoch, 6) for epoch in range(1, 7)]
    assert {frozenset(metrics) for *_, metrics in heard.epochs} == {frozenset({"accuracy", "val_loss", "val_accuracy"})}
    assert heard.epochs[0][2] > 1
    assert heard.epochs[-1][2] < 0.3
    [(loss, metrics)] = heard.tests
    assert loss < 0.5
    assert metrics["accuracy"] > 0.85
    assert heard.notices == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_file_says_how_long_and_what_is_held_back(backend):
    heard = trained(backend, network("epochs: 3  batch_size: 1438"))
    assert heard.started == [(3, 1)]
    assert [set(metrics) for *_, metrics in heard.epochs] == [{"accuracy"}] * 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "mse"])
def test_losses_that_need_shares_get_them(backend, loss):
    first, *_, last = trained(backend, network(loss=loss), epochs=4).epochs
    assert last[2] < 0.75 * first[2]
    assert last[3]["val_accuracy"] > 0.6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_repeats_a_training_and_another_one_does_not(backend):
    first, again, other = (trained(backend, epochs=1, seed=seed).epochs for seed in (1, 1, 2))
    np.testing.assert_allclose(first[0][2], again[0][2], rtol=1e-5)
    assert abs(first[0][2] - other[0][2]) > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_shuffling_every_seed_sees_the_same_order(backend, monkeypatch):
    """One batch holds one class when sorted: unshuffled, the last batches of an epoch are of one class alone."""
    data = datasets.load("digits", framework=backend)
    order = np.argsort(data.train.y, kind="stable")
    part = datasets.Part(data.train.x[order], data.train.y[order])
    in_order = datasets.Dataset("digits", part, data.test, 10, data.source)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: in_order)
    accuracies = [
        trained(backend, network(f"epochs: 1  batch_size: 20  shuffle: {shuffle}")).tests[0][1]["accuracy"]
        for shuffle in ("true", "false")
    ]
    assert accuracies[0] > 0.7
    assert accuracies[1] < 0.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_observed_training_leaves_a_session_and_is_the_same(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load", with_notice(datasets.load))
    observed = trained(backend, observe=Observation(tmp_path, run_name="seen", every=5))
    plain = trained(backend)
    assert observed.notices == plain.notices == ["A subset stands in."]
    assert find_sessions(tmp_path) == {"seen": tmp_path / "seen" / "neuraldbg"}
    reader = SessionReader(tmp_path / "seen" / "neuraldbg")
    reader.refresh()
    assert [layer.name for layer in reader.layers().layers] == ["Flatten_1", "Dense_1", "Output_1"]
    assert [layer.own_name for layer in reader.layers().layers] == ["Flatten_1", "Dense_1", "Output_1"]
    assert reader.steps().tolist() == [0, 5, 10, 15, 20]
    assert "A subset stands in." in reader.info().notices
    assert (reader.info().model, reader.info().status) == ("Net", "finished")
    np.testing.assert_allclose(observed.epochs[-1][2], plain.epochs[-1][2], rtol=1e-5)


def test_without_an_interval_keras_measures_within_a_budget(tmp_path):
    trained("tensorflow", observe=Observation(tmp_path, run_name="seen", overhead_budget=0.05))
    reader = SessionReader(tmp_path / "seen" / "neuraldbg")
    reader.refresh()
    assert reader.steps().tolist()[:5] == [0, 1, 2, 3, 4]
    assert (reader.info().every, reader.info().overhead_budget) == (None, 0.05)
    trained("tensorflow", epochs=1, observe=Observation(tmp_path, run_name="again"))
    reader = SessionReader(tmp_path / "again" / "neuraldbg")
    reader.refresh()
    assert reader.info().overhead_budget == DEFAULT_OVERHEAD_BUDGET


@pytest.mark.parametrize(("every", "overhead_budget"), [(5, None), (None, 0.1), (None, None)])
def test_pytorch_is_told_which_steps_to_measure(tmp_path, monkeypatch, every, overhead_budget):
    told = []

    class Told(manager.NeuralDbg):
        def __init__(self, *arguments, **options):
            told.append((options["every"], options["overhead_budget"]))
            super().__init__(*arguments, **options)

    monkeypatch.setattr(manager, "NeuralDbg", Told)
    trained("pytorch", epochs=1, observe=Observation(tmp_path, every=every, overhead_budget=overhead_budget))
    assert told == [(every, overhead_budget)]


def with_notice(load):
    def loaded(name, *, framework):
        data = load(name, framework=framework)
        return datasets.Dataset(data.name, data.train, data.test, data.classes, data.source, "A subset stands in.")

    return loaded


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_while_it_reports_ends_training_and_the_session_says_so(backend, tmp_path):
    class Interrupted(Heard):
        def on_batch(self, epoch, batch):
            if (epoch, batch) == (1, 3):
                raise KeyboardInterrupt

    observe = Observation(tmp_path, run_name="cut", every=1)
    with pytest.raises(KeyboardInterrupt):
        start.train(network(), backend=backend, progress=Interrupted(), observe=observe)
    reader = SessionReader(tmp_path / "cut" / "neuraldbg")
    reader.refresh()
    assert reader.steps().tolist() == [0, 1, 2]
    assert reader.info().status == "failed"


def test_a_missing_backend_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda _: None)
    for backend, title, extra, other in (
        ("pytorch", "PyTorch", "torch", "tensorflow"),
        ("tensorflow", "TensorFlow", "tensorflow", "pytorch"),
    ):
        with pytest.raises(BackendMissingError) as raised:
            trained(backend)
        assert str(raised.value) == (
            f"{title} is not installed, and the backend {backend} needs it. "
            f'Write: pip install "tensorboard-plugin-neuraldbg[{extra}]", or choose --backend {other}.'
        )
        assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    ("backend", "package", "title", "other"),
    [("pytorch", "torch", "PyTorch", "tensorflow"), ("tensorflow", "tensorflow", "TensorFlow", "pytorch")],
)
def test_a_backend_that_does_not_load_is_an_error_that_says_why(monkeypatch, backend, package, title, other):
    def broken(name, *_):
        assert name == package
        try:
            raise OSError("libone.so:\n  cannot open.")  # noqa: TRY301 - as TensorFlow raises it
        except OSError:
            raise ImportError("Traceback (most recent call last):") from None

    monkeypatch.setattr(start.quiet.importlib, "import_module", broken)
    with pytest.raises(BackendMissingError) as raised:
        trained(backend)
    assert str(raised.value) == (
        f"{title} is installed but cannot be imported: libone.so: cannot open. "
        f"Write: pip install --force-reinstall {package}, or choose --backend {other}."
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_without_weights_is_an_error_before_training(backend):
    layers = 'MaxPooling2D((4, 4), strides=(4, 1)) Flatten() Activation("softmax")'
    net = parse(f"network Net {{ input: (8, 8, 1) layers: {layers} }}", "net.neural")
    with pytest.raises(NetworkSyntaxError) as raised:
        trained(backend, net)
    column = net.source.text.index("Activation")
    assert str(raised.value) == (
        f"net.neural:1:{column + 1}: The network has no weights to train. "
        'Write a layer that has, such as Output(10, "softmax").\n'
        f"    {net.source.text}\n    {' ' * column}^"
    )


def test_data_is_checked_before_anything_starts(tmp_path):
    with pytest.raises(DataError, match=r"^There is no data set \"cats\""):
        trained("pytorch", dataset="cats", observe=Observation(tmp_path))
    with pytest.raises(DataError, match="The images of mnist are"):
        start.check(network(), backend="pytorch", dataset="mnist")
    assert not list(tmp_path.iterdir())


def test_the_end_of_the_data_is_held_back_as_keras_does():
    data = datasets.load("digits", framework="pytorch")
    prepared = prepare(network("validation_split: 0.1"), data)
    assert len(prepared.train.x) == int(1438 * 0.9) == 1294
    np.testing.assert_array_equal(prepared.validation.x, data.train.x[1294:])
    np.testing.assert_array_equal(prepared.validation.y, data.train.y[1294:])


@pytest.mark.parametrize(("share", "part"), [("0.9999", "training"), ("1e-20", "validation")])
def test_a_split_that_leaves_nothing_is_an_error(share, part):
    with pytest.raises(DataError) as raised:
        prepare(network(f"validation_split: {share}"), datasets.load("digits", framework="pytorch"))
    assert str(raised.value) == (
        f"net.neural: validation_split {share} of the 1438 images of digits leaves no {part} images. "
        "Write, for example, validation_split: 0.2."
    )


@pytest.mark.parametrize(("backend", "framework"), [("tensorflow", "torch"), ("pytorch", "tensorflow")])
def test_an_unobserved_training_loads_its_framework_alone_and_prints_nothing(backend, framework):
    code = f"""
        import sys
        from neural.dsl.parser import parse
        from neural.training import start
        from neural.training.progress import Progress
        network = parse('network Net {{ input: (64) layers: Output(10, "softmax") train {{ epochs: 1 }} }}', "")
        start.train(network, backend={backend!r}, progress=Progress())
        loaded = sorted({{{framework!r}, "neural_callbacks", "tensorboard_plugin_neuraldbg"}} & set(sys.modules))
        sys.exit(f"loaded: {{loaded}}" if loaded else 0)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
