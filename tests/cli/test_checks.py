import os
import re
import socket
from pathlib import Path

import pytest

from neural.cli.checks import check_logdir, check_port
from neural.dsl.errors import NeuralError

ADVICE = "write --port 0 for any free port, or --port NUMBER for another"


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "0.0.0.0")])  # noqa: S104
def listener(request):
    family, address = request.param
    with socket.create_server((address, 0), family=family) as listening:
        yield listening


def test_a_port_in_use_names_its_holder(listener):
    port = listener.getsockname()[1]
    name = Path("/proc/self/comm").read_text().strip()
    sentence = f"Port {port} is in use by {name} (process {os.getpid()}): end that, or {ADVICE}."
    with pytest.raises(NeuralError, match=f"^{re.escape(sentence)}$"):
        check_port(port)


def test_a_port_that_is_taken_but_silent_is_refused():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        sentence = f"Port {port} cannot be used (Address already in use): {ADVICE}."
        with pytest.raises(NeuralError, match=f"^{re.escape(sentence)}$"):
            check_port(port)


def test_a_free_port_passes(listener):
    port = listener.getsockname()[1]
    listener.close()
    check_port(port)
    check_port(0)


def test_a_log_directory_is_made_and_left_empty(tmp_path):
    check_logdir(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_log_directory_that_cannot_be_written_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    sentence = f"The log directory {file}/runs cannot be written (Not a directory): write --logdir DIRECTORY with one "
    sentence += "that can."
    with pytest.raises(NeuralError, match=f"^{re.escape(sentence)}$"):
        check_logdir(file / "runs")
