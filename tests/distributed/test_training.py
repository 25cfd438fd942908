"""What the ranks of real jobs record, held against numpy."""

from __future__ import annotations

import re

import numpy as np
import pytest

from neural.session import statistics
from neural.session.reader import find_sessions
from neural_callbacks.pytorch.distributed import SHARDED

STEPS = range(6)
DEAD = 17
KINDS = ("weights", "gradients", "updates")
NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")
# Single precision, against numpy's double.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-7}


def batch(rank, step):
    random = np.random.default_rng([rank, step])
    return random.normal(size=(8, 6)).astype(np.float32), random.integers(3, size=8)


def gradients_by_hand(weights, inputs, targets):
    """Return the gradients of the mean cross entropy of the worker's network, by the chain rule, in float64."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    hidden = inputs @ weights["0.weight"].T + weights["0.bias"]
    active = np.maximum(hidden, 0)
    logits = active @ weights["2.weight"].T + weights["2.bias"]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    by_logits = (shares - np.eye(3)[targets]) / len(targets)
    by_hidden = (by_logits @ weights["2.weight"]) * (hidden > 0)
    return {
        "0.weight": by_hidden.T @ inputs,
        "0.bias": by_hidden.sum(axis=0),
        "2.weight": by_logits.T @ active,
        "2.bias": by_logits.sum(axis=0),
    }


def mean_gradients(weights, world_size, step):
    """Return the mean over the ranks' batches."""
    each = [gradients_by_hand(weights, *batch(rank, step)) for rank in range(world_size)]
    return {name: np.mean([gradients[name] for gradients in each], axis=0) for name in NAMES}


def whole(kept, key):
    """Return a sharded parameter as a whole: shards are stacked along the first axis."""
    return np.concatenate([one[key] for one in kept])


def parameter_rows(reader):
    """Return the row of each parameter in a session, by the name that torch gives it."""
    table = reader.layers()
    return {
        f"{table.layers[parameter.layer].own_name}.{parameter.name}".removeprefix("module."): row
        for row, parameter in enumerate(table.parameters)
    }


def test_every_rank_came_to_its_end(job):
    assert job.codes == [0] * (job.world_size - 1) + [DEAD], "\n".join(job.said)


@pytest.mark.parametrize("scenario", ["ddp", "fsdp"])
def test_training_is_bitwise_the_same_on_every_rank(scenario, job):
    for kept in job.kept(scenario):
        numbers = [name.partition("/")[2] for name in kept if name.startswith("plain/")]
        assert len(numbers) == len(STEPS) + 2 * len(NAMES) + 1
        for number in numbers:
            plain, watched = kept[f"plain/{number}"], kept[f"watched/{number}"]
            assert plain.dtype == watched.dtype
            assert plain.tobytes() == watched.tobytes()


@pytest.mark.parametrize("scenario", ["ddp", "fsdp"])
def test_every_rank_records_what_it_is_and_every_step(scenario, job):
    sessions = job.sessions(scenario)
    assert list(sessions) == list(range(job.world_size))
    for rank, reader in sessions.items():
        info = reader.info()
        assert (info.rank, info.world_size, info.status) == (rank, job.world_size, "finished")
        assert info.model == "Sequential"
        assert info.notices == ((SHARDED,) if scenario == "fsdp" else ())
        assert [layer.type for layer in reader.layers().layers] == ["Linear", "ReLU", "Linear"]
        assert [parameter.shape for parameter in reader.layers().parameters] == [(11, 6), (11,), (3, 11), (3,)]
        for kind in (*KINDS, "activations", "activation_gradients"):
            assert reader.steps(kind).tolist() == list(STEPS)


