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


@pytest.mark.parametrize(("backend", "network"), [("tensorflow", "mnist.neural"), ("pytorch", "digits_mlp.neural")])
def test_the_page_fills_while_the_command_trains(backend, network, start, look, processes, tmp_path):
    # More epochs than anybody waits for: all that the page shows, it shows during training.
    options = ["--backend", backend, "--port", 0, "--epochs", 100_000]
    with start(tmp_path, "neural", "debug", EXAMPLES / network, *options) as command:
        address = command.said(r"http://localhost:\d+/")[0]
        with look(address) as viewer:
            # Ours is the tab in front, before anything is recorded.
            expect(viewer.tab.locator("header")).to_be_visible()
            viewer.tab.get_by_role("button", name="Gradients").click()
            expect(viewer.tab.get_by_role("img", name=re.compile("heat map of"))).to_be_visible()
            expect(viewer.tab.locator(".status")).to_have_text("live")
            viewer.press("t")
            processes.wait_until(viewer.cells, "the first cells")
            before = max(cell.last for cell in viewer.cells())
            processes.wait_until(lambda: max(cell.last for cell in viewer.cells()) > before, "more cells")
            shown = viewer.cells()
        code, family = command.end(signal.SIGINT)
        assert code == 130
        assert len(family) >= 2, "TensorBoard and its data server"
        processes.wait_until(lambda: not any(map(processes.running, family)), "what the command started")
        assert "Traceback" not in command.text()

    (directory,) = find_sessions(tmp_path / "runs").values()
    reader = SessionReader(directory)
    reader.refresh()
    recorded = {step: rms_by_layer(reader, step) for step in reader.steps("gradients").tolist()}
    assert {cell.row for cell in shown} == set(recorded[0])
    for cell in shown:
        values = [rms[cell.row] for step, rms in recorded.items() if cell.first <= step <= cell.last]
        assert cell.minimum == pytest.approx(min(values), rel=1e-6)
        assert cell.maximum == cell.value == pytest.approx(max(values), rel=1e-6)
