import json
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from neural.cli.server import TensorBoardProcess
from neural.dsl.errors import NeuralError


def test_it_answers_with_our_tab_in_front_and_leaves_nothing_behind(tmp_path, processes):
    with TensorBoardProcess(tmp_path, 0) as server:
        listing = server.address() + "data/plugins_listing"
        with urllib.request.urlopen(listing) as answer:  # noqa: S310 - the address is our own server's
            plugins = json.load(answer)
        family = [server._process.pid, *processes.descendants(server._process.pid)]
        assert server.alive()
    # The page opens the first that is enabled; nothing is recorded yet.
    assert next(iter(plugins)) == "neuraldbg"
    assert plugins["neuraldbg"]["enabled"]
    assert not server.alive()
    assert len(family) >= 2, "TensorBoard and its data server"
    processes.wait_until(lambda: not any(map(processes.running, family)), "TensorBoard's processes")


def test_it_ends_when_its_parent_is_killed(tmp_path, processes):
    script = (
        "import pathlib, time\n"
        "from neural.cli.server import TensorBoardProcess\n"
        "print(TensorBoardProcess(pathlib.Path('.'), 0).address(), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline().startswith("http://localhost:")
        family = processes.descendants(parent.pid)
        parent.send_signal(signal.SIGKILL)
    assert len(family) >= 2, "TensorBoard and its data server"
    processes.wait_until(lambda: not any(map(processes.running, family)), "TensorBoard's processes")


def test_what_it_said_last_is_told_when_it_does_not_come_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with TensorBoardProcess(tmp_path, port) as server, pytest.raises(NeuralError) as raised:
            server.address()
    assert str(raised.value).startswith("TensorBoard ended at its start. Its last words: ")
    assert f"TensorBoard could not bind to port {port}, it was already in use" in str(raised.value)
