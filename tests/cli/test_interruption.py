import os
import signal

import pytest

from neural.cli.interruption import SIGNALS, Interruption


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_and_keeps_raising(number):
    with Interruption() as interruption:
        interruption.check()
        with pytest.raises(KeyboardInterrupt, match=number.name):
            os.kill(os.getpid(), number)
        # A finaliser may have swallowed the first.
        with pytest.raises(KeyboardInterrupt, match=number.name):
            interruption.check()
        assert interruption.exit_code == 128 + number


def test_cleaning_up_is_left_alone():
    done = []

    def clean_up():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(True)

    with Interruption() as interruption:
        interruption.uninterrupted(clean_up)
        assert done
        interruption.check()


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
