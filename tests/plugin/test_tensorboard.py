"""The plugin inside TensorBoard itself: both loaders, a path prefix, and the real command."""

import argparse
import http.client
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tensorboard_plugin_neuraldbg import routes
from tensorboard_plugin_neuraldbg.plugin import NeuralDbgLoader

LOADERS = ["true", "false"]
QUESTION = {"run": "net/first", "kind": "gradients", "statistic": "rms", "by": "layer", "width": 16}


# TensorBoard starts its data server and lets go of the process and of its temporary folder: its business, not ours.
@pytest.mark.filterwarnings("ignore:subprocess [0-9]+ is still running:ResourceWarning")
@pytest.mark.filterwarnings(
    "ignore:Implicitly cleaning up <TemporaryDirectory .*tensorboard_data_server_:ResourceWarning"
)
@pytest.mark.parametrize("load_fast", LOADERS)
@pytest.mark.parametrize("prefix", ["", "/behind/a/proxy"])
def test_the_tab_and_its_data_are_there_with_both_loaders(serve, recorded, server, load_fast, prefix):
    tensorboard = serve("--logdir", str(recorded[0]), "--load_fast", load_fast, "--path_prefix", prefix)
    assert tensorboard.get("/data/plugins_listing").json["neuraldbg"] == {
        "disable_reload": False,
        "enabled": True,
        "loading_mechanism": {"type": "IFRAME", "module_path": f"{prefix}/data/plugin/neuraldbg/index.js"},
        "remove_dom": False,
        "tab_name": "NeuralDbg",
    }
    page = tensorboard.get("/data/plugin_entry.html", name="neuraldbg").text
    assert '<base href="plugin/neuraldbg/" />' in page
    assert 'import("./index.js").then((m) => void m.render());' in page
    assert b"render" in tensorboard.get("/data/plugin/neuraldbg/index.js").data
    expected, answer = server.ask("matrix", **QUESTION), tensorboard.ask("matrix", **QUESTION)
    assert answer.document == expected.document
    assert answer.arrays["minimum"].tobytes() == expected.arrays["minimum"].tobytes()


def test_tensorboard_keeps_one_sample_of_a_tag_unless_told_otherwise():
    for given, kept in (({}, {"neuraldbg": 1}), ({"neuraldbg": 5, "images": 0}, {"neuraldbg": 5, "images": 0})):
        flags = argparse.Namespace(samples_per_plugin=dict(given))
        NeuralDbgLoader().fix_flags(flags)
        assert flags.samples_per_plugin == kept


def test_the_flag_reaches_tensorboards_own_loader(server):
    multiplexer = server.tensorboard._ingester.deprecated_multiplexer
    assert multiplexer._tensor_size_guidance["neuraldbg"] == 1


def read(port, path):
    connection = http.client.HTTPConnection("localhost", int(port), timeout=30)
    try:
        connection.request("GET", path)
        return json.load(connection.getresponse())
    finally:
        connection.close()


@pytest.mark.parametrize("load_fast", LOADERS)
def test_the_tensorboard_command_lists_the_plugin(recorded, load_fast):
    command = [
        str(Path(sys.executable).parent / "tensorboard"),
        "--logdir",
        str(recorded[0]),
        "--port",
        "0",
    ]
    tensorboard = subprocess.Popen([*command, "--load_fast", load_fast], stderr=subprocess.PIPE, text=True)
    try:
        port = next(found[1] for line in tensorboard.stderr if (found := re.search(r" at http://\S+:(\d+)/", line)))
        assert read(port, "/data/plugins_listing")["neuraldbg"]["enabled"] is True
        listed = read(port, "/data/plugin/neuraldbg/sessions")["sessions"]
        assert [session["name"] for session in listed] == ["net/first"]
    finally:
        tensorboard.send_signal(signal.SIGTERM)
        tensorboard.stderr.close()
        tensorboard.wait(30)


def test_every_route_is_documented(server):
    text = (Path(routes.__file__).parent / "http_api.md").read_text()
    documented = re.findall(r"^## `GET (\w+)", text, re.MULTILINE)
    assert sorted(f"/{route}" for route in documented) == sorted(set(server.plugin.get_plugin_apps()) - {"/*"})


def test_every_parameter_is_documented(server):
    text = (Path(routes.__file__).parent / "http_api.md").read_text()
    for route, query in re.findall(r"^## `GET (\w+)(.*)`$", text, re.MULTILINE):
        names = re.findall(r"[?&](\w+)=", query)
        sentence = server.ask(route, surely_not_there=1).error
        allowed = re.findall(r"\w+", sentence.partition("; write ")[2])
        assert sorted(allowed) == sorted({*names, *(["revision"] if route == "session" else [])})
