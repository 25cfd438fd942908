"""The README's own code, run as it stands, and looked at as it says."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from neural.dsl.parser import parse_file
from neural.session.reader import find_sessions

README = (Path(__file__).parents[2] / "README.md").read_text()
PREFIX = "/behind/a/proxy"
# The tab asks once a second. Milliseconds: time for requests under way, and time in which none may come.
SETTLE, QUIET = 2000, 3000


def blocks(language):
    """Return the README's code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for of, text in found if of == language]


@pytest.fixture(scope="module")
def runs(start, tmp_path_factory):
    """Run every Python block of the README; return the log directory."""
    folder = tmp_path_factory.mktemp("readme")
    for number, code in enumerate(blocks("python")):
        script = folder / f"script_{number}.py"
        script.write_text(code)
        with start(folder, "python", script) as command:
            assert command.process.wait(command.PATIENCE) == 0, command.text()
    return folder / "runs"


@pytest.fixture(scope="module")
def address(start, runs):
    """Serve the log directory as the README says, below a path prefix."""
    (line,) = (line for text in blocks("sh") for line in text.splitlines() if line.startswith("tensorboard"))
    with start(runs.parent, *line.split(), "--port", "0", "--path_prefix", PREFIX) as command:
        yield command.said(r"http://localhost:\d+" + PREFIX + "/")[0]


def test_every_script_recorded_a_session(runs):
    assert len(blocks("python")) == len(find_sessions(runs)) == 5


def test_the_page_shows_every_run(address, runs, look):
    with look(f"{address}#neuraldbg&p.neuraldbg.view=gradients") as viewer:
        picker = viewer.tab.get_by_role("combobox", name="Run")
        for name in find_sessions(runs):
            picker.select_option(name)
            expect(viewer.tab.get_by_role("img", name=re.compile("heat map of"))).to_be_visible()
            expect(viewer.tab.locator(".status")).to_have_text("finished")


def test_a_hidden_tab_asks_for_nothing(address, look):
    with look(f"{address}#neuraldbg") as viewer:
        expect(viewer.tab.locator(".status")).to_be_visible()
        viewer.page.get_by_role("tab", name="Time Series").click()
        expect(viewer.page.locator("metrics-dashboard")).to_be_visible()
        viewer.page.wait_for_timeout(SETTLE)
        before = len(viewer.asked())
        assert before > 0
        viewer.page.wait_for_timeout(QUIET)
        assert len(viewer.asked()) == before
        viewer.page.get_by_role("tab", name="NeuralDbg").click()
        with viewer.page.expect_request(re.compile("/neuraldbg/session")):
            pass


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_as_dark_as_tensorboard(address, look, dark):
    with look(f"{address}?darkMode={str(dark).lower()}#neuraldbg") as viewer:
        expect(viewer.tab.locator("header")).to_be_visible()
        ground = viewer.tab.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
        assert (brightness < 100) is dark, ground


def test_the_network_is_one(tmp_path):
    (text,) = (block for block in blocks("") if block.startswith("network"))
    file = tmp_path / "digits.neural"
    file.write_text(text)
    assert parse_file(file).name == "DigitsMlp"
