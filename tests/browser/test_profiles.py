"""The Execution trace, Memory & FLOPs, and what went wrong: what the page shows is what was written."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from neural.session import statistics
from neural.session.anomaly import Anomaly
from neural.session.frame import Frame
from neural.session.info import SessionInfo
from neural.session.layers import Layer, LayerTable, Parameter
from neural.session.writer import SessionWriter

MIB = 2.0**20
NAN = float("nan")
# At every tenth step there is a frame, and, from the second on, at every twentieth a trace.
STEPS, FIRST_TRACE, WRONG = range(0, 100, 10), 20, 70
SHAPE, DTYPE = ((64, 10),), ("float32",)
TABLE = LayerTable(
    tuple(
        Layer(name, "Linear", own, SHAPE, SHAPE, "float32", input_dtypes=DTYPE, output_dtypes=DTYPE)
        for name, own in (("Linear_1", "0.0"), ("Linear_2", "0.2"))
    ),
    (Parameter("weight", 0, (10, 10)), Parameter("weight", 1, (10, 10))),
)
NAMES = ["whole model", "whole model", "Linear_1", "Linear_2", "whole model", "Linear_2", "Linear_1"]


def trace_of(step):
    """Return a step's trace: forward and backward of two layers, the second holding the most memory."""
    scale = 1e-3 * (1 + step / 100)
    rows = [
        # layer, phase, start, duration, allocated, reserved, process
        (-1, 3, 0, 10, NAN, NAN, 100 * MIB),
        (-1, 0, 0, 4, NAN, NAN, 150 * MIB),
        (0, 0, 0.5, 1, NAN, NAN, 110 * MIB),
        (1, 0, 2, 1.5, NAN, NAN, 160 * MIB),
        (-1, 1, 4, 5, NAN, NAN, 120 * MIB),
        (1, 1, 4, 2, NAN, NAN, 130 * MIB),
        (0, 1, 6, 2.5, NAN, NAN, 120 * MIB),
    ]
    return np.array(rows) * (1, 1, scale, scale, 1, 1, 1)


def profiles_of(step):
    trace = trace_of(step)
    duration = dict(zip(zip(trace[:, 0], trace[:, 1], strict=True), trace[:, 3], strict=True))
    timing = np.array([[1, duration[layer, 0], duration[layer, 1]] for layer in (0, 1)])
    memory = np.array([[MIB, MIB, MIB, NAN], [8 * MIB, MIB, MIB, 2 * MIB]])
    return {"trace": trace, "timing": timing, "memory": memory, "flops": np.array([[2e6, 4e6], [NAN, NAN]])}


