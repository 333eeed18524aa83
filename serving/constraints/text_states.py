"""FreeText and EnforcedText: which tokens may come next within one text.

V vocabulary of the model.
"""

from collections.abc import Collection

import llguidance
import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.json_text import printable

_BITS = 32  # of one word of llguidance's masks
_LONGEST_REASON = 200  # characters of llguidance's own words


class EnforcementError(GptOssError):
    """A constraint cannot go on: its grammar is a dead end, or beyond llguidance's limits."""


class FreeText:
    """Any text; of the control tokens only those that end it.

    Args:
        is_text: whether a token is text, bool (V).
        ends: ids that end it, less than V.
    """

    def __init__(self, is_text: NDArray[np.bool_], ends: Collection[int]) -> None:
        self.ends = frozenset(ends)
        self._forbidden = ~is_text
        self._forbidden[list(self.ends)] = False

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Write −inf into logits (V) where a token is not allowed next."""
        np.copyto(logits, -np.inf, where=self._forbidden)

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen, which changes nothing."""


class EnforcedText:
    """A text of one grammar; the tokens that end it are allowed exactly where the grammar is done.

    Args:
        matcher: of the grammar, at its beginning; it is copied.
        tokens: the tokenizer it was made for.
        ends: ids that end it, less than V.
    """

    def __init__(
        self,
        matcher: llguidance.LLMatcher,
        tokens: llguidance.LLTokenizer,
        ends: Collection[int],
    ) -> None:
        self.ends = frozenset(ends)
        self._matcher = matcher.deep_copy()
        self._words = np.zeros(-(-tokens.vocab_size // _BITS), dtype=np.int32)
        # llguidance's own end of text is not ours: ours are set where its grammar is done.
        self._not_ours = np.array(sorted(set(tokens.eos_tokens) - self.ends), dtype=np.int64)
        self._ours = np.array(sorted(self.ends), dtype=np.int64)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Write −inf into logits (V) where a token is not allowed next.

        Raises EnforcementError where none is.
        """
        words = self._words
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._check()
        allowed = np.unpackbits(words.view(np.uint8), bitorder="little").view(np.bool_)
        allowed = _fitted(allowed, logits.size)
        is_done = self._matcher.is_accepting()
        allowed[self._not_ours] = False
        allowed[self._ours] = is_done
        if not allowed.any():
            raise EnforcementError("constraint: found a state in which no token is allowed")
        np.copyto(logits, -np.inf, where=~allowed)

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen; raises EnforcementError where it is not
        allowed.
        """
        if token not in self.ends:
            self._matcher.consume_token(token)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EnforcementError(f"constraint: {one_line(self._matcher.get_error())}")


def one_line(message: str) -> str:
    """Return in one line what llguidance says is wrong."""
    words = printable(" ".join(message.replace("<non-verbose/>", "").split()))
    if words.startswith("NoExtension"):
        return "no text satisfies it"
    return words[:_LONGEST_REASON]


def _fitted(allowed: NDArray[np.bool_], vocab: int) -> NDArray[np.bool_]:
    """Return as many entries as the model has logits; ids that no token has are not allowed."""
    if allowed.size >= vocab:
        return allowed[:vocab]
    return np.concatenate([allowed, np.zeros(vocab - allowed.size, dtype=np.bool_)])
