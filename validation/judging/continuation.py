"""How a greedy continuation is judged: token by token, against the reference's logits for the same
text.

Legend: T tokens of the continuation, V vocabulary.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import Limits
from gptoss_onnx.validation.judging.metrics import Logits
from gptoss_onnx.validation.judging.outcome import Outcome, listed
from gptoss_onnx.validation.judging.scored import Scored
from gptoss_onnx.validation.judging.settle import settle

# logits; if no largest error is set, a choice the reference prefers by more is a wrong one
LARGEST_TIE = 0.5


def judge_continuation(
    found: Sequence[int], prompt: Sequence[int], expected: Expected, limits: Limits
) -> Outcome:
    """Hold the tokens that a package chose after a prompt to the reference's choices.

    The reference reads the package's own text. Each token must be its favourite, or behind it by no
    more than twice the allowed error: such a tie is noted, and what follows is judged on. Near-ties
    of routers are settled as for logits. A lossy setting is judged by its first token that is not
    the favourite, which may be a tie, or else by how many there are.
    """
    begin = len(prompt) - 1
    scored = expected.score([*prompt, *found[:-1]])[begin:]
    chosen = np.asarray(found)
    behind = _behind(scored.logits, chosen)
    same = scored.logits.argmax(-1) == chosen
    if same.all():
        return Outcome(None, True, f"{len(found)} tokens equal", ties=listed(scored, {}))
    if not math.isfinite(limits.max_abs):
        return _first(same, found, scored, behind, limits)
    allowed = 2 * limits.max_abs

    def fails(logits: Logits) -> NDArray[np.bool_]:
        return np.asarray(_behind(logits, chosen) > allowed)

    settled = settle(scored.sources[0], scored.positions.tolist(), fails, scored.runs)
    behind = _behind(settled.logits, chosen)
    turned = {0: settled.turned} if settled.turned else {}
    notes = [f"{len(found)} tokens", *map(str, settled.turned)]
    wrong = np.flatnonzero(behind > allowed)
    if wrong.size:
        notes[0] = _said(int(wrong[0]), found, settled.logits, behind)
    elif tied := np.flatnonzero(settled.logits.argmax(-1) != chosen).tolist():
        notes.append(_ties_said(tied, behind, allowed))
    return Outcome(None, not wrong.size, "; ".join(notes), ties=listed(scored, turned))


def _first(
    same: NDArray[np.bool_],
    found: Sequence[int],
    scored: Scored,
    behind: NDArray[np.float64],
    limits: Limits,
) -> Outcome:
    """Judge what a lossy setting chose, by the first token that is not the reference's favourite,
    or else by their number.
    """
    step, differing = int(np.flatnonzero(~same)[0]), int((~same).sum())
    if behind[step] <= 2 * LARGEST_TIE:
        reason = f"a tie, {behind[step]:.2g} behind; not compared further"
    elif not scored.decided[step]:
        reason = "a router chose by a hair before; not compared further"
    elif differing <= limits.odd(len(found)):
        reason = f"{differing} such tokens, as flipped experts make"
    else:
        note = _said(step, found, scored.logits, behind)
        return Outcome(None, False, note, ties=listed(scored, {}))
    theirs = scored.logits[step].argmax()
    note = f"token {step} of {len(found)} is {found[step]}, the reference's is {theirs}: {reason}"
    return Outcome(None, True, note, ties=listed(scored, {}))


def _behind(logits: Logits, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how far each chosen token's logit (T) is behind the largest, of logits (T, V)."""
    own = np.take_along_axis(logits, chosen[:, None], axis=-1)[:, 0]
    return np.asarray(logits.max(-1) - own, np.float64)


def _said(step: int, found: Sequence[int], logits: Logits, behind: NDArray[np.float64]) -> str:
    return (
        f"token {step} of {len(found)} is {found[step]}, the reference's is "
        f"{logits[step].argmax()}: the reference prefers its own by {behind[step]:.2g}"
    )


def _ties_said(tied: Sequence[int], behind: NDArray[np.float64], allowed: float) -> str:
    """Say which tokens are not the favourite, but tie with it."""
    steps = ", ".join(map(str, tied[:5])) + (", …" if tied[5:] else "")
    widest = float(behind[list(tied)].max())
    return f"token {steps} ties with the reference's ({widest:.1e} behind, {allowed:.1e} allowed)"
