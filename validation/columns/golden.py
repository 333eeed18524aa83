"""The package's golden vectors: held to the reference once, and what a client found of each case.

Legend: T recorded positions, V vocabulary.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gptoss_onnx.json_text import printable
from gptoss_onnx.validation.columns.session import Judged
from gptoss_onnx.validation.golden_file import Golden, GoldenCase, read_golden
from gptoss_onnx.validation.judging.limits import Limits
from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.judging.outcome import Outcome
from gptoss_onnx.validation.report.document import Row

# a verdict holds the largest error alone
CLIENT_LIMITS = Limits(max_abs=1e-3, kl=math.inf, top1=0.0)
# The same float32 sums in another order, as another machine or number of threads makes them.
GOLDEN_LIMITS = Limits(max_abs=1e-4, kl=math.inf, top1=0.0)


class GoldenVectors:
    """The golden vectors of one package, which all of its clients share."""

    def __init__(self) -> None:
        self._golden: Golden | None = None
        self._outcome: Outcome | None = None

    def read(self, judged: Judged) -> Golden:
        """Return them; raises PackageError where the package has none, or they are damaged."""
        if self._golden is None:
            vocab = judged.checkpoint.config.vocab_size
            self._golden = read_golden(judged.package.folder, vocab)
        return self._golden

    def check(self, judged: Judged) -> Outcome:
        """Compare them with the reference's logits."""
        if self._outcome is None:
            self._outcome = _check(self.read(judged), judged)
        return self._outcome


def case_row(case: GoldenCase) -> Row:
    """Return the row of a golden case; the name is the package's, and no case of ours has it."""
    description = f"{len(case.positions)} positions, then {len(case.greedy)} greedy tokens"
    return Row(printable(f"golden: {case.name[:80]}"), description)


def judge_case(golden: GoldenCase, verdict: Mapping[str, Any]) -> Outcome:
    """Judge what a client found of one golden case by its numbers."""
    found = [case for case in verdict["cases"] if case.get("name") == golden.name]
    if len(found) != 1:
        note = f"the verdict has {len(found)} cases of this name, expected 1"
        return Outcome(None, False, note)
    case = found[0]
    equal, positions = case.get("greedy_equal"), case.get("positions")
    if type(equal) is not int or type(positions) is not int:
        return Outcome(None, False, "the verdict has no integers greedy_equal and positions")
    tokens = len(golden.greedy)
    worst = np.max([_number(case.get("max_abs")), _number(case.get("logsumexp_abs"))])
    difference = _difference(positions, float(worst))
    complete = positions == len(golden.positions) and equal == tokens
    if complete and CLIENT_LIMITS.hold(difference) and case.get("passed") is True:
        return Outcome(difference, True, "")
    said = printable(str(case.get("note", ""))[:300])
    note = (
        f"{positions} of {len(golden.positions)} positions, {equal} of {tokens} greedy tokens equal"
    )
    return Outcome(difference, False, f"{note}; {said}".strip("; "))


def _check(golden: Golden, judged: Judged) -> Outcome:
    positions, errors = 0, [0.0]
    for case in golden.cases:
        scored = judged.expected.score(case.token_ids).logits
        logits = scored[np.array(case.positions)].astype(np.float64)  # (T, V)
        top = np.take_along_axis(logits, np.array(case.top_indices), 1)
        errors.append(_largest(case.top_logits, top))
        errors.append(
            _largest(case.sampled_logits, logits[:, np.array(golden.sampled_indices, int)])
        )
        positions += len(logits)
    difference = _difference(positions, float(np.max(errors)))  # NaN stays NaN
    return Outcome(difference, GOLDEN_LIMITS.hold(difference), "")


def _largest(found: ArrayLike, expected: ArrayLike) -> float:
    distance = np.abs(np.asarray(found, np.float64) - np.asarray(expected))
    return float(distance.max()) if distance.size else 0.0


def _number(value: object) -> float:
    """Return a number of a JSON document, and NaN for anything else."""
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else math.nan
    )


def _difference(positions: int, max_abs: float) -> Difference:
    return Difference(positions, max_abs, mean_abs=None, kl=None, top1=None)
