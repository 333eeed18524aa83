"""TextStream: turn tokens into text as they come, never half a character and never a stop string."""

from collections.abc import Sequence
from typing import Protocol

REPLACEMENT = "\ufffd"
_LONGEST_INCOMPLETE = 3  # bytes of a UTF-8 sequence that still lacks its last


class Decoder(Protocol):
    """What a stream needs of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, U+FFFD for bytes that are no UTF-8."""


class TextStream:
    """Text of one sequence, token by token: what `push` and `finish` return is the text up to the stop.

    A byte-level tokenizer splits characters over tokens; decoded too early they read U+FFFD, so such an end
    is held back until the next token settles it. So is an end that a stop string may begin with.

    Attributes:
        stopped: a stop string has appeared; it and what follows is not part of the text.
    """

    def __init__(self, decoder: Decoder, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._decoder, self._stop = decoder, tuple(stop)
        self._ids: list[int] = []
        # Tokens before `_context` are done with; those between it and `_begin` are decoded again, because
        # some decoders treat a beginning differently (they strip its space); of the rest `_sent` characters
        # were given.
        self._context = 0
        self._begin = 0
        self._sent = 0
        self._held = ""  # decoded, but perhaps the beginning of a stop string

    def push(self, token: int) -> str:
        """Add a token and return the text that is certain by now, possibly none."""
        if self.stopped:
            return ""
        self._ids.append(token)
        return self._release(self._settled())

    def finish(self) -> str:
        """Return what was held back; a character left incomplete reads U+FFFD."""
        if self.stopped:
            return ""
        text = self._release(self._fresh()[self._sent :])
        rest, self._held = self._held, ""
        self._context = self._begin = len(self._ids)
        self._sent = 0
        return text + rest

    def _fresh(self) -> str:
        """Return the text of the tokens from `_begin` on."""
        context = self._decoder.decode(self._ids[self._context : self._begin])
        return self._decoder.decode(self._ids[self._context :])[len(context) :]

    def _settled(self) -> str:
        """Return the new text that no later token can change."""
        fresh = self._fresh()
        end = len(fresh)
        while end > 0 and len(fresh) - end < _LONGEST_INCOMPLETE and fresh[end - 1] == REPLACEMENT:
            end -= 1
        text, self._sent = fresh[self._sent : end], max(self._sent, end)
        if end == len(fresh) and fresh:
            self._context, self._begin, self._sent = self._begin, len(self._ids), 0
        return text

    def _release(self, text: str) -> str:
        """Return what of the held and the new text can be given, and stop at the first stop string."""
        self._held += text
        found = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        end = len(self._held) - keep
        text, self._held = self._held[:end], self._held[end:]
        return text


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are a beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
