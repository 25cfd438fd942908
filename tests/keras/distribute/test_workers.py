"""MultiWorkerMirroredStrategy: workers are ranks of one run, and whatever each measures, none waits for ever."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural.session.rank_folders import ranks
from neural.session.reader import SessionReader
from neural.session.statistics import reference_row
from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras import replicas
from neural_callbacks.keras.functions import TappedFunction
from neural_callbacks.keras.step_taps import NOT_REDUCED


def tasks_of(jobs):
    """Return TF_CONFIG for each task of a cluster on this machine, `jobs` their number by name."""
    with ExitStack() as stack:
        sockets = {name: [stack.enter_context(socket.socket()) for _ in range(jobs[name])] for name in jobs}
        for each in sockets.values():
            for one in each:
                one.bind(("127.0.0.1", 0))
        cluster = {name: [f"127.0.0.1:{one.getsockname()[1]}" for one in each] for name, each in sockets.items()}
    tasks = [{"type": name, "index": index} for name in jobs for index in range(jobs[name])]
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks]


def sessions(folder, run):
    readers = {rank: SessionReader(path) for rank, path in ranks(folder / "runs" / run / "neuraldbg").items()}
    for reader in readers.values():
        reader.refresh()
        assert reader.problems == ()
        assert reader.info().status == "finished"
    return readers


def assert_trained_as_without(folder, run, workers):
    for worker in workers:
        trained, without = (np.load(folder / f"{which}-{worker}.npz") for which in (run, "without"))
        for name in without.files:
            np.testing.assert_allclose(trained[name], without[name], rtol=1e-6, err_msg=f"{run} {worker} {name}")
        assert not np.array_equal(without["before_0"], without["after_0"])


def test_workers_are_ranks_of_one_run_and_each_records_its_own_rows(launch, tmp_path):
    launch("worker.py", "together", "worker-0", environments=tasks_of({"worker": 2}))
    assert_trained_as_without(tmp_path, "together", ["worker-0", "worker-1"])
    (run,) = (path.name for path in (tmp_path / "runs").iterdir() if path.name != "scaled")
    readers = sessions(tmp_path, run)
    assert {rank: (reader.info().rank, reader.info().world_size) for rank, reader in readers.items()} == {
        0: (0, 2),
        1: (1, 2),
    }
    numbers = np.random.default_rng(5).normal(size=(26, 6)).astype("float32")
    x, y = numbers[:8], (numbers[:, :2] * numbers[:, 2:4])[:8]
    kept = np.load(tmp_path / "without-worker-0.npz")
    weights = [tf.constant(kept[f"before_{place}"]) for place in range(4)]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        outputs = tf.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]
        losses = tf.reduce_mean(tf.square(outputs - y), axis=1)
        loss = tf.reduce_mean(losses)
    gradients = [gradient.numpy() for gradient in tape.gradient(loss, weights)]
    for rank, part in enumerate((slice(0, 4), slice(4, 8))):
        reader = readers[rank]
        assert reader.steps("activations").tolist() == [0, 3, 6]
        assert not [notice for notice in reader.info().notices if "switched" in notice]
        frame = reader.frame(0)
        np.testing.assert_allclose(frame.matrices["activations"][1], reference_row(outputs[part]), rtol=1e-4)
        for kind, arrays in (("gradients", gradients), ("updates", [-0.5 * gradient for gradient in gradients])):
            expected = [reference_row(array) for array in arrays]
            np.testing.assert_allclose(frame.matrices[kind], expected, rtol=1e-4, atol=1e-6, err_msg=kind)
        assert frame.scalars["loss"] == pytest.approx(float(np.mean(losses[part])), rel=1e-5)
    for reader in sessions(tmp_path, "scaled").values():
        assert set(reader.frame(3).matrices) == {"activations", "activation_gradients", "weights", "updates"}
        assert NOT_REDUCED in reader.info().notices


def test_workers_in_different_gears_train_on(launch, tmp_path):
    launch("worker.py", "apart", "chief-0", environments=tasks_of({"chief": 1, "worker": 1}))
    for run in ("first", "differently"):
        assert_trained_as_without(tmp_path, run, ["chief-0", "worker-0"])
    assert {rank: list(reader.steps()) for rank, reader in sessions(tmp_path, "first").items()} == {0: [0, 4]}
    assert {rank: list(reader.steps()) for rank, reader in sessions(tmp_path, "differently").items()} == {
        0: [0, 2, 4, 6],
        1: [1, 3],
    }


def test_a_worker_whose_tracing_fails_trains_on_with_the_others(launch, tmp_path):
    launch("worker.py", "broken", "worker-0", environments=tasks_of({"worker": 2}))
    assert_trained_as_without(tmp_path, "broken", ["worker-0", "worker-1"])
    first, second = sessions(tmp_path, "broken").values()
    assert [notice for notice in first.info().notices if "no room" in notice]
    assert list(second.steps()) == [0, 3, 6]


@pytest.mark.parametrize("options", [{"every": 1}, {"steps": []}], ids=["measured", "looked at"])
def test_a_step_that_failed_on_its_way_is_not_made_again_where_others_take_part(options, tmp_path, monkeypatch):
    def broken(_function, _element):
        raise RuntimeError("broken on its way")

    monkeypatch.setattr(replicas, "spans_processes", lambda _strategy: True)
    monkeypatch.setattr(TappedFunction, "__call__", broken)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(RuntimeError, match="broken on its way"):
        model.fit(np.ones((4, 4)), np.ones(4), verbose=0, callbacks=[NeuralDbgCallback(tmp_path, **options)])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
