"""What a model answers: whole, and in the pieces that it comes in."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["content", "reasoning", "tool_call"]


@dataclass(frozen=True)
class AnswerDelta:
    """A piece of an answer.

    Attributes:
        kind: what it belongs to.
        text: the new text, never half a character; of a call, a piece of its arguments.
        call: the number of the call, from 0; -1 for no call.
        name, id: of the call, in its first piece alone, whose text may be empty.
        item: the place in `Answer.items` that the piece belongs to. -1 for the line end between two
            messages of one kind, which is part of no item: chats show both as one text.
    """

    kind: Kind
    text: str
    call: int = -1
    name: str = ""
    id: str = ""
    item: int = -1


@dataclass(frozen=True)
class ToolCall:
    """A call: the arguments are what the model wrote, mostly the text of a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class AnswerItem:
    """One part of an answer, in the order that the model said them.

    Attributes:
        text: of content and reasoning, never empty.
        call: the call, for the kind `tool_call`.
        is_preamble: content that the user is told before calls, not the answer itself.
    """

    kind: Kind
    text: str = ""
    call: ToolCall | None = None
    is_preamble: bool = False


@dataclass(frozen=True)
class Answer:
    """An answer as far as it has come.

    Attributes:
        content: all that is for the user, messages a line each; empty where there is none.
        reasoning: the thoughts, likewise.
        tool_calls: in the order that the model made them.
        items: all of these in their order, a message each.
        reasoning_tokens: how many tokens the thoughts took, control tokens included.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    items: tuple[AnswerItem, ...] = ()
    reasoning_tokens: int = 0
