import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from neural.session.reader import SessionReader, find_sessions

DIGITS = Path(__file__).parents[2] / "examples" / "digits_mlp.neural"
OPTIONS = ["--backend", "pytorch", "--every", 1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_training_ends_everything_in_order(neural, processes, tmp_path, number, code):
    command = neural("debug", DIGITS, *OPTIONS, "--port", 0, "--epochs", 1000)
    command.said(r"epoch 1/1000 .*loss")
    ended, family = command.end(number)
    assert ended == code
    assert "stopped" in command.text()
    assert "Traceback" not in command.text()
    assert len(family) >= 2, "TensorBoard and its data server"
    processes.wait_until(lambda: not any(map(processes.running, family)), "what the command started")
    # What was recorded before is whole, and says how it ended.
    (directory,) = find_sessions(tmp_path / "runs").values()
    reader = SessionReader(directory)
    reader.refresh()
    assert reader.problems == ()
    assert reader.info().status == "failed"
    assert reader.info().ended_because == f"KeyboardInterrupt: {number.name}"
    assert len(reader.steps("gradients")) > 40


def test_it_stays_up_after_training_until_a_signal(neural, processes):
    command = neural("debug", DIGITS, *OPTIONS, "--port", 0, "--epochs", 1)
    address = command.said(r"http://localhost:\d+/")[0]
    command.said(r"\ndone")
    with urllib.request.urlopen(f"{address}data/plugin/neuraldbg/sessions") as answer:  # noqa: S310 - our own server's
        assert [session["status"] for session in json.load(answer)["sessions"]] == ["finished"]
    code, family = command.end(signal.SIGINT)
    assert code == 0
    processes.wait_until(lambda: not any(map(processes.running, family)), "what the command started")
    assert "Traceback" not in command.text()


def test_tensorboard_is_missed_once_and_training_goes_on(neural, processes):
    command = neural("debug", DIGITS, *OPTIONS, "--port", 0, "--epochs", 3)
    command.said("http://localhost:")
    for pid in processes.descendants(command.process.pid):
        if "neural.cli.tensorboard" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    assert command.process.wait(command.PATIENCE) == 1
    assert command.text().count("TensorBoard has ended; training goes on and is recorded.") == 1
    assert "epoch 3/3" in command.text()
    assert command.text().rstrip().endswith("TensorBoard has ended. Its last words: none.")


def test_without_a_server_nothing_listens_and_the_command_ends(neural, tmp_path):
    command = neural("debug", DIGITS, *OPTIONS, "--no-server", "--epochs", 1, "--logdir", "logs")
    assert command.process.wait(command.PATIENCE) == 0, command.text()
    (name,) = find_sessions(tmp_path / "logs")
    assert f"logs/{name}" in command.text()
    assert "http://" not in command.text()


def test_run_trains_and_records_nothing(neural, tmp_path):
    command = neural("run", DIGITS, "--backend", "pytorch", "--epochs", 1)
    assert command.process.wait(command.PATIENCE) == 0, command.text()
    assert "test" in command.text()
    assert find_sessions(tmp_path) == {}
