"""HeaderReader: role, channel, recipient and content type out of a harmony header, also of a
malformed one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gptoss_onnx.harmony_tokens import HarmonyTokens

CHANNELS = ("analysis", "commentary", "final")
ROLE_TOKENS = 8  # of a role that is no tool, where no channel and no recipient follows
HEADER_TOKENS = 64  # of a whole header; a tool's name has 64 letters at most
_CHARACTER_TOKENS = 4  # that a character may need
_TOOL = r"(?:functions|browser)\.[\w.-]+|python\b"
_ROLE = re.compile(rf"\s*(assistant|user|system|developer|tool|{_TOOL})")
_CHANNEL = re.compile(rf"\s*({'|'.join(CHANNELS)})(?!\w)")
_GLUED_CHANNEL = re.compile(rf"\s*({'|'.join(CHANNELS)})")  # "commentaryjson", "analysisto=x"
_WORD = re.compile(r"\s*(?!to=)(\S+)")
_TYPE = re.compile(r"\s*(\w+)")
_RECIPIENT = rf"to=((?:\s+(?={_TOOL}))?\S*)"
_FIRST_RECIPIENT = re.compile(rf"\s*{_RECIPIENT}")
_ANY_RECIPIENT = re.compile(rf"(?:^|\s){_RECIPIENT}")
_TOOL_ROLE = re.compile(_TOOL)


@dataclass(frozen=True)
class Header:
    """What a header says; `source` is all of its text, `text` what of it belongs to the message's
    text.
    """

    role: str
    channel: str | None
    recipient: str | None
    content_type: str | None
    source: str
    text: str


class Decoder(Protocol):
    """What a reader needs of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens left out."""


class HeaderReader:
    """Reads one header token by token. `role` is the one that goes without saying where none is
    said. Where no `<|start|>` began it (`is_started`), it may be no header but text.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokens: HarmonyTokens,
        role: str | None = None,
        is_started: bool = True,
    ) -> None:
        self._decoder, self._tokens, self._implied = decoder, tokens, role
        self._is_started = is_started
        self._role: list[int] = []
        self._channel: list[int] | None = None
        self._type: list[int] | None = None
        self._earlier: list[int] = []  # what the last `<|channel|>` or `<|constrain|>` replaced
        self._part = self._role
        self._size = 0  # tokens of text

    def push(self, token: int) -> None:
        """Take any token but those that end a header."""
        if token == self._tokens.channel:
            self._earlier += self._channel or []
            self._part = self._channel = []  # said twice, the last one counts
        elif token == self._tokens.constrain:
            self._earlier += self._type or []
            self._part = self._type = []
        else:
            self._part.append(token)
            self._size += 1

    def is_hopeless(self) -> bool:
        """Say whether this is no header any more, for its length; never in the middle of a
        character.
        """
        role = self._text(self._role)
        is_role = self._channel is None and self._type is None and "to=" not in role
        longest = ROLE_TOKENS if is_role and not _TOOL_ROLE.match(role.strip()) else HEADER_TOKENS
        if self._size <= longest:
            return False
        is_whole = not self._text(self._part).endswith("\ufffd")
        return is_whole or self._size > longest + _CHARACTER_TOKENS

    def is_half(self) -> bool:
        """Say whether this may be the beginning of a well-formed header."""
        if self._channel is not None or self._type is not None:
            return True
        rest = self._read_role(is_complete=False)[1].strip()
        return "to=".startswith(rest[:3])

    def read(self, is_complete: bool) -> Header:
        """Return what the header says.

        With `is_complete`, all of it is header, and words without a meaning are left out. Otherwise
        the model has left out `<|message|>`, and what comes after the words with a meaning is text.

        A channel may stand where the role or the recipient does. A tool where the role does is
        called, unless it speaks to the assistant, which is how results begin.
        """
        earlier = self._text(self._earlier)
        texts = [self._text(part or ()) for part in (self._role, self._channel, self._type)]
        source = " ".join(text.strip() for text in (texts[0], earlier, *texts[1:]) if text.strip())
        role, rest = self._read_role(is_complete)
        channel: str | None = None
        if self._channel is None and is_complete:
            # "assistantanalysis": a channel without its control token
            channel, rest = _first(_CHANNEL, rest)
        recipient, rest = _first(_ANY_RECIPIENT if is_complete else _FIRST_RECIPIENT, rest)
        recipient = _first(_ANY_RECIPIENT, earlier)[0] or recipient
        if self._channel is not None:
            said = self._text(self._channel)
            channel, rest = _first(_GLUED_CHANNEL if is_complete else _CHANNEL, said)
            if channel is None and is_complete:
                channel, rest = _first(_WORD, said)
            if channel is None:
                channel = _first(_CHANNEL, earlier)[0]
            later, rest = _first(_ANY_RECIPIENT if is_complete else _FIRST_RECIPIENT, rest)
            recipient = later or recipient
        content_type = " ".join(rest.split()) if is_complete and channel is not None else None
        if self._type is not None:
            content_type, rest = _first(_TYPE, self._text(self._type))
            later, _ = _first(_ANY_RECIPIENT, rest if is_complete else "")
            recipient = later or recipient
        text = "" if is_complete else rest.removeprefix(" ")
        recipient = (recipient or "").strip() or None
        if recipient in CHANNELS:
            channel, recipient = recipient, None
        if is_complete and recipient is None and _TOOL_ROLE.fullmatch(role):
            role, recipient = "assistant", role
        return Header(role, channel, recipient, content_type or None, source, text)

    def _read_role(self, is_complete: bool) -> tuple[str, str]:
        """Return the role and what follows it in its part."""
        text = self._text(self._role)
        if self._implied is not None:
            return self._implied, text
        role, rest = _first(_ROLE, text)
        is_words = self._channel is None and self._type is None and not is_complete
        if is_words and not self._is_started and rest.strip() and not _FIRST_RECIPIENT.match(rest):
            return "assistant", text  # "users can", "system of"
        if role is None and is_complete and _CHANNEL.match(text) is None:
            role, rest = _first(_WORD, text)
        return role or "assistant", rest

    def _text(self, ids: Sequence[int]) -> str:
        return self._decoder.decode(ids)


def _first(pattern: re.Pattern[str], text: str) -> tuple[str | None, str]:
    """Return what a pattern finds, and the text without it."""
    match = pattern.search(text) if pattern is _ANY_RECIPIENT else pattern.match(text)
    return (
        (None, text)
        if match is None
        else (match.group(1), text[: match.start()] + text[match.end() :])
    )
