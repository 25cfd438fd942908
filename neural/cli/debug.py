"""`neural debug`: train the network in a file, record a session of it, and show it in TensorBoard meanwhile."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from neural.cli.checks import check_logdir, check_port
from neural.cli.console import ConsoleProgress
from neural.cli.interruption import Interruption
from neural.cli.server import TensorBoardProcess
from neural.dsl.errors import NeuralError
from neural.dsl.parser import parse_file
from neural.session.reader import find_sessions
from neural.training import start
from neural.training.progress import Observation
from neural_callbacks.schedule import DEFAULT_OVERHEAD_BUDGET

# How soon it is noticed after training that TensorBoard has ended, in seconds.
LOOK_EVERY = 0.5


def debug(
    *,
    file: Path,
    backend: start.Backend,
    dataset: str | None,
    epochs: int | None,
    port: int,
    logdir: Path,
    every: int | None,
    overhead_budget: float | None,
    no_server: bool,
) -> int:
    """Train under observation, stay up until Ctrl-C, and return the exit code: 0 once training is done.

    Raises:
        NeuralError: what the user can mend; its text is the whole message.
    """
    if file.suffix == ".py":
        raise NeuralError(
            f"neural debug takes a .neural file, and {file} is Python: put NeuralDbg (PyTorch) or NeuralDbgCallback "
            "(Keras) into it as the README shows, run it, and look at it with tensorboard --logdir runs."
        )
    if every is not None and overhead_budget is not None:
        raise NeuralError(
            f"--every {every} and --overhead-budget {overhead_budget:g} exclude each other: each says which steps are "
            "measured; write one of them."
        )
    observe = Observation(logdir, every=every, overhead_budget=overhead_budget)
    network = parse_file(file)
    start.check(network, backend=backend, dataset=dataset)
    if not no_server:
        check_port(port)
    check_logdir(logdir)
    known = find_sessions(logdir).keys()

    with Interruption() as interruption, ExitStack() as ending:
        server = None if no_server else TensorBoardProcess(logdir, port)
        if server is not None:
            ending.callback(interruption.uninterrupted, server.close)
        progress = ConsoleProgress(interruption, server)
        try:
            if server is not None:
                progress.say("page", _address(server, port))
            progress.say("training", f"{network.name} on {backend}, {_measured(observe)}")
            with progress:
                start.train(
                    network, backend=backend, dataset=dataset, epochs=epochs, observe=observe, progress=progress
                )
        except KeyboardInterrupt:
            progress.say("stopped", "before training was done")
            return interruption.exit_code
        finally:
            for name in sorted(find_sessions(logdir).keys() - known):
                progress.say("session", f"{logdir / name}")
        if server is not None:
            _stay_up(server, progress)
    return 0


def _measured(observe: Observation) -> str:
    """Say which steps are measured, also where the observer's default decides."""
    if observe.every is None:
        budget = DEFAULT_OVERHEAD_BUDGET if observe.overhead_budget is None else observe.overhead_budget
        return f"measured as often as {100 * budget:g} % of the time allows"
    return "every step measured" if observe.every == 1 else f"every {observe.every} steps measured"


def _address(server: TensorBoardProcess, port: int) -> str:
    try:
        return server.address()
    except NeuralError:
        # Another command may have taken the port since it was looked at.
        check_port(port)
        raise


def _stay_up(server: TensorBoardProcess, progress: ConsoleProgress) -> None:
    try:
        progress.say("done", "The page stays up until Ctrl-C.")
        while server.alive():
            time.sleep(LOOK_EVERY)
    except KeyboardInterrupt:
        return
    raise NeuralError(f"TensorBoard has ended. Its last words: {server.last_words()}")
