import re
import signal
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from neural.session.reader import SessionReader, find_sessions
from neural.session.statistics import COLUMNS

EXAMPLES = Path(__file__).parents[2] / "examples"


def rms_by_layer(reader, step):
    """Return {layer name: root mean square of its parameters' gradients}, from what the reader reads."""
    table = reader.layers()
    matrix = reader.matrix("gradients", step)
    squares = np.square(matrix[:, COLUMNS.index("l2")])
    finite = matrix[:, [COLUMNS.index(name) for name in ("nan", "posinf", "neginf")]].sum(axis=1)
    counts = matrix[:, COLUMNS.index("count")] - finite
    answer = {}
    for number, layer in enumerate(table.layers):
        own = [row for row, parameter in enumerate(table.parameters) if parameter.layer == number]
        if own:
            answer[layer.name] = np.sqrt(squares[own].sum() / counts[own].sum())
    return answer


# Epochs enough for the page to be there before training ends, frames few enough for a column each in the table.
@pytest.mark.parametrize(
    ("backend", "network", "epochs"), [("tensorflow", "mnist.neural", 10), ("pytorch", "digits_mlp.neural", 30)]
)
def test_the_page_fills_while_the_command_trains(backend, network, epochs, start, look, processes, tmp_path):
    options = ["--backend", backend, "--port", 0, "--epochs", epochs]
    with start(tmp_path, "neural", "debug", EXAMPLES / network, *options) as command:
        address = command.said(r"http://localhost:\d+/")[0]
        with look(address) as viewer:
            # Ours is the tab in front, before anything is recorded.
            expect(viewer.tab.locator("header")).to_be_visible()
            viewer.tab.get_by_role("button", name="Gradients").click()
            expect(viewer.tab.get_by_role("img", name=re.compile("heat map of"))).to_be_visible()
            viewer.press("t")
            cells = viewer.tab.locator("td[data-row][data-value]")
            expect(cells.first).to_be_visible()
            before = cells.count()
            assert "done" not in command.text(), "the first cells are there while training goes on"
            command.said(r"\ndone")
            expect(viewer.tab.locator(".status")).to_have_text("finished")

            (directory,) = find_sessions(tmp_path / "runs").values()
            reader = SessionReader(directory)
            reader.refresh()
            steps = reader.steps("gradients").tolist()
            expected = {(name, step): rms for step in steps for name, rms in rms_by_layer(reader, step).items()}
            processes.wait_until(lambda: len(viewer.cells()) == len(expected), "the last cell")
            assert before < len(expected)
            assert viewer.cells() == pytest.approx(expected, rel=1e-6)
        code, family = command.end(signal.SIGINT)
        assert code == 0
        assert len(family) >= 2, "TensorBoard and its data server"
        processes.wait_until(lambda: not any(map(processes.running, family)), "what the command started")
        assert "Traceback" not in command.text()
