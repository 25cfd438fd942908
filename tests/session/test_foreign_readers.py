"""Event files of a session are standard: TensorBoard's own readers, Python and native, read them too."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.util import tensor_util

from neural.session.frame import KINDS, PROFILES

# The data server ends with the process that started it, so it gets a process of its own.
DATA_SERVER = """
import json, sys
from tensorboard.context import RequestContext
from tensorboard.data.server_ingester import SubprocessServerDataIngester, get_server_binary
from tensorboard.util.grpc_util import ChannelCredsType

ingester = SubprocessServerDataIngester(
    get_server_binary(), sys.argv[1], reload_interval=0, channel_creds_type=ChannelCredsType.LOCAL,
    samples_per_plugin={"neuraldbg": 0}, extra_flags=["--checksum"],
)
ingester.start()
provider, context = ingester.data_provider, RequestContext()
data = provider.read_tensors(context, experiment_id="", plugin_name="neuraldbg", downsample=10**6)
scalars = provider.read_scalars(context, experiment_id="", plugin_name="scalars", downsample=10**6)
json.dump({
    "plugins": provider.list_plugins(context, experiment_id=""),
    "tensors": {run: {tag: {datum.step: datum.numpy.tolist() for datum in series} for tag, series in tags.items()
                      if "histograms" not in tag
                      and tag not in ("neuraldbg/layers", "neuraldbg/session", "neuraldbg/anomalies")}
                for run, tags in data.items()},
    "scalars": {run: {tag: {datum.step: datum.value for datum in series} for tag, series in tags.items()}
                for run, tags in scalars.items()},
}, sys.stdout)
"""


def test_the_event_accumulator(record, make_frame) -> None:
    path = record(range(3))
    accumulator = EventAccumulator(str(path.parent), size_guidance={"tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["tensors"]
    assert {f"neuraldbg/{kind}" for kind in KINDS} < set(tags)
    assert accumulator.PluginTagToContent("neuraldbg").keys() == {tag for tag in tags if tag.startswith("neuraldbg/")}
    for kind in KINDS:
        events = accumulator.Tensors(f"neuraldbg/{kind}")
        assert [event.step for event in events] == [0, 1, 2]
        for event in events:
            matrix = tensor_util.make_ndarray(event.tensor_proto).T
            np.testing.assert_array_equal(matrix, make_frame(event.step).matrices[kind])
    losses = [float(tensor_util.make_ndarray(event.tensor_proto)) for event in accumulator.Tensors("loss")]
    assert losses == [np.float32(make_frame(step).scalars["loss"]) for step in range(3)]


def test_the_raw_loader_reads_every_record(record) -> None:
    path = record(range(3))
    assert len(list(RawEventFileLoader(str(path)).Load())) == 1 + 2 + 3 * (2 * len(KINDS) + len(PROFILES) + 2)


def test_the_data_server(record, tmp_path, make_frame) -> None:
    record(range(3))
    command = [sys.executable, "-c", DATA_SERVER, str(tmp_path)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert set(answer["plugins"]) == {"neuraldbg", "scalars"}
    (run,) = answer["tensors"]
    assert run == "run/neuraldbg"
    assert answer["tensors"][run] == {
        f"neuraldbg/{kind}": {str(step): make_frame(step).matrices[kind].T.tolist() for step in range(3)}
        for kind in KINDS
    } | {
        f"neuraldbg/{kind}": {str(step): make_frame(step).profiles[kind].T.tolist() for step in range(3)}
        for kind in PROFILES
    }
    assert answer["scalars"][run]["loss"] == {
        str(step): float(np.float32(make_frame(step).scalars["loss"])) for step in range(3)
    }
