"""Encode a conversation so that nothing a message says becomes a control token.

Messages are rendered twice where they spell a special token, or a piece of one at their ends: as
they are, and with a mark inside of each such place. The mark is a character that neither the
messages nor the template uses. Special tokens that the second text still spells are the template's
own; the text between them is the messages', and is encoded as a whole, so that its tokens are those
of the same text anywhere else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.chat import ChatTemplate, plain_input
from gptoss_onnx.runtime.messages import Message

_FIRST_MARK = 0xF0000  # private use: no text has a reason to hold it


class Encoder(Protocol):
    """What this needs of a tokenizer."""

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens, spelling to id."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of a text, special tokens among them."""

    def encode_plain(self, text: str) -> list[int]:
        """Return the ids of a text in which special tokens have no meaning."""


def encode_content(
    encoder: Encoder,
    template: ChatTemplate,
    messages: Sequence[Message],
    add_generation_prompt: bool,
    variables: Mapping[str, Any] | None,
) -> list[int]:
    """Return the token ids of a conversation; special tokens in its messages and variables are
    plain text.

    Raises InputError if that is not certain, because the template changes what messages say.
    """
    plain = plain_input(messages, variables)
    text = template.render_plain(*plain, add_generation_prompt)
    spellings = _Spellings(encoder.special_tokens)
    mark = _unused_character(text, plain)
    marked = [_changed(part, lambda said: spellings.marked(said, mark)) for part in plain]
    if marked == list(plain):
        return encoder.encode(text, add_special_tokens=False)
    marked_text = template.render_plain(marked[0], marked[1], add_generation_prompt)
    if marked_text.replace(mark, "") != text:
        raise InputError(
            "messages: found the spelling of a control token in one, which this template changes "
            "or acts upon; leave "
            "it out, or pass special_tokens_in_content=True for messages that you trust"
        )
    return _encode_marked(encoder, spellings, marked_text, mark)


class _Spellings:
    """The spellings of all special tokens of more than one character, which a mark can break."""

    def __init__(self, special_tokens: Mapping[str, int]) -> None:
        longest_first = sorted(
            (text for text in special_tokens if len(text) > 1), key=len, reverse=True
        )
        any_of_them = "|".join(map(re.escape, longest_first)) or "(?!)"
        self.whole = re.compile(any_of_them)
        self._begin = re.compile(f"(?={any_of_them})")  # also those that overlap
        self._first_parts = {text[:size] for text in longest_first for size in range(1, len(text))}
        self._last_parts = {text[size:] for text in longest_first for size in range(1, len(text))}
        self._longest = len(longest_first[0]) - 1 if longest_first else 0

    def marked(self, text: str, mark: str) -> str:
        """Return a text with a mark behind the first character of each special token in it.

        A mark goes to its end too, where that may be the first part of one that the next text
        completes, and to its beginning likewise.
        """
        pieces, begin = [], 0
        for match in self._begin.finditer(text):
            pieces += [text[begin : match.start() + 1], mark]
            begin = match.start() + 1
        pieces.append(text[begin:])
        sizes = range(1, min(self._longest, len(text)) + 1)
        if any(text[:size] in self._last_parts for size in sizes):
            pieces.insert(0, mark)
        if any(text[-size:] in self._first_parts for size in sizes):
            pieces.append(mark)
        return "".join(pieces)


def _encode_marked(encoder: Encoder, spellings: _Spellings, text: str, mark: str) -> list[int]:
    """Return the ids of a text whose marks break what messages spell."""
    ids: list[int] = []
    # text and special tokens that can be encoded together, as they are without marks
    structure: list[str] = []

    def end_structure() -> None:
        if structure:
            ids.extend(encoder.encode("".join(structure), add_special_tokens=False))
            structure.clear()

    begin = 0
    for match in [*spellings.whole.finditer(text), None]:
        between = text[begin : match.start() if match else len(text)]
        said = between.replace(mark, "")
        if spellings.whole.search(said):
            end_structure()
            ids += encoder.encode_plain(said)
        else:
            structure.append(said)
        if match:
            structure.append(match.group())
            begin = match.end()
    end_structure()
    return ids


def _unused_character(text: str, plain: Any) -> str:
    """Return a private character that stands nowhere in the text or the messages."""
    used = set(text)

    def look(said: str) -> str:
        used.update(said)
        return said

    _changed(plain, look)
    return next(chr(code) for code in range(_FIRST_MARK, 0x110000) if chr(code) not in used)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain data with each text in it changed, names of fields included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _changed(entry, change) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_changed(entry, change) for entry in value]
    return value
