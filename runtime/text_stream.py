"""TextStream: turn tokens into text as they come, never half a character and never a stop
string.
"""

from collections.abc import Sequence
from typing import Protocol

from gptoss_onnx.errors import InputError

REPLACEMENT = "\ufffd"
_LONGEST_INCOMPLETE = 3  # bytes of a UTF-8 sequence that still lacks its last
_LONGEST_WAIT = 16  # tokens that may wait for a character to end; a character has four bytes
_LONGEST_CHARACTER = 4  # bytes, so tokens at most


class Decoder(Protocol):
    """What a stream needs of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, U+FFFD for bytes that are no UTF-8."""


class TextStream:
    """Text of one sequence, token by token: what `push` and `finish` return is the text up to the
    stop.

    A byte-level tokenizer splits characters over tokens; decoded too early they read U+FFFD, so
    such an end is held back until the next token settles it. So is an end that a stop string may
    begin with. The time for a token does not depend on how many came before.

    Raises InputError for stop strings that are no sequence of texts.

    Attributes:
        stopped: a stop string has appeared; it and what follows is not part of the text.
    """

    def __init__(self, decoder: Decoder, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._stop = _checked(stop)
        self._held = ""  # decoded, but perhaps the beginning of a stop string
        self._characters = _Characters(decoder)

    def push(self, token: int) -> str:
        """Add a token and return the text that is certain by now, possibly none."""
        return "" if self.stopped else self._release(self._characters.push(token))

    def push_text(self, text: str) -> str:
        """Add text that was decoded elsewhere, and return what is certain by now."""
        return "" if self.stopped else self._release(text)

    def finish(self) -> str:
        """Return what was held back; a character left incomplete reads U+FFFD."""
        if self.stopped:
            return ""
        text = self._release(self._characters.finish())
        rest, self._held = self._held, ""
        return text + rest

    def _release(self, text: str) -> str:
        """Return what of the held and the new text can be given, and stop at the first stop
        string.
        """
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


class _Characters:
    """Whole characters out of tokens, from a window of them that is decoded again with each new
    one.

    The window is `_context`, tokens whose text was given, and `_waiting`, of whose text `_sent`
    characters were given. The context is there because some decoders treat a beginning differently
    (they strip its space).
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decode = decoder.decode
        self._context: list[int] = []
        self._waiting: list[int] = []
        self._sent = 0

    def push(self, token: int) -> str:
        """Add a token and return the text that no later token can change."""
        if self._shows_nothing(token):
            return ""
        self._waiting.append(token)
        fresh = self._text(self._context, self._waiting)
        end = len(fresh)
        while end > 0 and len(fresh) - end < _LONGEST_INCOMPLETE and fresh[end - 1] == REPLACEMENT:
            end -= 1
        text, self._sent = fresh[self._sent : end], max(self._sent, end)
        if end == len(fresh) and fresh:
            self._move(len(self._waiting), len(fresh))
        elif len(self._waiting) > _LONGEST_WAIT:
            text += self._shorten(fresh)
        return text

    def finish(self) -> str:
        """Return the rest, and begin anew."""
        rest = self._text(self._context, self._waiting)[self._sent :]
        self._context, self._waiting, self._sent = [], [], 0
        return rest

    def _text(self, context: list[int], tokens: list[int]) -> str:
        """Return the text of tokens that follow a context."""
        return self._decode(context + tokens)[len(self._decode(context)) :]

    def _shows_nothing(self, token: int) -> bool:
        """Say whether a token shows nothing, as special tokens do; the window need not keep it.

        It is decoded twice, because a decoder that strips the first space shows nothing for one
        space. A byte that is no character shows U+FFFD.
        """
        return not self._decode([token, token])

    def _shorten(self, fresh: str) -> str:
        """Cut the window where no later token can change the text before the cut; the bytes never
        become a character.

        Of four tokens in a row one ends where a character ends, or a byte that is part of none. If
        the window is cut there, both parts decode to the same text as the whole. The tokens behind
        the cut hold enough bytes for a difference to show.
        """
        last = len(self._waiting) - _LONGEST_CHARACTER
        for count in range(last, last - _LONGEST_CHARACTER, -1):
            first, second = self._waiting[:count], self._waiting[count:]
            begin = self._text(self._context, first)
            if begin + self._text(first, second) == fresh:
                break
        # No known decoder fits nowhere; one that did would be cut at the last place.
        text = begin[self._sent :]
        self._move(count, len(begin))
        return text

    def _move(self, count: int, length: int) -> None:
        """Let the first `count` waiting tokens, of `length` characters, become the context."""
        self._context, self._waiting = self._waiting[:count], self._waiting[count:]
        self._sent = max(0, self._sent - length)


def _checked(stop: Sequence[str]) -> tuple[str, ...]:
    """Return stop strings as a tuple; a single string would be one stop a letter."""
    if isinstance(stop, str) or not isinstance(stop, Sequence):
        raise InputError(
            f"stop: found {stop!r}, expected a sequence of texts, such as ({str(stop)!r},)"
        )
    for text in stop:
        if not isinstance(text, str) or not text:
            raise InputError(f"stop: found {text!r}, expected texts that are not empty")
    return tuple(stop)


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are a beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
