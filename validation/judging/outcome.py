"""What a case found, and how logits are judged. Legend: T positions, V vocabulary."""

from dataclasses import dataclass

from gptoss_onnx.validation.judging.expected import Scored
from gptoss_onnx.validation.judging.limits import OTHER_EXPERT, Limits
from gptoss_onnx.validation.judging.metrics import Difference, Logits, compare

MOST_POSITIONS = 512  # whose errors an outcome keeps


@dataclass(frozen=True)
class Tie:
    """A position and layer at which a router of the reference chose by less than the error that is
    allowed: the margin between the last expert chosen and the next, in router logits, and in words
    which way the package went.
    """

    position: int
    layer: int
    margin: float
    decided: str


@dataclass(frozen=True)
class Outcome:
    """What a case found, whether that passes, and a note for people.

    `difference` is None if the case compares no logits. `passed` is None if the package's target
    does not offer what the case does, and the session refused it in the words of the note.
    `by_position` is the largest error of each position, of `MOST_POSITIONS` at most, evenly taken.
    `refused` says that the session refused something that it should do; `passed` is False then.
    """

    difference: Difference | None
    passed: bool | None
    note: str
    by_position: tuple[float, ...] = ()
    ties: tuple[Tie, ...] = ()
    refused: bool = False


def judge(found: Logits, expected: Scored, limits: Limits) -> Outcome:
    """Hold logits (T, V) to the reference's.

    Positions at which a router chose by a hair, and those after them, may miss the limits: together
    they are then held to `OTHER_EXPERT`, and the decided positions alone to `limits`.
    """
    difference = compare(found, expected.logits)
    decided = expected.decided
    if limits.hold(difference) or decided.all():
        return Outcome(difference, limits.hold(difference), "")
    wide = limits.wider(OTHER_EXPERT)
    passed = wide.hold(compare(found[~decided], expected.logits[~decided]))
    if decided.any():
        passed &= limits.hold(compare(found[decided], expected.logits[decided]))
    note = (
        f"{(~decided).sum()} of {len(decided)} positions come after a router that chose by less "
        f"than {limits.near:g}; they are held to {wide}"
    )
    return Outcome(difference, passed, note)
