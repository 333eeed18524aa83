"""How long the sequences of the cases are: beyond the window, and never longer than the model
takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

STAND_IN = 32  # takes the place of W if no layer slides
BEYOND = 128  # tokens by which a case passes a wide window; it passes a narrow one by its width
TAIL = 13  # odd, so that no chunk size divides the sequence
RESERVE = 8  # tokens that can be taken back
MOST_STEPS = 512  # tokens that one case decodes one by one


@dataclass(frozen=True)
class Sizes:
    """Sizes in tokens.

    `window` is W, the widest window that a sequence can pass, or its stand-in. The shared
    sequence has `length` tokens. `steps` are decoded beyond W where rows are decoded together;
    `prompt` comes before tokens that are decoded alone.
    """

    longest: int
    window: int
    length: int
    steps: int
    prompt: int

    @classmethod
    def of(cls, windows: Sequence[int], longest: int) -> Self:
        """Choose the sizes for a model's windows and the most positions that it takes."""
        # "rewind" writes RESERVE + 1 tokens after the end of the sequence, or as many as there is
        # room for.
        room = longest - min(RESERVE + 1, longest // 2)
        passed = [window for window in windows if _passing(window) <= room]
        window = max(passed, default=max(1, min(STAND_IN, (room - TAIL) // 4)))
        length = min(_passing(window), room)
        return cls(
            longest=longest,
            window=window,
            length=length,
            steps=min(2 * min(window, BEYOND), length - 1),
            prompt=max(1, window // 2, length - MOST_STEPS),
        )


def _passing(window: int) -> int:
    """Return a length that goes well beyond a window."""
    return window + 3 * min(window, BEYOND) + TAIL
