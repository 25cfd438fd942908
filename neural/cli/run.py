"""`neural run`: train the network in a file, without watching."""

from __future__ import annotations

from pathlib import Path

from neural.cli.console import ConsoleProgress
from neural.cli.interruption import Interruption
from neural.dsl.errors import NeuralError
from neural.dsl.parser import parse_file
from neural.training import start


def run(*, file: Path, backend: start.Backend, dataset: str | None, epochs: int | None) -> int:
    """Train, and return the exit code.

    Raises:
        NeuralError: what the user can mend; its text is the whole message.
    """
    if file.suffix == ".py":
        raise NeuralError(f"neural run takes a .neural file, and {file} is Python. Write: python {file}")
    network = parse_file(file)
    start.check(network, backend=backend, dataset=dataset)
    with Interruption() as interruption:
        progress = ConsoleProgress(interruption)
        progress.say("training", f"{network.name} on {backend}")
        try:
            with progress:
                start.train(network, backend=backend, dataset=dataset, epochs=epochs, progress=progress)
        except KeyboardInterrupt:
            progress.say("stopped", "before training was done")
            return interruption.exit_code
    return 0
