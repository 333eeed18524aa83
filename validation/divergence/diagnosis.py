"""Completes the cells of a column: the errors of the layers, and where a failing case departs."""

import re
import time
from dataclasses import replace

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Decoder
from gptoss_onnx.validation.divergence.find import first_divergence
from gptoss_onnx.validation.divergence.layers import layer_errors
from gptoss_onnx.validation.divergence.named_graph import place_of
from gptoss_onnx.validation.divergence.recording import RecordedSession
from gptoss_onnx.validation.report.document import FAILURES, Cell, Divergence

SECONDS = 30.0  # of a column, after which no further failing case is looked into
MEASURED = "prefill"  # the case whose layers are measured
NOT_FOUND = (
    "run again with its layers watched, no op departs by itself: the fault lies in how the calls "
    "follow each other, or in sums of small errors"
)
_OWN = "it ran in sessions of its own"
_TOO_LARGE = "its calls, or what its caches began with, are too large to keep"
# what ONNX Runtime says of a node that fails, and how it names those of a function's body
_REFUSING = re.compile(r"while running (\w{1,80}) node\. Name:'([^']{1,200})'")
_OF_BODY = re.compile(r"_inlfunc_([A-Za-z0-9]+)_")


class Diagnosis:
    """Looks into the cases of one column, whose calls `session` keeps; the first that fails always,
    others while there is time.
    """

    def __init__(self, session: RecordedSession, model: Decoder, progress: Progress) -> None:
        self._session, self._model, self._progress = session, model, progress
        self._spent = 0.0

    def begin(self) -> None:
        """Forget the calls of the case before."""
        self._session.forget()

    def complete(self, cell: Cell) -> Cell:
        """Return the cell of the case whose calls the session has kept, with what was found."""
        recording = self._session.recording
        if not recording.calls:
            why = _OWN if recording.complete else _TOO_LARGE
            failed = cell.state in FAILURES and cell.difference is not None
            return _noted(cell, f"not looked into: {why}") if failed else cell
        try:
            if cell.case == MEASURED and cell.state != "refused":
                errors = layer_errors(self._session, self._model, recording)
                cell = replace(cell, by_layer=errors)
            if cell.state in FAILURES:
                cell = self._located(cell)
        except GptOssError as error:
            return _noted(cell, f"not looked into: {error}")
        return cell

    def _located(self, cell: Cell) -> Cell:
        refusing = _refusing_node(cell.note) if cell.state == "refused" else None
        if refusing is not None:
            return replace(cell, divergence=refusing)
        if self._spent > SECONDS:
            return _noted(cell, f"not looked into: {SECONDS:.0f} s were spent on other cases")
        self._progress.begin(f"{cell.column}, {cell.case}: looking for the op that departs")
        begin = time.perf_counter()
        recording = self._session.recording
        try:
            found = first_divergence(self._session, self._model, recording)
        finally:
            self._spent += time.perf_counter() - begin
        if found is None:
            kept = "" if recording.complete else "; only the first calls were kept"
            return _noted(cell, NOT_FOUND + kept)
        return replace(cell, divergence=found)


def _refusing_node(note: str) -> Divergence | None:
    """Return the node that refused to run, if the message names one."""
    found = _REFUSING.search(note)
    if found is None:
        return None
    body = _OF_BODY.match(found[2])
    if body is not None:  # which of its calls it is, nobody says
        text = f"{body[1]}, in whose body {found[1]} refused to run"
        return Divergence(None, body[1], 0.0, 0.0, 0.0, text)
    layer, op = place_of(found[2])
    where = op if layer is None else f"layers.{layer} {op}"
    return Divergence(layer, op, 0.0, 0.0, 0.0, f"{where}, which refused to run")


def _noted(cell: Cell, note: str) -> Cell:
    return replace(cell, note=f"{cell.note}; {note}" if cell.note else note)
