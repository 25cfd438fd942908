"""What a framework says on the console while it loads is shown where it fails, and only there."""

import os

import pytest

from neural.training.quiet import errors_held_back


@pytest.mark.parametrize(
    ("ending", "shown"), [(None, ""), (ImportError("no library"), "noise"), (KeyboardInterrupt("SIGINT"), "")]
)
def test_errors_are_held_back_unless_loading_fails(capfd, ending, shown):
    def load():
        with errors_held_back():
            os.write(2, b"noise")
            if ending is not None:
                raise ending

    if ending is None:
        load()
    else:
        with pytest.raises(type(ending), match=str(ending)):
            load()
    os.write(2, b" after")
    assert capfd.readouterr().err == f"{shown} after"