@pytest.fixture(scope="module")
def address(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    writer = SessionWriter(folder / "runs" / "run" / "neuraldbg")
    writer.write_info(SessionInfo("Net", "pytorch", 1795354321.0, status="finished", overhead_budget=0.02), 0)
    writer.write_layers(TABLE, 0)
    first = (Anomaly("forward", 1, nan=3, posinf=0, neginf=0), Anomaly("loss"), Anomaly("parameter", 1, 1))
    for step in STEPS:
        profiles = profiles_of(step) if step >= FIRST_TRACE and step % 20 == 0 else {}
        scalars = {"loss": 1.0, "overhead": 0.009, "skipped": float(step == 90)}
        matrices = {"activations": statistics.unmeasured(2)}
        anomalies = first if step == WRONG else ()
        writer.write(Frame(step, 1795354321.0 + step, matrices, {}, scalars, profiles, anomalies))
    writer.close()
    with start(folder, "tensorboard", "--logdir", "runs", "--port", "0") as command:
        yield command.said(r"http://localhost:\d+/")[0] + "#neuraldbg&p.neuraldbg.run=run"


def figures(viewer, name):
    """Return {layer: figure} of one column of the layer table, in full precision; None for what is n/a."""
    rows = viewer.tab.locator(".layer-table tbody tr").all()
    told = {row.locator(".name").inner_text(): row.locator(f"[data-statistic={name}]") for row in rows}
    values = {layer: figure.get_attribute("data-value") for layer, figure in told.items()}
    return {layer: None if value is None else float(value) for layer, value in values.items()}


def test_the_trace_of_the_newest_step_up_to_the_one_that_is_shown(address, look):
    with look(f"{address}&p.neuraldbg.view=trace&p.neuraldbg.step=50") as viewer:
        heading = viewer.tab.get_by_role("heading", name="Execution of step 40")
        expect(heading).to_have_text("Execution of step 40 the newest trace up to step 50")
        expect(
            viewer.tab.get_by_role("img", name=re.compile(r"Timeline of step 40: 7 spans in 14\sms"))
        ).to_be_visible()
        assert figures(viewer, "forward") == pytest.approx({"0.0": 1.4e-3, "0.2": 2.1e-3})
        assert figures(viewer, "backward") == pytest.approx({"0.0": 3.5e-3, "0.2": 2.8e-3})
        assert figures(viewer, "share") == pytest.approx({"0.0": 0.35, "0.2": 0.35})
        assert figures(viewer, "rate") == {"0.0": pytest.approx(2e6 / 1.4e-3), "0.2": None}
        details = viewer.tab.locator(".span-details")
        expect(details).to_contain_text("Linear_1 forward")
        viewer.press(".")
        expect(details).to_contain_text("Linear_2 forward")
        expect(details).to_contain_text("64\u00d710 float32")
        viewer.press("t")
        table = viewer.tab.get_by_role("region", name="Spans of step 40")
        expect(table.locator("tbody th")).to_have_text(NAMES)
        durations = table.locator("[data-duration]").evaluate_all("cells => cells.map(c => Number(c.dataset.duration))")
        assert durations == pytest.approx(trace_of(40)[:, 3].tolist())


def test_before_the_first_trace_there_is_a_way_to_it(address, look):
    with look(f"{address}&p.neuraldbg.view=trace&p.neuraldbg.step=0") as viewer:
        expect(viewer.tab.locator(".missing").first).to_contain_text(
            "There is no trace up to step 0; the first is of step 20."
        )
        viewer.tab.get_by_role("button", name="Go to step 20").click()
        expect(viewer.tab.get_by_role("heading", name="Execution of step 20")).to_be_visible()


def test_the_peak_and_what_layers_hold(address, look):
    with look(f"{address}&p.neuraldbg.view=memory") as viewer:
        expect(
            viewer.tab.get_by_role(
                "img", name=re.compile(r"Peak: 160\sMiB process memory at the end of Linear_2 forward")
            )
        ).to_be_visible()
        assert figures(viewer, "total") == {"0.2": 12 * MIB, "0.0": 3 * MIB}
        assert figures(viewer, "optimizer") == {"0.2": 2 * MIB, "0.0": None}
        assert figures(viewer, "backward-flops") == {"0.2": None, "0.0": 4e6}
        expect(viewer.tab.locator(".holders li").first).to_contain_text("Linear_2")


def test_what_went_wrong_leads_to_its_step(address, look, processes):
    with look(address) as viewer:
        card = viewer.tab.locator(".card.critical")
        expect(card.get_by_role("heading")).to_contain_text("Step 70: NaN first in 0.2 (Linear_2), forward")
        expect(card).to_contain_text("Then: the loss; the gradient of weight in 0.2 (Linear_2).")
        expect(viewer.tab.locator(".cost")).to_have_text(re.compile(r"watching costs 0\.9\s% of 2\s%"))
        expect(viewer.tab.locator(".facts")).to_contain_text(re.compile(r"budget 2\s%"))
        expect(viewer.tab.locator(".slider .warning-text")).to_have_text("skipped")
        card.get_by_role("button", name="Go to step 70").click()
        expect(viewer.tab.locator(".slider b")).to_have_text("70")
        expect(viewer.tab.locator(".slider .warning-text")).to_have_count(0)
        times = pytest.approx({"0.0": 1.6e-3, "0.2": 2.4e-3})
        processes.wait_until(lambda: figures(viewer, "forward-time") == times, "the times of step 60")
        assert figures(viewer, "flops") == {"0.0": 2e6, "0.2": None}
