"""A Ctrl-C ends what prints piece by piece, wherever it finds it."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from gptoss_onnx.cli.interrupts import interruptible

pytestmark = pytest.mark.usefixtures("ctrl_c")


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Destroyed:
    """Has a destructor in which Ctrl-C comes: Python ignores what is raised there."""

    def __del__(self) -> None:
        interrupt()


def pieces(last: bool) -> Iterator[int]:
    yield 1
    Destroyed()
    if not last:
        yield 2


@pytest.mark.parametrize("last", [False, True])
def test_one_that_python_ignores_ends_it_before_the_next_piece(
    last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored, seen = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: ignored.append(found.exc_type))
    with pytest.raises(KeyboardInterrupt):
        for piece in interruptible(pieces(last)):
            seen.append(piece)
    assert (ignored, seen) == ([KeyboardInterrupt], [1])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_between_two_pieces_ends_it_at_once() -> None:
    seen = []
    with pytest.raises(KeyboardInterrupt):
        for piece in interruptible(range(5)):
            seen.append(piece)
            interrupt()
    assert seen == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_that_ignores_ctrl_c_goes_on_doing_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    found = []
    for piece in interruptible(range(3)):
        found.append(piece)
        interrupt()
    assert found == [0, 1, 2]
