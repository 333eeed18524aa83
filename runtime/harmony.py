"""HarmonyParser: the messages in what a gpt-oss model says, token by token, whatever it says.

Models do not keep to the format. Whatever tokens come, the parser raises nothing and loses none:
each belongs to exactly one message. What to make of a malformed one is written at the place that
does it.
"""

from collections.abc import Sequence
from typing import Protocol

from gptoss_onnx.errors import InputError
from gptoss_onnx.harmony_tokens import HarmonyTokens
from gptoss_onnx.runtime.harmony_header import HeaderReader
from gptoss_onnx.runtime.harmony_message import HarmonyDelta, HarmonyMessage, MessageDraft
from gptoss_onnx.runtime.text_stream import TextStream

END_OF_TEXT = "<|endoftext|>"


class HarmonyTokenizer(Protocol):
    """What the parser needs of a tokenizer."""

    @property
    def harmony(self) -> HarmonyTokens | None:
        """The ids of harmony's control tokens."""

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens by their spelling."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens left out."""


class HarmonyParser:
    """Parses the tokens that a model generates; the time for a token does not depend on how many
    came before.

    Args:
        tokenizer: one whose `harmony` is not None.
        prompt: the tokens that the model continues. The template begins the answer's header there,
            or even its text. By default `<|start|>assistant`.
        stop: texts that end the answer. They are looked for in channel `final`, and in messages
            without one; not in reasoning, calls, and what is said before calls.

    Raises InputError for another tokenizer, and for stops that are no sequence of texts.

    Attributes:
        stopped: a stop text has appeared; it and what follows in its message is not part of the
            text.
    """

    def __init__(
        self,
        tokenizer: HarmonyTokenizer,
        prompt: Sequence[int] | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        tokens = tokenizer.harmony
        if tokens is None:
            raise InputError(
                "tokenizer: found none of harmony's control tokens, expected a tokenizer of gpt-oss"
            )
        self.stopped = False
        self._tokenizer, self._tokens, self._stop = tokenizer, tokens, stop
        special = tokenizer.special_tokens
        self._spelling = {id_: text for text, id_ in special.items()}
        self._ends = {tokens.end, tokens.return_, tokens.call, special.get(END_OF_TEXT)} - {None}
        self._messages: list[MessageDraft] = []
        # Of the last message, while it is open: one while it is in its header, one while it is in
        # its text.
        self._header: HeaderReader | None = None
        self._stream: TextStream | None = None
        TextStream(tokenizer, stop)  # refuses wrong stops at once
        if prompt is None:
            self._open(role="assistant")
        else:
            self._continue(prompt)

    @property
    def messages(self) -> tuple[HarmonyMessage, ...]:
        """The messages so far; the last one may go on."""
        return tuple(message.frozen() for message in self._messages if message.tokens)

    @property
    def drafts(self) -> Sequence[MessageDraft]:
        """The messages in the making, for whoever reads along; not to be changed.

        The last one loses its place to the next where none of its tokens was pushed.
        """
        return self._messages

    @property
    def in_header(self) -> bool:
        """Whether the next message's channel is still open: a model that thinks begins with its
        thoughts.
        """
        return self._header is not None

    @property
    def answered(self) -> bool:
        """Whether the answer is complete: a message to the user in channel `final` has ended.

        Models end it with `<|return|>`. Some were trained on conversations where `<|end|>` stands
        there. A model that goes on by speaking for somebody else has answered too.
        """
        if not self._messages:
            return False
        last = self._messages[-1]
        if last.kind == "other":
            return any(message.text for message in self._messages[:-1])
        return last.end is not None and last.kind == "content" and last.header.channel == "final"

    def push(self, token: int) -> list[HarmonyDelta]:
        """Take a token and return the text that is certain by now, mostly one piece or none."""
        if token in self._ends:
            return self._end(token)
        if token == self._tokens.start:
            deltas = self._close(cut=False)
            self._open()
            self._messages[-1].tokens.append(token)
            return deltas
        if token == self._tokens.message:
            return self._begin(token)
        if self._stream is not None and token != self._tokens.channel:
            return self._add_text(token)
        deltas = []
        if self._header is None:
            if token in self._spelling and token != self._tokens.channel and self._messages:
                self._messages[-1].tokens.append(token)  # it means nothing between two messages
                return []
            # `<|channel|>` in a text or after a message, or words after a message: a header whose
            # `<|start|>` is missing, or just text.
            deltas = self._close(cut=False)
            is_channel = token == self._tokens.channel
            self._open(role="assistant" if is_channel else None, is_started=False)
        return deltas + self._add_to_header(token)

    def finish(self) -> list[HarmonyDelta]:
        """Return what was held back; the tokens have come to their end."""
        return self._close(cut=True)

    def _continue(self, prompt: Sequence[int]) -> None:
        """Read the header that a prompt ends with, and go on from there."""
        ids = list(prompt)
        begin = next(
            (i for i in reversed(range(len(ids))) if ids[i] == self._tokens.start), len(ids)
        )
        for token in ids[begin:]:
            self.push(token)
        is_open = self._header is not None or self._stream is not None
        del self._messages[: -1 if is_open else None]
        for message in self._messages:  # its tokens and text so far are the prompt's
            message.tokens.clear()
            message.text.clear()
        if self._stream is not None:
            self._stream = self._new_stream()
        self.stopped = False

    def _open(self, role: str | None = None, is_started: bool = True) -> None:
        """Begin a message in its header; `role` is the one that goes without saying."""
        if self._messages and not self._messages[-1].tokens:
            self._messages.pop()  # begun by the prompt, and left without a token
        self._header = HeaderReader(self._tokenizer, self._tokens, role, is_started)
        self._messages.append(MessageDraft())

    def _add_to_header(self, token: int) -> list[HarmonyDelta]:
        assert self._header is not None
        self._messages[-1].tokens.append(token)
        self._header.push(token)
        # Too long for a header: the model has left out `<|message|>`, or never meant to write one.
        return self._end_header(is_complete=False) if self._header.is_hopeless() else []

    def _add_text(self, token: int) -> list[HarmonyDelta]:
        assert self._stream is not None
        self._messages[-1].tokens.append(token)
        # The spelling of a control token is no text, also where the token means nothing.
        return [] if token in self._spelling else self._say(self._stream.push(token))

    def _begin(self, token: int) -> list[HarmonyDelta]:
        """Take `<|message|>`."""
        message = self._messages[-1] if self._messages else None
        if self._stream is not None and message is not None and not message.text:
            message.tokens.append(token)  # said twice
            return []
        deltas = []
        if self._header is None:  # in a text or after a message: one that lacks its header
            deltas = self._close(cut=False)
            self._open(role="assistant")
        self._messages[-1].tokens.append(token)
        return deltas + self._end_header(is_complete=True)

    def _end(self, token: int) -> list[HarmonyDelta]:
        """Take a token that ends a message."""
        is_open = self._header is not None or self._stream is not None
        if not self._messages:
            self._open(role="assistant")
        deltas = self._close(cut=False)
        message = self._messages[-1]
        message.tokens.append(token)
        if is_open or message.end is None:  # after an end it is a second one, which changes nothing
            message.end = self._spelling.get(token)
        return deltas

    def _end_header(self, is_complete: bool) -> list[HarmonyDelta]:
        """Go on from the header to the text; return what of the header was text."""
        assert self._header is not None
        header = self._messages[-1].header = self._header.read(is_complete)
        self._header, self._stream = None, self._new_stream()
        return self._say(self._stream.push_text(header.text))

    def _close(self, cut: bool) -> list[HarmonyDelta]:
        """End the open message, if any, and return its last text; `cut` says that the tokens end
        here.
        """
        deltas = []
        if self._header is not None:
            # Without `<|message|>` what follows the header's words is text. Where the tokens end,
            # it may be the first half of such a word.
            deltas = self._end_header(is_complete=cut and self._header.is_half())
        if self._stream is not None:
            deltas += self._say(self._stream.finish())
        self._stream = None
        return deltas

    def _new_stream(self) -> TextStream:
        message = self._messages[-1]
        is_answer = message.kind == "content" and message.header.channel != "commentary"
        return TextStream(self._tokenizer, self._stop if is_answer else ())

    def _say(self, text: str) -> list[HarmonyDelta]:
        self.stopped = self.stopped or (self._stream is not None and self._stream.stopped)
        if not text:
            return []
        message = self._messages[-1]
        message.text.append(text)
        return [message.delta(text, len(self._messages) - 1)]
