"""Column `genai`: onnxruntime-genai runs a package of target `ort` as its `genai_config.json` says.

It keeps the cache itself, and of each call it gives the logits of the last position alone, so that
a call is judged by these. V vocabulary.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.choices import Activations
from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.package import GENAI_CONFIG, Package, own_file
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.validation.cases.driving import Drive
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.cases.table import Setting, cases
from gptoss_onnx.validation.columns.served import CALL, NotInstalledError, Served
from gptoss_onnx.validation.columns.session import Judged, run_case
from gptoss_onnx.validation.judging.model_limits import model_limits
from gptoss_onnx.validation.judging.outcome import Outcome, judge
from gptoss_onnx.validation.report.document import Cell, Column, Row, timed

NAME = "genai"
CASES = ("decode", "empty past", "greedy")  # of the matrix: those that one row of tokens can do
CHUNK = 7
MESSAGE = "onnxruntime-genai"


class GenaiColumn:
    """The column of onnxruntime-genai.

    Args:
        package: what it is to run.
        python: the words that start a Python that has it; this one if there are none.
        call: seconds that one answer may take.
    """

    def __init__(self, package: Package, python: Sequence[str] = (), call: float = CALL) -> None:
        self._python, self._call = python, call
        missing = ""
        if not own_file(package.folder, GENAI_CONFIG).exists():
            missing = f"the package has no {GENAI_CONFIG}: export it with --target ort"
        # Where experts are integers it multiplies activations of 8 bits, unless it is told not to.
        integers = package.manifest.target == "ort" and package.manifest.offers("activations int8")
        self._activations: Activations = "int8" if integers else "exact"
        options = f"--runtime {NAME}"
        self.column = Column(NAME, "", "contrib", self._activations, "cpu", None, options, missing)

    def run(self, judged: Judged) -> Iterator[tuple[Row, Cell]]:
        """Let it open the package and run the cases, and yield what each found.

        What it refuses is a refused cell; if it is not installed, the column is missing.
        """
        if self.column.missing:
            return
        begin, load = time.perf_counter(), Row("load", "the package opened by onnxruntime-genai")
        judged.progress.begin(f"{NAME}, load: {load.description}")
        self.column = replace(self.column, runs=f"{MESSAGE}, at its own settings, on cpu")
        try:
            served = Served(NAME, judged.package.folder.resolve(), self._python, self._call)
        except NotInstalledError as error:
            self.column = replace(self.column, runs="", missing=str(error))
            return
        except RuntimeUnavailable as error:
            seconds = time.perf_counter() - begin
            yield load, Cell(load.name, NAME, "refused", seconds, note=str(error))
            return
        with served:
            runs = f"{MESSAGE} {served.version}, at its own settings, on cpu"
            self.column = replace(self.column, runs=runs)
            yield load, Cell(load.name, NAME, "passed", time.perf_counter() - begin)
            setting = self._setting(GenaiSession(served, judged.package), judged)
            self.column = replace(self.column, limits=setting.limits)
            for row, run in _drives(setting):
                judged.progress.begin(f"{NAME}, {row.name}: {row.description}")
                yield row, timed(row, NAME, run)

    def _setting(self, session: "GenaiSession", judged: Judged) -> Setting:
        config, expected = judged.checkpoint.config, judged.expected
        expected.restart()
        sizes = Sizes.of(config.windows, config.longest)
        # It does what these cases ask of a session.
        drive = Drive(cast(Session, session), expected, sizes, expected.tokens(sizes.length))
        manifest = judged.package.manifest
        limits = model_limits(manifest, self._activations, expected, drive.sequence)
        return Setting(drive, judged.checkpoint, limits)


class GenaiCache(Closing):
    """A sequence of onnxruntime-genai; the last one that was begun is the one that goes on."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.is_new = capacity, True

    def close(self) -> None:
        """Leave it: the next one that begins takes its place."""


