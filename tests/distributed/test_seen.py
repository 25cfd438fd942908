"""What the plugin tells of real jobs: who died, who differs."""

from __future__ import annotations

import argparse
import os
import time
import warnings

import pytest
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from neural.session.rank_folders import ranks

with warnings.catch_warnings():
    # TensorBoard carries a copy of html5lib that says so of itself.
    warnings.filterwarnings("ignore", "html5lib's sanitizer is deprecated", DeprecationWarning)
    from tensorboard_plugin_neuraldbg.routes import NeuralDbgPlugin


@pytest.fixture
def ask(job):
    flags = argparse.Namespace(logdir=str(job.runs), logdir_spec="", host=None, bind_all=False)
    routes = NeuralDbgPlugin(base_plugin.TBContext(flags=flags)).get_plugin_apps()
    return lambda route, **parameters: Client(routes[f"/{route}"]).get("/", query_string=parameters).json


def test_the_rank_with_another_loss_is_the_one_named(ask, job):
    document = ask("ranks", run="planted")
    assert (document["world_size"], document["missing"], document["sharded"]) == (job.world_size, [], False)
    (found,) = document["departures"]
    assert (found["scalar"], found["step"]) == ("loss", 11)
    by_rank = [rank["figures"]["loss"]["value"] for rank in document["ranks"]]
    if job.world_size == 2:
        assert found["rank"] is None
        assert [found["low"], found["high"]] == sorted(by_rank)
    else:
        assert found["rank"] == job.world_size - 2
        assert found["value"] == by_rank.pop(found["rank"])
        assert [found["low"], found["high"]] == [min(by_rank), max(by_rank)]


@pytest.mark.parametrize("scenario", ["ddp", "fsdp"])
def test_ranks_of_a_sound_training_do_not_depart(scenario, ask):
    document = ask("ranks", run=scenario)
    assert document["departures"] == []
    assert document["sharded"] == (scenario == "fsdp")
    norms = [rank["figures"]["gradient_norm"]["from_median"] for rank in document["ranks"]]
    assert (norms == [0] * len(norms)) == (scenario == "ddp")


def test_a_rank_that_died_is_lost_and_the_others_say_how_they_ended(ask, job):
    dead = job.world_size - 1
    for path in ranks(job.runs / "death" / "neuraldbg")[dead].iterdir():
        os.utime(path, (time.time() - 60, time.time() - 60))
    document = ask("ranks", run="death")
    assert [rank["status"] for rank in document["ranks"]] == ["failed"] * dead + ["lost"]
    assert [rank["last_step"] for rank in document["ranks"]] == [3] * dead + [2]
    assert document["ranks"][0]["ended_because"].startswith("RuntimeError: ")


def test_ranks_that_recorded_nothing_are_missing(ask, job):
    assert ask("ranks", run="rank-0-alone")["missing"] == list(range(1, job.world_size))
    document = ask("ranks", run="without-rank-0")
    assert document["missing"] == [0]
    assert ask("session", run="without-rank-0")["rank"] == 1
