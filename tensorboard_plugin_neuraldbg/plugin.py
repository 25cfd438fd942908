"""What TensorBoard loads: light to import, for whatever fails here would end the `tensorboard` command."""

from __future__ import annotations

import argparse

from tensorboard.plugins import base_plugin

PLUGIN_NAME = "neuraldbg"
# The viewer reads sessions itself. TensorBoard's own loader keeps samples of every tag in memory as well, for nobody;
# one each is enough for it to know that they are there. (0 would mean all of them.)
SAMPLES_PER_TAG = 1


class NeuralDbgLoader(base_plugin.TBLoader):  # type: ignore[misc]  # TensorBoard ships no type information
    """Makes the plugin once TensorBoard wants it."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Keep TensorBoard's loader from holding our data, unless `--samples_per_plugin` says otherwise."""
        flags.samples_per_plugin.setdefault(PLUGIN_NAME, SAMPLES_PER_TAG)

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin:
        """Return the plugin."""
        # Only now: what cannot be imported then costs this tab, not the whole command.
        from tensorboard_plugin_neuraldbg.routes import NeuralDbgPlugin  # noqa: PLC0415

        return NeuralDbgPlugin(context)
