"""What a model says in harmony, as messages and as the pieces they come in."""

from dataclasses import dataclass, field
from typing import Literal

from gptoss_onnx.runtime.harmony_header import Header

NO_HEADER = Header("assistant", None, None, None, "", "")
Kind = Literal["content", "reasoning", "tool_call", "other"]
EVERYONE = ("all", "user", "assistant")  # recipients that are no tool


@dataclass(frozen=True)
class HarmonyDelta:
    """A piece of text as it comes, and the header of the message it belongs to.

    Attributes:
        text: the new text, never half a character and never empty.
        message: the message's place in `HarmonyParser.messages`.
        role: `assistant`, unless the model speaks for another.
        channel: `analysis`, `commentary`, `final`, what else the model says, or None.
        recipient: who is called, such as `functions.weather`, or None.
        content_type: what the text is in, such as `json`, or None.
    """

    text: str
    message: int = 0
    role: str = "assistant"
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None

    @property
    def kind(self) -> Kind:
        """What the text is for; see `HarmonyMessage.kind`."""
        return _kind(self.role, self.channel, self.recipient)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class HarmonyMessage:
    """One message as far as it has come.

    Attributes:
        tokens: all of its tokens, control tokens included; those of all messages together are what
            was pushed.
        header: the header's text as the model wrote it, without control tokens.
        end: the token that ended it, such as `<|return|>`; None while it goes on, or where the next
            message began without one.
        role, channel, recipient, content_type: as in `HarmonyDelta`.
    """

    text: str
    tokens: tuple[int, ...]
    role: str = "assistant"
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    header: str = ""
    end: str | None = None

    @property
    def kind(self) -> Kind:
        """What the text is for.

        `reasoning`: thoughts, not meant for the user (channel `analysis`); `tool_call`: a call of
        `recipient`; `content`: the answer (channels `final` and `commentary`, and a model that uses
        none); `other`: the model speaks in another role.
        """
        return _kind(self.role, self.channel, self.recipient)


class JoinedText:
    """The text of several messages of one kind, each on a line of its own."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._message = 0

    def add(self, piece: HarmonyDelta) -> str:
        """Take a piece and return it, after a line end where another message begins in the middle
        of a line.
        """
        is_next = piece.message != self._message and bool(self._pieces)
        self._message = piece.message
        text = f"\n{piece.text}" if is_next and not self._pieces[-1].endswith("\n") else piece.text
        self._pieces.append(text)
        return text

    def __str__(self) -> str:
        return "".join(self._pieces)


@dataclass
class MessageDraft:
    """A message in the making, which the parser fills."""

    tokens: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    header: Header = NO_HEADER
    end: str | None = None

    @property
    def kind(self) -> Kind:
        """What its text is for, by the header as far as it is known."""
        return _kind(self.header.role, self.header.channel, self.header.recipient)

    def delta(self, text: str, place: int) -> HarmonyDelta:
        """Return a piece of the text of the message at `place`."""
        h = self.header
        return HarmonyDelta(text, place, h.role, h.channel, h.recipient, h.content_type)

    def frozen(self) -> HarmonyMessage:
        """Return the message as far as it has come."""
        h, text, tokens = self.header, "".join(self.text), tuple(self.tokens)
        said = (h.role, h.channel, h.recipient, h.content_type)
        return HarmonyMessage(text, tokens, *said, h.source, self.end)


def _kind(role: str, channel: str | None, recipient: str | None) -> Kind:
    if role != "assistant":
        return "other"
    if recipient is not None and recipient not in EVERYONE:
        return "tool_call"
    return "reasoning" if channel == "analysis" else "content"