def test_under_ddp_gradients_are_those_of_the_mean_over_all_batches(job):
    kept = job.kept("ddp")
    for step in STEPS:
        weights = {name: kept[0][f"{step}/weights/{name}"] for name in NAMES}
        expected = mean_gradients(weights, job.world_size, step)
        for reader in job.sessions("ddp").values():
            rows = parameter_rows(reader)
            recorded = reader.matrix("gradients", step)
            for name in NAMES:
                np.testing.assert_allclose(
                    recorded[rows[name]], statistics.reference_row(expected[name]), err_msg=name, **TOLERANCE
                )
            norm = np.sqrt(sum((gradient**2).sum() for gradient in expected.values()))
            np.testing.assert_allclose(reader.frame(step).scalars["gradient_norm"], norm, rtol=1e-5)


def test_under_ddp_each_rank_has_its_own_loss_and_activations(job):
    for kept, (rank, reader) in zip(job.kept("ddp"), job.sessions("ddp").items(), strict=True):
        for step in STEPS:
            assert reader.frame(step).scalars["loss"] == kept[f"{step}/loss"]
            weight, bias = (kept[f"{step}/weights/0.{name}"].astype(np.float64) for name in ("weight", "bias"))
            expected = statistics.reference_row(batch(rank, step)[0] @ weight.T + bias)
            np.testing.assert_allclose(reader.matrix("activations", step)[0], expected, **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_under_fsdp_each_rank_records_its_shard(kind, job):
    for kept, reader in zip(job.kept("fsdp"), job.sessions("fsdp").values(), strict=True):
        rows = parameter_rows(reader)
        for step in STEPS:
            recorded = reader.matrix(kind, step)
            for name in NAMES:
                expected = statistics.reference_row(kept[f"{step}/{kind}/{name}"])
                np.testing.assert_allclose(recorded[rows[name]], expected, err_msg=name, **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_under_fsdp_the_ranks_together_are_the_whole(kind, job):
    kept, sessions = job.kept("fsdp"), job.sessions("fsdp")
    for step in STEPS:
        recorded = np.stack([reader.matrix(kind, step) for reader in sessions.values()])
        weights = {name: whole(kept, f"{step}/weights/{name}") for name in NAMES}
        by_hand = mean_gradients(weights, job.world_size, step)
        for name, row in parameter_rows(sessions[0]).items():
            tensor = by_hand[name] if kind == "gradients" else whole(kept, f"{step}/{kind}/{name}")
            assert tensor.shape == {"0.weight": (11, 6), "0.bias": (11,), "2.weight": (3, 11), "2.bias": (3,)}[name]
            merged = statistics.merge(recorded[:, row])[0]
            np.testing.assert_allclose(merged, statistics.reference_row(tensor), err_msg=name, **TOLERANCE)


def test_a_run_named_by_model_and_time_has_one_name(job):
    names = [name for name in find_sessions(job.runs) if re.fullmatch(r"Sequential-\d{8}-\d{6}", name)]
    assert len(names) == 1
    assert list(job.sessions(names[0])) == list(range(job.world_size))


def test_runs_are_no_others_than_those_of_the_script(job):
    names = set(find_sessions(job.runs))
    assert {name for name in names if not name.startswith("Sequential-")} == {
        "ddp",
        "fsdp",
        "planted",
        "rank-0-alone",
        "without-rank-0",
        "death",
    }


def test_a_rank_that_is_watched_alone_waits_for_nobody(job):
    sessions = job.sessions("rank-0-alone")
    assert list(sessions) == [0]
    assert (sessions[0].info().world_size, sessions[0].info().notices) == (job.world_size, ())
    assert sessions[0].steps().tolist() == list(STEPS)
    assert list(job.sessions("without-rank-0")) == list(range(1, job.world_size))


def test_a_rank_that_dies_leaves_all_data_readable(job):
    sessions = job.sessions("death")
    assert list(sessions) == list(range(job.world_size))
    dead = sessions.pop(job.world_size - 1)
    assert dead.info().status == "running"
    assert dead.steps().tolist() == [0, 1, 2]
    np.testing.assert_array_equal(dead.matrix("weights", 2), sessions[0].matrix("weights", 2))
    for reader in sessions.values():
        assert reader.info().status == "failed"
        assert reader.info().ended_because.startswith("RuntimeError: ")
        assert reader.steps().tolist() == [0, 1, 2, 3]
