"""TensorBoard with the NeuralDbg tab in front, as the child process of `neural debug`.

`python -m neural.cli.tensorboard FLAGS...` takes TensorBoard's flags. It writes its address, as one line, once it
listens, and ends when its standard input is closed: so it never outlives the command that started it,
not even one that was killed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import Any

import absl.logging
from tensorboard import default, program
from tensorboard.backend.application import TensorBoardWSGIApp
from tensorboard.plugins.base_plugin import TBContext, TBPlugin

from neural.cli.server import ANNOUNCEMENT
from tensorboard_plugin_neuraldbg.plugin import NeuralDbgLoader

# How long TensorBoard gets to end by itself, in seconds.
PATIENCE = 3.0


class InFront(NeuralDbgLoader):
    """Loads the plugin as one that always has something to show: the session is about to begin."""

    def load(self, context: TBContext) -> TBPlugin | None:
        """Return the plugin, active from the first page on."""
        plugin = super().load(context)
        if plugin is not None:
            plugin.is_active = _always
        return plugin


def _always() -> bool:
    return True


def loaders() -> list[Any]:
    """Return all of TensorBoard's plugins, ours first.

    TensorBoard's page opens the first active plugin in the order in which the plugins were loaded.
    """
    others = [plugin for plugin in default.get_plugins() if plugin is not NeuralDbgLoader]
    return [InFront(), *others]


def _announcing_server(application: TensorBoardWSGIApp, flags: argparse.Namespace) -> Any:
    server = program.create_port_scanning_werkzeug_server(application, flags)

    def announce() -> None:
        print(ANNOUNCEMENT + server.get_url(), flush=True)  # noqa: T201 - the parent reads it

    server.print_serving_message = announce
    return server


def _end_with_parent() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PATIENCE)
    os._exit(1)


def main() -> int:
    """Serve until standard input is closed or a signal comes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # As TensorBoard's own command, which also imports TensorFlow here: several seconds that local files do not need.
    absl.logging.set_verbosity(absl.logging.WARNING)
    tensorboard = program.TensorBoard(plugins=loaders(), server_class=_announcing_server)
    tensorboard.configure(["tensorboard", *sys.argv[1:]])
    return int(tensorboard.main())


if __name__ == "__main__":
    sys.exit(main())
