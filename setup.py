# Everything but the viewer's build is in pyproject.toml.
import sys
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

# An isolated build runs this file without its folder on the import path.
sys.path.insert(0, str(Path(__file__).resolve().parent / "scripts"))

import viewer


class BuildViewer(Command):
    """Build the viewer into the package folder, for wheels and editable installs alike.

    A sub-command of its own, not an override of `build_py`: setuptools turns an error there into a warning when it
    makes an editable install.
    """

    description = "build the page that TensorBoard shows"
    user_options = []  # noqa: RUF012 - as distutils wants it
    editable_mode = False

    def initialize_options(self) -> None:
        """Nothing to set."""

    def finalize_options(self) -> None:
        """Nothing to check."""

    def run(self) -> None:
        """Build, or end the installation with one sentence."""
        try:
            viewer.build()
        except viewer.ViewerError as error:
            sys.exit(str(error))

    def get_source_files(self) -> list[str]:
        """Return the sources as a source distribution carries them."""
        files = [path for path in viewer.sources() if path.is_file()]
        return [str(path.relative_to(viewer.ROOT)) for path in [*files, Path(viewer.__file__)]]

    def get_outputs(self) -> list[str]:
        """Return nothing: the bundle is package data, which `build_py` reports."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Return nothing, as `get_outputs`."""
        return {}


class Build(build):
    """The usual build, after the viewer's."""

    sub_commands = [("build_viewer", None), *build.sub_commands]  # noqa: RUF012 - as distutils wants it


setup(cmdclass={"build": Build, "build_viewer": BuildViewer})
