"""The control tokens of harmony, the chat format of gpt-oss, as tokenizers spell them.

A message reads `<|start|>` header `<|message|>` text and an end. The header is a role, then perhaps
`<|channel|>` and a channel, a recipient (`to=functions.name`, in the role's or the channel's part),
and `<|constrain|>` and the type of the content.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

START, END, MESSAGE, CHANNEL = "<|start|>", "<|end|>", "<|message|>", "<|channel|>"
CONSTRAIN, RETURN, CALL = "<|constrain|>", "<|return|>", "<|call|>"
CONTROL_TOKENS = (START, END, MESSAGE, CHANNEL, CONSTRAIN, RETURN, CALL)
_ENDS_OF_AN_ANSWER = (RETURN, CALL)  # <|end|> ends a message, after which the answer goes on


@dataclass(frozen=True)
class HarmonyTokens:
    """The ids of the control tokens; None for those that a tokenizer lacks and that harmony can do
    without.
    """

    start: int
    end: int
    message: int
    channel: int
    constrain: int | None
    return_: int | None
    call: int | None

    @classmethod
    def of(cls, special_tokens: Mapping[str, int]) -> Self | None:
        """Take them from the special tokens of a tokenizer, spelling to id; None where it does not
        know harmony.
        """
        needed = [special_tokens.get(name) for name in (START, END, MESSAGE, CHANNEL)]
        start, end, message, channel = needed
        if start is None or end is None or message is None or channel is None:
            return None
        constrain, return_, call = (special_tokens.get(name) for name in (CONSTRAIN, RETURN, CALL))
        return cls(start, end, message, channel, constrain, return_, call)


def harmony_stop_tokens(special_tokens: Mapping[str, int]) -> tuple[int, ...]:
    """Return the ids that end an answer: `<|return|>`, and `<|call|>`, after which a tool has to
    answer.

    `special_tokens` are those of a tokenizer, spelling to id. Empty where it does not know harmony.
    """
    if HarmonyTokens.of(special_tokens) is None:
        return ()
    return tuple(special_tokens[name] for name in _ENDS_OF_AN_ANSWER if name in special_tokens)
