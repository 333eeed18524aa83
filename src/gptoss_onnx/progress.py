"""What long work tells while it runs: the stage it is in, and how much of that stage is done."""

import logging
from typing import Literal, Protocol

Unit = Literal["bytes", "steps"]


class Progress(Protocol):
    """Whoever wants to know how far work has come; `export` and `validate` take one."""

    def begin(self, stage: str, total: int | None = None, unit: Unit = "bytes") -> None:
        """Hear that a stage begins, which ends the one before it.

        Args:
            stage: what is done, as in "copying the weights".
            total: how much the stage has to do, in `unit`; None where that cannot be known.
            unit: what `total` and `advance` count.
        """

    def advance(self, count: int) -> None:
        """Hear that `count` more bytes or steps of the stage are done; several threads may say so
        at once.
        """


class LoggedProgress:
    """A Progress that writes the stages to a log, at level INFO."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def begin(self, stage: str, total: int | None = None, unit: Unit = "bytes") -> None:
        """Log the stage."""
        self._logger.info("%s", stage)

    def advance(self, count: int) -> None:
        """Do nothing: a log is no place for every piece."""
