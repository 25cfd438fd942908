"""Real sessions, written by the real writer, behind TensorBoard's real application."""

import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tensorboard import program
from werkzeug.test import Client

from neural.session import statistics
from neural.session.frame import Frame
from neural.session.histogram import Histograms, reference_counts
from neural.session.info import SessionInfo
from neural.session.layers import Layer, LayerTable, Parameter
from neural.session.writer import SessionWriter
from tensorboard_plugin_neuraldbg import sessions
from tensorboard_plugin_neuraldbg.plugin import NeuralDbgLoader

with warnings.catch_warnings():
    # TensorBoard carries a copy of html5lib that says so of itself.
    warnings.filterwarnings("ignore", "html5lib's sanitizer is deprecated", DeprecationWarning)
    from tensorboard.backend import application
    from tensorboard.plugins.core import core_plugin

STEPS = tuple(range(0, 370, 10))
# The third layer, and its parameters, are first seen at this step.
GROWN = 120
# Nothing was measured of layer 1 and parameter 3 at this step; at the next one they held what is not finite.
SILENT, BROKEN = 200, 210
INFO = SessionInfo("Net", "pytorch 2.13.0", 1795354321.0, 10, notices=("Only ten images were found.",))
TABLE = LayerTable(
    (
        Layer("Conv2D_1", "Conv2D", "conv", ((None, 28, 28, 1),), ((None, 26, 26, 2),), "float32"),
        Layer("ReLU_1", "ReLU", "act"),
        Layer("Dense_1", "Dense", "fc", dtype="float32"),
    ),
    (
        Parameter("kernel", 0, (3, 4), "float32"),
        Parameter("bias", 0, (5,), "float32"),
        Parameter("kernel", 2, (7,), "float32"),
        # A parameter that was first seen late stands apart from the others of its layer.
        Parameter("scale", 0, (2, 3), "float32", trainable=False),
    ),
)
YOUNG_TABLE = LayerTable(TABLE.layers[:2], TABLE.parameters[:2])


@dataclass
class Recording:
    """What went into a session: the very values, so that the tests need none of the code under test."""

    activations: dict[int, list[np.ndarray]] = field(default_factory=dict)
    gradients: dict[int, list[np.ndarray]] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)

    def layer_gradients(self, step: int, layer: int) -> np.ndarray:
        """Return the gradients of all of a layer's parameters as one flat tensor."""
        members = [n for n, parameter in enumerate(TABLE.parameters) if parameter.layer == layer]
        found = [self.gradients[step][n].ravel() for n in members if n < len(self.gradients[step])]
        return np.concatenate(found) if found else np.empty(0)


def make_values(random: np.random.Generator, step: int, shapes: list[tuple[int, ...]], broken: int) -> list[np.ndarray]:
    values = [random.normal(size=shape) * 10.0 ** random.integers(-6, 3) for shape in shapes]
    if step == SILENT and broken < len(values):
        values[broken] = np.empty(0)
    if step == BROKEN and broken < len(values):
        values[broken].ravel()[:3] = np.nan, np.inf, -np.inf
    return values


def matrix_of(values: list[np.ndarray]) -> np.ndarray:
    rows = [statistics.reference_row(value) if value.size else np.full(10, np.nan) for value in values]
    return np.array(rows).reshape(-1, 10)


def histograms_of(values: list[np.ndarray]) -> Histograms:
    return Histograms.from_rows({row: reference_counts(value) for row, value in enumerate(values) if value.size})