class GenaiSession:
    """What the cases here ask of a session, done by onnxruntime-genai for one row of tokens."""

    def __init__(self, served: Served, package: Package) -> None:
        self._served, self.package = served, package
        self.manifest, self.vocab = package.manifest, package.manifest.vocab_size
        # Caches of fewer tokens than a window has are refused.
        self._least = max((layer.window for layer in self.manifest.cache), default=0) + 1

    def new_cache(self, batch: int, capacity: int) -> GenaiCache:
        """Return a new sequence of at most `capacity` tokens."""
        assert batch == 1
        return GenaiCache(max(capacity, self._least))

    def forward(
        self, input_ids: ArrayLike, cache: GenaiCache, logit_positions: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Append tokens (1, S), and return the logits of the last one, float32 (1, 1, V), or where
        `logit_positions` (1, 0) names none, no logits.

        Raises RuntimeUnavailable if it fails, or gives something else.
        """
        request: dict[str, NDArray[Any]] = {"tokens": np.asarray(input_ids, np.int64)}
        if cache.is_new:
            request["capacity"] = np.array(cache.capacity)
        cache.is_new = False
        logits = self._served.ask(request).get("logits")
        if logits is None or logits.dtype != np.float32 or logits.shape[-1:] != (self.vocab,):
            found = "nothing" if logits is None else f"{logits.dtype} {logits.shape}"
            raise RuntimeUnavailable(f"logits: found {found}, expected float32 of {self.vocab}")
        last = logits.reshape(1, -1, self.vocab)[:, -1:]
        return last if logit_positions is None else last[:, : np.shape(logit_positions)[1]]

    def generate(
        self, token_ids: Sequence[int], sampling: Sampling, *, max_new_tokens: int
    ) -> list[int]:
        """Return the most likely continuation, which nothing ends.

        Raises RuntimeUnavailable if it fails, or gives another number of tokens.
        """
        assert sampling.temperature == 0
        capacity = max(len(token_ids) + max_new_tokens, self._least)
        request = {
            "tokens": np.array([token_ids], np.int64),
            "capacity": np.array(capacity),
            "count": np.array(max_new_tokens),
        }
        tokens = self._served.ask(request).get("tokens")
        if tokens is None or tokens.shape != (max_new_tokens,) or tokens.dtype != np.int64:
            raise RuntimeUnavailable(f"tokens: expected {max_new_tokens} integers")
        return cast(list[int], tokens.tolist())


def _drives(setting: Setting) -> Iterator[tuple[Row, Callable[[], Outcome]]]:
    """Yield each case with what runs it."""
    length = setting.drive.sizes.length
    for row, size in (
        (Row("prefill", "the whole sequence in one call"), length),
        (Row(f"chunks of {CHUNK}", f"the sequence in calls of {CHUNK} tokens"), CHUNK),
    ):
        yield row, lambda size=size: _refusable(lambda: _calls(setting, size))  # type: ignore[misc]  # the default binds it
    for case in cases("quick", setting):
        if case.name in CASES:
            row = Row(case.name, case.description)
            yield row, lambda case=case: run_case(case, setting)  # type: ignore[misc]


def _refusable(run: Callable[[], Outcome]) -> Outcome:
    try:
        return run()
    except RuntimeUnavailable as error:
        return Outcome(None, False, str(error), refused=True)


def _calls(setting: Setting, size: int) -> Outcome:
    """Run the sequence in calls of `size` tokens, and judge the last position of each."""
    drive = setting.drive
    tokens, found, last = drive.sequence, [], []
    with drive.session.new_cache(1, len(tokens)) as cache:
        for begin in range(0, len(tokens), size):
            piece = tokens[begin : begin + size]
            found.append(drive.session.forward([piece], cache)[0])
            last.append(begin + len(piece) - 1)
    outcome = judge(np.concatenate(found), drive.expected.score(tokens)[last], setting.limits)
    note = "the last position of each call, whose logits are all that it gives"
    return replace(outcome, note=f"{note}; {outcome.note}" if outcome.note else note)
