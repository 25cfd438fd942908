import importlib.util
import os
import signal
import socket
import sys

import pytest

from neural.cli import debug
from neural.cli.main import main
from neural.training import start

GOOD = 'network Net { input: (8, 8, 1) layers: Flatten() Output(10, "softmax") }'


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command here and returns its exit code and its standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["neural", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Return a function that writes a network and returns its file's name, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "net.neural").write_text(text)
        return "net.neural"

    return write


@pytest.fixture
def no_training(monkeypatch):
    """Fail where training begins: an error must come before."""
    monkeypatch.setattr(start, "train", lambda *_, **__: pytest.fail("training began"))


pytestmark = pytest.mark.usefixtures("no_training")
COMMANDS = ["run", "debug"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_file_is_5(run, network, command):
    network(GOOD)
    code, error = run(command, "nowhere.neural")
    assert code == 5
    assert "nowhere.neural" in error


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistake_in_the_text_is_2(run, network, command):
    code, error = run(command, network(GOOD.replace("layers:", "layers")))
    assert code == 2
    assert error.startswith("net.neural:1:")
    assert error.rstrip().endswith("^")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shape_that_does_not_fit_is_3(run, network, command):
    code, error = run(command, network(GOOD.replace("Flatten()", "Conv2D(4, (9, 9)) Flatten()")))
    assert code == 3
    assert error.startswith("net.neural:1:")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_backend_that_is_not_installed_is_4(run, network, command, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    code, error = run(command, network(GOOD), "--backend", "pytorch", *(["--port", "0"] if command == "debug" else []))
    assert code == 4
    assert error.startswith("PyTorch is not installed, and the backend pytorch needs it.")


def test_an_unknown_data_set_is_1(run, network):
    code, error = run("debug", network(GOOD), "--dataset", "digit")
    assert code == 1
    assert 'There is no data set "digit"' in error
    assert "Write --dataset digits." in error


def test_a_busy_port_is_1(run, network):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, error = run("debug", network(GOOD), "--port", port)
    assert code == 1
    assert error.startswith(f"Port {port} is in use by ")
    assert "--port 0" in error


def test_a_port_that_is_taken_after_it_was_looked_at_is_told_as_any_busy_one(run, network, monkeypatch):
    look, looks = debug.check_port, []
    monkeypatch.setattr(debug, "check_port", lambda port: looks.append(port) or (len(looks) > 1 and look(port)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, error = run("debug", network(GOOD), "--port", port)
    assert code == 1
    assert error.startswith(f"Port {port} is in use by ")
    assert "tensorboard" not in error.casefold()


def test_ctrl_c_as_soon_as_training_is_done_is_0(run, network, monkeypatch):
    def say(_self, what, _sentence):
        if what == "done":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(debug.ConsoleProgress, "say", say)
    monkeypatch.setattr(start, "train", lambda *_, **__: None)
    assert run("debug", network(GOOD), "--port", 0) == (0, "")


@pytest.mark.parametrize(
    ("options", "measured", "observed"),
    [
        ([], "measured as often as 2 % of the time allows", (None, None)),
        (["--every", "1"], "every step measured", (1, None)),
        (["--backend", "pytorch"], "measured as often as 2 % of the time allows", (None, None)),
        (["--backend", "pytorch", "--every", "25"], "every 25 steps measured", (25, None)),
        (
            ["--backend", "pytorch", "--overhead-budget", "0.005"],
            "measured as often as 0.5 % of the time allows",
            (None, 0.005),
        ),
        (
            ["--backend", "pytorch", "--overhead-budget", "7%"],
            "measured as often as 7 % of the time allows",
            (None, 0.07),
        ),
    ],
)
def test_which_steps_are_measured_is_said_and_handed_on(run, network, monkeypatch, options, measured, observed):
    said, observations = {}, []
    monkeypatch.setattr(debug.ConsoleProgress, "say", lambda _self, what, sentence: said.update({what: sentence}))
    monkeypatch.setattr(start, "train", lambda *_, observe, **__: observations.append(observe))
    assert run("debug", network(GOOD), "--no-server", *options) == (0, "")
    backend = "pytorch" if "pytorch" in options else "tensorflow"
    assert said["training"] == f"Net on {backend}, {measured}"
    assert [(observe.every, observe.overhead_budget) for observe in observations] == [observed]


def test_an_interval_and_a_budget_exclude_each_other(run, network):
    options = ["--backend", "pytorch", "--every", "10", "--overhead-budget", "2%"]
    code, error = run("debug", network(GOOD), *options)
    assert code == 1
    assert error == (
        "--every 10 and --overhead-budget 0.02 exclude each other: each says which steps are measured; write one of "
        "them.\n"
    )


@pytest.mark.parametrize("share", ["0", "2", "101%", "-1%", "two", "nan", "%"])
def test_what_is_no_share_is_1(run, network, share):
    code, error = run("debug", network(GOOD), "--overhead-budget", share)
    assert code == 1
    assert f"'--overhead-budget': {share} is not a share of the training time; write 0.02 or 2%.\n" in error


def test_a_log_directory_that_cannot_be_written_is_1(run, network):
    code, error = run("debug", network(GOOD), "--port", 0, "--logdir", "net.neural/runs")
    assert code == 1
    assert error.startswith("The log directory net.neural/runs cannot be written (Not a directory):")


def test_a_script_is_sent_to_the_readme(run):
    code, error = run("debug", "train.py")
    assert code == 1
    assert error == (
        "neural debug takes a .neural file, and train.py is Python: put NeuralDbg (PyTorch) or NeuralDbgCallback "
        "(Keras) into it as the README shows, run it, and look at it with tensorboard --logdir runs.\n"
    )


def test_a_script_is_not_taken_for_a_network(run):
    assert run("run", "train.py") == (
        1,
        "neural run takes a .neural file, and train.py is Python. Write: python train.py\n",
    )


@pytest.mark.parametrize(
    "arguments", [["debugg"], ["run"], ["run", "a", "--epochs", "0"], ["debug", "a", "--port", "x"]]
)
def test_a_mistake_on_the_command_line_is_1_not_the_code_of_a_mistake_in_the_text(run, arguments):
    code, error = run(*arguments)
    assert code == 1
    assert "Error: " in error


def test_help_is_0(run):
    assert run("--help") == (0, "")
    assert run("debug", "--help") == (0, "")
