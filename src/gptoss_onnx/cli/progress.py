"""Progress on stderr: on a terminal one line that is drawn anew, with `--verbose` a line for each
finished stage.
"""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, TextIO

import click

from gptoss_onnx.amounts import file_size
from gptoss_onnx.cli.console import Invocation
from gptoss_onnx.progress import Unit

REDRAWN_AFTER = 0.2  # seconds
FIRST_ESTIMATE = 1.0  # seconds; before, a rate says little
_ERASE = "\r\x1b[K"


class Display:
    """Shows the stages of one command; see `gptoss_onnx.progress.Progress`.

    A context manager that erases its line when it ends. A thread draws the line, so that users see
    the time pass even in stages that report nothing.
    """

    def __init__(self, stream: TextIO, live: bool, verbose: bool) -> None:
        self._stream, self._live, self._verbose = stream, live, verbose
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw_again, name="progress", daemon=True)
        self._stage: str | None = None
        self._total: int | None = None
        self._unit: Unit = "bytes"
        self._done, self._begun = 0, 0.0
        self._drawn = False

    def begin(self, stage: str, total: int | None = None, unit: Unit = "bytes") -> None:
        """End the stage before, and show this one."""
        with self._lock:
            self._finish()
            self._stage, self._total, self._unit = stage, total, unit
            self._done, self._begun = 0, time.perf_counter()
            self._draw()

    def advance(self, count: int) -> None:
        """Count what is done; the next drawing shows it."""
        with self._lock:
            self._done += count

    def clear(self) -> None:
        """Erase the line, so that something else can be printed; the next drawing brings it
        back.
        """
        with self._lock:
            self._erase()

    def __enter__(self) -> Self:
        if self._live:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._live:
            self._thread.join()
        with self._lock:
            self._finish()

    def _draw_again(self) -> None:
        while not self._over.wait(REDRAWN_AFTER):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if self._live and self._stage is not None:
            elapsed = time.perf_counter() - self._begun
            line = f"{self._stage}: {status(self._done, self._total, self._unit, elapsed)}"
            self._write(_ERASE + line[: shutil.get_terminal_size().columns - 1])
            self._drawn = True

    def _finish(self) -> None:
        self._erase()
        if self._verbose and self._stage is not None:
            amount = f", {_amount(self._done, self._unit)}" if self._done else ""
            self._write(f"{self._stage}: {time.perf_counter() - self._begun:.1f} s{amount}\n")
        self._stage = None

    def _erase(self) -> None:
        if self._drawn:
            self._write(_ERASE)
            self._drawn = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def status(done: int, total: int | None, unit: Unit, elapsed: float) -> str:
    """Return how far a stage is: what is done of what, and the time left; or only the time it has
    taken.

    `elapsed` is in seconds, `done` and `total` in `unit`.
    """
    if not total:
        return f"{elapsed:.0f} s"
    text = f"{_amount(done, unit)} of {_amount(total, unit)}"
    if done and elapsed >= FIRST_ESTIMATE:
        text += f", {_duration((total - done) / done * elapsed)} left"
    return text


@contextmanager
def progress_on_stderr() -> Iterator[Display]:
    """Yield the Display of the running command; log records and warnings clear its line first."""
    invocation: Any = click.get_current_context().find_object(Invocation)
    with Display(
        sys.stderr, sys.stderr.isatty(), invocation is not None and invocation.verbose
    ) as display:
        if invocation is None:
            yield display
            return
        invocation.before_a_line = display.clear
        try:
            yield display
        finally:
            invocation.before_a_line = None


def _amount(count: int, unit: Unit) -> str:
    return file_size(count) if unit == "bytes" else str(count)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
