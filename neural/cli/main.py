"""The `neural` command: `neural run FILE` trains a network, `neural debug FILE` trains it under observation.

Exit codes: 0 done, 1 general, 2 syntax, 3 shape, 4 backend missing, 5 file not found; 130 and 143 when Ctrl-C or a
request to end interrupted training.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from neural.dsl.errors import NeuralError
from neural_callbacks.schedule import DEFAULT_OVERHEAD_BUDGET

DEFAULT_PORT = 8050
DEFAULT_LOGDIR = "runs"


def _share(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """Return the share, above 0 and up to 1, that an option's text is; it may be written in per cent."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise click.BadParameter(f"{text} is not a share of the training time; write 0.02 or 2%.")
    return share


def _training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what both commands take."""
    for option in (
        click.option(
            "--backend",
            type=click.Choice(["tensorflow", "pytorch"]),
            default="tensorflow",
            show_default=True,
            help="The framework to train with.",
        ),
        click.option("--dataset", metavar="NAME", help="A data set, instead of the one that fits the network."),
        click.option("--epochs", type=click.IntRange(min=1), help="Instead of the number in the file."),
        click.argument("file", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tensorboard-plugin-neuraldbg", prog_name="neural")
def commands() -> None:
    """Train networks written in the .neural language, and debug them while they train."""


@commands.command()
@_training_options
def run(**options: Any) -> None:
    """Train the network in FILE."""
    from neural.cli.run import run as train  # noqa: PLC0415 - `neural --help` need not load what training needs

    sys.exit(train(**options))


@commands.command()
@_training_options
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Where TensorBoard listens on this machine; 0 for any free port.",
)
@click.option(
    "--logdir",
    type=click.Path(path_type=Path),
    default=Path(DEFAULT_LOGDIR),
    show_default=True,
    help="Where the session is recorded.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Measure every N-th training step, in place of a budget.",
)
@click.option(
    "--overhead-budget",
    callback=_share,
    metavar="SHARE",
    help="Measure as often as this share of the training time allows, as 0.02 or 2%. "
    f"[default: {DEFAULT_OVERHEAD_BUDGET}]",
)
@click.option("--no-server", is_flag=True, help="Train and record only, without TensorBoard.")
def debug(**options: Any) -> None:
    """Train the network in FILE and watch it in TensorBoard."""
    from neural.cli.debug import debug as train  # noqa: PLC0415 - as above

    sys.exit(train(**options))


def main() -> None:
    """Run the command; an error that the user can mend is its sentence and its exit code, without a traceback."""
    try:
        code = commands.main(standalone_mode=False)
    except NeuralError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        # click's own code for a mistake on the command line is 2, which here means one in the network's text.
        error.show()
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    sys.exit(code)