def record(directory: Path, *, info: SessionInfo = INFO) -> Recording:
    """Write a session in which a layer appears late and some values are not finite or were not measured."""
    random = np.random.default_rng(7)
    recording = Recording()
    writer = SessionWriter(directory)
    writer.write_info(info, 0)
    writer.write_layers(YOUNG_TABLE, 0)
    for step in STEPS:
        if step == GROWN:
            writer.write_layers(TABLE, step)
        layers, parameters = (2, 2) if step < GROWN else (3, 4)
        activations = make_values(random, step, [(4, 6)] * layers, broken=1)
        gradients = make_values(random, step, [p.shape for p in TABLE.parameters[:parameters]], broken=3)
        recording.activations[step], recording.gradients[step] = activations, gradients
        recording.losses[step] = float(np.float32(1.0 / (step + 1))) if step != BROKEN else float("nan")
        matrices = {"activations": matrix_of(activations), "gradients": matrix_of(gradients)}
        histograms: Mapping[str, Histograms] = {}
        if step % 20 == 0:
            histograms = {"activations": histograms_of(activations), "gradients": histograms_of(gradients)}
        writer.write(Frame(step, 1795354321.0 + step, matrices, histograms, {"loss": recording.losses[step]}))
    writer.close()
    return recording


@dataclass(frozen=True)
class Answer:
    status: int
    document: dict
    arrays: dict[str, np.ndarray]

    @property
    def error(self) -> str:
        return self.document["error"]


def unpack(body: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """Read a binary answer as `http_api.md` describes it."""
    (length,) = struct.unpack_from("<I", body)
    head = json.loads(body[4 : 4 + length])
    at, arrays = 4 + length, {}
    assert at % 8 == 0
    for listed in head["arrays"]:
        array = np.frombuffer(body, listed["dtype"], int(np.prod(listed["shape"])), at)
        arrays[listed["name"]] = array.reshape(listed["shape"])
        at += -(-array.nbytes // 8) * 8
    assert at == len(body)
    return head, arrays


class Server:
    """TensorBoard's application, asked without a network."""

    def __init__(self, *arguments: str) -> None:
        self.tensorboard = program.TensorBoard([core_plugin.CorePluginLoader(), NeuralDbgLoader()])
        # Interval 0 loads once, so that no thread outlives the test.
        self.tensorboard.configure(["tensorboard", "--reload_interval", "0", *arguments])
        provider, multiplexer = self.tensorboard._make_data_provider()
        loaders = self.tensorboard.plugin_loaders
        self.application = application.TensorBoardWSGIApp(self.tensorboard.flags, loaders, provider, None, multiplexer)
        self.client = Client(self.application)
        self.plugin = self.application._plugins[-1]
        self.prefix = self.tensorboard.flags.path_prefix

    def get(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, **parameters: object):
        """Return TensorBoard's answer at a path of its own."""
        return self.client.open(self.prefix + path, method=method, query_string=parameters, headers=headers)

    def ask(self, route: str, **parameters: object) -> Answer:
        """Return the answer of one of the plugin's routes."""
        response = self.get(f"/data/plugin/neuraldbg/{route}", **parameters)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        if response.mimetype == "application/octet-stream":
            return Answer(response.status_code, *unpack(response.data))
        assert response.mimetype == "application/json"
        return Answer(response.status_code, json.loads(response.data), {})

    def close(self) -> None:
        stdin = getattr(self.tensorboard._ingester, "_stdin_handle", None)
        if stdin is not None:
            stdin.close()  # the data server ends with it


@pytest.fixture
def serve() -> Iterator:
    """Start servers; end them after the test."""
    started: list[Server] = []

    def start(*arguments: str) -> Server:
        started.append(Server(*arguments))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> tuple[Path, Recording]:
    """Return a log directory with the run "net/first", and what was recorded there."""
    logdir = tmp_path_factory.mktemp("runs")
    return logdir, record(logdir / "net" / "first" / "neuraldbg")


@pytest.fixture(scope="session")
def server(recorded) -> Iterator[Server]:
    started = Server("--logdir", str(recorded[0]), "--load_fast", "false")
    yield started
    started.close()


@pytest.fixture
def recording(recorded) -> Recording:
    return recorded[1]


@pytest.fixture
def write_session():
    """Hand out the function that records a session."""
    return record


@pytest.fixture
def restless(monkeypatch) -> None:
    """Let every request look at the disk, so that a test need not wait."""
    monkeypatch.setattr(sessions, "REFRESH_REST_SECONDS", 0.0)
    monkeypatch.setattr(sessions, "DISCOVERY_REST_SECONDS", 0.0)
    monkeypatch.setattr(sessions, "DISCOVERY_REST_RATIO", 0.0)
